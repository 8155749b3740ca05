"""Splitting one representation into irreducible subspaces, and what an irreducible piece carries."""

from __future__ import annotations

import numpy as np

from ..errors import SolverError
from ..images import Images
from .nullspace import SMALL, canonical, intertwiners, project, residual
from .orbits import invariant_tensors
from .store import default_store, problem_key

__all__ = ["division_basis", "irreducible_subspaces", "row_space", "symmetric_form", "traces"]


def irreducible_subspaces(images: Images) -> list[tuple[np.ndarray, bool]]:
    """The eigenspaces of a random symmetric element of the commutant.

    Returns:
        (Q (n, d), real) for each: an orthonormal basis, and whether its endomorphisms are multiples of 1 alone, as the
        same element without symmetry shows.
    """
    n = images.size
    key = problem_key("pieces", images.digest)
    store = default_store()
    kept = store.get(key)
    if kept is not None:
        pieces = _pieces(kept)
        if _are_invariant(images, pieces):
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
    return _pieces(store.put(key, solved))


def _pieces(kept: dict[str, np.ndarray]) -> list[tuple[np.ndarray, bool]]:
    parts = np.split(kept["bases"], np.cumsum(kept["sizes"])[:-1].astype(int), axis=1)
    return [(np.ascontiguousarray(Q), bool(real)) for Q, real in zip(parts, kept["real"])]


def _random_endomorphism(images: Images) -> np.ndarray:
    n = images.size
    X = np.random.default_rng(n).standard_normal((n, n))
    if images.permuted is not None and n * n > SMALL:
        return np.sqrt(n) * invariant_tensors([images.permuted] * 2, most=1)[0]
    if n * n > SMALL:
        return project(images, images, X)
    basis = intertwiners(images, images).reshape(-1, n * n)
    return (basis.T @ (basis @ X.reshape(-1))).reshape(n, n)


def _are_invariant(images: Images, pieces: list[tuple[np.ndarray, bool]]) -> bool:
    Q = np.concatenate([p for p, _ in pieces], 1)
    if Q.shape != (images.size,) * 2 or np.abs(Q.T @ Q - np.eye(images.size)).max() > 1e-9:
        return False
    return all(residual(images.conjugate(p.T, p, ""), images, p) < 1e-8 for p, _ in pieces)


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
    dual = images.dual()
    if all(
        np.abs(x - y).max(initial=0) < 1e-12
        for x, y in zip((images.discrete, images.lie), (dual.discrete, dual.lie))
    ):
        return np.eye(d)
    forms = intertwiners(images, dual)
    forms = (forms + forms.transpose(0, 2, 1)) / 2
    space = row_space(forms.reshape(len(forms), -1)) if len(forms) else np.zeros((d * d, 0))
    if not space.shape[1]:
        return None
    return canonical(space)[:, 0].reshape(d, d) * np.sqrt(d)


def traces(images: Images) -> np.ndarray:
    """The traces of all matrices: equal for equivalent representations."""
    return np.concatenate(
        [np.trace(m, axis1=1, axis2=2) for m in (images.discrete, images.lie, images.held_out)]
    )
