"""Points on an orbit of a compact group: all of them, or a few that are uniform.

A point is given by what the layer needs of it, ψ(g) v_ψ for every irreducible ψ of a list, (P, d_ψ, k_ψ) each; together
they make a row of length one.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree

from ..matrix_group import MatrixGroup
from ..solver.irreps import Irrep

__all__ = ["LISTED", "random_points", "whole_orbit"]

LISTED = 20_000  # largest finite group of which all elements are tried


def joined(points: list[np.ndarray]) -> np.ndarray:
    """[(P, d_ψ, k_ψ)] -> (P, Σ d_ψ k_ψ)."""
    return np.concatenate([x.reshape(len(x), -1) for x in points], 1)


def whole_orbit(group: MatrixGroup, irreps: list[Irrep], vectors: list[np.ndarray]) -> np.ndarray:
    """(P, Σ d_ψ k_ψ), each point of the orbit of the vectors (d_ψ, k_ψ) under a finite group once."""
    g = group.elements()
    rows = joined([r.rho(g) @ v for r, v in zip(irreps, vectors)])
    near = cKDTree(rows).query_ball_point(rows, 1e-6)
    return rows[np.unique([min(k) for k in near])]


def random_points(group: MatrixGroup, irreps: list[Irrep], vectors: list[np.ndarray], n: int) -> np.ndarray:
    """(n, Σ d_ψ k_ψ), points of the orbit from the invariant measure, then spread; the same ones every time."""
    rng = np.random.default_rng(0)
    g = group.sample(n, rng)
    steps = [r.rho(g) for r in irreps]
    # a random walk of 2^10 steps forgets where it began
    for _ in range(10):
        other = rng.permutation(n)
        steps = [m @ m[other] for m in steps]
    points = [m @ v for m, v in zip(steps, vectors)]
    points = _exchange(points, [r.images.discrete for r in irreps])
    if np.any(group.lie_algebra):
        points = _spread(points, [r.images.lie for r in irreps])
    return joined(points)


def _exchange(points: list[np.ndarray], discrete: list[np.ndarray], rounds: int = 2) -> list[np.ndarray]:
    """Points moved by discrete generators where that makes the sum of distances larger: to pieces with fewer points."""
    rows = joined(points)
    for _ in range(rounds):
        for i in range(len(discrete[0])):
            moved = [h[i] @ x for h, x in zip(discrete, points)]
            for p, candidate in enumerate(joined(moved)):
                others = np.delete(rows, p, 0)
                here, there = (np.linalg.norm(others - x, axis=1).sum() for x in (rows[p], candidate))
                if there > here:
                    rows[p] = candidate
                    for x, y in zip(points, moved):
                        x[p] = y[p]
    return points


def _spread(points: list[np.ndarray], lie: list[np.ndarray], rounds: int = 100) -> list[np.ndarray]:
    """Points moved along the orbit to make the sum of their distances large, which makes them uniform.

    The mean distance is a strictly concave function of the measure, so on an orbit the invariant one alone maximises
    it (Björck, 1956).
    """
    best, step, kept = -np.inf, 1.0, points
    for _ in range(rounds):
        rows = joined(points)
        # all rows are of length one
        distance = np.sqrt(np.maximum(2 - 2 * rows @ rows.T, 1e-6))
        if distance.sum() > best:
            best, kept, step = distance.sum(), points, 1.5 * step
            near = 1 / distance
            np.fill_diagonal(near, 0)
            force = (near.sum(1)[:, None] * rows - near @ rows) / len(rows)
            tangents = [np.einsum("kij,pjm->pkim", a, x).reshape(-1, *x.shape[1:]) for a, x in zip(lie, points)]
            tangents = joined(tangents).reshape(len(rows), -1, rows.shape[1])
            gram = tangents @ tangents.swapaxes(1, 2)
            # the ridge leaves alone what fixes a point
            ridge = 1e-6 * max(np.trace(gram, axis1=1, axis2=2).mean(), 1e-300)
            coefs = np.linalg.solve(gram + ridge * np.eye(gram.shape[1]), tangents @ force[:, :, None])[:, :, 0]
        else:
            step = step / 3
        turns = [torch.linalg.matrix_exp(torch.as_tensor(step * np.tensordot(coefs, a, 1))).numpy() for a in lie]
        points = [t @ x for t, x in zip(turns, kept)]
    return kept
