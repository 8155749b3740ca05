"""Irreducible representations of any matrix group, found by splitting tensor powers of V.

A random symmetric element of the commutant of a representation has one eigenspace per irreducible piece (Dixon, 1970).
One piece of each class fixes the basis of that irreducible; all copies are then written in that basis through the
canonical basis of Hom(irreducible, representation), so equal copies are aligned and Schur's lemma applies
coordinate for coordinate.

A group that is not certified completely reducible keeps each representation whole, as one piece: every map
between pieces is then solved for instead of read off, slower and still right.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..errors import RepError, SolverError
from ..images import Images
from ..matrix_group import MatrixGroup
from ..rep import DualRep, GivenRep, ProductRep, Rep, ScalarRep, SumRep, VectorRep
from .coordinates import Coordinates
from .nullspace import canonical, intertwiners, one_thread
from .splitting import division_basis, irreducible_subspaces, row_space, symmetric_form, traces

__all__ = ["Decomposition", "Irrep", "IrrepTable", "irrep_table", "irreps"]

TYPES = {1: "real", 2: "complex", 4: "quaternionic"}


@dataclass(frozen=True, eq=False, repr=False)
class Irrep(GivenRep):
    """An irreducible representation, bound to its group (or an unsplit piece where splitting is not certified).

    Attributes:
        label: dimension and a letter in order of discovery, "1a" the trivial one.
        type: "real", "complex" or "quaternionic" for dim End = 1, 2, 4; None for an unsplit piece.
        degree: the first tensor power of V in which it was found.
        index: its place in the table of its group.
        endomorphisms: (e, d, d) basis of End, the identity first, each of Frobenius norm sqrt(d).
        form: (d, d) symmetric invariant form, g^T B g = B, norm sqrt(d); None when there is none.
    """

    label: str = ""
    type: str | None = None
    degree: int = 0
    index: int = 0
    normal: Images = field(default=None)
    endomorphisms: np.ndarray = field(default=None)
    form: np.ndarray | None = None

    @property
    def is_trivial(self) -> bool:
        """Whether every element acts as 1."""
        return self.index == 0

    def __str__(self):
        return self.label


@dataclass(frozen=True)
class Decomposition:
    """A representation as a sum of irreducibles: x = Σ_i Σ_m back_i[m] (to_i[m] x).

    Attributes:
        parts: (irrep, to (m, d_i, n), back (m, n, d_i)) in the order of first appearance.
    """

    parts: tuple[tuple[Irrep, np.ndarray, np.ndarray], ...]

    @property
    def multiplicities(self) -> dict[str, int]:
        """Copies of each irreducible by label."""
        return {irrep.label: len(to) for irrep, to, _ in self.parts}


class IrrepTable:
    """The irreducibles of one group that have been met so far, each in one fixed basis.

    Args:
        group: the group.
    """

    @one_thread
    def __init__(self, group: MatrixGroup):
        self.group = group
        self.coordinates = Coordinates(group)
        self.irreps: list[Irrep] = []
        self._grown = 0
        self._levels: dict[tuple[int, int], tuple[int, ...]] = {}
        self._pairs: dict[tuple[int, int], tuple[tuple[int, np.ndarray], ...]] = {}
        self._decompositions: dict[Rep, Decomposition] = {}
        V = self.coordinates.images
        one = [
            np.full((len(m), 1, 1), value)
            for m, value in ((V.discrete, 1.0), (V.lie, 0.0), (V.held_out, 1.0))
        ]
        self._add(Images(*one, "trivial" + V.digest), degree=0)

    # ---- growing --------------------------------------------------------------------------------------------

    def _add(self, images: Images, degree: int) -> int:
        d = images.size
        E = intertwiners(images, images)
        if self.coordinates.completely_reducible:
            symmetric = np.linalg.matrix_rank((E + E.transpose(0, 2, 1)).reshape(len(E), -1), tol=1e-7)
            if len(E) not in TYPES or symmetric != 1:
                raise SolverError(
                    f"{self.group.name}: a piece of dimension {d} has {len(E)} independent endomorphisms ({symmetric} "
                    "symmetric) and is not irreducible. Likely cause: generators with few digits."
                )
            kind = TYPES[len(E)]
            E = division_basis(E)
        else:
            kind, E = None, E * np.sqrt(d)
        discrete, lie = self.coordinates.restore(images)
        same = sum(r.size == d for r in self.irreps)
        label = f"{d}{_letters(same)}"
        irrep = Irrep(
            self.group,
            discrete,
            lie,
            label,
            label=label,
            type=kind,
            degree=degree,
            index=len(self.irreps),
            normal=images,
            endomorphisms=E,
            form=symmetric_form(images),
        )
        self.irreps.append(irrep)
        return irrep.index

    def _match(self, images: Images) -> int | None:
        mine = traces(images)
        for r in self.irreps:
            if r.size != images.size or np.abs(traces(r.normal) - mine).max(initial=0) > 1e-6 * max(
                1.0, np.abs(mine).max(initial=0)
            ):
                continue
            if self.coordinates.completely_reducible:
                if len(intertwiners(images, r.normal)):
                    return r.index
            elif all(
                np.allclose(x, y, rtol=0, atol=1e-12)
                for x, y in ((images.discrete, r.normal.discrete), (images.lie, r.normal.lie))
            ):
                return r.index
        return None

    @one_thread
    def split(self, images: Images, degree: int) -> list[tuple[int, np.ndarray]]:
        """(index, frames (m, n, d)) with ρ frame = frame ρ_index, the frames orthonormal together.

        Irreducibles met for the first time join the table as found in degree ``degree``.
        """
        n = images.size
        if not self.coordinates.completely_reducible:
            index = self._match(images)
            return [(self._add(images, degree) if index is None else index, np.eye(n)[None])]
        classes: dict[int, int] = {}
        for i, Q in enumerate(irreducible_subspaces(images)):
            piece = images.conjugate(Q.T, Q, f"piece {i}")
            index = self._match(piece)
            if index is None and self._grow(degree):
                index = self._match(piece)
            if index is None:
                index = self._add(piece, degree)
            classes[index] = classes.get(index, 0) + 1
        out = []
        for index in sorted(classes):
            frames = self._frames(self.irreps[index], images)
            if len(frames) != classes[index]:
                raise SolverError(
                    f"{self.group.name}: {classes[index]} copies of {self.irreps[index].label} were split off "
                    f"but Hom has room for {len(frames)}"
                )
            out.append((index, frames))
        F = np.concatenate([f.transpose(0, 2, 1).reshape(-1, n) for _, f in out])
        if F.shape != (n, n) or np.abs(F @ F.T - np.eye(n)).max() > 1e-9:
            raise SolverError(
                f"{self.group.name}: the irreducible pieces of a representation of dimension {n} do not fill it"
            )
        return out

    def _frames(self, irrep: Irrep, images: Images) -> np.ndarray:
        """(m, n, d): orthonormal copies of the irreducible in the representation, over its endomorphisms."""
        space = intertwiners(irrep.normal, images) * np.sqrt(irrep.size)
        if len(irrep.endomorphisms) == 1:
            return space
        frames = []
        while len(space):
            frames.append(space[0] * np.sqrt(irrep.size) / np.linalg.norm(space[0]))
            used = (frames[-1] @ irrep.endomorphisms).reshape(len(irrep.endomorphisms), -1)
            used /= np.linalg.norm(used, axis=1, keepdims=True)
            flat = space.reshape(len(space), -1)
            flat = flat - (flat @ used.T) @ used
            flat = canonical(row_space(flat)).T
            space = flat.reshape(-1, images.size, irrep.size)
        return np.stack(frames)

    def pair(self, a: int, b: int) -> tuple[tuple[int, np.ndarray], ...]:
        """a ⊗ b in full: (index c, C (m, d_c, d_a, d_b)) with c(g) C = C (a(g) ⊗ b(g))."""
        if (a, b) not in self._pairs:
            x, y = self.irreps[a], self.irreps[b]
            split = self.split(x.normal.tensor(y.normal), x.degree + y.degree)
            self._pairs[a, b] = tuple(
                (c, f.transpose(0, 2, 1).reshape(len(f), -1, x.size, y.size)) for c, f in split
            )
        return self._pairs[a, b]

    def _grow(self, degree: int) -> bool:
        """Meet all irreducibles of V^⊗p ⊗ V*^⊗q with p + q <= degree, in one order whatever is asked for first."""
        if degree <= self._grown:
            return False
        for total in range(self._grown + 1, degree + 1):
            self._grown = total
            for q in range(total + 1):
                self.level(total - q, q)
        return True

    def level(self, p: int, q: int = 0) -> tuple[int, ...]:
        """Indices of the irreducibles in V^⊗p ⊗ V*^⊗q."""
        self._grow(p + q)
        if (p, q) not in self._levels:
            if p == q == 0:
                self._levels[p, q] = (0,)
            else:
                below = self.level(p - 1, q) if p else self.level(p, q - 1)
                step = VectorRep(self.group) if p else VectorRep(self.group).T
                pieces = [part[0].index for part in self.decompose(step).parts]
                found = {c for i in below for v in pieces for c, _ in self.pair(i, v)}
                self._levels[p, q] = tuple(sorted(found))
        return self._levels[p, q]

    # ---- decomposing ----------------------------------------------------------------------------------------

    @one_thread
    def decompose(self, rep: Rep) -> Decomposition:
        """The change of basis between a bound representation and its irreducibles."""
        if rep._require_bound().digest != self.group.digest:
            raise RepError(f"{rep} belongs to {rep.group.name}, not to {self.group.name}")
        if rep not in self._decompositions:
            self._decompositions[rep] = self._decompose(rep)
        return self._decompositions[rep]

    def _decompose(self, rep: Rep) -> Decomposition:
        if isinstance(rep, ScalarRep):
            return self._assemble([(0, np.ones((1, 1, 1)), np.ones((1, 1, 1)))])
        if isinstance(rep, Irrep) and rep.index < len(self.irreps) and self.irreps[rep.index] == rep:
            one = np.eye(rep.size)[None]
            return self._assemble([(rep.index, one, one)])
        if isinstance(rep, SumRep):
            return self._decompose_sum(rep)
        if isinstance(rep, ProductRep) and self.coordinates.completely_reducible:
            return self._decompose_product(rep)
        images, basis, inverse = self._in_good_coordinates(rep)
        parts = []
        for index, frames in self.split(images, _degree(rep)):
            parts.append((index, frames.transpose(0, 2, 1) @ basis, inverse @ frames))
        return self._assemble(parts)

    def _in_good_coordinates(self, rep: Rep) -> tuple[Images, np.ndarray, np.ndarray]:
        co = self.coordinates
        if isinstance(rep, VectorRep):
            return co.images, co.basis, co.inverse
        if isinstance(rep, DualRep) and isinstance(rep.base, VectorRep):
            return co.images.dual(), co.inverse.T, co.basis.T
        images = co.normalise(rep.images)
        basis = np.eye(rep.size)
        if self.group.is_compact:
            basis = MatrixGroup(
                str(rep), images.discrete, images.lie, d=rep.size, trust_digits=True
            ).orthogonal_basis
            if basis is None:
                raise RepError(
                    f"{rep} preserves no positive form although {self.group.name} is compact: its images on "
                    "the generators are not a representation"
                )
        inverse = np.linalg.inv(basis)
        return images.conjugate(basis, inverse, "orthogonal"), basis, inverse

    def _decompose_sum(self, rep: SumRep) -> Decomposition:
        parts = []
        for n, term, where in rep.slices:
            for irrep, to, back in self.decompose(term).parts:
                for copy in range(n):
                    at = slice(where.start + copy * term.size, where.start + (copy + 1) * term.size)
                    wide = np.zeros((len(to), irrep.size, rep.size))
                    tall = np.zeros((len(to), rep.size, irrep.size))
                    wide[:, :, at], tall[:, at] = to, back
                    parts.append((irrep.index, wide, tall))
        return self._assemble(parts)

    def _decompose_product(self, rep: ProductRep) -> Decomposition:
        first, rest = rep.factors[0], rep.factors[1:]
        left = self.decompose(first)
        right = self.decompose(rest[0] if len(rest) == 1 else ProductRep(rest, rep.group))
        parts = []
        for a, to_a, back_a in left.parts:
            for b, to_b, back_b in right.parts:
                for c, C in self.pair(a.index, b.index):
                    d = self.irreps[c].size
                    to = np.einsum("mcxy,ixp,jyq->ijmcpq", C, to_a, to_b, optimize=True)
                    back = np.einsum("mcxy,ipx,jqy->ijmpqc", C, back_a, back_b, optimize=True)
                    parts.append((c, to.reshape(-1, d, rep.size), back.reshape(-1, rep.size, d)))
        return self._assemble(parts)

    def _assemble(self, parts) -> Decomposition:
        merged: dict[int, list] = {}
        for index, to, back in parts:
            merged.setdefault(index, []).append((to, back))
        return Decomposition(
            tuple(
                (
                    self.irreps[i],
                    np.concatenate([t for t, _ in merged[i]]),
                    np.concatenate([b for _, b in merged[i]]),
                )
                for i in merged
            )
        )

    # ---- maps -----------------------------------------------------------------------------------------------

    def maps(self, a: Irrep, b: Irrep) -> np.ndarray:
        """Basis (r, d_b, d_a) of Hom(a, b), each of Frobenius norm sqrt(d_b): Schur's lemma where it is certified."""
        if a.index == b.index:
            return a.endomorphisms
        if self.coordinates.completely_reducible:
            return np.zeros((0, b.size, a.size))
        return intertwiners(a.normal, b.normal) * np.sqrt(b.size)

    @cached_property
    def trivial(self) -> Irrep:
        return self.irreps[0]


