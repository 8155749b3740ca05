"""Whether the equivariant maps and couplings of a group are equivariant, independent, and all there are."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from ._conditioning import tolerance
from ._equivariance import sample_elements
from ._reports import Sheet
from .characters import inner_product
from .group_element import GroupElement
from .matrix_group import MatrixGroup
from .relations import WORDS
from .rep import Rep, V
from .solver.coupling import couplings, equivariant_basis
from .solver.irreps import Irrep, irrep_table

__all__ = ["Count", "check_basis", "check_couplings", "intertwining", "tolerance_of", "triples_of", "unseen"]

LISTED = 20_000  # largest finite group whose characters are averaged
UNKNOWNS = 400  # largest nullspace problem that is solved again for its dimension
ENTRIES = 10_000_000  # largest basis of maps, in numbers, that is built
UNSPLIT = 4000  # largest nullspace problem of representations that do not split
COUPLED = 50_000  # largest product of the dimensions of a triple
TRIPLES = 60


def tolerance_of(*reps: Rep) -> float:
    """The error in float64 that exact maps between representations may have."""
    return tolerance(torch.float64, reps)


@lru_cache(maxsize=2)
def unseen(G: MatrixGroup) -> tuple[GroupElement, ...]:
    """The discrete generators, and elements that nothing was solved on."""
    return tuple(g for _, g in sample_elements(G, WORDS))


class Count:
    """dim Hom(a, b) by characters of all elements, or by the singular values of the user's generators."""

    def __init__(self, G: MatrixGroup):
        self._listed = (G.order or np.inf) <= LISTED

    def __call__(self, a: Rep, b: Rep) -> int | None:
        if self._listed:
            return inner_product(a, b)
        if not _is_small(a, b):
            return None
        blocks = [np.zeros((1, a.size * b.size))]
        for p, q in zip(_orthogonal(a), _orthogonal(b)):
            block = np.kron(q, np.eye(a.size)) - np.kron(np.eye(b.size), p.T)
            blocks.append(block / max(1e-300, np.linalg.norm(p, 2), np.linalg.norm(q, 2)))
        s = np.linalg.svd(np.concatenate(blocks), compute_uv=False)
        s = s / max(1.0, s[0])
        clear = not ((s > 1e-10) & (s < 1e-6)).any()
        return a.size * b.size - int((s > 1e-8).sum()) if clear else None


def _orthogonal(rep: Rep) -> np.ndarray:
    """Images of all generators, (M + D, n, n), in a basis where a compact group is orthogonal."""
    images, units = rep.images, rep.units
    images = images.conjugate(np.diag(units), np.diag(1 / units), "units")
    both = np.concatenate([images.discrete, images.lie])
    defects = [np.abs(h.T @ h - np.eye(rep.size)).max() for h in images.discrete]
    defects += [np.abs(A + A.T).max() / max(np.abs(A).max(), 1e-300) for A in images.lie]
    if not rep._require_bound().is_compact or max(defects, default=0.0) < 1e-9:
        return both
    basis = MatrixGroup(str(rep), images.discrete, images.lie, d=rep.size, trust_digits=True).orthogonal_basis
    return both if basis is None else basis @ both @ np.linalg.inv(basis)


def check_basis(sheet: Sheet, a: Rep, b: Rep, count: Count) -> None:
    """The lines on Hom(a, b)."""
    many = _maps_between(a, b)
    if many * a.size * b.size > ENTRIES:
        sheet.refuse(f"the basis of Hom({a}, {b}): {many} maps of {a.size} x {b.size} are too large to build")
        return
    if many < 0 and a.size * b.size > UNSPLIT:
        sheet.refuse(
            f"the basis of Hom({a}, {b}): {a.size} x {b.size} unknowns without irreducibles are too many"
        )
        return
    basis, expected = equivariant_basis(a, b), count(a, b)
    error = intertwining(basis, a, b)
    # orthonormal as it stands, or where units are far apart without them
    flats = (m.reshape(-1, a.size * b.size) for m in (basis, basis * b.units[:, None] / a.units))
    error = max(error, min(np.abs(f @ f.T - np.eye(len(f))).max(initial=0) for f in flats))
    sheet.line(f"Hom({a}, {b}) is equivariant and orthonormal", error, tolerance_of(a, b))
    name = f"Hom({a}, {b}) is complete"
    if expected is not None:
        note = f"{len(basis)} maps, {expected} by an independent count"
        sheet.line(name, abs(len(basis) - expected), 0, note)
    else:
        why = "the singular values of the generators, in the basis given, have no clear gap"
        why = why if _is_small(a, b) else f"{a.size} x {b.size} unknowns are too many"
        sheet.refuse(f"an independent count of Hom({a}, {b}), {len(basis)} maps: {why}")


