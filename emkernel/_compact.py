"""The coordinates in which a compact group is orthogonal, found from its generators."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg


def balance(matrices) -> np.ndarray:
    """Powers of two (d,) by which matrices * scale / scale[:, None] are balanced off their diagonals, all at once."""
    total = sum((np.abs(m) / np.abs(m).max() for m in matrices if np.any(m)), np.zeros(np.shape(matrices)[1:]))
    noise = np.maximum(total, total.T) < 1e-12 * total.max(initial=0)
    total = np.where(noise, 0, total) * (1 - np.eye(len(total)))
    return scipy.linalg.matrix_balance(total, permute=False, separate=True)[1][0]


def units(discrete: np.ndarray, lie: np.ndarray) -> np.ndarray:
    """Powers of two (d,) by which coordinates are multiplied so that their physical units do not matter.

    Off the diagonal, log2 |m_ij| + s_i - s_j + (a number for each Lie generator) is made as near 0 as can be. All ones
    where entries are within a few powers of two of that anyway.
    """
    d = (discrete if len(discrete) else lie).shape[-1]
    rows, values = [], []
    scaled = [np.abs(m) / max(np.abs(m).max(), 1e-300) for m in (*discrete, *lie)]
    algebra = np.max(scaled[len(discrete) :] or [np.eye(d)], axis=0)
    for k, m in enumerate([*discrete, *lie]):
        # entries that rounding left say nothing, nor do small ones beside a large diagonal
        size = np.abs(m)
        beside = scaled[k] if k < len(discrete) else algebra
        weight = scaled[k] / np.maximum(np.sqrt(np.outer(beside.max(1), beside.max(0))), 1e-300)
        size[weight < (1e-7 if k < len(discrete) else 1e-11)] = 0
        np.fill_diagonal(size, 0)
        # beside the diagonal of a group element, unless it is near 1 or has none
        reference = np.abs(np.diag(m)).max()
        near = k < len(discrete) and size.max() < 1e-2 * reference
        free = near or k >= len(discrete) or reference <= 1e-12 * size.max()
        reference = 1.0 if free else reference
        if near:
            weight = size / max(size.max(), 1e-300)
        for i, j in np.argwhere(size):
            row = np.zeros(d + len(discrete) + len(lie))
            row[i], row[j], row[d + k] = 1, -1, float(free)
            rows.append(row * weight[i, j])
            values.append(-np.log2(size[i, j] / reference) * weight[i, j])
    if not rows:
        return np.ones(d)
    s = np.linalg.lstsq(np.array(rows), np.array(values), rcond=1e-10)[0][:d]
    s = np.round(s - np.median(s))
    return np.ones(d) if np.ptp(s) < 2 else 2.0**s


def orthogonal_basis(
    discrete: np.ndarray, lie: np.ndarray, sample: Callable[[], np.ndarray]
) -> np.ndarray | None:
    """L (d, d), upper triangular, with L g L^-1 orthogonal for all g and |L|² = d; None when the group is not compact.

    L^T L = P(1) for P the projection on the invariant symmetric forms along the image of (1 - action). For a compact
    group that is the mean of g^T g over the group, positive definite; for any other group no invariant form is
    positive definite. The basis is preconditioned by a mean over sampled elements first.

    Args:
        discrete, lie: (M, d, d), (D, d, d) generators.
        sample: gives (P, d, d) group elements, where they are needed.
    """
    d = (discrete if len(discrete) else lie).shape[-1]
    if _orthogonality_defect(discrete, lie) < 1e-13:
        return np.eye(d)
    try:
        return _orthogonal_basis(discrete, lie, sample())
    except np.linalg.LinAlgError:  # means over the group that are not positive in floating point
        return None


def _orthogonal_basis(discrete, lie, sample) -> np.ndarray | None:
    d = sample.shape[-1]
    basis = np.eye(d)
    for _ in range(4):
        if not np.isfinite(sample).all() or np.abs(sample).max(initial=0) > 1e12:
            return None
        mean = np.sum(sample.transpose(0, 2, 1) @ sample, 0) / max(1, len(sample)) + np.eye(d)
        step = np.linalg.cholesky((mean + mean.T) / np.trace(mean) * d / 2).T
        discrete, lie, sample = conjugate(discrete, step), conjugate(lie, step), conjugate(sample, step)
        basis = step @ basis
    for _ in range(3):
        form = _mean_form(discrete, lie, max(1e-10, _noise(basis)))
        if form is None:
            return None
        step = np.linalg.cholesky(form).T
        discrete, lie, basis = conjugate(discrete, step), conjugate(lie, step), step @ basis
        if _orthogonality_defect(discrete, lie) < 1e-13:
            break
    if _orthogonality_defect(discrete, lie) > max(1e-8, _noise(basis)):
        return None
    basis = np.linalg.qr(basis, mode="r")
    return basis * np.sign(np.diag(basis))[:, None] * np.sqrt(d / (basis**2).sum())


def _mean_form(discrete: np.ndarray, lie: np.ndarray, tol: float) -> np.ndarray | None:
    d = discrete.shape[-1] if len(discrete) else lie.shape[-1]
    rows, cols = np.triu_indices(d)
    units = np.zeros((len(rows), d, d))
    units[np.arange(len(rows)), rows, cols] = 1
    units = (units + units.transpose(0, 2, 1)) / np.where(rows == cols, 2, np.sqrt(2))[:, None, None]

    def invariants(dis, li):
        blocks = [(h.T @ units @ h - units) / max(1, np.linalg.norm(h, 2) ** 2) for h in dis]
        blocks += [(a.T @ units + units @ a) / max(np.linalg.norm(a, 2), 1e-300) for a in li]
        flat = np.concatenate([b[:, rows, cols] * np.where(rows == cols, 1, np.sqrt(2)) for b in blocks], 1).T
        _, s, vh = np.linalg.svd(np.linalg.qr(flat, mode="r") if len(flat) > flat.shape[1] else flat)
        rank = int((s > tol * max(1.0, s.max(initial=0))).sum())
        return vh[rank:].T

    right = invariants(discrete, lie)
    left = invariants(
        np.linalg.inv(discrete).transpose(0, 2, 1) if len(discrete) else discrete, -lie.transpose(0, 2, 1)
    )
    if right.shape[1] == 0 or right.shape[1] != left.shape[1]:
        return None
    identity = np.einsum("kij,ij->k", units, np.eye(d))
    overlap = left.T @ right
    if np.linalg.cond(overlap) > 1e10:
        return None
    form = np.tensordot(right @ np.linalg.solve(overlap, left.T @ identity), units, 1)
    w = np.linalg.eigvalsh(form)
    return form if w[0] > 1e-10 * w[-1] else None


def _noise(basis: np.ndarray) -> float:
    """What rounding of matrices in a basis of condition c amounts to in the good one, c^2, generously."""
    return min(1e3 * np.finfo(float).eps * np.linalg.cond(basis) ** 2, 1e-5)


def conjugate(m: np.ndarray, basis: np.ndarray) -> np.ndarray:
    return basis @ m @ np.linalg.inv(basis) if len(m) else m


def _orthogonality_defect(discrete: np.ndarray, lie: np.ndarray) -> float:
    worst = [np.abs(h.T @ h - np.eye(len(h))).max() for h in discrete]
    worst += [np.abs(a + a.T).max() / max(np.linalg.norm(a, 2), 1e-300) for a in lie if np.any(a)]
    return max(worst, default=0.0)
