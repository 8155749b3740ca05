"""Finite groups of matrices: orders of elements, exact action on orbits, polishing of typed generators."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm

import numpy as np
import scipy.linalg
from scipy.spatial import cKDTree

from .errors import GroupError

MAX_ORDER_OF_ELEMENT = 2_000_000
MAX_POINTS = 600_000
SHOWN_ORDER = 10_000  # an order up to this is shown by digits, or said not to be
FEW_POINTS = 300  # up to so many, a stabiliser chain takes less time than listing the elements


def _spectrum(h: np.ndarray) -> tuple[np.ndarray, float]:
    """Eigenvalues of h and the condition of its eigenvectors (infinite when h is defective)."""
    w, v = np.linalg.eig(h)
    s = np.linalg.svd(v, compute_uv=False)
    return w, (s[0] / s[-1] if s[-1] > 0 else np.inf)


def order_of(h: np.ndarray, blur: float = 1.0, largest: float = 1.0) -> int | None:
    """The smallest q with h^q = 1 to rounding, from the angles of the eigenvalues; None when there is none.

    Eigenvalues e^{2πi p/q} of a matrix in floating point determine p/q for q up to a few million; ``blur`` is
    how much larger than rounding the errors of h are, when it was carried over from a badly conditioned basis, and
    ``largest`` the norm of matrices of which it may be a product.
    """
    moved = signed_images(h)
    if moved is not None:
        return lcm(*_cycle_lengths(moved))
    turns, tol, limit = _turns(h, blur, largest)
    if turns is None or limit < 1:
        return None
    order = 1
    for turn in turns:
        p = Fraction(float(turn)).limit_denominator(limit)
        if abs(float(p) - turn) > tol:
            return None
        order = lcm(order, p.denominator)
        if order > MAX_ORDER_OF_ELEMENT:
            return None
    return order


def hidden_order(h: np.ndarray, largest: float = 1.0, error: float = 0.0) -> int | None:
    """The largest order that the digits of h show, where it may well have a larger one: few digits, or small turns."""
    turns, tol, limit = _turns(h, max(1.0, error / np.finfo(float).eps), largest)
    if turns is None or limit < 1:
        return None
    smallest = min((abs(t) for t in turns if abs(t) > 10 * tol), default=1.0)
    return limit if limit < SHOWN_ORDER or smallest < 100 / limit else None


def _turns(h: np.ndarray, blur: float, largest: float) -> tuple[np.ndarray | None, float, int]:
    """(angles of the eigenvalues in turns or None off the circle, their error, the largest denominator it allows)."""
    w, condition = _spectrum(h)
    # a product of two matrices is rounded by as much as the product of their norms
    tol = 2e-15 * max(condition * max(1.0, np.linalg.norm(h, 2)), largest**2) * len(h) * blur
    limit = int(min(MAX_ORDER_OF_ELEMENT, 0.1 / np.sqrt(tol)))
    if condition > 1e7 or np.abs(np.abs(w) - 1).max() > 10 * tol:
        return None, tol, limit
    return np.angle(w) / (2 * np.pi), tol, limit


def order_of_abelian(generators: np.ndarray, orders: tuple[int, ...]) -> int:
    """The order of the group of commuting matrices of finite order: the index of a lattice of their angles.

    In common eigenvectors generator i turns by p_ij/N, N the least common multiple of the orders; the rows p_i span,
    modulo N, a group whose order is N^d over the determinant of the lattice of p_i and N e_j.
    """
    N, d = lcm(*orders), generators.shape[-1]
    mixed = np.tensordot(np.random.default_rng(0).standard_normal(len(generators)), generators, 1)
    _, v = np.linalg.eig(mixed)
    angles = np.angle(np.diagonal(np.linalg.inv(v) @ generators @ v, axis1=1, axis2=2)) / (2 * np.pi)
    rows = [[round(turn * q) * (N // q) % N for turn in row] for row, q in zip(angles, orders)]
    rows += [[N * (i == j) for j in range(d)] for i in range(d)]
    index = 1
    for j in range(d):  # Hermite normal form, column by column
        while sum(row[j] != 0 for row in rows) > 1:
            rows.sort(key=lambda row, j=j: (row[j] == 0, abs(row[j])))
            rows[1:] = [[x - row[j] // rows[0][j] * y for x, y in zip(row, rows[0])] for row in rows[1:]]
        rows.sort(key=lambda row, j=j: row[j] == 0)
        index *= N // abs(rows.pop(0)[j])
    return index


def typed_digits(matrices: np.ndarray) -> int:
    """The significant digits with which the entries are written, 3 to 12; 17 where they are computed, or very short."""
    digits = 0
    for x in set(np.abs(matrices).reshape(-1).tolist()):
        odd = Fraction(x).numerator
        while odd and odd % 2 == 0:
            odd //= 2
        if odd > 1000:  # a small whole number times a power of two is meant as it stands
            digits = max(digits, len(repr(x).split("e")[0].replace(".", "").strip("0")))
        if digits > 12:
            break
    return digits if 3 <= digits <= 12 else 17


def nearly_order(
    h: np.ndarray, digits: float = 1e-3, highest: int = 120, error: float = 0.0
) -> tuple[int, float] | None:
    """(q, |h^q - 1|) when h misses a small finite order q by what a few typed digits would explain, or this error."""
    q = order_of(h, error / np.finfo(float).eps) if error else None
    if q is not None and q > 1:
        return q, float(np.abs(np.linalg.matrix_power(h, q) - np.eye(len(h))).max())
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
    if not signed and not _words_have_finite_order(generators, blur):
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


def signed_images(h: np.ndarray) -> np.ndarray | None:
    """The images (2d,) of e_1..e_d, -e_1..-e_d when h permutes them to rounding, exact at any size; else None."""
    d = len(h)
    if not np.isrealobj(h):
        return None
    row = np.abs(h).argmax(0)
    sign = np.where(h[row, np.arange(d)] < 0, -1.0, 1.0)
    exact = np.zeros((d, d))
    exact[row, np.arange(d)] = sign
    if len(np.unique(row)) != d or np.abs(h - exact).max() > 1e-14 * d:
        return None
    return np.concatenate([row + d * (sign < 0), row + d * (sign > 0)])


def _power(images: np.ndarray, exponent: int) -> np.ndarray:
    out = np.arange(len(images))
    while exponent:
        out, images, exponent = images[out] if exponent & 1 else out, images[images], exponent >> 1
    return out


def _cycle_lengths(images: np.ndarray) -> list[int]:
    lengths, left = [], np.ones(len(images), bool)
    while left.any():
        point, length = int(left.argmax()), 0
        while left[point]:
            left[point], point, length = False, int(images[point]), length + 1
        lengths.append(length)
    return lengths


def permutation_matrices(name: str, permutations, points: int | None) -> np.ndarray:
    """Lists of images, or of cycles, as matrices (M, n, n); see MatrixGroup.from_permutations."""
    if isinstance(points, bool) or not (points is None or isinstance(points, (int, np.integer)) and points > 0):
        raise GroupError(f"{name}: points is {points!r}, expected how many points there are, a positive whole number")
    out = []
    for i, given in enumerate(permutations):
        items = given.tolist() if hasattr(given, "tolist") else given
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


def sharpened(generators: list[np.ndarray]) -> list[np.ndarray]:
    """Generators rounded to single precision -> the exact finite group near them; else each by itself.

    Raises:
        GroupError: single precision does not tell which group is meant.
    """
    double = [m.astype(np.complex128 if np.iscomplexobj(m) else np.float64) for m in generators]
    if all(order_of(h) for h in double) or not all(map(_fits_single, double)):
        return double
    orders = [_order_in_single(h) for h in double]
    if None not in orders and len(double) > 1:
        with suppress(GroupError):
            return list(polish(np.stack(double), 1e-4, 1000))
    out = [_sharpened_alone(h, q, i) for i, (h, q) in enumerate(zip(double, orders))]
    if None not in orders and not _words_have_finite_order(np.stack(out), 1.0):
        raise GroupError(
            f"discrete generators of orders {orders}, in single precision, generate more than 1000 elements, and no "
            f"group in which products have finite order is near. {IN_DOUBLE}"
        )
    return out


IN_DOUBLE = "Write the generators in double precision: MatrixGroup(name, discrete_generators, lie_algebra)."


def _fits_single(m: np.ndarray) -> bool:
    """Whether single precision holds m; what it does not hold was never rounded to it."""
    return np.array_equal(m, m.astype(np.complex64 if np.iscomplexobj(m) else np.float32))


def _order_in_single(h: np.ndarray) -> int | None:
    """The order of h, read from the angles of its eigenvalues where single precision leaves one simple fraction."""
    w, condition = _spectrum(h)
    tol = 1.2e-7 * condition * min(1.0, np.abs(h - np.eye(len(h))).max()) / (2 * np.pi)
    if condition > 1e3 or np.abs(np.abs(w) - 1).max() > 1e-6 * condition:
        return None
    order = 1
    for turn in np.abs(np.angle(w)) / (2 * np.pi):
        p = _simplest_fraction(turn - tol, turn + tol)
        # of random angles one in 500 is as near to so simple a fraction; turns of 2π/n are what people write
        if p.denominator**2 * tol > (0.25 if p.numerator == 1 else 0.002):
            return None
        order = lcm(order, p.denominator)
    return order if order <= MAX_ORDER_OF_ELEMENT else None


def _simplest_fraction(low: float, high: float) -> Fraction:
    """The fraction of smallest denominator in [low, high], high >= 0, along its continued fraction."""
    if low <= 0:
        return Fraction(0)
    whole = int(np.ceil(low))
    if whole <= high:
        return Fraction(whole)
    return (whole - 1) + 1 / _simplest_fraction(1 / (high - whole + 1), 1 / (low - whole + 1))


def _sharpened_alone(h: np.ndarray, order: int | None, i: int) -> np.ndarray:
    exact = sharpened_entries(h)
    w, condition = _spectrum(h)
    if order is None:
        entries = np.concatenate([exact.real.ravel(), exact.imag.ravel()])
        written = [Fraction(v * v).limit_denominator(60) for v in entries]
        simple = np.allclose(np.sqrt(np.array(written, float)), np.abs(entries), rtol=1e-12)
        if not simple and condition < 1e3 and np.abs(np.abs(w) - 1).max() < 1e-6 * condition:
            raise GroupError(
                f"discrete generator {i}, in single precision, turns by {np.abs(np.angle(w)).max():.7g}: whether by a "
                f"fraction of a full turn, and which, is lost in the rounding. {IN_DOUBLE}"
            )
        return exact
    if order_of(exact):
        return exact
    nearest = scipy.linalg.polar(h)[0]
    if np.abs(nearest - h).max() < 1e-6:
        t, u = scipy.linalg.schur(nearest, output="complex")
        turns, back = np.angle(np.diag(t)), u.conj().T
    else:
        w, u = np.linalg.eig(h)
        turns, back = np.angle(w), np.linalg.inv(u)
    turns = np.round(turns * order / (2 * np.pi)) / order
    snapped = (u * np.exp(2j * np.pi * turns)) @ back
    if np.abs(snapped - h).max() > 1e-6 * condition or order_of(snapped) != order:
        raise GroupError(f"discrete generator {i}, in single precision, is near none of order {order}. {IN_DOUBLE}")
    return snapped if np.iscomplexobj(h) else snapped.real


def sharpened_entries(m: np.ndarray) -> np.ndarray:
    """Entries in single precision -> the ±sqrt(p/q), q <= 60, that they round to, where there is one."""
    if np.iscomplexobj(m):
        return sharpened_entries(m.real) + 1j * sharpened_entries(m.imag)
    out = m.astype(np.float64)
    if not _fits_single(out):
        return out
    for where, value in np.ndenumerate(out):
        square = Fraction(value * value).limit_denominator(60)
        exact = np.sign(value) * np.sqrt(float(square))
        if abs(exact - value) <= 2e-7 * abs(value):
            out[where] = exact
    return out
