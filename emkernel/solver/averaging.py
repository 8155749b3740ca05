"""Invariant tensors of a reductive group by averaging over a few elements of its compact dual.

A tensor is fixed by a reductive group exactly when the mean M of unitary elements that generate (a dense subgroup of)
its compact dual fixes it: the eigenspace of M at 1, separated from the rest by the spectral gap of a random walk, which
is wide where the generators as given are nearly the identity or badly conditioned. One further element reduces the
problem to tensors of weight zero: in a basis of its eigenvectors only the entries whose eigenvalues multiply to 1
remain, and M between two of them is a product of single matrix entries. Neither the tensor product of the
representations nor the constraint is ever formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import scipy.linalg

from ..errors import SolverError

__all__ = ["fixed_tensors", "projected"]

WEIGHT = 1e-6  # eigenvalues that multiply to 1 within this may belong to an invariant
ZERO, NONZERO = 1e-12, 1e-7  # of 1 - M: squares of the deviations that the constraint itself would show
SURE = 1e-10  # the least that is not zero where all that errors do is known
LETTERS = 100  # of generators in a probe, about: its error in units of theirs
DENSE = 1500  # tensors of weight zero for which the mean is a matrix
# elements that are averaged where it is not: they generate the group, or the answer fails its verification
AVERAGED = 4


def fixed_tensors(factors: Sequence[np.ndarray], error: float | None = None) -> np.ndarray:
    """Orthonormal real tensors (r, n_1, ..., n_k) that u_1 ⊗ ... ⊗ u_k fixes for every probe.

    Args:
        factors: for each factor (S, n_i, n_i) unitary matrices, the same elements for all.
        error: of the generators' tensor products, where their digits say so.

    Raises:
        SolverError: no clear gap in the spectrum of 1 - M: beside those that are fixed there are tensors that may be.
    """
    shape = tuple(f.shape[-1] for f in factors)
    eigen = [_eigenbasis(f[0]) for f in factors]
    weight = np.ones(())
    for w, _ in eigen:
        weight = np.multiply.outer(weight, w)
    index = np.argwhere(np.abs(weight - 1) < max(WEIGHT, LETTERS * (error or 0)))
    if not len(index):
        return np.zeros((0, *shape))
    if len(index) > DENSE:
        if error:
            raise SolverError(
                f"among {len(index)} tensors, those that are invariant are not told from those that deviate by the "
                f"error {error:.0e} that the digits of the generators leave. Write them in full precision."
            )
        return _by_projection(factors, shape)
    rotated = [Q.conj().T @ f[1:] @ Q for f, (_, Q) in zip(factors, eigen)]
    found = _eigenvectors_at_one(rotated, index, max(NONZERO if error is None else SURE, (LETTERS * (error or 0)) ** 2))
    full = np.zeros((found.shape[1], *shape), complex)
    full[(slice(None), *index.T)] = found.T
    for axis, (_, Q) in enumerate(eigen, 1):
        full = _along(Q, full, axis)
    return _real_forms(full.reshape(len(full), prod(shape)), shape)


def projected(a: Sequence[np.ndarray], b: Sequence[np.ndarray], X: np.ndarray) -> np.ndarray:
    """Orthogonal projection of real X (n_b, n_a) on the maps that intertwine probes, given by Kronecker factors."""
    factors = [*b, *(p.conj() for p in a)]
    shape = tuple(f.shape[-1] for f in factors)
    X = X.reshape(shape).astype(np.result_type(*factors))
    return _null_part(lambda z: z - _mean(factors, z), X).real.reshape(prod(p.shape[-1] for p in b), -1)


def _mean(factors: Sequence[np.ndarray], x: np.ndarray) -> np.ndarray:
    """The mean of all probes and their inverses, applied to a tensor (n_1, ..., n_k)."""
    out = np.zeros_like(x)
    for s in range(len(factors[0])):
        for adjoint in (False, True):
            moved = x
            for axis, f in enumerate(factors):
                moved = _along(f[s].conj().T if adjoint else f[s], moved, axis)
            out += moved
    return out / (2 * len(factors[0]))


def _eigenbasis(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (n,) and eigenvectors (n, n), unitary, of a unitary matrix."""
    T, Q = scipy.linalg.schur(u, output="complex")
    return np.diag(T) / np.abs(np.diag(T)), Q


def _along(m: np.ndarray, x: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(np.tensordot(m, x, (1, axis)), 0, axis)


def _eigenvectors_at_one(rotated: list[np.ndarray], index: np.ndarray, nonzero: float) -> np.ndarray:
    """(m, r) coefficients of the invariants on the tensors of weight zero."""
    mean = np.zeros((len(index),) * 2, complex)
    for s in range(len(rotated[0])):
        entries = np.ones(1)
        for f, i in zip(rotated, index.T):
            entries = entries * f[s][np.ix_(i, i)]
        mean += entries
    mean = (mean + mean.conj().T) / (2 * len(rotated[0]))
    w, U = np.linalg.eigh(np.eye(len(mean)) - mean)
    rank = int((w < ZERO).sum())
    if rank < len(w) and w[rank] < nonzero:
        raise SolverError(
            f"no clear gap: among {len(w)} tensors of weight zero {rank} are invariant and the next deviates by "
            f"{np.sqrt(w[rank]):.1e}, where {np.sqrt(nonzero):.0e} is beyond doubt. Likely cause: generators with few "
            "digits, or in a badly conditioned basis; write them in full precision."
        )
    return U[:, :rank]


def _by_projection(factors: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The same without the mean as a matrix: random tensors are projected one by one until nothing new comes."""
    few = [f[:AVERAGED] for f in factors]
    rng = np.random.default_rng(0)
    found = np.zeros((0, prod(shape)))
    while True:
        x = rng.standard_normal(prod(shape))
        x = (x - found.T @ (found @ x)).reshape(shape).astype(np.result_type(*few))
        x = _null_part(lambda z: z - _mean(few, z), x).real.reshape(-1)
        x = x - found.T @ (found @ x)
        if np.linalg.norm(x) < 1e-6:
            return found.reshape(-1, *shape)
        found = np.concatenate([found, x[None] / np.linalg.norm(x)])


def _null_part(defect, x: np.ndarray) -> np.ndarray:
    """Projection of x on the nullspace of the positive semidefinite ``defect``, by conjugate gradients."""
    start = max(np.linalg.norm(x), 1e-300)
    for _ in range(3):
        r = -defect(x)
        direction, rs = r.copy(), np.vdot(r, r).real
        for _ in range(400):
            if np.sqrt(rs) <= 3e-15 * start:
                break
            moved = defect(direction)
            curvature = np.vdot(direction, moved).real
            if curvature <= 0:
                break
            x = x + rs / curvature * direction
            r = r - rs / curvature * moved
            new = np.vdot(r, r).real
            direction, rs = r + new / rs * direction, new
        rest = np.linalg.norm(defect(x))
        if rest <= 1e-13 * start:
            return x
    if rest > 1e-9 * start:
        raise SolverError(
            f"averaging over the group stops at a residual of {rest / start:.1e}. Likely cause: generators nearly the "
            "identity, or in a badly conditioned basis."
        )
    return x


def _real_forms(full: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An orthonormal real basis (r, *shape) of a complex space (r, n) that complex conjugation preserves."""
    u, s, _ = np.linalg.svd(np.concatenate([full.real, full.imag]).T, full_matrices=False)
    rank = int((s > 1e-6).sum())
    if rank != len(full):
        raise SolverError(
            f"{len(full)} complex invariants span {rank} real ones: the probes are not those of a real representation"
        )
    return u[:, :rank].T.reshape(rank, *shape)