_tables: dict[str, IrrepTable] = {}


def irrep_table(group: MatrixGroup) -> IrrepTable:
    """The table of this group, by content: two groups with the same generators share it."""
    if group.digest not in _tables:
        _tables[group.digest] = IrrepTable(group)
    return _tables[group.digest]


def irreps(group: MatrixGroup, degree: int = 2) -> list[Irrep]:
    """The irreducible representations in V^⊗k for k <= degree, the trivial one first.

    Args:
        group: any matrix group that is compact or closed under transpose.
        degree: highest tensor power of V that is split.

    Returns:
        Bound irreducible representations with ``.type`` ("real", "complex", "quaternionic") and ``.label``.

    Raises:
        SolverError: the group is not certified completely reducible, so pieces need not be irreducible.

    Example:
        >>> [r.label for r in irreps(groups.O(3), degree=2)]
        ['1a', '3a', '3b', '5a']
    """
    if degree < 0:
        raise ValueError(f"degree must be >= 0, got {degree}")
    table = irrep_table(group)
    if not table.coordinates.completely_reducible:
        raise SolverError(
            f"{group.name} is neither compact nor closed under transpose: its representations need not split into "
            "irreducibles. Layers for it work all the same, on unsplit representations."
        )
    found = sorted({i for k in range(degree + 1) for i in table.level(k)})
    return [table.irreps[i] for i in found]


def _degree(rep: Rep) -> int:
    if isinstance(rep, ProductRep):
        return sum(_degree(f) for f in rep.factors)
    if isinstance(rep, SumRep):
        return max((_degree(t) for _, t in rep.parts), default=0)
    if isinstance(rep, DualRep):
        return _degree(rep.base)
    return rep.degree if isinstance(rep, Irrep) else int(not isinstance(rep, ScalarRep))


def _letters(i: int) -> str:
    out = ""
    while True:
        out = string.ascii_lowercase[i % 26] + out
        i = i // 26 - 1
        if i < 0:
            return out
