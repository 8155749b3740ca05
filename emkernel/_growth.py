"""Elements of a group of matrices that no choice of basis makes orthogonal: the proof that it is not compact."""

from __future__ import annotations

from functools import reduce

import numpy as np
import scipy.linalg

from . import _compact

SURE = 20  # times what errors of the generators change in a quantity, beyond which it is not made of them
DRAWS = 4
WORDS = 12
SQUARINGS = 50


def grows(
    discrete: np.ndarray, lie: np.ndarray, errors: tuple[np.ndarray, np.ndarray], condition: float
) -> bool:
    """Whether some element of the group has unbounded powers, beyond doubt.

    Its eigenvalues leave the unit circle, or its powers grow beyond what a basis of this condition explains. Both are
    believed where generators that are changed at random, within their errors, show them as well.

    Args:
        discrete, lie: (M, d, d), (D, d, d) generators.
        errors: (M, d, d), (D, d, d) how far each entry may be off.
        condition: the largest of a basis in which a compact group may be given.
    """
    balance = _compact.balance([*discrete, *lie])
    rng = np.random.default_rng(0)
    draws = [(discrete, lie)]
    for _ in range(DRAWS):
        draws.append(tuple(m + e * rng.uniform(-1, 1, m.shape) for m, e in zip((discrete, lie), errors)))
    with np.errstate(all="ignore"):
        found = [_words(*draw) for draw in draws]
        if _sure(np.array([[_rate(w) for w in words] for words in found]), 1e-9):
            return True
        return _sure(np.log([[_sizes(w, balance) for w in words] for words in found]), np.log(condition))


def _sure(values: np.ndarray, least: float) -> bool:
    """Whether a quantity (draws, ...) is beyond what errors make of it, and beyond the least, in every draw."""
    spread = np.ptp(values, axis=0)
    return bool((np.isfinite(spread) & (values.min(0) > np.maximum(least, SURE * spread))).any())


def _words(discrete: np.ndarray, lie: np.ndarray) -> list[np.ndarray]:
    """Generators, products of a few, and exponentials of Lie generators and their brackets: the same in every draw."""
    rng = np.random.default_rng(1)
    norms = np.maximum(np.linalg.norm(lie, axis=(1, 2)), 1e-300)[:, None, None]
    algebra = list(lie / norms)
    for _ in range(WORDS if len(lie) > 1 else 0):
        i, j = rng.integers(len(algebra), size=2)
        algebra.append(algebra[i] @ algebra[j] - algebra[j] @ algebra[i])
    letters = [*discrete, *scipy.linalg.expm(np.array(algebra).reshape(-1, *discrete.shape[1:]))]
    words = list(letters)
    for _ in range(WORDS if len(letters) > 1 else 0):
        words.append(reduce(np.matmul, [letters[i] for i in rng.integers(len(letters), size=rng.integers(2, 5))]))
    return words


def _rate(m: np.ndarray) -> float:
    if not np.isfinite(m).all():
        return np.nan
    return float(np.abs(np.log(np.abs(np.linalg.eigvals(m)))).max())


def _sizes(m: np.ndarray, balance: np.ndarray) -> list[float]:
    """|m^(2^k)| for k = 0, 1, ..., in the coordinates given or balanced ones, whichever is smaller."""
    sizes = []
    for _ in range(SQUARINGS):
        sizes.append(min(np.linalg.norm(x) for x in (m, m * balance / balance[:, None])))
        m = m @ m
    return sizes
