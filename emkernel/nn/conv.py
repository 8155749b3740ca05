"""The steerable point convolution (paper, eq. 13)."""

from __future__ import annotations

import math
import warnings
from difflib import get_close_matches
from inspect import signature
from numbers import Real

import torch

from .._arguments import whole
from ..errors import RepError
from ..ops.contract import node_order
from ..ops.formats import as_edges
from ..ops.neighbours import Neighbours
from ..ops.orders import ORDERS
from ..ops.segment import BACKENDS, segment_reduce
from ..rep import Rep
from ..solver.irreps import irrep_table
from ._module import EquivariantModule, check_features, check_like, check_rep, check_tensor
from .fixed import FixedKernel
from .kernel import ImplicitKernel
from .linear import Linear
from .steerable import SteerableKernel

__all__ = ["PointConv", "kernel_class", "make_kernel"]

CONTRACTIONS = ("auto", *ORDERS, "kernel")
KERNELS = {"implicit": ImplicitKernel, "fixed": FixedKernel}


def kernel_class(name: str) -> type[SteerableKernel]:
    """The class of kernels of this name."""
    if name not in KERNELS:
        raise ValueError(f"kernel must be one of {tuple(KERNELS)}, got {name!r}")
    return KERNELS[name]


def make_kernel(layer: type, name: str, reps: tuple[Rep, Rep, Rep | None], options: dict) -> SteerableKernel:
    """The kernel of a layer, with the options that the layer passes on to it.

    Raises:
        TypeError: an option that neither of them has.
    """
    kind = kernel_class(name)
    of_layer, of_kernel = (
        [p.name for p in signature(c).parameters.values() if p.kind is p.KEYWORD_ONLY] for c in (layer, kind)
    )
    for option in options.keys() - {*of_kernel}:
        near = get_close_matches(option, [*of_layer, *of_kernel], n=1)
        raise TypeError(
            f"{layer.__name__} has no option {option!r} with kernel={name!r}"
            + (f"; did you mean {near[0]!r}?" if near else ".")
            + f" Its options are {', '.join(of_layer)}; of its kernel {', '.join(of_kernel)}"
        )
    return kind(*reps, **options)


