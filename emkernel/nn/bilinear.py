"""Bilinear equivariant layers: tensor products of fields, coupled back to irreducibles."""

from __future__ import annotations

import numpy as np
import torch

from .._arguments import whole
from ..rep import Rep, SumRep
from ..solver.coupling import couplings
from ..solver.irreps import Irrep, irrep_table
from ._module import EquivariantModule, check_features, check_rep
from .layout import Layout
from .linear import Linear

__all__ = ["Bilinear", "irrep_sum"]


def irrep_sum(group, parts: list[tuple[int, Irrep]]) -> Rep:
    """The bound direct sum of copies of irreducibles, Σ m·irrep."""
    return SumRep(tuple((m, r) for m, r in parts if m), group)


class Bilinear(EquivariantModule):
    """y = L (A x ⊗ B y)_coupled: channels of the two inputs meet in pairs and couple to the irreducibles of rep_out.

    A and B are equivariant linear maps to ``width`` copies of each irreducible; copy u of A x meets copy u of B y in
    every coupling a ⊗ b -> c; L mixes the results (the bilinear layer of Finzi et al., 2021, section 6).

    Args:
        rep_left, rep_right, rep_out: bound representations of one group.
        width: copies of each irreducible that meet.

    Shapes:
        x (..., rep_left.size), y (..., rep_right.size) -> (..., rep_out.size)

    Raises:
        ValueError: inputs of different batch shapes.

    Example:
        >>> vector = V(groups.SO(3))
        >>> cross = nn.Bilinear(vector, vector, vector, width=1)  # the cross product, up to a factor
        >>> x, y = torch.randn(2, 10, 3)
        >>> torch.linalg.cross(cross(x, y), torch.linalg.cross(x, y)).abs().max().item() < 1e-5
        True
    """

    def __init__(self, rep_left: Rep, rep_right: Rep, rep_out: Rep, width: int = 8):
        super().__init__()
        check_rep(rep_left=rep_left, rep_right=rep_right, rep_out=rep_out)
        width = whole(width, "width")
        self.rep_left, self.rep_right, self.rep_out = rep_left, rep_right, rep_out
        group, table = rep_left.group, irrep_table(rep_left.group)
        mids = []
        for rep in (rep_left, rep_right):
            parts = table.decompose(rep).parts
            mids.append(irrep_sum(group, [(width, irrep) for irrep, _, _ in parts]))
        self.left = Linear(rep_left, mids[0], bias=True)
        self.right = Linear(rep_right, mids[1], bias=True)
        wanted = [irrep for irrep, _, _ in table.decompose(rep_out).parts]
        self._pairs: list[tuple[int, int, str, list[tuple[int, int, int]]]] = []
        copies = {irrep.index: 0 for irrep in wanted}
        for i, a in enumerate(self.left.layout_out.irreps):
            for j, b in enumerate(self.right.layout_out.irreps):
                rows, targets = [], []
                for c in wanted:
                    C = couplings(table, a, b, c)
                    if len(C):
                        rows.append(np.asarray(C).reshape(-1, a.size, b.size))
                        targets.append((c.index, c.size, len(C)))
                        copies[c.index] += len(C) * width
                if rows:
                    self._constant(f"coupling{i}_{j}", np.concatenate(rows))
                    self._pairs.append((i, j, f"coupling{i}_{j}", targets))
        self._wanted = [c for c in wanted if copies[c.index]]
        rep_mid = irrep_sum(group, [(copies[c.index], c) for c in self._wanted])
        self.out = Linear(rep_mid, rep_out, bias=False) if self._wanted else None
        self.layout_out = Layout(rep_out)

    def blocks(self, xs: list[torch.Tensor], ys: list[torch.Tensor]) -> list[torch.Tensor]:
        """The layer from blocks xs and ys (N, d, m) to blocks."""
        if self.out is None:
            n = xs[0].shape[0]
            return [
                xs[0].new_zeros(n, r.size, m) for r, m in zip(self.layout_out.irreps, self.layout_out.copies)
            ]
        xs, ys = self.left.blocks(xs), self.right.blocks(ys)
        found: dict[int, list[torch.Tensor]] = {c.index: [] for c in self._wanted}
        for i, j, name, targets in self._pairs:
            products = (xs[i][:, :, None] * ys[j][:, None]).flatten(1, 2)
            z = getattr(self, name).flatten(1) @ products
            at = 0
            for index, d, r in targets:
                piece = z[:, at : at + r * d].unflatten(1, (r, d))
                found[index].append(piece.transpose(1, 2).flatten(2))
                at += r * d
        return self.out.blocks([torch.cat(found[c.index], 2) for c in self._wanted])

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        check_features(x, self.rep_left, "x", self._like)
        check_features(y, self.rep_right, "y", x)
        if x.shape[:-1] != y.shape[:-1]:
            raise ValueError(
                f"x and y have batch shapes {tuple(x.shape[:-1])} and {tuple(y.shape[:-1])}; expected equal"
            )
        blocks = self.blocks(
            self.left.layout_in.blocks(x.reshape(-1, x.shape[-1])),
            self.right.layout_in.blocks(y.reshape(-1, y.shape[-1])),
        )
        return self.layout_out.flat(blocks).reshape(*x.shape[:-1], self.rep_out.size)

    def extra_repr(self) -> str:
        return f"{self.rep_left} ⊗ {self.rep_right} -> {self.rep_out}"
