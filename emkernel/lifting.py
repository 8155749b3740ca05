"""The Lie algebra that generators generate, carried over to their images; logarithms in it."""

from __future__ import annotations

from dataclasses import dataclass
from warnings import catch_warnings, simplefilter

import numpy as np
import scipy.linalg

from . import _compact
from .images import Images

__all__ = ["Lift", "Worst", "gap", "lift", "logarithm", "units"]


def gap(a: np.ndarray, b: np.ndarray) -> float:
    """max |a - b| relative to the larger of 1, |a| and |b|; infinite where it is not a number."""
    error = np.abs(a - b).max(initial=0) / max(1.0, np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    return float(error) if np.isfinite(error) else np.inf


class Worst:
    """The largest error seen, and the first relation that has about that error: the simplest ones are seen first."""

    def __init__(self):
        self.error, self.relation, self._named = 0.0, "", 0.0

    def see(self, error: float, relation: str) -> None:
        """Take note of a relation and of how much it fails."""
        self.error = max(self.error, error)
        if error > 10 * self._named:
            self.relation, self._named = relation, error


def units(images: Images) -> np.ndarray:
    """(n,) one scaling of the coordinates, x_i = scale_i y_i, in which all the matrices are balanced."""
    return 1 / _compact.units(images.discrete, images.lie) if images.size else np.ones(0)


@dataclass(frozen=True, eq=False)
class Lift:
    """The Lie algebra that the generators generate in V and, by the same operations, in the image.

    Attributes:
        algebra: (m, d * d) orthonormal rows.
        lifted: (m, n * n) their images.
        error: the most by which a combination that vanishes in V fails to vanish in the image.
        worst: that combination.
    """

    algebra: np.ndarray
    lifted: np.ndarray
    error: float
    worst: str


def lift(V: Images, images: Images) -> Lift:
    """The Lie algebra closed under brackets and h A h^-1, in V and in the image."""
    d, n, worst = V.size, images.size, Worst()
    algebra, lifted = np.zeros((0, d * d)), np.zeros((0, n * n))
    names: list[str] = []
    moves = [
        (f"h_{i}", h, np.linalg.inv(h), r, np.linalg.inv(r))
        for i, (h, r) in enumerate(zip(V.discrete, images.discrete))
    ]
    norms = [float(np.linalg.norm(A)) or 1.0 for A in V.lie]
    todo = [(f"A_{k}", A / s, R / s) for k, (A, R, s) in enumerate(zip(V.lie, images.lie, norms))]
    while todo:
        fresh = []
        for name, A, R in todo:
            a, r = A.reshape(-1), R.reshape(-1)
            for _ in range(2):
                c = algebra @ a
                a, r = a - c @ algebra, r - c @ lifted
            rest = np.linalg.norm(a)
            if rest <= 1e-7 * max(float(np.linalg.norm(A)), 1e-3):
                missed = float(np.abs(r).max(initial=0) / max(1.0, np.abs(R).max(initial=0)))
                worst.see(missed if np.isfinite(missed) else np.inf, f"{name} as a combination of the rest")
                continue
            algebra, lifted = (
                np.concatenate([algebra, a[None] / rest]),
                np.concatenate([lifted, r[None] / rest]),
            )
            names.append(name)
            fresh.append((name, a.reshape(d, d) / rest, r.reshape(n, n) / rest))
        todo = [
            (f"{h} {name} {h}^-1", m @ A @ m_1, s @ R @ s_1)
            for name, A, R in fresh
            for h, m, m_1, s, s_1 in moves
        ]
        todo += [
            (f"[{name}, {other}]", A @ B - B @ A, R @ S - S @ R)
            for name, A, R in fresh
            for other, B, S in zip(names, algebra.reshape(-1, d, d), lifted.reshape(-1, n, n))
        ]
    return Lift(algebra, lifted, worst.error, worst.relation)


def logarithm(matrix: np.ndarray, algebra: np.ndarray) -> np.ndarray | None:
    """Coefficients c with matrix = exp(Σ c_k algebra_k), rows orthonormal; None where the principal log is not that."""
    if not np.isfinite(matrix).all() or np.linalg.cond(matrix) > 1e6:
        return None
    with catch_warnings():
        simplefilter("ignore")  # an inaccurate logarithm is recognised below, and not used
        log = scipy.linalg.logm(matrix)
    c = algebra @ log.real.reshape(-1)
    inside = np.abs(log.reshape(-1) - c @ algebra).max(initial=0) < 1e-9
    return c if inside and gap(scipy.linalg.expm(log.real), matrix) < 1e-12 else None
