"""Pooling over the nodes of each cloud."""

from __future__ import annotations

import torch

from ..ops.segment import segment_reduce
from ..rep import Rep
from ._module import EquivariantModule, check_rep
from .nonlinear import Invariants

__all__ = ["InvariantPool"]


class InvariantPool(EquivariantModule):
    """asinh of the invariants of every node (see :class:`Invariants`), reduced over each cloud.

    Args:
        rep: a bound representation.
        reduce: "mean", "sum", "max" or "min", or several, whose results are concatenated.

    Attributes:
        size: width of the result.

    Shapes:
        x (N, rep.size), batch (N,) -> (num_graphs, size)

    Raises:
        ValueError: ``batch`` does not give each node one cloud.

    Example:
        >>> pool = nn.InvariantPool((8 * Scalar + 4 * V)(groups.Oh()))  # mean and maximum of 12 invariants
        >>> pool(torch.randn(50, 20), torch.arange(5).repeat_interleave(10)).shape
        torch.Size([5, 24])
    """

    def __init__(self, rep: Rep, reduce: str | tuple[str, ...] = ("mean", "max")):
        super().__init__()
        check_rep(rep=rep)
        self.rep = rep
        self.reduce = (reduce,) if isinstance(reduce, str) else tuple(reduce)
        self.invariants = Invariants(rep)
        self.size = self.invariants.size * len(self.reduce)

    def forward(
        self, x: torch.Tensor, batch: torch.Tensor | None = None, num_graphs: int | None = None
    ) -> torch.Tensor:
        values = torch.asinh(self.invariants(x))
        if batch is None:
            batch, num_graphs = x.new_zeros(x.shape[0], dtype=torch.long), 1
        if not isinstance(batch, torch.Tensor) or batch.shape != x.shape[:1]:
            given = tuple(batch.shape) if isinstance(batch, torch.Tensor) else type(batch).__name__
            raise ValueError(f"batch is {given}, expected a tensor ({x.shape[0]},): one cloud index per node")
        if num_graphs is None:
            num_graphs = int(batch.max()) + 1 if batch.shape[0] else 0
        return torch.cat([segment_reduce(values, batch, num_graphs, r) for r in self.reduce], 1)
