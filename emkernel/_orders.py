"""Orders of matrices of finite order, and what their digits say of them."""

from __future__ import annotations

from fractions import Fraction
from math import lcm

import numpy as np

MAX_ORDER_OF_ELEMENT = 2_000_000
SHOWN_ORDER = 10_000  # an order up to this is shown by digits, or said not to be


def spectrum(h: np.ndarray) -> tuple[np.ndarray, float]:
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
        return lcm(*cycle_lengths(moved))
    turns, tol, limit = _turns(h, blur, largest)
    if turns is None or limit < 1:
        return None
    order, exact = 1, set()
    for turn in turns:
        p = Fraction(float(turn)).limit_denominator(limit)
        if abs(float(p) - turn) > tol:
            return None
        order = lcm(order, p.denominator)
        if order > MAX_ORDER_OF_ELEMENT:
            return None
        exact.add(p % 1)
    return order if _splits(h, exact, tol) else None


def _splits(h: np.ndarray, turns: set[Fraction], tol: float) -> bool:
    """Whether Π (h - e^{2πi t}) = 0 over the different eigenvalues: of finite order, and not that times a shear."""
    values = [np.exp(2j * np.pi * float(t)) for t in turns]
    factors = [h - w * np.eye(len(h)) for w in values]
    sizes = [np.linalg.norm(f, 2) for f in factors]
    if len(factors) == 1:
        return sizes[0] <= max(1e-9, 1e3 * tol)
    product = factors[0]
    for f in factors[1:]:
        product = product @ f
    allowed = min(max(1e-6, 100 * tol / min(sizes)), 1e-2)
    return np.linalg.norm(product, 2) <= allowed * np.prod(sizes)


def hidden_order(h: np.ndarray, largest: float = 1.0, error: float = 0.0) -> int | None:
    """The largest order that the digits of h show, where it may well have a larger one: few digits, or small turns."""
    turns, tol, limit = _turns(h, max(1.0, error / np.finfo(float).eps), largest)
    if turns is None:
        return None
    smallest = min((abs(t) for t in turns if abs(t) > 10 * tol), default=1.0)
    return limit if limit < SHOWN_ORDER or smallest < 100 / limit else None


def _turns(h: np.ndarray, blur: float, largest: float) -> tuple[np.ndarray | None, float, int]:
    """(angles of the eigenvalues in turns or None off the circle, their error, the largest denominator it allows)."""
    w, condition = spectrum(h)
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


def nearly_order(
    h: np.ndarray, digits: float = 1e-3, highest: int = 120, error: float = 0.0
) -> tuple[int, float] | None:
    """(q, |h^q - 1|) when h misses a small finite order q by what a few typed digits would explain, or this error."""
    q = order_of(h, error / np.finfo(float).eps) if error else None
    if q is not None and q > 1:
        return q, float(np.abs(np.linalg.matrix_power(h, q) - np.eye(len(h))).max())
    w, condition = spectrum(h)
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


def cycle_lengths(images: np.ndarray) -> list[int]:
    lengths, left = [], np.ones(len(images), bool)
    while left.any():
        point, length = int(left.argmax()), 0
        while left[point]:
            left[point], point, length = False, int(images[point]), length + 1
        lengths.append(length)
    return lengths