class PointConv(EquivariantModule):
    """y_i = W_0 f_i + Σ_{j in N(i)} k(x_i - x_j, z_ij) f_j (paper, eq. 13).

    The neighbours' term is a steerable kernel; the term i = j is an equivariant linear map, which is what a
    steerable kernel is at x = 0. ``edge_index[0]`` is the source j and ``edge_index[1]`` the target i, the
    edge vector is pos[i] - pos[j].

    Args:
        rep_in, rep_out: bound representations of the feature fields.
        edge_rep: representation of the edge attributes, or None.
        kernel: "implicit", or "fixed", the baseline in a fixed basis (:class:`FixedKernel`).
        contraction: "kernel" forms the kernel on every edge (the reference); "aggregate" and "message" never
            do, and apply the weights once per node (:mod:`emkernel.ops.contract`): the same function and
            ``state_dict``; "auto" takes the cheaper of the two for each pair of irreducibles.
        chunk: targets at a time, between which nothing but inputs and outputs is kept: this bounds the memory; by
            default what fits the cache of a CPU, and all on a GPU.
        aggr: "sum" or "mean" over the neighbours; "max" or "min" where ``rep_out`` permutes components, which
            alone commutes with them.
        neighbours: typical number of neighbours; a sum is divided by its square root, so that it keeps unit variance.
        self_interaction: include the term i = j.
        bias: learnable invariant offset (with the term i = j).
        backend: of the segment reductions, see :func:`emkernel.ops.segment.segment_reduce`.
        **options: further arguments of :class:`ImplicitKernel` (degree, width, hidden, layers, radial, cutoff,
            envelope, spread, bilinear) or of :class:`FixedKernel`.

    Shapes:
        x (N, rep_in.size), pos (N, d), edge_index (2, E), edge_attr (E, edge_rep.size) -> (N, rep_out.size); with pairs
        (source, target) of x and pos, where x[1] may be None (no term i = j), -> (N_target, rep_out.size). In place of
        ``edge_index`` a prepared :class:`Neighbours`, an EdgeIndex, or a sparse adjacency (target, source) is accepted,
        whose values are the edge attributes where none are passed (:func:`emkernel.ops.formats.as_edges`). ``edge_vec``
        (E, d), in the order of the edges, stands for pos[i] - pos[j] where that is not the way from j to i, as in a
        crystal (:func:`emkernel.graph.periodic_graph`).

    Raises:
        RepError, ValueError, IndexError, TypeError: what was given does not fit, said precisely.

    Example:
        >>> G = groups.Oh()
        >>> conv = nn.PointConv((8 * Scalar)(G), (8 * Scalar + 4 * V)(G), cutoff=2.0)
        >>> x, pos = torch.randn(100, 8), torch.randn(100, 3)
        >>> conv(x, pos, ek.knn_graph(pos, 8)).shape
        torch.Size([100, 20])
    """

    def __init__(
        self,
        rep_in: Rep,
        rep_out: Rep,
        edge_rep: Rep | None = None,
        *,
        kernel: str = "implicit",
        contraction: str = "auto",
        chunk: int | None = None,
        aggr: str = "sum",
        neighbours: float = 1.0,
        self_interaction: bool = True,
        bias: bool = True,
        backend: str = "auto",
        **options,
    ):
        super().__init__()
        check_rep(rep_in=rep_in, rep_out=rep_out, edge_rep=edge_rep)
        if contraction not in CONTRACTIONS:
            raise ValueError(f"contraction must be one of {CONTRACTIONS}, got {contraction!r}")
        chunk = None if chunk is None else whole(chunk, "chunk")
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
        if aggr not in ("sum", "mean", "max", "min"):
            raise ValueError(f"aggr must be 'sum', 'mean', 'max' or 'min', got {aggr!r}")
        if aggr in ("max", "min") and not _permutes(rep_out):
            raise RepError(
                f"aggr={aggr!r} does not commute with {rep_out}: a componentwise {aggr} is equivariant only where "
                "the group permutes components; use 'sum' or 'mean'"
            )
        if not (isinstance(neighbours, Real) and neighbours > 0):
            raise ValueError(f"neighbours must be a positive number, got {neighbours!r:.80}")
        self.rep_in, self.rep_out, self.edge_rep = rep_in, rep_out, edge_rep
        self._scale = 1 / math.sqrt(neighbours) if aggr == "sum" else 1.0
        self.contraction, self.chunk, self.aggr, self.backend = contraction, chunk, aggr, backend
        self._setting("aggr", aggr)
        if aggr == "sum":
            self._setting("neighbours", neighbours)
        self.kernel = make_kernel(PointConv, kernel, (rep_in, rep_out, edge_rep), options)
        if self.kernel.embed.envelope and aggr != "sum":
            raise ValueError(
                f"aggr={aggr!r} jumps as neighbours come and go, which an envelope is there to prevent: use aggr='sum'"
            )
        self.self_term = Linear(rep_in, rep_out, bias=bias) if self_interaction else None
        if unreached := self._unreached():
            warnings.warn(
                f"{', '.join(unreached)} of the output of the convolution from {rep_in} to {rep_out} stay zero: no "
                f"kernel of degree up to {self.kernel.embed.degree} reaches them; raise degree, or leave them out",
                UserWarning,
                stacklevel=2,
            )

    def _unreached(self) -> list[str]:
        """The irreducibles of the output to which nothing contributes."""
        weights, term = self.kernel.weight, self.self_term
        own = [len(w) > 0 for w in term.weight] if term is not None else [False] * len(weights)
        offset = [x is not None for x in term._offsets] if term is not None else own
        irreps = self.kernel.layout_out.irreps
        return [r.label for r, w, a, b in zip(irreps, weights, own, offset) if not (len(w) or a or b)]

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        self.kernel.reset_parameters()
        if self.self_term is not None:
            self.self_term.reset_parameters()

    def forward(
        self,
        x,
        pos,
        edge_index,
        edge_attr: torch.Tensor | None = None,
        size: tuple[int, int] | None = None,
        *,
        edge_vec: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x_source, x_target, pos_source, pos_target = self._sides(x, pos, size)
        # shapes, as a length would be a constant of an exported program
        sizes = pos_source.shape[0], pos_target.shape[0]
        if isinstance(edge_index, Neighbours):
            graph = edge_index
            if (graph.num_sources, graph.num_targets) != sizes:
                raise ValueError(
                    f"the prepared graph joins {graph.num_sources} sources to {graph.num_targets} targets, pos "
                    f"has {sizes[0]} and {sizes[1]}"
                )
        else:
            edge_index, values = as_edges(edge_index, *sizes)
            if edge_attr is None and values is not None and self.edge_rep is not None:
                edge_attr = values[:, None] if values.ndim == 1 else values
            graph = Neighbours.of(edge_index, *sizes, grouped=True if self.chunk is not None else None)
        if graph.source.device != pos_source.device:
            raise ValueError(f"the edges are on {graph.source.device}, pos on {pos_source.device}: move one of them")
        if edge_vec is None:
            edge_vec = pos_target[graph.target] - pos_source[graph.source]
        else:
            check_tensor(edge_vec, "edge_vec")
            if edge_vec.shape[:1] != (graph.num_edges,):
                rows = len(edge_vec) if edge_vec.ndim else "no"
                raise ValueError(f"edge_vec has {rows} rows for {graph.num_edges} edges")
            edge_vec = graph.sort(edge_vec)
        edge_attr = self._sorted(edge_attr, graph)
        self.kernel.check_edges(edge_vec, edge_attr)
        if self.contraction == "kernel" or self.aggr in ("max", "min"):
            out = self._reference(x_source, edge_vec, edge_attr, graph)
        else:
            out = self._node_order(x_source, edge_vec, edge_attr, graph)
        if self._scale != 1.0:
            out = out * self._scale
        if self.self_term is not None and x_target is not None:
            out = out + self.self_term(x_target)
        return out

    def _sorted(self, edge_attr: torch.Tensor | None, graph: Neighbours) -> torch.Tensor | None:
        """The attributes in the order of the graph; the kernel says whether there ought to be any."""
        if edge_attr is None or self.edge_rep is None:
            return edge_attr
        check_features(edge_attr, self.edge_rep, "edge_attr", self.kernel.weight[0])
        if edge_attr.shape[:-1] != (graph.num_edges,):
            raise ValueError(
                f"edge_attr has {edge_attr.shape[0]} rows for {graph.num_edges} edges, shape {tuple(edge_attr.shape)}"
            )
        return graph.sort(edge_attr)

    def _node_order(self, x, edge_vec, edge_attr, graph: Neighbours) -> torch.Tensor:
        kernel, layout = self.kernel, self.kernel.layout_out
        blocks = node_order(
            kernel.hidden(edge_vec, edge_attr),
            kernel.layout_in.blocks(x),
            graph,
            list(zip(kernel.pairs, kernel.couplings)),
            kernel.bundles,
            kernel.last,
            [(r.size, m) for r, m in zip(layout.irreps, layout.copies)],
            self.contraction,
            self.chunk,
            kernel.plan,
            kernel.kept,
        )
        out = layout.flat(blocks)
        return out / graph.degree.clamp(min=1).to(out.dtype)[:, None] if self.aggr == "mean" else out

    def _reference(self, x, edge_vec, edge_attr, graph: Neighbours) -> torch.Tensor:
        messages = torch.einsum("eoi,ei->eo", self.kernel(edge_vec, edge_attr), x[graph.source])
        return segment_reduce(messages, graph.target, graph.num_targets, self.aggr, self.backend)

    def _sides(self, x, pos, size):
        if not isinstance(size, tuple | list | None):
            raise TypeError(f"size must be a pair (sources, targets), got {type(size).__name__}")
        for name, value in (("x", x), ("pos", pos), ("size", size)):
            if isinstance(value, (tuple, list)) and len(value) != 2:
                raise ValueError(f"{name} must be a pair (source, target), got {len(value)} of them")
        x_source, x_target = x if isinstance(x, (tuple, list)) else (x, x)
        pos_source, pos_target = pos if isinstance(pos, (tuple, list)) else (pos, pos)
        if not isinstance(x, (tuple, list)) and pos_target is not pos_source:
            x_target = None
        weight = self.kernel.weight[0]
        check_features(x_source, self.rep_in, "x", weight)
        if x_target is not None and x_target is not x_source:
            check_features(x_target, self.rep_in, "x[1] (target)", weight)
        d = self.rep_in.group.d
        for name, p, f in (("pos", pos_source, x_source), ("pos[1] (target)", pos_target, x_target)):
            if not isinstance(p, torch.Tensor) or p.ndim != 2 or p.shape[1] != d:
                given = tuple(p.shape) if isinstance(p, torch.Tensor) else type(p).__name__
                raise ValueError(f"{name} must be (N, {d}) for {self.rep_in.group.name}, got {given}")
            check_tensor(p, name)
            check_like(p, weight, name)
            if f is not None and (f.ndim != 2 or f.shape[0] != p.shape[0]):
                raise ValueError(
                    f"x has shape {tuple(f.shape)} and {name} {tuple(p.shape)}; expected one feature vector (N, "
                    f"{self.rep_in.size}) per point"
                )
        if size is not None and tuple(size) != (pos_source.shape[0], pos_target.shape[0]):
            raise ValueError(
                f"size={tuple(size)} but pos has {len(pos_source)} sources and {len(pos_target)} targets"
            )
        return x_source, x_target, pos_source, pos_target

    def extra_repr(self) -> str:
        return f"{self.rep_in} -> {self.rep_out}, aggr={self.aggr!r}, contraction={self.contraction!r}"


def _permutes(rep: Rep) -> bool:
    """Whether every group element permutes the components: checked on the generators."""
    if all(irrep.is_trivial for irrep, _, _ in irrep_table(rep.group).decompose(rep).parts):
        return True
    images = rep.images
    binary = ((images.discrete == 0) | (images.discrete == 1)).all() and (images.discrete.sum(1) == 1).all()
    return bool(binary and not images.lie.any())
