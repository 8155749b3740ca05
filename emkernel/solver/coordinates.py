"""Good coordinates for solving: the same group, orthogonal where it can be, with normalised generators."""

from __future__ import annotations

from functools import cached_property
from math import gcd

import numpy as np
import scipy.linalg

from .. import _finite
from ..group_element import GroupElement
from ..images import Images
from ..matrix_group import MatrixGroup

__all__ = ["Coordinates"]


class Coordinates:
    """A group in coordinates v' = L v where the solver is at ease.

    A compact group becomes orthogonal; each Lie algebra generator gets spectral norm 1; a cyclic generator near
    the identity is replaced by the power of it, generating the same cyclic group, that turns by about 0.38 of a turn.

    Attributes:
        group: the group as the user gave it.
        basis, inverse: (d, d) L and L^-1.
        images: V on the normalised generators, in the new coordinates, with held-out elements.
    """

    HELD_OUT = 3

    def __init__(self, group: MatrixGroup):
        self.group = group
        basis = group.orthogonal_basis
        if basis is None or np.abs(basis - np.eye(group.d)).max() < 1e-14:
            basis = np.eye(group.d)
        self.basis, self.inverse = basis, np.linalg.inv(basis)
        discrete = np.array([self.basis @ h @ self.inverse for h in group.discrete_generators])
        lie = np.array([self.basis @ a @ self.inverse for a in group.lie_algebra])
        if group.is_compact and not np.array_equal(basis, np.eye(group.d)):
            discrete = np.array([scipy.linalg.polar(h)[0] for h in discrete])
            lie = (lie - np.swapaxes(lie, -1, -2)) / 2 if len(lie) else lie
            if group.is_finite and group.order <= 500:
                discrete = _finite.polish(discrete, 1e-4, 500)
        norms = [np.linalg.norm(a, 2) for a in lie]
        self.scales = np.array([n if n > 0 else 1.0 for n in norms])
        self.powers = [_spread_power(h, q) for h, q in zip(discrete, group._orders)]
        d = group.d
        self._discrete = discrete.reshape(-1, d, d)
        self._lie = lie.reshape(-1, d, d)
        self.images = self.normalise(Images(self._discrete, self._lie, np.zeros((0, d, d)), group.digest))

    @cached_property
    def probe(self) -> GroupElement:
        """The held-out elements, as words in the user's generators."""
        return self.group.sample(self.HELD_OUT, 20_211)

    def normalise(self, images: Images) -> Images:
        """Images on the user's generators -> on the normalised ones, with the held-out elements filled in."""
        discrete = [_power(h, p, q) for h, (p, _), q in zip(images.discrete, self.powers, self.group._orders)]
        n = images.size
        return Images(
            np.array(discrete).reshape(-1, n, n),
            images.lie / self.scales[:, None, None],
            self.probe.evaluate(images.discrete, images.lie),
            images.digest,
        )

    def restore(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Images on the normalised generators -> (discrete, lie) on the user's."""
        n = images.size
        discrete = [_power(h, p, q) for h, (_, p), q in zip(images.discrete, self.powers, self.group._orders)]
        return np.array(discrete).reshape(-1, n, n), images.lie * self.scales[:, None, None]

    @cached_property
    def lie_closure(self) -> np.ndarray:
        """Orthonormal basis (m, d, d) of the Lie algebra that the generators generate, under brackets and h A h^-1."""
        return _closure(
            self._discrete, self._lie / self.scales[:, None, None] if len(self._lie) else self._lie
        )

    @cached_property
    def completely_reducible(self) -> bool:
        """Whether every representation built from V provably splits into irreducibles, orthogonally.

        True for a compact group, and for one whose matrices are closed under transpose: there the orthogonal
        complement of an invariant subspace is invariant.
        """
        return self.group.is_compact or _closed_under_transpose(self._discrete, self.lie_closure)


def _spread_power(h: np.ndarray, order: int | None) -> tuple[int, int]:
    """(p, p^-1 mod order) with p coprime to the order and p/order near 0.38; (1, 1) unless h is near 1."""
    if order is None or order < 50 or np.abs(h - np.eye(len(h))).max() > 0.2:
        return 1, 1
    p = round(0.381966 * order)
    while gcd(p, order) != 1:
        p += 1
    return p, pow(p, -1, order)


def _power(h: np.ndarray, p: int, order: int | None) -> np.ndarray:
    """h^p; for an orthogonal h of known order with the turns of its eigenvalues snapped to multiples of 1/order."""
    if p == 1:
        return h
    if np.abs(h @ h.T - np.eye(len(h))).max() > 1e-9:
        return np.linalg.matrix_power(h, p)
    T, U = scipy.linalg.schur(h, output="complex")
    turns = np.round(np.angle(np.diag(T)) * order / (2 * np.pi)).astype(int)
    return ((U * np.exp(2j * np.pi * (turns * p % order) / order)) @ U.conj().T).real


def _closure(discrete: np.ndarray, lie: np.ndarray) -> np.ndarray:
    d = lie.shape[-1]
    basis = np.zeros((0, d * d))

    def add(items, basis):
        fresh = []
        for m in items:
            v = m.reshape(-1)
            size = np.linalg.norm(v)
            for _ in range(2):
                v = v - basis.T @ (basis @ v)
            if np.linalg.norm(v) > 1e-7 * max(size, 1e-3):
                basis = np.concatenate([basis, v[None] / np.linalg.norm(v)])
                fresh.append(basis[-1].reshape(d, d))
        return fresh, basis

    fresh, basis = add([a for a in lie if np.any(a)], basis)
    while fresh:
        items = [np.linalg.solve(h.T, (h @ a).T).T for a in fresh for h in discrete]
        items += [a @ b - b @ a for a in fresh for b in basis.reshape(-1, d, d)]
        fresh, basis = add(items, basis)
    return basis.reshape(-1, d, d)


def _closed_under_transpose(discrete: np.ndarray, algebra: np.ndarray) -> bool:
    flat = algebra.reshape(len(algebra), algebra.shape[1] ** 2)

    def inside(m):
        v = m.reshape(-1)
        return np.linalg.norm(v - flat.T @ (flat @ v)) <= 1e-8 * max(1.0, np.linalg.norm(v))

    if not all(inside(a.T) for a in algebra):
        return False
    for h in discrete:
        square = h.T @ h
        if np.abs(square - np.eye(len(h))).max() < 1e-10 or np.abs(h - h.T).max() < 1e-10:
            continue
        # h = k exp(X/2): with X = log(h^T h) in the algebra, k is an orthogonal element and h^T = exp(X/2) k^-1
        if not inside(scipy.linalg.logm(square).real):
            return False
    return True
