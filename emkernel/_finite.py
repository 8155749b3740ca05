"""Finite groups of matrices as permutations of the orbits of the basis vectors, and given as permutations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from ._orders import order_of, signed_images
from .errors import GroupError

MAX_POINTS = 600_000
FEW_POINTS = 300  # up to so many, a stabiliser chain takes less time than listing the elements


@dataclass(frozen=True, eq=False)
class Permutations:
    """A finite matrix group acting faithfully on the orbits of the basis vectors.

    Attributes:
        images: (S, P) the permutation of the P points by each step.
        base: (d,) the points that are the basis vectors; their images determine an element.
        steps: (S, 2) a step is the generator of that index to that power (powers of two: short words).
    """

    images: np.ndarray
    base: np.ndarray
    steps: np.ndarray

    @cached_property
    def _listed(self) -> tuple[np.ndarray, np.ndarray] | None:
        return self._enumerate(20_000)

    def _enumerate(self, limit: int):
        """(base images (n, d), words (n, depth) of steps padded with -1) by breadth-first search."""
        seen = self.base[None, :]
        words = np.zeros((1, 0), int)
        front, front_words = seen, words
        while len(front):
            # left multiplication: h g has images h(g(base)), and the word of g after the step h
            new = np.concatenate([p[front] for p in self.images]) if len(self.images) else front[:0]
            lead = np.repeat(np.arange(len(self.images)), len(front))[:, None]
            new_words = np.concatenate([lead, np.tile(front_words, (len(self.images), 1))], 1)
            both = np.concatenate([seen, new])
            _, first = np.unique(both, axis=0, return_index=True)
            fresh = np.sort(first[first >= len(seen)]) - len(seen)
            front, front_words = new[fresh], new_words[fresh]
            words = np.concatenate([np.pad(words, ((0, 0), (0, 1)), constant_values=-1), front_words])
            seen = np.concatenate([seen, front])
            if len(seen) > limit:
                return None
        return seen, words[:, :-1]

    @cached_property
    def _order(self) -> int:
        if self.images.shape[1] > FEW_POINTS:
            listed = self._listed or self._enumerate(400_000 // len(self.base))
            if listed is not None:
                return len(listed[0])
        from sympy.combinatorics import Permutation, PermutationGroup

        generators = [Permutation(p.tolist()) for p in self.images[self.steps[:, 1] == 1]]
        return int(PermutationGroup(generators).order()) if generators else 1

    def order(self) -> int:
        """The number of elements: by Schreier and Sims, or by listing them where there are many points."""
        return self._order

    def words(self, limit: int) -> np.ndarray | None:
        if self.images.shape[1] <= FEW_POINTS and self._order > limit:
            return None
        listed = self._listed if limit <= 20_000 else self._enumerate(limit)
        return None if listed is None or len(listed[0]) > limit else listed[1]


def permutations(generators: np.ndarray, orders: tuple[int, ...], blur: float) -> Permutations | None:
    """The action of orthogonal generators on the orbits of the basis vectors; None when they do not close.

    Powers of each generator join the search, so that long cycles take few rounds.
    """
    d = generators.shape[-1]
    if not len(generators):
        return Permutations(np.zeros((0, d), int), np.arange(d), np.zeros((0, 2), int))
    moved = [signed_images(h) for h in generators]
    signed = all(m is not None for m in moved)
    if not signed and not words_have_finite_order(generators, blur):
        return None
    steps = np.array(
        [(i, 2**e) for i, q in enumerate(orders) for e in range(max(1, int(np.ceil(np.log2(max(q, 2))))))]
    )
    if signed:
        images = np.stack([_power(moved[i], p) for i, p in steps])
        if (images[:, :d] < d).all():
            images = images[:, :d]
        return Permutations(images, np.arange(d), steps)
    moves = [np.linalg.matrix_power(generators[i], p) for i, p in steps]
    points = front = np.eye(d)
    tol = min(max(1e-7, 1e3 * np.finfo(float).eps * blur), 1e-5)
    while len(front):
        new = np.concatenate([front @ h.T for h in moves])
        near, _ = cKDTree(points).query(new, distance_upper_bound=tol)
        new = new[~np.isfinite(near)]
        if len(new):
            first = np.ones(len(new), bool)
            pairs = cKDTree(new).query_pairs(tol, output_type="ndarray")
            first[pairs[:, 1]] = False
            new = new[first]
        front, points = new, np.concatenate([points, new])
        if len(points) > MAX_POINTS:
            return None
    tree = cKDTree(points)
    images = []
    for h in moves:
        distance, image = tree.query(points @ h.T)
        if distance.max() > 10 * tol or len(np.unique(image)) != len(points):
            return None
        images.append(image)
    return Permutations(np.stack(images), np.arange(d), steps)


def _power(images: np.ndarray, exponent: int) -> np.ndarray:
    out = np.arange(len(images))
    while exponent:
        out, images, exponent = images[out] if exponent & 1 else out, images[images], exponent >> 1
    return out


def permutation_matrices(name: str, permutations, points: int | None) -> np.ndarray:
    """Lists of images, or of cycles, as matrices (M, n, n); see MatrixGroup.from_permutations."""
    if isinstance(points, bool) or not (points is None or isinstance(points, (int, np.integer)) and points > 0):
        raise GroupError(f"{name}: points is {points!r}, expected how many points there are, a positive whole number")
    out = []
    for i, given in enumerate(permutations):
        try:
            items = given.tolist() if hasattr(given, "tolist") else given
        except (RuntimeError, TypeError) as e:
            raise GroupError(f"{name}: permutations[{i}] cannot be read: {e}") from None
        if not isinstance(items, (list, tuple, range)):
            raise GroupError(f"{name}: permutations[{i}] is {given!r}, expected a list of images or of cycles; "
                             "pass a list of permutations, not one permutation")
        items = list(items)
        what = f"{name}: permutations[{i}]"
        if all(isinstance(c, (list, tuple)) for c in items):
            images = _images_of_cycles(what, items, points)
        else:
            images = items
        if any(isinstance(p, bool) or not isinstance(p, (int, np.integer)) for p in images):
            raise GroupError(f"{what} is {given!r}, expected whole numbers: the images of 0..n-1, or cycles of them")
        n = len(images)
        wrong = sorted(set(range(n)) - set(images))
        if wrong:
            outside = sorted(p for p in set(images) if not 0 <= p < n)
            hint = "; points are counted from 0" if outside == [n] and 0 in wrong else ""
            repeated = sorted(p for p in set(images) if images.count(p) > 1)
            raise GroupError(
                f"{what} is no permutation of the points 0..{n - 1}: "
                + (f"{outside} are outside{hint}" if outside else f"{repeated} are images of several points")
                + f", {wrong} of none"
            )
        if points is not None and n != points:
            raise GroupError(f"{what} lists the images of {n} points, expected {points}")
        matrix = np.zeros((n, n))
        matrix[images, np.arange(n)] = 1
        out.append(matrix)
    sizes = sorted({len(m) for m in out})
    if len(sizes) > 1:
        raise GroupError(f"{name}: permutations of different numbers of points {sizes}; all must act on the same")
    if not out and points is None:
        raise GroupError(f"{name}: no permutations and no points; pass points=...")
    return np.array(out).reshape(-1, *(out[0].shape if out else (points, points)))


def _images_of_cycles(what: str, cycles: list, points: int | None) -> list[int]:
    if points is None:
        raise GroupError(f"{what} is given by cycles, which do not say how many points there are; pass points=...")
    images = list(range(points))
    flat = [p for cycle in cycles for p in cycle]
    for p in flat:
        if isinstance(p, bool) or not isinstance(p, (int, np.integer)) or not 0 <= p < points:
            raise GroupError(f"{what} has the point {p!r} in a cycle, expected whole numbers within 0..{points - 1}")
    twice = sorted({p for p in flat if flat.count(p) > 1})
    if twice:
        raise GroupError(f"{what}: the points {twice} occur twice; cycles must be disjoint")
    for cycle in cycles:
        for p, q in zip(cycle, [*cycle[1:], *cycle[:1]]):
            images[p] = q
    return images


def words_have_finite_order(generators: np.ndarray, blur: float, tries: int = 12) -> bool:
    rng = np.random.default_rng(0)
    word = np.eye(generators.shape[-1])
    for _ in range(tries if len(generators) > 1 else 0):
        word = word @ generators[rng.integers(len(generators))]
        if order_of(word, 10 * blur) is None:
            return False
    return True
