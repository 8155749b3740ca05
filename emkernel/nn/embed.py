"""Embedding of an edge: equivariant polynomials of its vector, radial functions of the invariant form, attributes."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..matrix_group import MatrixGroup
from ..rep import Rep, SumRep
from ..solver.irreps import Irrep, irrep_table
from ..solver.polynomials import polynomials
from ._module import EquivariantModule
from .layout import Layout
from .nonlinear import Invariants

__all__ = ["EdgeEmbedding", "Harmonics"]


class Harmonics(EquivariantModule):
    """Y_k(v) for chosen degrees k: the equivariant polynomials of :mod:`emkernel.solver.polynomials` as features.

    Even degrees do not see the sign of v, as suits a normal whose orientation means nothing.

    Args:
        group: the group.
        degrees: which degrees, each at least 1.

    Attributes:
        rep: the representation of the result.

    Shapes:
        v (N, d) -> (N, rep.size)
    """

    def __init__(self, group: MatrixGroup, degrees: tuple[int, ...]):
        super().__init__()
        poly = polynomials(irrep_table(group), max(degrees))
        self.degrees = tuple(sorted(k for k in degrees if k <= len(poly.steps)))
        self.rep = SumRep(tuple((m, irrep) for k in self.degrees for irrep, m in poly.parts[k - 1]), group)
        self._constant("basis", poly.basis)
        for k, step in enumerate(poly.steps):
            self._constant(f"step{k}", step)

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        v = v @ self.basis.T
        y, out = v.new_ones(v.shape[0], 1), []
        for k in range(max(self.degrees)):
            y = (y[:, :, None] * v[:, None, :]).flatten(1) @ getattr(self, f"step{k}").T
            if k + 1 in self.degrees:
                out.append(y)
        return torch.cat(out, 1)


class EdgeEmbedding(EquivariantModule):
    """(x, z) -> invariant numbers and steerable blocks.

    The vector enters through the polynomials Y_1..Y_L of :mod:`emkernel.solver.polynomials` and Gaussians of its
    invariant length: of |x| for a compact group, with Y_k evaluated on the direction x / sqrt(|x|^2 + ε^2); of
    asinh(q(x)) for an indefinite form q such as the Minkowski square; a group without an invariant form has the
    polynomials alone. The attributes z are split into irreducibles; the invariants of the steerable ones join.

    Args:
        group: the group.
        edge_rep: representation of the attributes, or None.
        degree: highest degree L of the polynomials.
        radial: number of Gaussians.
        cutoff: length scale of the edges, in the units of ``pos``; the Gaussians cover 0..cutoff.

    Attributes:
        scalars: how many invariant numbers come out.
        irreps, copies: the steerable blocks that come out.

    Shapes:
        edge_vec (E, d), edge_attr (E, edge_rep.size) -> (E, scalars), [(E, d_i, m_i)]
    """

    def __init__(self, group: MatrixGroup, edge_rep: Rep | None, degree: int, radial: int, cutoff: float):
        super().__init__()
        if not (isinstance(cutoff, (int, float)) and math.isfinite(cutoff) and cutoff > 0):
            raise ValueError(f"cutoff must be a positive length, got {cutoff!r}")
        if radial < 1:
            raise ValueError(f"radial must be at least 1, got {radial}")
        table = irrep_table(group)
        poly = polynomials(table, degree)
        self.cutoff = float(cutoff)
        self._constant("basis", poly.basis / self.cutoff)
        for k, step in enumerate(poly.steps):
            self._constant(f"step{k}", step)
        self._steps = len(poly.steps)
        self._kind = "none" if poly.form is None else "positive" if poly.is_positive else "indefinite"
        if self._kind == "indefinite":
            self._constant("form", poly.form)
        span = {
            "positive": (0.0, 1.0),
            "indefinite": (-math.asinh(4.0), math.asinh(4.0)),
            "none": (0.0, 0.0),
        }[self._kind]
        if self._kind != "none":
            self._constant("centres", np.linspace(*span, radial))
            self._sharpness = (max(radial - 1, 1) / (span[1] - span[0])) ** 2
        order: dict[int, Irrep] = {}
        copies: dict[int, int] = {}
        self._pieces: list[tuple[int, int, int, int]] = []
        self.scalars = radial if self._kind != "none" else 0
        at = 0
        for parts in poly.parts:
            for irrep, m in parts:
                self._pieces.append((irrep.index, at, m, irrep.size))
                at += m * irrep.size
                if irrep.is_trivial:
                    self.scalars += m
                else:
                    order[irrep.index] = irrep
                    copies[irrep.index] = copies.get(irrep.index, 0) + m
        self.layout = self.invariants = None
        self.has_steerable_attributes = False
        if edge_rep is not None:
            self.layout, self.invariants = Layout(edge_rep), Invariants(edge_rep)
            self.scalars += self.invariants.size
            for irrep, m in zip(self.layout.irreps, self.layout.copies):
                if not irrep.is_trivial:
                    self.has_steerable_attributes = True
                    order[irrep.index] = irrep
                    copies[irrep.index] = copies.get(irrep.index, 0) + m
        self.irreps = list(order.values())
        self.copies = [copies[i] for i in order]

    def _attribute_invariants(self, blocks: list[torch.Tensor]) -> torch.Tensor:
        """Invariant attributes as they are, the quadratic invariants of steerable ones compressed."""
        values = self.invariants.of_blocks(blocks)
        widths = [m * (kind != "none") for m, kind in zip(self.layout.copies, self.invariants._kinds)]
        parts = zip(values.split(widths, 1), self.invariants._kinds)
        return torch.cat([v if kind == "trivial" else torch.asinh(v) for v, kind in parts], 1)

    def forward(self, edge_vec: torch.Tensor, edge_attr: torch.Tensor | None):
        v = edge_vec @ self.basis.T
        scalars = []
        if self._kind == "positive":
            square = (v * v).sum(1, keepdim=True)
            length = torch.sqrt(square + 1e-4)
            scalars.append(torch.exp(-self._sharpness * (length - self.centres) ** 2))
            v = v / length
        elif self._kind == "indefinite":
            q = ((v @ self.form) * v).sum(1, keepdim=True)
            scalars.append(torch.exp(-self._sharpness * (torch.asinh(q) - self.centres) ** 2))
            v = v / (1 + q * q) ** 0.25
        values = [v @ self.step0.T]
        for k in range(1, self._steps):
            outer = values[-1][:, :, None] * v[:, None, :]
            values.append(outer.flatten(1) @ getattr(self, f"step{k}").T)
        y = values[0] if len(values) == 1 else torch.cat(values, 1)
        blocks: dict[int, list[torch.Tensor]] = {irrep.index: [] for irrep in self.irreps}
        for index, at, m, d in self._pieces:
            piece = y[:, at : at + m * d]
            if index in blocks:
                blocks[index].append(piece.reshape(-1, m, d).transpose(1, 2))
            else:
                scalars.append(piece)
        if self.layout is not None:
            attributes = self.layout.blocks(edge_attr)
            scalars.append(self._attribute_invariants(attributes))
            for irrep, block in zip(self.layout.irreps, attributes):
                if not irrep.is_trivial:
                    blocks[irrep.index].append(block)
        steerable = [
            blocks[r.index][0] if len(blocks[r.index]) == 1 else torch.cat(blocks[r.index], 2)
            for r in self.irreps
        ]
        if not scalars:
            scalars.append(v.new_ones(v.shape[0], 0))
        return torch.cat(scalars, 1), steerable
