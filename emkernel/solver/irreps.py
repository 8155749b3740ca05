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
from dataclasses import replace
from functools import cached_property

import numpy as np

from .._arguments import whole
from .._progress import working
from ..errors import GroupError, RepError, SolverError
from ..images import Images
from ..matrix_group import MatrixGroup, check_is_group
from ..rep import DualRep, ProductRep, Rep, ScalarRep, SubRep, SumRep, VectorRep
from ._irrep import TYPES, Decomposition, Irrep
from ._representations import in_good_coordinates, name_of_subspace
from .coordinates import Coordinates
from .nullspace import intertwiners, one_thread
from .orbits import fewest_points
from .splitting import division_basis, irreducible_subspaces, symmetric_form

__all__ = ["Decomposition", "Irrep", "IrrepTable", "irrep_table", "irreps"]

LARGEST = 100_000  # largest finite group of which all irreducibles are found


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
        self.couplings: dict[tuple[int, int, int], np.ndarray] = {}
        V = self.coordinates.images
        one = [
            np.full((len(m), 1, 1), value)
            for m, value in ((V.discrete, 1.0), (V.lie, 0.0), (V.held_out, 1.0))
        ]

        def probes():
            return (np.ones((len(V.probes[0]), 1, 1)),) if V.probes else ()

        point = (np.zeros((len(V.discrete), 1), int), np.ones((1, 1))) if V.permuted else None
        self._add(Images(*one, "trivial" + V.digest, probes, point), degree=0)

    # ---- growing --------------------------------------------------------------------------------------------

    def _add(self, images: Images, degree: int, real: bool = False) -> int:
        d, images = images.size, images.with_unitary_probes()
        if images.permuted:
            images = replace(images, permuted=fewest_points(*images.permuted))
        E = np.eye(d)[None] / np.sqrt(d) if real and images.error is None else intertwiners(images, images)
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

    def _match(self, images: Images) -> tuple[int, np.ndarray] | None:
        """(index, W (n, d) with images W = W ρ_index) of the irreducible that these images are, if it was met."""
        mine = images.traces
        allowed = 1e-6 * max(1.0, np.abs(mine).max(initial=0))
        for r in self.irreps:
            if r.size != images.size or np.abs(r.normal.traces - mine).max(initial=0) > allowed:
                continue
            if self.coordinates.completely_reducible:
                maps = intertwiners(r.normal, images)
                if len(maps):
                    W, one = maps[0] * np.sqrt(r.size), np.eye(r.size)
                    # the piece itself, met again: no other basis than when it was met first
                    return r.index, one if np.abs(W - one).max() < 1e-9 else W
            elif all(
                np.allclose(x, y, rtol=0, atol=1e-12)
                for x, y in ((images.discrete, r.normal.discrete), (images.lie, r.normal.lie))
            ):
                return r.index, np.eye(r.size)
        return None

    @one_thread
    def split(self, images: Images, degree: int) -> list[tuple[int, np.ndarray]]:
        """(index, frames (m, n, d)) with ρ frame = frame ρ_index, the frames orthonormal together.

        Irreducibles met for the first time join the table as found in degree ``degree``.
        """
        n = images.size
        if not self.coordinates.completely_reducible:
            match = self._match(images)
            return [(match[0] if match else self._add(images, degree), np.eye(n)[None])]
        frames: dict[int, list[np.ndarray]] = {}
        for piece in irreducible_subspaces(images):
            match = self._match(piece.images)
            if match is None and self._grow(degree):
                match = self._match(piece.images)
            index, W = match or (self._add(piece.images, degree, piece.real), np.eye(piece.images.size))
            frames.setdefault(index, []).append(piece.basis @ W)
        F = np.concatenate([f for same in frames.values() for f in same], 1)
        if F.shape != (n, n) or np.abs(F.T @ F - np.eye(n)).max() > 1e-9:
            raise SolverError(
                f"{self.group.name}: the irreducible pieces of a representation of dimension {n} do not fill it"
            )
        return [(index, np.stack(frames[index])) for index in sorted(frames)]

    def pair(self, a: int, b: int) -> tuple[tuple[int, np.ndarray], ...]:
        """a ⊗ b in full: (index c, C (m, d_c, d_a, d_b)) with c(g) C = C (a(g) ⊗ b(g))."""
        if (a, b) not in self._pairs:
            x, y = self.irreps[a], self.irreps[b]
            # a large product is split once, not again for the irreducibles that it brings
            if x.size * y.size > 200 and self._grow(x.degree + y.degree) and (a, b) in self._pairs:
                return self._pairs[a, b]
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
            with working(f"irreducibles of {self.group.name} in products of {total} vectors"):
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
        if not rep.size:
            return Decomposition(())
        if isinstance(rep, ScalarRep):
            return self._assemble([(0, np.ones((1, 1, 1)), np.ones((1, 1, 1)))], True)
        if isinstance(rep, Irrep) and rep.index < len(self.irreps) and self.irreps[rep.index] == rep:
            one = np.eye(rep.size)[None]
            return self._assemble([(rep.index, one, one)], True)
        if isinstance(rep, SumRep):
            return self._decompose_sum(rep)
        if isinstance(rep, ProductRep) and self.coordinates.completely_reducible:
            return self._decompose_product(rep)
        if isinstance(rep, SubRep) and self.coordinates.completely_reducible:
            return self._decompose_sub(rep)
        if isinstance(rep, DualRep) and self.coordinates.completely_reducible and not isinstance(rep.base, VectorRep):
            return self._decompose_dual(rep)
        images, basis, inverse = in_good_coordinates(self, rep)
        parts = []
        for index, frames in self.split(images, _degree(rep)):
            parts.append((index, frames.transpose(0, 2, 1) @ basis, inverse @ frames))
        return self._assemble(parts, np.array_equal(basis, np.eye(len(basis))))

    def _decompose_sub(self, rep: SubRep) -> Decomposition:
        """The base in its irreducibles, the subspace in an orthonormal basis of those coordinates."""
        copies = [(irrep, m) for irrep, to, _ in self.decompose(rep.base).parts for m in to]
        to = np.concatenate([m for _, m in copies])
        Q, R = np.linalg.qr(to @ rep.back)
        images = Images.direct_sum([irrep.normal for irrep, _ in copies]).conjugate(Q.T, Q, name_of_subspace(rep))
        back = np.linalg.inv(R)
        parts = []
        for index, frames in self.split(images, _degree(rep)):
            parts.append((index, frames.transpose(0, 2, 1) @ R, back @ frames))
        return self._assemble(parts)

    def _decompose_dual(self, rep: DualRep) -> Decomposition:
        """Where to: ρ -> c, transposed back: ρ* -> c*."""
        parts = []
        for irrep, to, back in self.decompose(rep.base).parts:
            for index, frames in self.split(irrep.normal.dual(), irrep.degree):
                (frame,) = frames
                parts.append((index, frame.T @ back.transpose(0, 2, 1), to.transpose(0, 2, 1) @ frame))
        return self._assemble(parts)

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
        both = left.orthogonal and right.orthogonal
        parts = []
        for a, to_a, back_a in left.parts:
            for b, to_b, back_b in right.parts:
                for c, C in self.pair(a.index, b.index):
                    to = _joined(C, to_a, to_b)
                    back = to.transpose(0, 2, 1)
                    if not both:
                        back = _joined(C, back_a.transpose(0, 2, 1), back_b.transpose(0, 2, 1)).transpose(0, 2, 1)
                    parts.append((c, to, back))
        return self._assemble(parts, both)

    def _assemble(self, parts, orthogonal: bool = False) -> Decomposition:
        merged: dict[int, list] = {}
        for index, to, back in parts:
            merged.setdefault(index, []).append((to, back))
        joined = []
        for i, copies in merged.items():
            to = np.concatenate([t for t, _ in copies])
            back = to.transpose(0, 2, 1) if orthogonal else np.concatenate([b for _, b in copies])
            joined.append((self.irreps[i], to, back))
        return Decomposition(tuple(joined), orthogonal)

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


