"""Lie algebras of matrices as orthonormal bases, and whether an element lies in the group of one."""

import numpy as np
import scipy.linalg

from emkernel.matrix_group import MatrixGroup


def closure(group: MatrixGroup) -> np.ndarray:
    """Orthonormal basis (m, d, d) of the span of the A_k under brackets and under h A h^-1."""
    d = group.d
    basis = np.zeros((0, d * d))
    items = [a for a in group.lie_algebra if np.any(a)]
    while items:
        fresh = []
        for a in items:
            v = a.reshape(-1) / np.linalg.norm(a)
            v = v - basis.T @ (basis @ v)
            v = v - basis.T @ (basis @ v)
            if np.linalg.norm(v) > 1e-8:
                basis = np.concatenate([basis, v[None] / np.linalg.norm(v)])
                fresh.append(basis[-1].reshape(d, d))
        items = [a @ b - b @ a for a in fresh for b in basis.reshape(-1, d, d)]
        items += [h @ a @ np.linalg.inv(h) for h in group.discrete_generators for a in fresh]
        items = [a for a in items if np.linalg.norm(a) > 1e-9]
    return basis.reshape(-1, d, d)


def outside(a: np.ndarray, basis: np.ndarray) -> float:
    """The part of a beyond the span of an orthonormal basis, relative to max(1, |a|)."""
    flat, v = basis.reshape(len(basis), a.size), a.reshape(-1)
    return float(np.linalg.norm(v - flat.T @ (flat @ v)) / max(1.0, np.linalg.norm(v)))


def is_connected_to_one(g: np.ndarray, algebra: np.ndarray, tries: int = 24) -> bool:
    """Whether g is seen to be exp(X) exp(Y), X and Y in the algebra; False means no more than not seen."""
    if np.abs(g - np.eye(len(g))).max() < 1e-9 * max(1.0, np.abs(g).max()):
        return True
    rng = np.random.default_rng(0)
    for _ in range(tries if len(algebra) else 0):
        turned = g @ scipy.linalg.expm(np.tensordot(rng.standard_normal(len(algebra)), algebra, 1))
        if np.linalg.eigvals(turned).real.min() < 0 and np.abs(np.linalg.eigvals(turned).imag).max() < 1e-9:
            continue
        log = scipy.linalg.logm(turned)
        if np.abs(log.imag).max(initial=0) < 1e-8 and outside(log.real, algebra) < 1e-7:
            return True
    return False
