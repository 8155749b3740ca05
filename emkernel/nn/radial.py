"""Radial functions for groups that are not compact: of the invariant polynomials of the edge vector."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..solver.forms import pairings
from ..solver.invariants import monomials
from ..solver.irreps import Irrep, IrrepTable
from ..solver.polynomials import Invariant
from ._module import EquivariantModule

__all__ = ["Pairings", "RadialInvariants"]

REACH = math.asinh(4.0)  # invariants up to 4, twice the cutoff for a quadratic one, are resolved


class RadialInvariants(EquivariantModule):
    """Gaussians of each asinh(I_b(v)), I_b generators of the invariant polynomials, each asinh(I_b(v)), and a length.

    There are several where the group keeps several forms (O(3) x O(1,1)), degenerate ones (the absolute time of
    Galilei), a linear one (the coordinate that a shear fixes), and none for Sp(2n), SL(n), GL(n), whose orbits of
    vectors fill the space. The Gaussians have the scale of the cutoff; asinh itself still tells apart vectors
    that are many orders of magnitude longer. The length

        N(v) = (1 + Σ_b ((1 + I_b²)^(2/deg I_b) - 1))^(1/4),

    (1 + q²)^(1/4) for one quadratic form q, is smooth and at least 1, so dividing by it is safe on the light cone.

    Args:
        d: dimension of v.
        invariants: the generators; none is allowed.
        radial: number of Gaussians for each.

    Attributes:
        size: numbers that come out.

    Shapes:
        v (E, d) -> (E, size), N (E, 1)
    """

    def __init__(self, d: int, invariants: tuple[Invariant, ...], radial: int):
        super().__init__()
        self.size = (radial + 1) * len(invariants)
        self._degrees = [i.degree for i in invariants]
        self._top = max(self._degrees, default=0)
        for k in sorted(set(self._degrees)):
            self._constant(f"invariants{k}", np.stack([i.coefficients for i in invariants if i.degree == k]))
        spans = [(0.0 if i.is_square else -REACH, REACH) for i in invariants]
        if invariants:
            self._constant("centres", np.stack([np.linspace(*span, radial) for span in spans]))
            self._constant("sharpness", [[(max(radial - 1, 1) / (hi - lo)) ** 2] for lo, hi in spans])
            self._constant("powers", [4.0 / k for k in self._degrees])
        for k in range(2, self._top + 1):
            table = monomials(d, k)
            self._index(f"_parent{k}", table.parent)
            self._index(f"_variable{k}", table.variable)

    def invariants(self, v: torch.Tensor) -> torch.Tensor:
        """(E, number of generators), by degree."""
        m, out = v, []
        for k in range(1, self._top + 1):
            if k > 1:
                m = m[:, getattr(self, f"_parent{k}")] * v[:, getattr(self, f"_variable{k}")]
            if k in self._degrees:
                out.append(m @ getattr(self, f"invariants{k}").T)
        return torch.cat(out, 1)

    def forward(self, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._degrees:
            return v.new_ones(v.shape[0], 0), v.new_ones(v.shape[0], 1)
        value = self.invariants(v)
        length = (torch.hypot(value, torch.ones_like(value)) ** self.powers - 1).sum(1, keepdim=True)
        value = torch.asinh(value)
        gaussians = torch.exp(-self.sharpness * (value[:, :, None] - self.centres) ** 2)
        return torch.cat([gaussians.flatten(1), value], 1), (1 + length) ** 0.25


class Pairings(EquivariantModule):
    """asinh of the invariant forms B(v, w) of steerable blocks, such as x^T J z of an edge vector and an attribute.

    All pairs of copies of one irreducible, or of two dual to each other, of which one at least is an attribute. What
    depends on the edge vector alone is left to :class:`RadialInvariants`.

    Args:
        table: irreducibles of the group.
        irreps: of the blocks.
        copies: of each block, how many come from the edge vector and how many from attributes, in this order.

    Attributes:
        size: numbers that come out.

    Shapes:
        blocks (E, d_i, m_i) -> (E, size)
    """

    def __init__(self, table: IrrepTable, irreps: list[Irrep], copies: list[tuple[int, int]]):
        super().__init__()
        self.size = 0
        self._terms: list[tuple[int, int, str]] = []
        for i, (a, (vectors, attributes)) in enumerate(zip(irreps, copies)):
            for j, (b, (others, more)) in enumerate(list(zip(irreps, copies))[i:], i):
                if not (attributes or more):
                    continue
                pairs = np.indices((vectors + attributes, others + more)).reshape(2, -1)
                keep = (pairs[0] >= vectors) | (pairs[1] >= others)
                if i == j:
                    keep &= pairs[0] < pairs[1]
                forms = pairings(table, a, b) / a.size
                if not keep.any() or not len(forms):
                    continue
                self._constant(f"form{i}_{j}", forms)
                self._index(f"_pairs{i}_{j}", pairs[:, keep])
                self._terms.append((i, j, f"{i}_{j}"))
                self.size += int(keep.sum()) * len(forms)

    def forward(self, blocks: list[torch.Tensor]) -> torch.Tensor:
        out = [blocks[0].new_ones(blocks[0].shape[0], 0)]
        for i, j, name in self._terms:
            left, right = getattr(self, f"_pairs{name}")
            # two by two: for three at once a compiler would fix the number of edges
            value = torch.einsum("rij,njp->nrip", getattr(self, f"form{name}"), blocks[j])
            value = torch.einsum("nim,nrip->nrmp", blocks[i], value)
            out.append(torch.asinh(value[:, :, left, right].flatten(1)))
        return torch.cat(out, 1)