_tables: dict[tuple[str, bool], IrrepTable] = {}


def irrep_table(group: MatrixGroup) -> IrrepTable:
    """The table of this group, by content: two groups with the same generators, equally trusted, share it."""
    check_is_group(group)
    key = group.digest, group._trusted
    if key not in _tables:
        _tables[key] = IrrepTable(group)
    return _tables[key]


def irreps(group: MatrixGroup, degree: int | None = 2) -> list[Irrep]:
    """The irreducible representations in V^⊗k for k <= degree, the trivial one first; or all of a finite group.

    Every irreducible of a finite group is in some power of V, which is faithful (Burnside): products with V are
    split until the regular representation is full, Σ d²/e = |G| with e = dim End = 1, 2, 4 by type.

    Args:
        group: any group that is compact or, in some basis, closed under transpose.
        degree: highest tensor power of V that is split; None for all irreducibles of a finite group.

    Returns:
        Bound irreducible representations with ``.type`` ("real", "complex", "quaternionic") and ``.label``.

    Raises:
        SolverError: the group is not certified completely reducible, so pieces need not be irreducible.
        ValueError: degree < 0.
        GroupError: all irreducibles are asked for, of an infinite group or one of more than 100,000 elements.

    Example:
        >>> [r.label for r in ek.irreps(groups.O(3), degree=2)]
        ['1a', '3a', '3b', '5a']
        >>> [r.label for r in ek.irreps(groups.Octa(), degree=None)]
        ['1a', '3a', '3b', '2a', '1b']
    """
    degree = None if degree is None else whole(degree, "degree", 0)
    table = irrep_table(group)
    if not table.coordinates.completely_reducible:
        raise SolverError(
            f"{group.name} is not known to be compact or reductive: its representations need not split into "
            "irreducibles. Layers for it work all the same, on unsplit representations."
        )
    if degree is None:
        return _all_irreps(table)
    found = sorted({i for k in range(degree + 1) for i in table.level(k)})
    return [table.irreps[i] for i in found]


