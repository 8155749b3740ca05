"""What the reference networks are made of: their fields, residual layers and attributes of kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from .batch import GraphBatch
from .matrix_group import MatrixGroup
from .nn import BatchNorm, Gate, Linear, PointConv
from .nn._module import EquivariantModule, check_rep
from .nn.bilinear import irrep_sum
from .nn.conv import kernel_class
from .rep import Rep
from .solver.irreps import irrep_table
from .solver.polynomials import polynomials

__all__ = ["SteerableBlock", "batch_field", "choose_attributes", "harmonic_rep"]


def harmonic_rep(group: MatrixGroup, channels: int, degree: int) -> Rep:
    """``channels`` copies of the trivial representation and of each irreducible in the polynomials up to ``degree``.

    For O(3) these are scalars, vectors, ... up to spin ``degree`` with their natural parity.

    Args:
        group: the group.
        channels: copies of each.
        degree: of the polynomials.

    Example:
        >>> ek.models.harmonic_rep(groups.O(3), channels=8, degree=2).size  # 8 (1 + 3 + 5)
        72
    """
    table = irrep_table(group)
    found = {0: table.trivial}
    if degree:
        for parts in polynomials(table, degree).parts:
            found |= {irrep.index: irrep for irrep, _ in parts}
    return irrep_sum(group, [(channels, irrep) for irrep in found.values()])


def choose_attributes(
    group: MatrixGroup, known: Mapping[str, Rep], chosen: Sequence[str] | None, options: dict
) -> tuple[tuple[str, ...], Rep | None]:
    """Which of the known attributes the kernel sees, in their order, and the sum of their representations."""
    sees = kernel_class(options.get("kernel", "implicit")).takes_attributes
    if chosen is None:
        chosen = tuple(known) if sees else ()
    if isinstance(chosen, str) or not set(chosen) <= known.keys():
        raise ValueError(f"attributes must be some of {tuple(known)}, as a sequence, got {chosen!r}")
    if chosen and not sees:
        raise ValueError(f"a fixed kernel sees no attributes, got {tuple(chosen)}: pass none, or kernel='implicit'")
    names = tuple(name for name in known if name in chosen)
    return names, sum((known[name] for name in names[1:]), known[names[0]])(group) if names else None


def batch_field(batch: GraphBatch, name: str, width: int | None = None) -> torch.Tensor:
    """``batch.x[name]``: (N, width), or (N,) classes."""
    if not isinstance(batch, GraphBatch):
        raise TypeError(f"expected a GraphBatch, got {type(batch).__name__}")
    x, shape = batch.x.get(name), (batch.pos.shape[0], *(() if width is None else (width,)))
    if not isinstance(x, torch.Tensor) or x.shape != shape:
        given = tuple(x.shape) if isinstance(x, torch.Tensor) else f"nothing, among {sorted(batch.x)}"
        raise ValueError(f"x[{name!r}] of the batch is {given}, expected {shape}")
    return x


class SteerableBlock(EquivariantModule):
    """x -> shortcut(x) + σ(norm(conv(x))), σ a nonlinearity: one residual steerable layer (paper, section 5.1).

    Args:
        rep_in, rep_out: bound representations of the fields.
        edge_rep: representation of the edge attributes, or None.
        norm: batch normalisation before the nonlinearity.
        shortcut: add the input; through an equivariant linear map where the representations differ.
        nonlinearity: makes σ for a representation: :class:`Gate`, or ``partial(OrbitELU, subgroup=H)``.
        **conv: further arguments of :class:`PointConv`.

    Shapes:
        as :class:`PointConv`; with a pair (source, target) of x the shortcut is that of the target.

    Example:
        >>> field = (8 * Scalar + 4 * V)(groups.Oh())
        >>> block = ek.models.SteerableBlock(field, field, cutoff=2.0)
        >>> x, pos = torch.randn(50, 20), torch.randn(50, 3)
        >>> block(x, pos, ek.knn_graph(pos, 8)).shape
        torch.Size([50, 20])
    """

    def __init__(
        self,
        rep_in: Rep,
        rep_out: Rep,
        edge_rep: Rep | None = None,
        *,
        norm: bool = True,
        shortcut: bool = True,
        nonlinearity: Callable[[Rep], nn.Module] = Gate,
        **conv,
    ):
        super().__init__()
        check_rep(rep_in=rep_in, rep_out=rep_out, edge_rep=edge_rep)
        self.rep_in, self.rep_out = rep_in, rep_out
        self.conv = PointConv(rep_in, rep_out, edge_rep, **conv)
        self.norm = BatchNorm(rep_out) if norm else None
        self.gate = nonlinearity(rep_out)
        self.shortcut = None
        if shortcut:
            self.shortcut = nn.Identity() if rep_in == rep_out else Linear(rep_in, rep_out, bias=False)

    def forward(self, x, pos, edge_index, edge_attr=None, size=None, *, edge_vec=None) -> torch.Tensor:
        y = self.conv(x, pos, edge_index, edge_attr, size, edge_vec=edge_vec)
        blocks = self.gate.layout.blocks(y)
        if self.norm is not None:
            blocks = self.norm.blocks(blocks)
        y = self.gate.layout.flat(self.gate.blocks(blocks))
        target = x[1] if isinstance(x, (tuple, list)) else x
        return y if self.shortcut is None or target is None else y + self.shortcut(target)
