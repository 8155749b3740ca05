"""The positive definite form that a compact group preserves, found from its generators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .group_element import GroupElement


def positive_form(discrete: np.ndarray, lie: np.ndarray, sample: GroupElement) -> np.ndarray | None:
    """P(1) for P the projection on the invariant symmetric forms along the image of (1 - action).

    For a compact group that is the mean of g^T g over the group, positive definite; for any other group no
    invariant form is positive definite. The basis is preconditioned by a mean over sampled elements first.

    Args:
        discrete, lie: (M, d, d), (D, d, d) generators.
        sample: group elements, as words in them.
    """
    d = (discrete if len(discrete) else lie).shape[-1]
    if _orthogonality_defect(discrete, lie) < 1e-13:
        return np.eye(d)
    basis = np.eye(d)
    for _ in range(4):
        g = sample.evaluate(discrete, lie)
        if not np.isfinite(g).all() or np.abs(g).max() > 1e12:
            return None
        mean = np.mean(g.transpose(0, 2, 1) @ g, 0) + np.eye(d)
        step = np.linalg.cholesky((mean + mean.T) / np.trace(mean) * d / 2).T
        discrete, lie, basis = conjugate(discrete, step), conjugate(lie, step), step @ basis
    for _ in range(3):
        form = _mean_form(discrete, lie)
        if form is None:
            return None
        step = np.linalg.cholesky(form).T
        discrete, lie, basis = conjugate(discrete, step), conjugate(lie, step), step @ basis
        if _orthogonality_defect(discrete, lie) < 1e-13:
            break
    if _orthogonality_defect(discrete, lie) > 1e-8:
        return None
    form = basis.T @ basis
    return (form + form.T) * (d / (2 * np.trace(form)))


def _mean_form(discrete: np.ndarray, lie: np.ndarray) -> np.ndarray | None:
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
        rank = int((s > 1e-10 * max(1.0, s.max(initial=0))).sum())
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


def conjugate(m: np.ndarray, basis: np.ndarray) -> np.ndarray:
    return basis @ m @ np.linalg.inv(basis) if len(m) else m


def _orthogonality_defect(discrete: np.ndarray, lie: np.ndarray) -> float:
    worst = [np.abs(h.T @ h - np.eye(len(h))).max() for h in discrete]
    worst += [np.abs(a + a.T).max() / max(np.linalg.norm(a, 2), 1e-300) for a in lie if np.any(a)]
    return max(worst, default=0.0)
