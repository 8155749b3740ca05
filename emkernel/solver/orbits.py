"""Invariant tensors of permutation representations: functions that are constant on orbits of tuples of points.

A large coupling is kept as its seeds. An irreducible in the functions on an orbit of points is spanned by vectors f_p,
one for each point p, with g f_p = f_gp and Σ_p f_p f_p^T = 1. So an invariant function T of three vectors is

    T(x, y, z) = Σ_p <f_p, x> M_p(y, z),    M_p = T(f_p, ·, ·),    M_gp = b(g) M_p c(g)^T,

and the one matrix M_p at the first point, its seed, says all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = [
    "MOST_TUPLES",
    "Seeded",
    "are_seeds",
    "fewest_points",
    "invariant_tensors",
    "is_one_orbit",
    "seeds",
    "tuples",
]

MOST_TUPLES = 7_000_000
SUBPRODUCTS = 5  # random elements of a stabiliser that are tried at once, until they join no more orbits
ZERO = 1e-9

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
    count, orbit = _joined(moved)
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
        if np.linalg.norm(x) < ZERO:
            break
        found = np.concatenate([found, x[None] / np.linalg.norm(x)])
    return found.reshape(-1, *shape)


def _joined(moved: np.ndarray) -> tuple[int, np.ndarray]:
    """The orbits (count, number of the orbit of each point (N,)) of permutations (M, N)."""
    many, total = moved.shape
    start = np.tile(np.arange(total), many)
    graph = coo_array((np.ones(len(start), np.int8), (start, moved.reshape(-1))), shape=(total, total))
    return connected_components(graph, directed=False)


def is_one_orbit(points: np.ndarray) -> bool:
    """Whether permutations (M, N) move any point to any other."""
    return _joined(points)[0] == 1


def fewest_points(points: np.ndarray, frame: np.ndarray) -> Permuted:
    """An irreducible subspace of the functions on points, as one of those on few points of one orbit.

    Restriction to an orbit is injective or zero, and points where all functions of the subspace agree are one.
    """
    count, orbit = _joined(points)
    n, best = frame.shape[1], None
    for k in range(count):
        inside = np.flatnonzero(orbit == k)
        rows = frame[inside]
        share = (rows**2).sum() / n
        if share < 0.5 / count or np.abs(rows.T @ rows - share * np.eye(n)).max() > ZERO:
            continue
        # equal rows have equal products with a random vector
        values = rows @ np.random.default_rng(0).standard_normal(n)
        order = np.argsort(values, kind="stable")
        label = np.zeros(len(inside), np.int64)
        label[order] = np.cumsum(np.diff(values[order], prepend=values[order[0]]) > ZERO)
        first = np.unique(label, return_index=True)[1]
        if np.abs(rows - rows[first][label]).max() < ZERO and (best is None or len(first) < best[1].shape[0]):
            number = np.zeros(points.shape[1], np.int64)
            number[inside] = label
            best = number[points[:, inside[first]]], rows[first] * np.sqrt(n / (rows[first] ** 2).sum())
    return best or (points, frame)


# ---- seeds ----------------------------------------------------------------------------------------------------------


def seeds(first: Permuted, second: Permuted, third: Permuted) -> np.ndarray:
    """Orthonormal seeds (r, n_2, n_3), at point 0 of the first factor, of all invariant functions of three vectors.

    The functions are orthogonal, of norm N^1/2 for the N points of the first factor, which are one orbit. A function φ
    of pairs of points that the stabiliser of point 0 keeps gives one: M = Σ_p <f_0, f_p> φ(g_p^-1 q, g_p^-1 r) for
    g_p 0 = p, projected on the other two factors.
    """
    points, frame = first[0], first[1]
    ways = [_ways(points, moves) for moves in (points, second[0], third[0])]  # (N, N_i) g_p on the points of each
    orbit = _orbits_of_stabiliser(points, ways, (points, second[0], third[0]))
    back = [np.argsort(w, axis=1) for w in ways[1:]]
    weights = frame @ frame[0]
    rng = np.random.default_rng(0)
    found = np.zeros((0, second[1].shape[1] * third[1].shape[1]))
    while True:
        values = rng.standard_normal(orbit.max() + 1)[orbit]
        mean = np.zeros_like(values)
        for w, q, r in zip(weights, *back):
            mean += w * values[q[:, None], r]
        x = (second[1].T @ mean @ third[1]).reshape(-1) / np.sqrt(values.size)
        for _ in range(2):
            x = x - found.T @ (found @ x)
        if np.linalg.norm(x) < ZERO:
            return found.reshape(-1, second[1].shape[1], third[1].shape[1])
        found = np.concatenate([found, x[None] / np.linalg.norm(x)])


def are_seeds(seed: np.ndarray, first: Permuted, second: Permuted, third: Permuted) -> bool:
    """Whether (r, n_2, n_3) are seeds of orthonormal invariant functions.

    They are if M_p is the same by whatever elements p is reached, M_0 = Σ_p <f_0, f_p> M_p, and N <M_0, M'_0> is 0 or
    1; the first two are checked on one random vector of each factor.
    """
    (points, frame), n = first, first[0].shape[1]
    flat = seed.reshape(len(seed), second[1].shape[1] * third[1].shape[1])
    if not np.isfinite(flat).all() or np.abs(n * flat @ flat.T - np.eye(len(flat))).max(initial=0) > 1e-9:
        return False
    rng = np.random.default_rng(n)
    sides = [(f, _ways(points, f[0]), rng.standard_normal(f[0].shape[1])) for f in (second, third)]

    def values(h: int | None) -> np.ndarray:
        """(N, r) the M_p of the two vectors, each moved back by the generator h."""
        x, y = ((v if h is None else v[f[0][h]])[ways] @ f[1] for f, ways, v in sides)
        return np.stack([((x @ M) * y).sum(1) for M in seed], 1) if len(seed) else np.zeros((n, 0))

    value = values(None)
    small = 1e-8 * np.abs(value).max(initial=0)
    return np.abs(frame @ frame[0] @ value - value[0]).max(initial=0) <= small and all(
        np.abs(value[points[h]] - values(h)).max(initial=0) <= small for h in range(len(points))
    )


@dataclass(frozen=True)
class Seeded:
    """Invariant functions (r, n, n', n'') of three vectors, kept as their seeds: an array as soon as numpy is asked for
    one, by ``np.asarray``, and computed anew whenever it is.

    Attributes:
        seed: (r, n_2, n_3).
        first: the factor whose points the seeds belong to.
        second, third: (M, n, n) the orthogonal images of the generators on the other two factors.
        axes: which axis of (r, n_1, n_2, n_3) each axis is.
        factor: of all numbers.
    """

    seed: np.ndarray
    first: Permuted
    second: np.ndarray
    third: np.ndarray
    axes: tuple[int, ...] = (0, 1, 2, 3)
    factor: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        r, n2, n3 = self.seed.shape
        return tuple((r, self.first[1].shape[1], n2, n3)[i] for i in self.axes)

    def __len__(self) -> int:
        return self.shape[0]

    def transpose(self, *axes: int) -> Seeded:
        return replace(self, axes=tuple(self.axes[i] for i in axes))

    def __mul__(self, factor: float) -> Seeded:
        return replace(self, factor=self.factor * float(factor))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        points, frame = self.first
        parent, step, order = _tree(points)
        at = np.empty((len(order), *self.seed.shape))
        at[0] = self.seed * self.factor
        for p in order[1:]:
            h = step[p]
            at[p] = self.second[h] @ at[parent[p]] @ self.third[h].T
        out = (frame.T @ at.reshape(len(order), -1)).reshape(-1, *self.seed.shape).swapaxes(0, 1)
        return out.transpose(self.axes).astype(dtype or np.float64, copy=False)


def _tree(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Point 0 first, then each point as a generator's image of one before: (parent, generator, order)."""
    parent, step, order = np.full(points.shape[1], -1), np.zeros(points.shape[1], int), [0]
    parent[0] = 0
    for p in order:
        for h, image in enumerate(points[:, p].tolist()):
            if parent[image] < 0:
                parent[image], step[image] = p, h
                order.append(image)
    return parent, step, order


def _ways(points: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """(N, K) for each point p what an element g_p with g_p 0 = p does to K other points."""
    parent, step, order = _tree(points)
    out = np.empty((points.shape[1], moves.shape[1]), np.int64)
    out[0] = np.arange(moves.shape[1])
    for p in order[1:]:
        out[p] = moves[step[p]][out[parent[p]]]
    return out


def _orbits_of_stabiliser(points: np.ndarray, ways: list[np.ndarray], moves: tuple[np.ndarray, ...]) -> np.ndarray:
    """(N_2, N_3) the number of the orbit of each pair under the stabiliser of point 0.

    The g_hp^-1 h g_p generate it (Schreier). A product of some of them at random misses a proper subgroup half of the
    time: when two rounds of such products join no orbits, none are left to be joined.
    """
    rng = np.random.default_rng(points.shape[1])
    generators = [(h, p) for p in range(points.shape[1]) for h in range(len(points))]
    orbit = np.arange(ways[1].shape[1] * ways[2].shape[1]).reshape(ways[1].shape[1], -1)
    back = [np.argsort(w, axis=1) for w in ways[1:]]
    idle, many = 0, orbit.size
    while idle < 2:
        edges = []
        for _ in range(SUBPRODUCTS):
            q, r = (np.arange(n) for n in orbit.shape)
            for i in rng.permutation(len(generators))[: rng.integers(1, 1 + min(len(generators), 64))]:
                h, p = generators[i]
                image = points[h, p]
                q, r = (b[image][m[h][w[p][x]]] for b, m, w, x in zip(back, moves[1:], ways[1:], (q, r)))
            edges.append(orbit[q[:, None], r].reshape(-1))
        start = np.tile(orbit.reshape(-1), SUBPRODUCTS)
        graph = coo_array((np.ones(len(start), np.int8), (start, np.concatenate(edges))), shape=(many, many))
        count, label = connected_components(graph, directed=False)
        idle = idle + 1 if count == many else 0
        orbit, many = label[orbit], count
    return orbit