def _all_irreps(table: IrrepTable) -> list[Irrep]:
    group = table.group
    if group.order is None:
        raise GroupError(f"{group.name} is infinite and has infinitely many irreducibles; ask for those up to a degree")
    if group.order > LARGEST:
        raise GroupError(
            f"{group.name} has {group.order} elements, and all irreducibles are found of groups of at most {LARGEST}: "
            "their dimensions squared add up to the order. Ask for those up to a degree."
        )
    found: dict[int, Irrep] = {}
    degree, filled = 0, 0
    while True:
        fresh = [table.irreps[i] for i in table.level(degree) if i not in found]
        found.update((r.index, r) for r in fresh)
        filled += sum(r.size**2 // len(r.endomorphisms) for r in fresh)
        if filled == group.order:
            return [found[i] for i in sorted(found)]
        degree += 1
        if filled > group.order or degree > group.order:
            raise SolverError(
                f"{group.name}: irreducibles up to degree {degree - 1} fill {filled} dimensions of the regular "
                f"representation, which has {group.order}. Likely cause: generators with few digits."
            )


def _degree(rep: Rep) -> int:
    if isinstance(rep, ProductRep):
        return sum(_degree(f) for f in rep.factors)
    if isinstance(rep, SumRep):
        return max((_degree(t) for _, t in rep.parts), default=0)
    if isinstance(rep, (DualRep, SubRep)):
        return _degree(rep.base)
    return rep.degree if isinstance(rep, Irrep) else int(not isinstance(rep, ScalarRep))


def _joined(C: np.ndarray, to_a: np.ndarray, to_b: np.ndarray) -> np.ndarray:
    """(m, d, x, y), (i, x, p), (j, y, q) -> (i j m, d, p q): the frames of a product."""
    (m, d, x, y), (i, _, p), (j, _, q) = C.shape, to_a.shape, to_b.shape
    half = C.reshape(m * d * x, y) @ to_b.transpose(1, 0, 2).reshape(y, j * q)
    full = to_a.transpose(0, 2, 1).reshape(i * p, x) @ half.reshape(m * d, x, j * q)
    return full.reshape(m, d, i, p, j, q).transpose(2, 4, 0, 1, 3, 5).reshape(i * j * m, d, p * q)


def _letters(i: int) -> str:
    out = ""
    while True:
        out = string.ascii_lowercase[i % 26] + out
        i = i // 26 - 1
        if i < 0:
            return out
