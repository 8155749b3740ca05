"""The digits with which generators are written, and the errors that these leave in every entry."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .errors import GroupError

LARGEST_ERROR = 0.03  # of a generator of norm 1, with which it may be anything
SINGLE = 7
FEWEST, MOST = 3, 14  # digits: 0.6 and 0.8 are meant, and a computed matrix has an entry of more than fourteen


@dataclass(frozen=True, eq=False)
class Written:
    """How generators are written.

    Attributes:
        matrices: (M, d, d) discrete generators and (D, d, d) Lie generators.
        digits: (M,) and (D,) the significant digits with which each is typed, 3 to 14; 17 for any other.
        errors: (M, d, d) and (D, d, d) how far each entry may be from what was meant, beyond the rounding of doubles.
    """

    matrices: tuple[np.ndarray, np.ndarray]
    digits: tuple[np.ndarray, np.ndarray]
    errors: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, discrete: np.ndarray, lie: np.ndarray, trusted: bool) -> Written:
        """Read off the entries; where digits are trusted there are no errors."""
        digits = typed_digits(np.concatenate([discrete, lie]))
        digits = digits[: len(discrete)], digits[len(discrete) :]
        errors = half_units(discrete, digits[0]), half_units(lie, digits[1])
        return cls((discrete, lie), digits, tuple(0 * e for e in errors) if trusted else errors)

    @property
    def fewest(self) -> int:
        """The fewest digits of any generator."""
        return int(np.concatenate(self.digits).min(initial=17))

    def relative(self, i: int) -> float:
        """Half a unit in the last digit of a discrete generator, relative; 0 where it is not typed, or trusted."""
        return 0.5 * 10.0 ** (1 - self.digits[0][i]) if self.errors[0][i].any() else 0.0

    def error_in(self, basis: np.ndarray, name: str, stretched: bool = False) -> float | None:
        """How far generators may be off in coordinates v' = L v; None where none is typed.

        Relative to the larger of 1 and their norm, those of the algebra to their norm. Entries err independently. Where
        only a stretched basis makes the group orthogonal, errors must be small beside gaps between eigenvalues, too: a
        shear that was rounded turns by little.

        Raises:
            GroupError: farther than any answer allows.
        """
        inverse, largest = np.linalg.inv(basis), None
        for kind, least, *arrays in zip(("discrete_generators", "lie_algebra"), (1.0, 0.0), *self._by_kind):
            for i, (m, digits, e) in enumerate(zip(*arrays)):
                if digits == 17:
                    continue
                here = basis @ m @ inverse
                size = max(least, np.linalg.norm(here, 2))
                error = float(np.sqrt((basis**2 @ e**2 @ inverse**2).sum()) / size)
                if error > LARGEST_ERROR * (_smallest_gap(here / size) if stretched else 1):
                    raise GroupError(
                        f"{name}: {kind}[{i}] is written with {digits} digits. In coordinates where the group is "
                        f"nearest to orthogonal they leave an error of {error:.0e}, and open what it generates. Write "
                        "it in full precision, or pass trust_digits=True if it is meant as it stands."
                    )
                largest = max(largest or 0.0, error)
        return largest

    @property
    def _by_kind(self):
        return self.matrices, self.digits, self.errors


def typed_digits(matrices: np.ndarray) -> np.ndarray:
    """(K,) the significant digits with which each matrix is typed, 3 to 14; 17 where it is computed, or meant as it is.

    Meant are orthogonal matrices, small whole numbers times powers of two, and one or two digits unless others are
    typed with more. What single precision holds has seven.
    """
    own = [_most_digits(m) for m in matrices]
    own = [SINGLE if n > MOST and _is_single(m) else n for n, m in zip(own, matrices)]
    most = max((n for n in own if FEWEST <= n <= MOST), default=17)
    digits = np.array([17 if not 0 < n <= MOST else n if n >= FEWEST else most for n in own], int)
    for k in np.flatnonzero(digits < 17):
        m = matrices[k]
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
        if many == SINGLE and _most_digits(m) > MOST:
            error[:] = m * 2.0**-24
            continue
        places = {ij: _decimal(float(m[ij]))[1] for ij in zip(*np.nonzero(m))}
        last = min(places.values())
        for ij, place in places.items():
            significant = int(np.floor(np.log10(m[ij]))) + 1 - many
            error[ij] = 0.5 * 10.0 ** min(place, max(significant, last if last < 0 else significant))
    return out


def _smallest_gap(m: np.ndarray) -> float:
    """The least distance of two eigenvalues of a normal matrix of norm 1 that are not equal, at most 1."""
    w = np.linalg.eigvals(m)
    gaps = np.abs(w[:, None] - w)
    return float(gaps[gaps > 1e-9].min(initial=1.0))


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
        return np.array_equal(m, m.astype(np.float32))


def _decimal(x: float) -> tuple[str, int]:
    """(significant digits of the shortest decimal that is x > 0, the power of ten of the last of them)."""
    mantissa, _, exponent = repr(x).partition("e")
    whole, _, decimals = mantissa.partition(".")
    written = whole + decimals
    digits = written.rstrip("0")
    return digits.lstrip("0"), int(exponent or 0) - len(decimals) + len(written) - len(digits)
