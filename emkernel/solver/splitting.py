"""Splitting one representation into irreducible subspaces, and what an irreducible piece carries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import SolverError
from ..images import Images
from .nullspace import SMALL, canonical, intertwiners, project, residual
from .orbits import invariant_tensors
from .store import default_store, problem_key

__all__ = ["division_basis", "irreducible_subspaces", "row_space", "symmetric_form"]


@dataclass(frozen=True, eq=False)
class Piece:
    """An irreducible subspace.

    Attributes:
        basis: (n, d) orthonormal.
        real: whether its endomorphisms are multiples of 1 alone.
        images: the representation on it.
    """

    basis: np.ndarray
    real: bool
    images: Images


def irreducible_subspaces(images: Images) -> list[Piece]:
    """The eigenspaces of a random symmetric element of the commutant, real where the same element without symmetry
    shows it."""
    n = images.size
    key = problem_key("pieces", images.digest)
    store = default_store()
    kept = store.get(key)
    if kept is not None:
        pieces, defect = _pieces(images, kept)
        if defect < 1e-8:
            return pieces
        store.discard(key)
    X = _random_endomorphism(images)
    if residual(images, images, X.T) > 1e-7 * np.abs(X).max(initial=1.0):
        raise SolverError(
            "the commutant is not closed under transpose: the representation does not split orthogonally"
        )
    w, U = np.linalg.eigh((X + X.T) / 2)
    cuts = [0, *(np.flatnonzero(np.diff(w) > 1e-6 / np.sqrt(n)) + 1), n]
    bases = [canonical(U[:, i:j]) for i, j in zip(cuts, cuts[1:])]
    real = [np.abs(Q.T @ (X - X.T) @ Q).max() < 1e-6 / np.sqrt(n) for Q in bases]
    solved = {"bases": np.concatenate(bases, 1), "sizes": np.diff(cuts), "real": np.array(real)}
    return _pieces(images, store.put(key, solved))[0]


def _pieces(images: Images, kept: dict[str, np.ndarray]) -> tuple[list[Piece], float]:
    """The pieces as they were kept, and how far they are, on random vectors, from orthonormal, filling the space and
    invariant."""
    bases, sizes, n = kept["bases"], kept["sizes"].astype(int), images.size
    if bases.shape != (n, n) or sizes.sum() != n or len(sizes) != len(kept["real"]):
        return [], np.inf
    x = np.random.default_rng(1).standard_normal((n, 2))
    defect = np.abs(bases.T @ (bases @ x) - x).max()
    pieces = []
    for i, (Q, real) in enumerate(zip(np.split(bases, np.cumsum(sizes)[:-1], axis=1), kept["real"])):
        Q = np.ascontiguousarray(Q)
        piece, moved = images.restricted(Q, f"piece {i}")
        defect = max(defect, moved)
        pieces.append(Piece(Q, bool(real), piece))
    return pieces, defect


def _random_endomorphism(images: Images) -> np.ndarray:
    n = images.size
    X = np.random.default_rng(n).standard_normal((n, n))
    if images.permuted is not None and n * n > SMALL:
        return np.sqrt(n) * invariant_tensors([images.permuted] * 2, most=1)[0]
    if n * n > SMALL:
        return project(images, images, X)
    basis = intertwiners(images, images).reshape(-1, n * n)
    return (basis.T @ (basis @ X.reshape(-1))).reshape(n, n)


def division_basis(E: np.ndarray) -> np.ndarray:
    """1 first, then orthonormal antisymmetric J with J^2 = -1, all of norm sqrt(d)."""
    d = E.shape[1]
    rest = E - np.trace(E, axis1=1, axis2=2)[:, None, None] / d * np.eye(d)
    rest = canonical(row_space(rest.reshape(len(E), -1))).T.reshape(-1, d, d)
    return np.concatenate([np.eye(d)[None], rest * np.sqrt(d)])


def row_space(flat: np.ndarray) -> np.ndarray:
    """Orthonormal basis (n, r) of the span of the rows (m, n)."""
    u, s, _ = np.linalg.svd(flat.T, full_matrices=False)
    return u[:, s > 1e-7]


def symmetric_form(images: Images) -> np.ndarray | None:
    """A symmetric B with g^T B g = B, of norm sqrt(d); None when there is none."""
    d = images.size
    lengths = images.elements.transpose(0, 2, 1) @ images.elements - np.eye(d)
    if max(np.abs(m).max(initial=0) for m in (lengths, images.lie + images.lie.transpose(0, 2, 1))) < 1e-12:
        return np.eye(d)
    forms = intertwiners(images, images.dual())
    forms = (forms + forms.transpose(0, 2, 1)) / 2
    space = row_space(forms.reshape(len(forms), -1)) if len(forms) else np.zeros((d * d, 0))
    if not space.shape[1]:
        return None
    return canonical(space)[:, 0].reshape(d, d) * np.sqrt(d)
