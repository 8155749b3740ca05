"""The exact finite group near generators that were typed with few digits or kept in single precision."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from math import lcm

import numpy as np
import scipy.linalg
from scipy.spatial import cKDTree

from ._finite import words_have_finite_order
from ._orders import MAX_ORDER_OF_ELEMENT, order_of, spectrum
from .errors import GroupError


def polish(generators: np.ndarray, tol: float, max_order: int) -> np.ndarray:
    """Exact generators of the finite group near approximate ones; see MatrixGroup.polished."""
    if not len(generators):
        raise GroupError("there are no generators to polish")
    elements = [np.eye(generators.shape[-1], dtype=generators.dtype)]
    for i, h in enumerate(generators):
        # an element of finite order has eigenvalues on the unit circle, and so this trace and determinant
        size = abs(np.linalg.det(h))
        if not (abs(np.trace(h)) < 2 * len(h) and 0.5 < size < 2):
            raise GroupError(
                f"generator {i} has determinant {size:.3g} and trace {abs(np.trace(h)):.3g}: no element of a finite "
                "group is near it"
            )
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
    if None not in orders and not words_have_finite_order(np.stack(out), 1.0):
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
    w, condition = spectrum(h)
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
    w, condition = spectrum(h)
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