def _is_small(a: Rep, b: Rep) -> bool:
    """Whether dim Hom(a, b) can be counted by singular values."""
    return a.size * b.size <= UNKNOWNS and max(a.size, b.size) <= UNKNOWNS // 4


def _maps_between(a: Rep, b: Rep) -> int:
    """dim Hom(a, b) by Schur's lemma; -1 where representations do not split."""
    table = irrep_table(a._require_bound())
    if not table.coordinates.completely_reducible:
        return -1
    copies = table.decompose(b).multiplicities
    return sum(
        len(to) * copies.get(r.label, 0) * len(r.endomorphisms) for r, to, _ in table.decompose(a).parts
    )


def intertwining(maps: np.ndarray, a: Rep, b: Rep) -> float:
    """Largest violation of W a(g) = b(g) W by maps (r, b.size, a.size) on elements they were not solved on."""
    error, maps = 0.0, maps * b.units[:, None] / a.units
    for g in unseen(a._require_bound()):
        before, after = (r.rho(g) * r.units[:, None] / r.units for r in (a, b))
        size = max(1.0, np.abs(before).max(), np.abs(after).max())
        error = max(error, np.abs(maps @ before - after @ maps).max(initial=0) / size)
    return error


def check_couplings(sheet: Sheet, G: MatrixGroup, pieces: list[Irrep], count: Count) -> None:
    """The lines on Hom(a ⊗ b, c) for the pieces, a one of those of V."""
    table = irrep_table(G)
    done, left = triples_of(G, pieces)
    splits = table.coordinates.completely_reducible
    error, wrong, found, counted = 0.0, 0, 0, 0
    for a, b, c in done:
        C = np.asarray(couplings(table, a, b, c))
        maps, joint = C.reshape(len(C), c.size, a.size * b.size), a * b
        error, found = max(error, intertwining(maps, joint, c)), found + len(C)
        expected = count(joint, c)
        if expected is not None:
            wrong, counted = wrong + abs(len(C) - expected), counted + 1
    if not done:
        sheet.fact("no triples of nontrivial pieces")
    else:
        sheet.fact(f"{found} couplings in {len(done)} triples a ⊗ b -> c of nontrivial a, b, with a in V")
        tol = tolerance_of(*({a for t in done for a in t} if splits else [V(G)]))
        sheet.line("couplings are equivariant on unseen elements", error, tol)
    if counted:
        sheet.line("couplings are complete", wrong, 0, f"{counted} triples counted independently")
    if len(done) > counted:
        sheet.refuse(
            f"an independent count of the other {len(done) - counted} triples: too large, or no clear gap"
        )
    if left:
        sheet.refuse(
            f"couplings of {left} larger triples, of {left + len(done)}: at most {TRIPLES}, and "
            f"{COUPLED if splits else UNSPLIT:,} unknowns each"
        )


def triples_of(G: MatrixGroup, pieces: list[Irrep]) -> tuple[list[tuple[Irrep, Irrep, Irrep]], int]:
    """(the triples a, b, c whose couplings are checked, the number of larger ones); a of V, a and b nontrivial."""
    table = irrep_table(G)
    first = [p[0] for p in table.decompose(V(G)).parts]
    triples = [(a, b, c) for a in first for b in pieces for c in pieces if not (a.is_trivial or b.is_trivial)]
    triples.sort(key=lambda t: t[0].size * t[1].size * t[2].size)
    largest = COUPLED if table.coordinates.completely_reducible else UNSPLIT
    done = [t for t in triples if t[0].size * t[1].size * t[2].size <= largest][:TRIPLES]
    return done, len(triples) - len(done)
