"""Finite groups of matrices: orders of elements, exact action on orbits, polishing of typed generators."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm

import numpy as np
import scipy.linalg
from scipy.spatial import cKDTree

from .errors import GroupError

MAX_ORDER_OF_ELEMENT = 2_000_000
MAX_POINTS = 60_000


def _spectrum(h: np.ndarray) -> tuple[np.ndarray, float]:
    """Eigenvalues of h and the condition of its eigenvectors (infinite when h is defective)."""
    balanced = scipy.linalg.matrix_balance(h)[0]
    w, v = np.linalg.eig(balanced)
    s = np.linalg.svd(v, compute_uv=False)
    return w, (s[0] / s[-1] if s[-1] > 0 else np.inf)


def order_of(h: np.ndarray, blur: float = 1.0) -> int | None:
    """The smallest q with h^q = 1 to rounding, from the angles of the eigenvalues; None when there is none.

    Eigenvalues e^{2πi p/q} of a matrix in floating point determine p/q for q up to a few million; ``blur`` is
    how much larger than rounding the errors of h are, when it was carried over from a badly conditioned basis.
    """
    w, condition = _spectrum(h)
    if condition > 1e7:
        return None
    tol = 2e-15 * condition * len(h) * blur
    if np.abs(np.abs(w) - 1).max() > 10 * tol:
        return None
    order = 1
    for turn in np.angle(w) / (2 * np.pi):
        limit = int(min(MAX_ORDER_OF_ELEMENT, 0.1 / np.sqrt(tol)))
        p = Fraction(float(turn)).limit_denominator(limit)
        if abs(float(p) - turn) > tol:
            return None
        order = lcm(order, p.denominator)
        if order > MAX_ORDER_OF_ELEMENT:
            return None
    return order


def nearly_order(h: np.ndarray, digits: float = 1e-3, highest: int = 120) -> tuple[int, float] | None:
    """(q, |h^q - 1|) when h misses a small finite order q by what a few typed digits would explain."""
    w, condition = _spectrum(h)
    if condition > 1e7 or np.abs(np.abs(w) - 1).max() > 10 * digits:
        return None
    turns = np.angle(w) / (2 * np.pi)
    typed = np.array_equal(h, np.round(h, 2))
    off_circle = np.abs(np.abs(w) - 1).max() > 1e-10 * condition
    allowed = digits if off_circle else 1e-5
    for q in range(1, highest + 1):
        few = typed and off_circle and 1 < q <= 12
        if q * np.abs(turns - np.round(turns * q) / q).max() < (2e-2 * q if few else allowed):
            power = np.linalg.matrix_power(h, q)
            if q == 1 and np.abs(power - np.eye(len(h))).max() < 1e-2 and not off_circle:
                return None
            return q, float(np.abs(power - np.eye(len(h))).max())
    return None


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

    def order(self) -> int:
        listed = self._listed or self._enumerate(400_000 // len(self.base))
        if listed is not None:
            return len(listed[0])
        from sympy.combinatorics import Permutation, PermutationGroup

        return int(
            PermutationGroup([Permutation(p.tolist()) for p in self.images[self.steps[:, 1] == 1]]).order()
        )

    def words(self, limit: int) -> np.ndarray | None:
        listed = self._listed if limit <= 20_000 else self._enumerate(limit)
        return None if listed is None or len(listed[0]) > limit else listed[1]


def permutations(generators: np.ndarray, orders: tuple[int, ...], blur: float) -> Permutations | None:
    """The action of orthogonal generators on the orbits of the basis vectors; None when they do not close.

    Powers of each generator join the search, so that long cycles take few rounds.
    """
    d = generators.shape[-1]
    if not len(generators):
        return Permutations(np.zeros((0, d), int), np.arange(d), np.zeros((0, 2), int))
    if not _words_have_finite_order(generators, blur):
        return None
    steps = np.array(
        [(i, 2**e) for i, q in enumerate(orders) for e in range(max(1, int(np.ceil(np.log2(max(q, 2))))))]
    )
    moves = [np.linalg.matrix_power(generators[i], p) for i, p in steps]
    points = front = np.eye(d)
    tol = 1e-7
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


def _words_have_finite_order(generators: np.ndarray, blur: float, tries: int = 12) -> bool:
    rng = np.random.default_rng(0)
    word = np.eye(generators.shape[-1])
    for _ in range(tries if len(generators) > 1 else 0):
        word = word @ generators[rng.integers(len(generators))]
        if order_of(word, 10 * blur) is None:
            return False
    return True


def polish(generators: np.ndarray, tol: float, max_order: int) -> np.ndarray:
    """Exact generators of the finite group near approximate ones; see MatrixGroup.polished."""
    elements = [np.eye(generators.shape[-1], dtype=generators.dtype)]
    for i, h in enumerate(generators):
        if 1e-9 < np.abs(h - elements[0]).max() < 2 * tol:
            raise GroupError(f"generator {i} is within the tolerance {tol:g} of the identity; pass a smaller tol")
    index = 0

    def find(m):
        distance = np.abs(np.stack(elements) - m).max((1, 2))
        return int(distance.argmin()) if distance.min() < tol else None

    while index < len(elements):
        for h in generators:
            product = elements[index] @ h
            if find(product) is None:
                elements.append(product)
                if len(elements) > max_order:
                    raise GroupError(
                        f"the products of these generators do not close within {max_order} elements "
                        f"at tolerance {tol:g}: no finite group is near them"
                    )
        index += 1
    g = np.stack(elements)
    tree = cKDTree(g.reshape(len(g), -1).view(float))
    products = np.stack([(a @ g).reshape(len(g), -1).view(float) for a in g])
    distance, table = tree.query(products)
    if distance.max() > tol * g.shape[-1]:
        raise GroupError(f"the products of these generators do not form a group at tolerance {tol:g}")
    for _ in range(60):
        new = np.stack([np.mean(g[table[a]] @ np.linalg.inv(g), 0) for a in range(len(g))])
        change, g = np.abs(new - g).max(), new
        if change < 1e-15:
            break
    at = [int(np.abs(g - h).max((1, 2)).argmin()) for h in generators]
    if np.abs(g[at] - generators).max() > tol * 10:
        raise GroupError("no finite group is near these generators")
    return g[at]


def sharpened(generators: list[np.ndarray], tol: float = 1e-4) -> list[np.ndarray]:
    """Generators rounded to single precision -> the exact finite group near them; else each by itself."""
    double = [m.astype(np.complex128 if np.iscomplexobj(m) else np.float64) for m in generators]
    if all(order_of(h) for h in double):
        return double
    try:
        return list(polish(np.stack(double), tol, 1000))
    except GroupError:
        return [_sharpened_alone(m, tol) for m in double]


def _sharpened_alone(h: np.ndarray, tol: float) -> np.ndarray:
    try:
        return polish(h[None], tol, 1000)[0]
    except GroupError:
        return sharpened_entries(h)


def sharpened_entries(m: np.ndarray) -> np.ndarray:
    """Entries in single precision -> the ±sqrt(p/q), q <= 60, that they round to, where there is one."""
    if np.iscomplexobj(m):
        return sharpened_entries(m.real) + 1j * sharpened_entries(m.imag)
    out = m.astype(np.float64)
    for where, value in np.ndenumerate(out):
        square = Fraction(value * value).limit_denominator(60)
        exact = np.sign(value) * np.sqrt(float(square))
        if abs(exact - value) <= 2e-7 * abs(value):
            out[where] = exact
    return out
