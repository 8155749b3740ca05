"""The exact group near generators that carry rounding.

Generators written in a basis of condition c come out of it with errors of c² units of rounding, too many for a clear
rank. Reductive groups are rigid: near a subspace of matrices that is almost closed under brackets there is one that is
closed, and Newton's method finds it; a generator is then moved on it, and a finite order or a rational ratio of
frequencies that was missed by rounding is restored.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import scipy.linalg

__all__ = ["polished_group"]

UNKNOWNS = 1200


def polished_group(
    discrete: np.ndarray, lie: np.ndarray, hull: np.ndarray, orders: tuple[int | None, ...], noise: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Generators (M, d, d), (D, d, d) moved by no more than the noise to where they generate an exact group.

    Args:
        discrete, lie: generators of a group that is closed under transpose up to noise, Lie generators of norm 1.
        hull: (m, d, d) orthonormal basis of its Lie algebra.
        orders: of the discrete generators, None where infinite.
        noise: relative error of the generators.

    Returns:
        None when there is no such group within the noise.
    """
    algebra = _polished_algebra(hull, discrete)
    if algebra is None:
        return None
    if len(algebra) == 1:
        algebra = _commensurate(algebra, noise)
    flat = _flat(algebra)
    new_lie = (_flat(lie) @ flat.T @ flat).reshape(lie.shape)
    new_discrete = [_polished_component(h, algebra, q) for h, q in zip(discrete, orders)]
    new_discrete = np.array(new_discrete).reshape(discrete.shape)
    moved = max(np.abs(new_lie - lie).max(initial=0), np.abs(new_discrete - discrete).max(initial=0))
    return (new_discrete, new_lie) if moved < noise else None


def _parts(hull: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Orthonormal bases of the antisymmetric and the symmetric matrices of a space closed under transpose."""
    out = []
    for sign in (-1, 1):
        _, s, vh = np.linalg.svd(_flat(hull + sign * hull.transpose(0, 2, 1)) / 2, full_matrices=False)
        out.append(vh[s > 0.5].reshape(-1, *hull.shape[1:]))
    return (out[0], out[1]) if len(out[0]) + len(out[1]) == len(hull) else None


def _polished_algebra(hull: np.ndarray, discrete: np.ndarray) -> np.ndarray | None:
    """The Lie algebra near the hull that is closed under brackets, transpose and conjugation; orthonormal."""
    d = hull.shape[-1]
    parts = _parts(hull)
    if parts is None:
        return None
    turns = [scipy.linalg.polar(h)[0] for h in discrete]
    for _ in range(6):
        B = np.concatenate(parts)
        flat = _flat(B)
        outside = np.eye(d * d) - flat.T @ flat
        i, j = np.triu_indices(len(B), 1)
        brackets = (B[i] @ B[j] - B[j] @ B[i]).reshape(-1, d * d)
        moved = [(h.T @ B @ h).reshape(-1, d * d) for h in turns]
        rest = np.concatenate([brackets, *moved]) @ outside
        if np.abs(rest).max(initial=0) < 1e-14:
            break
        directions = []
        for start, part in ((0, parts[0]), (len(parts[0]), parts[1])):
            sign = -1 if part is parts[0] else 1
            for C in _complement(part, sign):
                directions += [(start + k, C) for k in range(len(part))]
        if len(directions) > UNKNOWNS:
            return None
        columns = []
        for k, C in directions:
            N = np.zeros_like(B)
            N[k] = C
            change = (N[i] @ B[j] - B[j] @ N[i] + B[i] @ N[j] - N[j] @ B[i]).reshape(-1, d * d)
            changes = [change, *((h.T @ N @ h).reshape(-1, d * d) for h in turns)]
            n = N.reshape(len(B), d * d)
            rows = [c @ outside - (b @ flat.T) @ n for c, b in zip(changes, [brackets, *moved])]
            columns.append(np.concatenate(rows).reshape(-1))
        if not columns:
            break
        x = np.linalg.lstsq(np.array(columns).T, -rest.reshape(-1), rcond=1e-6)[0]
        new = B.copy()
        for (k, C), step in zip(directions, x):
            new[k] += step * C
        cut = len(parts[0])
        parts = tuple(_orthonormal(p) for p in (new[:cut], new[cut:]))
    return np.concatenate(parts)


def _complement(part: np.ndarray, sign: int) -> np.ndarray:
    """Orthonormal basis of the (anti)symmetric matrices orthogonal to these."""
    d = part.shape[-1]
    units = np.eye(d * d).reshape(-1, d, d)
    units = (units + sign * units.transpose(0, 2, 1)).reshape(-1, d * d)
    flat = _flat(part)
    units = units - units @ flat.T @ flat
    _, s, vh = np.linalg.svd(units, full_matrices=False)
    return vh[s > 0.5].reshape(-1, d, d)


def _orthonormal(m: np.ndarray) -> np.ndarray:
    u, _, vh = np.linalg.svd(_flat(m), full_matrices=False)
    return (u @ vh).reshape(m.shape)


def _polished_component(h: np.ndarray, algebra: np.ndarray, order: int | None) -> np.ndarray:
    """h = k exp(X) with X moved into the algebra, k to where it is orthogonal, maps the algebra to itself and keeps its
    order."""
    d = len(h)
    flat = _flat(algebra)
    outside = np.eye(d * d) - flat.T @ flat
    k, positive = scipy.linalg.polar(h)
    w, v = np.linalg.eigh(positive)
    X = (v * np.log(w)) @ v.T
    X = (flat.T @ (flat @ X.reshape(-1))).reshape(d, d)
    skew = list(_complement(np.zeros((0, d, d)), -1))
    for _ in range(4):
        T = k.T @ algebra @ k
        rest = (_flat(T) @ outside).reshape(-1)
        if np.abs(rest).max(initial=0) > 1e-15 and skew:
            columns = [((T @ e - e @ T).reshape(len(T), d * d) @ outside).reshape(-1) for e in skew]
            x = np.linalg.lstsq(np.array(columns).T, -rest, rcond=1e-6)[0]
            k = k @ scipy.linalg.expm(np.tensordot(x, skew, 1))
        if order is not None and np.abs(X).max() < 1e-6:
            k = _of_order(k, order)
    return k @ scipy.linalg.expm((X + X.T) / 2)


def _of_order(k: np.ndarray, order: int) -> np.ndarray:
    T, U = scipy.linalg.schur(k, output="complex")
    turns = np.round(np.angle(np.diag(T)) * order / (2 * np.pi))
    return ((U * np.exp(2j * np.pi * turns / order)) @ U.conj().T).real


def _commensurate(algebra: np.ndarray, noise: float) -> np.ndarray:
    """One generator with ratios of its eigenvalues that are rational up to noise made rational."""
    A = algebra[0]
    sign = 1 if np.abs(A - A.T).max() < np.abs(A + A.T).max() else -1
    w, v = np.linalg.eigh(A if sign == 1 else 1j * A)
    ratios = w / np.abs(w).max()
    exact = np.array([float(Fraction(r).limit_denominator(32)) for r in ratios])
    ratios = np.where(np.abs(exact - ratios) < noise, exact, ratios)
    out = (v * ratios) @ v.conj().T
    out = out.real if sign == 1 else (-1j * out).real
    return (out / np.linalg.norm(out))[None]


def _flat(m: np.ndarray) -> np.ndarray:
    return m.reshape(len(m), m.shape[-1] ** 2)
