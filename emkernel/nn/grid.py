"""The steerable convolution on pixels and voxels: the kernel of the point convolution, sampled on a grid."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..group_element import GroupElement
from ..matrix_group import MatrixGroup
from ..rep import Rep, Scalar
from ._lattice import kept, lattice_basis, per_axis, reach, squares, taps
from ._module import EquivariantModule, check_rep
from .conv import make_kernel
from .embed import falloff
from .linear import Linear

__all__ = ["GridConv", "Pointwise"]

CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
MODULES = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
MODES = ("zeros", "reflect", "replicate", "circular")


class GridConv(EquivariantModule):
    """y(p) = W_0 f(p) + Σ_t k(-B t, z) f(p + B t) over the taps t != 0 of a grid (paper, eq. 4, 10 and 13).

    Array axis a of the data is lattice vector a: entry (i_1, ..., i_d) lies at B i, and by default coordinate a of the
    group runs along axis a. For an image (rows, columns) this is down and right, and ``torch.rot90(x, 1, (-2, -1))``
    turns from the first coordinate to the second; ``spacing=[[0, -1], [1, 0]]`` makes them right and up.

    The kernel and the self term are those of :class:`PointConv`, with the same ``state_dict``. They become the weight
    of an ordinary convolution once per call, and :meth:`export` makes them one for good. Exact under the elements that
    map grid and taps to themselves (:meth:`symmetries`), and where they map the output's points to each other: with a
    stride s for sizes of 1 modulo s. Even sizes have no tap at 0, and put outputs between the inputs. Under the rest of
    the group equivariance holds as well as the data are smooth on the scale of the grid
    (:func:`emkernel.checks.grid_equivariance_error`).

    Args:
        rep_in, rep_out: bound representations of the feature fields, of a group that acts on R^d, d = 1, 2 or 3.
        kernel_size: taps along each axis, an integer or d of them.
        edge_rep: representation of attributes of the whole field, such as a wind or gravity, or None.
        stride, dilation: as for ``torch.nn.Conv2d``.
        padding: an integer, d of them, "same" or "valid".
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        spacing: the distance of neighbouring entries, one per axis, or (d, d) with the step along array axis a as row
            a, in the coordinates of the group: lattice vectors as rows, as in
            :func:`emkernel.graph.periodic_graph`. They are the columns of B.
        kernel: "implicit" or "fixed".
        neighbours: the sum is divided by its square root; by default Σ_t u(t)², u the envelope or 1, for unit variance.
        self_interaction: include the tap at 0.
        bias: learnable invariant offset.
        **options: of the kernel, see :class:`ImplicitKernel`. ``cutoff`` is by default the radius of the largest open
            ball all of whose grid points are taps, (k + 1)/2 steps where all axes have k. ``envelope`` is by default on
            for a compact group: the kernel falls to zero within that ball, as the corners of a box spoil rotations.

    Shapes:
        x (B, rep_in.size, *spatial), edge_attr (B, edge_rep.size), or (edge_rep.size,) for all -> (B, rep_out.size,
        *spatial')

    Raises:
        RepError, ValueError, TypeError: what was given does not fit, said precisely.

    Example:
        >>> G = groups.O(2)
        >>> conv = nn.GridConv(Scalar(G), (8 * Scalar + 4 * V)(G), 5, padding="same")
        >>> conv(torch.randn(2, 1, 32, 32)).shape
        torch.Size([2, 16, 32, 32])
    """

    def __init__(
        self,
        rep_in: Rep,
        rep_out: Rep,
        kernel_size: int | Sequence[int],
        edge_rep: Rep | None = None,
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
        spacing: float | Sequence[float] | np.ndarray | torch.Tensor = 1.0,
        kernel: str = "implicit",
        neighbours: float | None = None,
        self_interaction: bool = True,
        bias: bool = True,
        **options,
    ):
        super().__init__()
        check_rep(rep_in=rep_in, rep_out=rep_out, edge_rep=edge_rep)
        group = rep_in.group
        if group.d not in (1, 2, 3):
            raise ValueError(
                f"{group.name} acts on R^{group.d}, a grid has 1, 2 or 3 axes, one for each coordinate; leave out "
                "coordinates that are not of space, or take PointConv"
            )
        self.rep_in, self.rep_out, self.edge_rep = rep_in, rep_out, edge_rep
        self.kernel_size = per_axis("kernel_size", kernel_size, group.d)
        self.stride = per_axis("stride", stride, group.d)
        self.dilation = per_axis("dilation", dilation, group.d)
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"padding must be integers, 'same' or 'valid', got {padding!r}")
            if padding == "same" and self.stride != (1,) * group.d:
                raise ValueError(f"padding='same' has no meaning with stride {self.stride}: pass that of each axis")
            self.padding = padding
        else:
            self.padding = per_axis("padding", padding, group.d, least=0)
        if padding_mode not in MODES:
            raise ValueError(f"padding_mode must be one of {MODES}, got {padding_mode!r}")
        self.padding_mode = padding_mode
        if neighbours is not None and not neighbours > 0:
            raise ValueError(f"neighbours must be positive, got {neighbours}")

        steps = taps(self.kernel_size, self.dilation)
        if len(steps) == 1:
            raise ValueError("kernel_size 1 has no neighbours: take Pointwise(Linear(rep_in, rep_out))")
        self.basis = lattice_basis(spacing, group.d)
        if np.count_nonzero(self.basis) > group.d:
            _warn_of_columns(group, self.basis)
        envelope = options.setdefault("envelope", group.is_compact)
        options.setdefault("cutoff", reach(group, self.basis, self.kernel_size, self.dilation))
        self.kernel = make_kernel(GridConv, kernel, (rep_in, rep_out, edge_rep), options)
        offsets = steps @ self.basis.T
        s = np.zeros(len(steps))
        if envelope and group.is_compact:
            s = squares(group, offsets) / self.kernel.embed.cutoff**2
        centre = ~steps.any(1)
        # of the taps on the sphere itself rounding must not keep a part
        inside = (s < 1 - 1e-9) & ~centre
        for a, k in enumerate(self.kernel_size):
            if k > 1 and not steps[inside][:, a].any():
                raise ValueError(
                    f"all taps along axis {a} are beyond the cutoff {self.kernel.embed.cutoff:.3g}, where the kernel "
                    f"vanishes: with kernel_size {self.kernel_size} and spacing {spacing!r} take more taps along the "
                    "axes of small spacing, a larger cutoff, or envelope=False"
                )
        self.steps = steps[inside]
        typical = falloff(torch.as_tensor(s[inside], device="cpu")).square().sum()
        self.neighbours = float(typical if neighbours is None else neighbours)
        self._setting("aggr", "sum")
        self._setting("neighbours", self.neighbours)
        self.self_term = self.offset = None
        if self_interaction and centre.any():
            self.self_term = Linear(rep_in, rep_out, bias=bias)
        elif bias:
            self.offset = Linear(Scalar(group), rep_out, bias=False)
            self._reset_offset()
        # the edge vector of the tap at B t is p - (p + B t)
        self._vectors = torch.as_tensor(-offsets[inside], device="cpu")
        here, dtype = torch.get_default_device(), torch.get_default_dtype()
        self.register_buffer("vectors", self._vectors.to(here, dtype), persistent=False)
        # which matrix stands at each place of the weight: of the taps kept, the self term, or zero
        place = np.full(len(steps), len(self.steps) + 1)
        place[inside], place[centre] = np.arange(len(self.steps)), len(self.steps)
        self._index("place", place)

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        self.kernel.reset_parameters()
        if self.self_term is not None:
            self.self_term.reset_parameters()
        self._reset_offset()

    def _reset_offset(self) -> None:
        for w in () if self.offset is None else self.offset.weight:
            nn.init.zeros_(w)

    def _constants_changed(self) -> None:
        now = self.vectors
        if now.device.type != "meta":
            self.vectors = self._vectors.to(now.device, now.dtype)

    def symmetries(self) -> GroupElement:
        """The elements of a finite group that map the grid, the strides on it and the taps to themselves.

        Raises:
            GroupError: the group is not finite; restrict the representations to the finite part in question.
        """
        g = self.rep_in.group.elements()
        turns = np.linalg.solve(self.basis, g.matrix @ self.basis)
        stride = np.array(self.stride)
        keep = []
        for turn in turns:
            exact = np.round(turn)
            strided = exact * stride / stride[:, None]
            moved = self.steps @ exact.T
            fits = np.abs(turn - exact).max() < 1e-9 and np.array_equal(strided, np.round(strided))
            keep.append(fits and {*map(tuple, moved)} == {*map(tuple, self.steps)})
        return g[np.flatnonzero(keep)]

    # ---- evaluation -----------------------------------------------------------------------------------------

    def weight_and_bias(self, edge_attr: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The weight (B, rep_out.size, rep_in.size, *kernel_size) of an ordinary convolution, B = 1 where all samples
        share it, and its bias (rep_out.size,) or None.

        Raises:
            ValueError: attributes that do not fit the representation of the edges.
        """
        vectors, samples = self.vectors, 1
        self.kernel.check_attributes(edge_attr, vectors)
        if edge_attr is not None:
            if edge_attr.ndim > 2:
                raise ValueError(
                    f"edge_attr must be (B, {self.edge_rep.size}), one row per field, or one for all; got "
                    f"{tuple(edge_attr.shape)}. Attributes that vary over a field belong to the edges of a PointConv"
                )
            edge_attr = edge_attr if edge_attr.ndim > 1 else edge_attr[None]
            samples = edge_attr.shape[0]
            vectors = vectors.repeat(samples, 1)
            edge_attr = edge_attr.repeat_interleave(len(self.steps), 0)
        k = self.kernel(vectors, edge_attr) / math.sqrt(self.neighbours)
        k = k.unflatten(0, (samples, len(self.steps)))
        bias, zero = None, torch.zeros_like(k[:, :1])
        if self.self_term is not None:
            n = self.rep_in.size
            rows = torch.cat([self.vectors.new_zeros(1, n), torch.eye(n, dtype=zero.dtype, device=zero.device)])
            rows = self.self_term(rows)
            bias = rows[0] if len(self.self_term.bias) else None
            k = torch.cat([k, (rows[1:] - rows[0]).T.expand_as(zero[:, 0])[:, None], zero], 1)
        else:
            if self.offset is not None:
                bias = self.offset(self.vectors.new_ones(1))
            k = torch.cat([k, zero, zero], 1)
        weight = k.index_select(1, self.place).permute(0, 2, 3, 1).contiguous()
        return weight.unflatten(3, self.kernel_size), bias

    def forward(self, x: torch.Tensor, edge_attr: torch.Tensor | None = None) -> torch.Tensor:
        self._check(x, edge_attr)
        weight, bias = self.weight_and_bias(edge_attr)
        if self.padding_mode != "zeros":
            x = functional.pad(x, self._sides(), self.padding_mode)
        if weight.shape[0] == 1:
            return self._convolve(x, weight[0], bias)
        samples = x.shape[0]
        if samples == 0:
            return self._convolve(x, weight.sum(0), bias)
        # the samples are groups of channels of one convolution
        y = self._convolve(x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), None, samples)
        y = y.reshape(samples, self.rep_out.size, *y.shape[2:])
        return y if bias is None else y + bias.reshape(-1, *(1 for _ in self.kernel_size))

    def _convolve(self, x, weight, bias, groups: int = 1) -> torch.Tensor:
        padding = self.padding if self.padding_mode == "zeros" else 0
        f = CONVOLUTIONS[len(self.kernel_size) - 1]
        return f(x, weight, bias, self.stride, padding, self.dilation, groups)

    def _sides(self) -> list[int]:
        """What is padded before and after each axis, the last one first."""
        out = []
        for a in reversed(range(len(self.kernel_size))):
            total = self.dilation[a] * (self.kernel_size[a] - 1)
            each = {"valid": (0, 0), "same": (total // 2, total - total // 2)}
            out += each[self.padding] if isinstance(self.padding, str) else (self.padding[a],) * 2
        return out

    def _check(self, x: torch.Tensor, edge_attr: torch.Tensor | None) -> None:
        d, like = len(self.kernel_size), self.vectors
        if not isinstance(x, torch.Tensor) or x.ndim != d + 2 or x.shape[1] != self.rep_in.size:
            given = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            axes = ", ".join(("rows", "columns", "layers")[:d]) if d > 1 else "length"
            raise ValueError(
                f"x must be (B, {self.rep_in.size}, {axes}): a batch of fields of {self.rep_in} on a grid of "
                f"{d} axes; got {given}"
            )
        if not torch.is_autocast_enabled(x.device.type) and x.dtype != like.dtype:
            raise TypeError(
                f"x has dtype {x.dtype}, the layer {like.dtype}: convert one of them "
                f"(layer.to({x.dtype}) or x.to({like.dtype}))"
            )
        if edge_attr is not None and edge_attr.ndim > 1 and edge_attr.shape[0] not in (1, x.shape[0]):
            raise ValueError(
                f"edge_attr has {edge_attr.shape[0]} rows for {x.shape[0]} fields: one row per field is expected, or "
                "one for all"
            )

    def export(self, edge_attr: torch.Tensor | None = None) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
        """The plain convolution of torch that this layer is, with its weight copied, for inference.

        Args:
            edge_attr: (edge_rep.size,) the attributes that are built in, where the layer has any.

        Raises:
            ValueError: attributes of several samples, which have a kernel each.
        """
        with torch.no_grad():
            weight, bias = self.weight_and_bias(edge_attr)
        if weight.shape[0] != 1:
            given = tuple(edge_attr.shape)
            raise ValueError(f"edge_attr has shape {given}, a row per sample: one convolution has the kernel of one")
        conv = nn.utils.skip_init(
            MODULES[len(self.kernel_size) - 1],
            self.rep_in.size,
            self.rep_out.size,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            bias=bias is not None,
            padding_mode=self.padding_mode,
            device=weight.device,
            dtype=weight.dtype,
        )
        with torch.no_grad():
            conv.weight.copy_(weight[0])
            if bias is not None:
                conv.bias.copy_(bias)
        return conv.train(self.training)

    def extra_repr(self) -> str:
        return (
            f"{self.rep_in} -> {self.rep_out}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}, dilation={self.dilation}, taps={len(self.steps)}"
        )


def _warn_of_columns(group: MatrixGroup, basis: np.ndarray) -> None:
    own, other = kept(group, basis), kept(group, basis.T)
    if own is not None and other is not None and own < other:
        warnings.warn(
            f"{own} of the {group.order} elements of {group.name} map the lattice to itself, and {other} would map "
            "that of the transposed spacing: lattice vectors are the rows of spacing",
            UserWarning,
            stacklevel=3,
        )


class Pointwise(nn.Module):
    """A layer of features (N, size) at every point of a grid: a gate, a linear layer, a batch norm.

    Args:
        layer: maps (N, rep_in.size) to (N, rep_out.size).

    Shapes:
        x (B, rep_in.size, *spatial) -> (B, rep_out.size, *spatial)

    Example:
        >>> rep = (8 * Scalar + 4 * V)(groups.O(2))
        >>> gate = nn.Pointwise(nn.Gate(rep))
        >>> gate(torch.randn(2, rep.size, 9, 9)).shape
        torch.Size([2, 16, 9, 9])
    """

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.movedim(1, -1)
        y = self.layer(x.reshape(-1, x.shape[-1]))
        return y.reshape(*x.shape[:-1], y.shape[-1]).movedim(-1, 1)
