"""Invariant tensors of permutation representations: functions that are constant on orbits of tuples of points."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["MOST_TUPLES", "invariant_tensors", "tuples"]

MOST_TUPLES = 7_000_000

Permuted = tuple[np.ndarray, np.ndarray]  # points (M, N) and frame (N, n) of images.Images


def tuples(factors: Sequence[Permuted | None]) -> int | None:
    """How many tuples of points there are, one of each factor; None where a factor does not permute points."""
    return None if any(f is None for f in factors) else prod(f[0].shape[1] for f in factors)


def invariant_tensors(factors: Sequence[Permuted], most: int | None = None) -> np.ndarray:
    """Orthonormal invariant tensors (r, n_1, ..., n_k) on invariant subspaces of permutation representations.

    Random functions of the orbits are projected on the subspaces until nothing new comes, or so many are found: all
    invariants of the subspaces are projections of such functions.
    """
    sizes = [points.shape[1] for points, _ in factors]
    moved = np.zeros((len(factors[0][0]), 1), np.int64)
    for points, _ in factors:
        moved = (moved[:, :, None] * points.shape[1] + points[:, None, :]).reshape(len(points), -1)
    total = prod(sizes)
    start = np.tile(np.arange(total), len(moved))
    graph = coo_array((np.ones(len(start), np.int8), (start, moved.reshape(-1))), shape=(total, total))
    count, orbit = connected_components(graph, directed=False)
    rng = np.random.default_rng(total)
    shape = tuple(frame.shape[1] for _, frame in factors)
    found = np.zeros((0, prod(shape)))
    while most is None or len(found) < most:
        x = rng.standard_normal(count)[orbit].reshape(sizes)
        for _, frame in factors:  # the first axis goes, and comes back last
            x = np.tensordot(x, frame, (0, 0))
        x = x.reshape(-1) / np.sqrt(total)
        for _ in range(2):
            x = x - found.T @ (found @ x)
        if np.linalg.norm(x) < 1e-9:
            break
        found = np.concatenate([found, x[None] / np.linalg.norm(x)])
    return found.reshape(-1, *shape)
