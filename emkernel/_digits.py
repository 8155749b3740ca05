"""The digits with which generators are written, and the errors that these leave in every entry."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

SINGLE = 7
FEWEST, MOST = 3, 14  # digits: 0.6 and 0.8 are meant, and a computed matrix has an entry of more than fourteen


def typed_digits(matrices: np.ndarray) -> np.ndarray:
    """(K,) the significant digits with which each matrix is typed, 3 to 14; 17 where it is computed, or meant as it is.

    Meant are orthogonal matrices, small whole numbers times powers of two, and one or two digits unless others are
    typed with more. What single precision holds has seven.
    """
    own = [SINGLE if _is_single(m) else _most_digits(m) for m in matrices]
    most = max((n for n in own if FEWEST <= n <= MOST), default=17)
    digits = np.array([17 if not 0 < n <= MOST else n if n >= FEWEST else most for n in own], int)
    for k, m in enumerate(matrices):
        with np.errstate(all="ignore"):
            miss = np.abs(m.T @ m - np.eye(len(m))).max()
        if miss < min(1e-14, 10.0 ** -(digits[k] + 2)):
            digits[k] = 17
    return digits


def half_units(matrices: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """(K, d, d) half a unit in the last digit of each entry, 0 of those that are zero.

    Either so many digits are significant, or as many decimals are kept as any entry of the matrix has, if any has; in
    single precision it is half a unit of that.
    """
    out = np.zeros(matrices.shape)
    for error, m, many in zip(out, np.abs(matrices), digits):
        if many == 17:
            continue
        if _is_single(m):
            error[:] = m * 2.0**-24
            continue
        places = {ij: _decimal(float(m[ij]))[1] for ij in zip(*np.nonzero(m))}
        last = min(places.values())
        for ij, place in places.items():
            significant = int(np.floor(np.log10(m[ij]))) + 1 - many
            error[ij] = 0.5 * 10.0 ** min(place, max(significant, last if last < 0 else significant))
    return out


def _most_digits(m: np.ndarray) -> int:
    """Of the entries of one matrix; 0 where all are small whole numbers times powers of two, as no rounded ones are."""
    most = 0
    for x in set(np.abs(m).reshape(-1).tolist()):
        odd = Fraction(x).numerator
        if odd // (odd & -odd or 1) > 1000:
            most = max(most, len(_decimal(x)[0]))
        if most > MOST:
            break
    return most


def _is_single(m: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return _most_digits(m) > MOST and np.array_equal(m, m.astype(np.float32))


def _decimal(x: float) -> tuple[str, int]:
    """(significant digits of the shortest decimal that is x > 0, the power of ten of the last of them)."""
    mantissa, _, exponent = repr(x).partition("e")
    whole, _, decimals = mantissa.partition(".")
    written = whole + decimals
    digits = written.rstrip("0")
    return digits.lstrip("0"), int(exponent or 0) - len(decimals) + len(written) - len(digits)
