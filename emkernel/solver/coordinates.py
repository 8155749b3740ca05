"""Good coordinates for solving: the same group, orthogonal where it can be, with normalised generators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, cached_property
from math import gcd

import numpy as np
import scipy.linalg

from .. import _compact, _sharpen
from ..errors import GroupError
from ..group_element import GroupElement
from ..images import Images
from ..matrix_group import MatrixGroup
from .polish import polished_group
from .reductive import (
    LARGEST,
    Closure,
    algebraic_hull,
    closed_under_transpose,
    closure,
    is_ambiguous,
    moderate_basis,
    self_adjoint_basis,
)

__all__ = ["Coordinates"]


class Coordinates:
    """A group in coordinates v' = L v where the solver is at ease.

    A compact group becomes orthogonal, any other reductive group closed under transpose; each Lie algebra generator
    gets spectral norm 1; a cyclic generator near the identity is replaced by the power of it, generating the same
    cyclic group, that turns by about 0.38 of a turn.

    Attributes:
        group: the group as the user gave it.
        basis, inverse: (d, d) L and L^-1.
        images: V on the normalised generators, in the new coordinates, with held-out elements and probes.
        completely_reducible: whether every representation built from V provably splits into irreducibles, orthogonally.
    """

    HELD_OUT = 3
    PROBES = 5  # the first reduces a problem to its weights, the others average
    CANDIDATES = 12
    LETTERS = 12

    def __init__(self, group: MatrixGroup):
        self.group = group
        d = group.d
        self.basis = self._basis()
        self.inverse = np.linalg.inv(self.basis)
        self._discrete = _compact.conjugate(group.discrete_generators, self.basis)
        self._lie = _compact.conjugate(group.lie_algebra, self.basis)
        norms = [np.linalg.norm(a, 2) for a in self._lie]
        self.scales = np.array([n if n > 0 else 1.0 for n in norms])
        self.powers = [_spread_power(h, q) for h, q in zip(self._discrete, group._orders)]
        self._error = group._written.error_in(self.basis, group.name)
        if self._error:
            self._error *= max((power for power, _ in self.powers), default=1)
        self.completely_reducible = group.is_compact or (
            not is_ambiguous(self._unit_generators(np.eye(d))[1])
            and closed_under_transpose(self._discrete, self.hull, self.noise)
        )
        if self.completely_reducible and not np.array_equal(self.basis, np.eye(d)):
            self._polish()
        self._normal_discrete, self._normal_lie = self._normalised(self._discrete, self._lie)
        # answers to those who trust few digits are not for those who do not
        written = "" if self._error is None else " as typed" if self._error == 0 else " typed"
        images = self.normalise(Images.of(self._discrete, self._lie, group.digest + written))
        self.images = replace(images, find_probes=self.probes_of(images), permuted=_permuted(images))

    def _polish(self) -> None:
        """Remove the rounding that came with the basis."""
        group = self.group
        if group.is_compact:
            self._discrete = np.array([scipy.linalg.polar(h)[0] for h in self._discrete]).reshape(self._discrete.shape)
            self._lie = (self._lie - self._lie.transpose(0, 2, 1)) / 2
        if group._known_order is not None:
            if group._known_order <= 500:
                self._discrete = _sharpen.polish(self._discrete, 1e-4, 500)
        elif self.hull.is_clear(self.noise):
            lie = self._lie / self.scales[:, None, None]
            exact = polished_group(self._discrete, lie, self.hull.basis, group._orders, max(self.noise, 1e-9))
            if exact is not None:
                self._discrete, self._lie = exact[0], exact[1] * self.scales[:, None, None]
        vars(self).pop("hull", None)

    @cached_property
    def noise(self) -> float:
        """Relative rounding of the generators in these coordinates, generously; changes of units cost none."""
        return min(1e3 * np.finfo(float).eps * np.linalg.cond(self.basis / self.group._units) ** 2, 1e-5)

    def _basis(self) -> np.ndarray:
        group = self.group
        one = np.eye(group.d)
        if group.is_compact:
            basis = group.orthogonal_basis
            return one if np.abs(basis - one).max() < 1e-14 else basis
        units = group._units
        basis = np.diag(units)
        if any(is_ambiguous(self._unit_generators(b)[1]) for b in (one, basis)):
            if np.linalg.cond(basis) > LARGEST:
                raise GroupError(
                    f"{group.name}: brackets of its Lie generators leave their span by little, which is rounding in "
                    f"one choice of units and not in another, {np.linalg.cond(basis):.0e} apart. Write the generators "
                    "in full precision, in units where their entries are of one size."
                )
            return one  # a change of basis would decide what the generators leave open
        for better in (moderate_basis, self_adjoint_basis):
            discrete, lie = self._unit_generators(basis)
            step = better(discrete, lie)
            if step is not None and np.linalg.cond(step @ basis / units) < LARGEST:
                changed = self._unit_generators(step @ basis)
                # a change of basis has the same algebra, unless it shrinks what keeps the group from being reductive
                if len(algebraic_hull(*changed).basis) < len(algebraic_hull(discrete, lie).basis):
                    continue
                noise = 1e3 * np.finfo(float).eps * np.linalg.cond(step @ basis / units) ** 2
                if better is moderate_basis or closed_under_transpose(changed[0], algebraic_hull(*changed), noise):
                    basis = step @ basis
        plain = self._unit_generators(one)
        if np.linalg.cond(basis) < 4 and closed_under_transpose(plain[0], algebraic_hull(*plain)):
            return one  # as good, and the user's own
        return basis

    def _unit_generators(self, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        discrete = _compact.conjugate(self.group.discrete_generators, basis)
        lie = _compact.conjugate(self.group.lie_algebra, basis)
        norms = np.array([max(np.linalg.norm(a, 2), 1e-300) for a in lie])
        return discrete, lie / norms[:, None, None]

    @cached_property
    def probe(self) -> GroupElement:
        """The held-out elements, as words in the user's generators, none of them far from orthogonal."""
        sample = self.group.sample(self.HELD_OUT, 20_211)
        if self.group.is_compact:
            return sample
        return replace(sample, coefs=np.clip(sample.coefs * self.scales, -0.7, 0.7) / self.scales)

    def normalise(self, images: Images) -> Images:
        """Images on the user's generators -> on the normalised ones, with the held-out elements filled in."""
        discrete, lie = self._normalised(images.discrete, images.lie)
        held_out = self.probe.evaluate(images.discrete, images.lie)
        return Images(discrete, lie, held_out, images.digest, error=self._error)

    def probes_of(self, images: Images) -> Callable[[], tuple[np.ndarray, ...]]:
        """What computes the probes of images that are orthogonal, or closed under transpose with the group."""
        if not self.completely_reducible:
            return tuple
        return cache(lambda: (self._evaluate(self._words, images.discrete, images.lie),))

    @cached_property
    def _words(self) -> list[tuple[list[tuple[int, int]], np.ndarray]]:
        """Random words, each some (generator, power) and coefficients (2, D): the first separates weights best."""
        rng = np.random.default_rng(5)
        many, lie = len(self._discrete), len(self._lie)
        orders = [q or (9 if self._error else 1009) for q in self.group._orders]
        words = []
        for _ in range(self.CANDIDATES):
            letters = [int(i) for i in rng.integers(0, max(many, 1), self.LETTERS if many > 1 else many)]
            letters = [(i, int(rng.integers(1, max(orders[i], 2)))) for i in letters]
            words.append((letters, rng.standard_normal((2, lie)) * 2))
        V = self._evaluate(words, self._normal_discrete, self._normal_lie)
        first = int(np.argmin([_coincidences(np.linalg.eigvals(u)) for u in V[: len(words)]]))
        return [words[first], *(w for i, w in enumerate(words) if i != first)][: self.PROBES]

    def _evaluate(self, words, discrete: np.ndarray, lie: np.ndarray) -> np.ndarray:
        """Unitary matrices (P + M, n, n) in the compact dual of the group's algebraic hull, of words and generators.

        h = k exp(X) gives k, A = T + S with T antisymmetric and S symmetric gives exp(t T + i s S): what they fix, the
        group fixes (Weyl's unitary trick). Real for a compact group.
        """
        turns = [scipy.linalg.polar(h)[0] for h in discrete]
        dual = (lie - lie.transpose(0, 2, 1)) / 2
        if not self.group.is_compact:
            dual = dual + 0.5j * (lie + lie.transpose(0, 2, 1))
        out = []
        for letters, coefs in words:
            word = np.eye(discrete.shape[-1])
            for step in range(max(len(letters), 2 if len(dual) else 1)):
                if step < len(letters):
                    i, power = letters[step]
                    word = word @ np.linalg.matrix_power(turns[i], power)
                if len(dual) and step < 2:
                    word = word @ scipy.linalg.expm(np.tensordot(coefs[step], dual, 1))
            out.append(scipy.linalg.polar(word)[0])
        return np.array([*out, *turns])

    def _normalised(self, discrete: np.ndarray, lie: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        powers = [_power(h, p, q) for h, (p, _), q in zip(discrete, self.powers, self.group._orders)]
        return np.array(powers).reshape(discrete.shape), lie / self.scales[:, None, None]

    def restore(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Images on the normalised generators -> (discrete, lie) on the user's."""
        n = images.size
        discrete = [_power(h, p, q) for h, (_, p), q in zip(images.discrete, self.powers, self.group._orders)]
        return np.array(discrete).reshape(-1, n, n), images.lie * self.scales[:, None, None]

    @cached_property
    def lie_closure(self) -> np.ndarray:
        """Orthonormal basis (m, d, d) of the Lie algebra that the generators generate, under brackets and h A h^-1."""
        return closure(self._discrete, self._lie / self.scales[:, None, None]).basis

    @cached_property
    def hull(self) -> Closure:
        """The Lie algebra of the smallest algebraic group that contains this one."""
        return algebraic_hull(self._discrete, self._lie / self.scales[:, None, None])


def _permuted(images: Images) -> tuple[np.ndarray, np.ndarray] | None:
    h = images.discrete
    if not len(h) or len(images.lie) or not ((h == 0) | (h == 1)).all() or (h.sum(1) != 1).any():
        return None
    return h.argmax(1), np.eye(images.size)


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


def _coincidences(w: np.ndarray) -> int:
    """How many products of two eigenvalues agree: the number of weights zero in V ⊗ V ⊗ V* ⊗ V*."""
    pairs = np.outer(w, w).reshape(-1)
    return int((np.abs(pairs[:, None] - pairs) < 1e-6).sum()) if len(w) <= 40 else -len(np.unique(np.round(w, 6)))
