"""The representation on an invariant subspace of another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg

from ._arguments import array_of
from .errors import RepError
from .expressions import Rep
from .images import Images
from .lifting import units

__all__ = ["SubRep"]

TOLERANCE = 1e-8  # relative, in coordinates without units


@dataclass(frozen=True, eq=False, repr=False)
class SubRep(Rep):
    """ρ_sub(g) = to ρ(g) back on a subspace of ``base`` that ρ keeps: ρ(g) back = back ρ_sub(g).

    Args:
        base: a bound representation of dimension n.
        back: (n, m), its columns a basis of the subspace.
        to: (m, n) coordinates in that basis, to back = 1; by default the pseudo-inverse.
        name: for people.

    Raises:
        RepError: wrong shapes, columns that are linearly dependent, ``to back`` is not 1, or a subspace that is not
            invariant (naming the generator that moves it).

    Example:
        >>> plane = ek.SubRep(V(groups.SO2z()), np.eye(3)[:, :2])  # rotations about z keep the xy plane
        >>> plane.size
        2
    """

    base: Rep
    back: np.ndarray
    to: np.ndarray = None
    name: str = "SubRep"

    def __post_init__(self):
        if not isinstance(self.base, Rep):
            raise RepError(f"{self.name}: base must be a representation, got {type(self.base).__name__}")
        self.base._require_bound()
        n = self.base.size
        back = _matrix(self.back, f"{self.name}: back")
        if back.shape[0] != n:
            raise RepError(
                f"{self.name}: back has shape {back.shape}, expected ({n}, m): columns in {self.base}"
            )
        m = back.shape[1]
        norms = np.linalg.norm(back, axis=0)
        sizes = np.linalg.svd(back / np.where(norms > 0, norms, 1), compute_uv=False)
        if m > n or (m and sizes[-1] < 1e-10):
            raise RepError(f"{self.name}: the {m} columns of back are linearly dependent")
        if self.to is None:
            to = _pseudo_inverse(back, norms)
        else:
            to = _matrix(self.to, f"{self.name}: to")
            if to.shape != (m, n):
                raise RepError(f"{self.name}: to has shape {to.shape}, expected ({m}, {n})")
            if (error := np.abs(to @ back - np.eye(m)).max(initial=0)) > 1e-9:
                raise RepError(f"{self.name}: to @ back is not the identity, but off by {error:.1e}")
        for name, value in (("back", back), ("to", to)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        self._check_invariance()

    def _check_invariance(self) -> None:
        images = self.base.images
        scale = units(images)
        # an orthonormal basis of the subspace where the coordinates have no units
        Q = np.linalg.qr(self.back / scale[:, None])[0]
        for kind, matrices in (("discrete_generators", images.discrete), ("lie_algebra", images.lie)):
            for i, m in enumerate(matrices):
                m = m * scale / scale[:, None]
                moved = m @ Q
                rest = np.abs(moved - Q @ (Q.T @ moved)).max(initial=0)
                if not rest <= TOLERANCE * max(np.abs(m).max(initial=0), 1e-300):
                    raise RepError(
                        f"{self.name}: the subspace is not invariant: {kind}[{i}] of {self.group.name} moves it out of "
                        f"itself by {rest:.1e}"
                    )

    @property
    def group(self):
        """The group that the base is bound to."""
        return self.base.group

    @property
    def size(self):
        return self.back.shape[1]

    @cached_property
    def images(self) -> Images:
        """The matrices on the generators of the group."""
        images = self.base.images
        return Images.of_content(self.to @ images.discrete @ self.back, self.to @ images.lie @ self.back)

    @cached_property
    def _content(self) -> tuple:
        content = [hashlib.sha256((m + 0.0).tobytes()).hexdigest() for m in (self.back, self.to)]
        return (self.base, self.back.shape, *content)

    def _bind(self, group):
        self._require_same(group)
        return self

    def _rho(self, g, batch):
        return self.to @ self.base._rho(g, batch) @ self.back

    def _drho(self, A):
        return self.to @ self.base._drho(A) @ self.back

    def __eq__(self, other):
        return isinstance(other, SubRep) and self._content == other._content

    def __hash__(self):
        return hash(self._content)

    def __str__(self):
        return self.name


def _matrix(m, what: str) -> np.ndarray:
    m = array_of(m, what, RepError, "biufc")
    if np.iscomplexobj(m) or m.ndim != 2:
        raise RepError(f"{what} must be a real matrix, got shape {m.shape} of {m.dtype}")
    m = np.array(m, dtype=float)
    if not np.isfinite(m).all():
        raise RepError(f"{what} has entries that are not finite numbers")
    return m


def _pseudo_inverse(back: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """(back^T back)^-1 back^T, column norms apart; exact for columns that are orthonormal."""
    unit = back / norms
    gram = unit.T @ unit
    if np.abs(gram - np.eye(len(gram))).max(initial=0) < 1e-14:
        return unit.T / norms[:, None]
    q, r = np.linalg.qr(unit)
    return scipy.linalg.solve_triangular(r, q.T) / norms[:, None]
