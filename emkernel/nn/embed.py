"""Embedding of an edge: equivariant polynomials of its vector, radial functions of its invariants, attributes."""

from __future__ import annotations

import math

import numpy as np
import torch

from .._arguments import whole
from ..errors import RepError
from ..matrix_group import MatrixGroup
from ..rep import Rep, SumRep
from ..solver.irreps import Irrep, irrep_table
from ..solver.polynomials import polynomials
from ._module import EquivariantModule
from .layout import Layout
from .nonlinear import Invariants
from .radial import Pairings, RadialInvariants

__all__ = ["EdgeEmbedding", "Harmonics", "falloff"]

FAR = 1e9  # cutoffs


def falloff(s: torch.Tensor) -> torch.Tensor:
    """u(s) = (1 - s)³ (1 + 3s + 6s²) for 0 <= s < 1, and 0: from 1 to 0 with two continuous derivatives."""
    s = s.clamp(max=1)
    return (1 - s) ** 3 * (1 + 3 * s + 6 * s * s)


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

    The vector enters through the polynomials Y_1..Y_L of :mod:`emkernel.solver.polynomials` and radial functions. For a
    compact group these are Gaussians of |x|, with Y_k evaluated on the direction x / sqrt(|x|² + ε²). For any other
    they are functions of all its invariants (:class:`emkernel.nn.radial.RadialInvariants`): of the Minkowski square, of
    each of several forms, of the absolute time of Galilei; and Y_k is evaluated on x divided by the smooth invariant
    length that these make. A group under which no function of x is invariant, such as Sp(2n), has the polynomials
    alone. The attributes z are split into irreducibles; the invariants of the steerable ones join, and, for groups that
    are not compact, the invariant forms of two of them, or of one and the edge vector.

    In homogeneous coordinates (x, 1) an edge vector ends in 0, where invariants of V see less than those of x alone do:
    prefer the group of the linear parts, as translations do not act on edge vectors.

    Args:
        group: the group.
        edge_rep: representation of the attributes, or None.
        degree: highest degree L of the polynomials.
        radial: number of Gaussians.
        cutoff: length scale of the edges, in the units of ``pos``; the Gaussians cover 0..cutoff. An invariant of
            degree k is resolved on the scale cutoff^k.
        envelope: whether a kernel is to vanish from the cutoff on: :meth:`window` is then what to multiply it by.

    Attributes:
        scalars: how many invariant numbers come out; the first ``gaussians`` of them are radial functions, of
            ``profiles`` invariants of the edge vector.
        irreps, copies: the steerable blocks that come out.

    Shapes:
        edge_vec (E, d), edge_attr (E, edge_rep.size) -> (E, scalars), [(E, d_i, m_i)]
    """

    def __init__(
        self,
        group: MatrixGroup,
        edge_rep: Rep | None,
        degree: int,
        radial: int,
        cutoff: float,
        envelope: bool = False,
    ):
        super().__init__()
        if not (isinstance(cutoff, (int, float)) and math.isfinite(cutoff) and cutoff > 0):
            raise ValueError(f"cutoff must be a positive length, got {cutoff!r}")
        radial = whole(radial, "radial")
        table = irrep_table(group)
        poly = polynomials(table, degree)
        if envelope and not poly.is_positive and not poly.invariants:
            raise RepError(
                f"no polynomial of degree up to {max(degree, 2)} of an edge vector is invariant under {group.name}, "
                "and so there is no envelope that vanishes at a cutoff: leave envelope=False"
            )
        self.degree, self.cutoff, self.envelope = degree, float(cutoff), envelope
        self._setting("cutoff", cutoff)
        self._setting("envelope", "on" if envelope else "off")
        self._constant("basis", poly.basis / self.cutoff)
        for k, step in enumerate(poly.steps):
            self._constant(f"step{k}", step)
        self._steps = len(poly.steps)
        self.radial = None
        if poly.is_positive:
            self._constant("centres", np.linspace(0.0, 1.0, radial))
            self._sharpness = float(max(radial - 1, 1)) ** 2
            self.scalars = self.gaussians = radial
            self.profiles = 1
        else:
            self.radial = RadialInvariants(group.d, poly.invariants, radial)
            self.scalars = self.radial.size
            self.profiles = len(poly.invariants)
            self.gaussians = radial * self.profiles
        order: dict[int, Irrep] = {}
        copies: dict[int, int] = {}
        self._pieces: list[tuple[int, int, int, int]] = []
        at = 0
        for parts in poly.parts:
            for irrep, m in parts:
                self._pieces.append((irrep.index, at, m, irrep.size))
                at += m * irrep.size
                if not irrep.is_trivial:
                    order[irrep.index] = irrep
                    copies[irrep.index] = copies.get(irrep.index, 0) + m
                elif poly.is_positive:  # else a polynomial in the radial invariants
                    self.scalars += m
        from_vector = dict(copies)
        self.layout = self.invariants = self.pairings = None
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
        if self.has_steerable_attributes and not poly.is_positive:
            split = [(from_vector.get(i, 0), copies[i] - from_vector.get(i, 0)) for i in order]
            self.pairings = Pairings(table, self.irreps, split)
            self.scalars += self.pairings.size

    def example(self, edges: int, generator: torch.Generator) -> torch.Tensor:
        """(edges, d) float64, edges of uniform direction and of lengths up to the cutoff, where the metric is |v|."""
        basis = self._exact["basis"]
        v = torch.randn(edges, len(basis), generator=generator, dtype=torch.float64)
        length = torch.rand(edges, 1, generator=generator, dtype=torch.float64)
        return torch.linalg.solve(basis, (length * v / v.norm(dim=1, keepdim=True)).T).T

    def window(self, edge_vec: torch.Tensor) -> torch.Tensor:
        """The envelope (E, 1): :func:`falloff` of |x|²/cutoff² for a compact group.

        For any other a product over the invariants I of degree k of :class:`RadialInvariants`, of the falloff of
        (I(x)/cutoff^k)², which vanishes where one of them reaches the cutoff.
        """
        v = edge_vec @ self.basis.T
        s = (v * v).sum(1, keepdim=True) if self.radial is None else self.radial.invariants(v).square()
        return falloff(s).prod(1, keepdim=True)

    def forward(self, edge_vec: torch.Tensor, edge_attr: torch.Tensor | None):
        v = edge_vec @ self.basis.T
        scalars = []
        if self.radial is None:
            # in units of themselves where edges are very long, as squares of these may be out of range
            unit = v.detach().abs().amax(1, keepdim=True)
            unit = torch.where(unit > FAR, unit, 1.0)
            v = v / unit
            length = torch.sqrt((v * v).sum(1, keepdim=True) + (0.01 / unit) ** 2)
            scalars.append(torch.exp(-self._sharpness * (unit * length - self.centres) ** 2))
            v = v / length
        else:
            functions, length = self.radial(v)
            scalars.append(functions)
            v = v / length
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
            elif self.radial is None:
                scalars.append(piece)
        if self.layout is not None:
            attributes = self.layout.blocks(edge_attr)
            # compressed: squares of large attributes would swamp the network of invariants
            scalars.append(self.invariants.of_blocks(attributes, compress=True))
            for irrep, block in zip(self.layout.irreps, attributes):
                if not irrep.is_trivial:
                    blocks[irrep.index].append(block)
        steerable = [
            blocks[r.index][0] if len(blocks[r.index]) == 1 else torch.cat(blocks[r.index], 2)
            for r in self.irreps
        ]
        if self.pairings is not None:
            scalars.append(self.pairings(steerable))
        return torch.cat(scalars, 1), steerable
