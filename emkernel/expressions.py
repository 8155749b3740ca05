"""Representations: an algebra of expressions in V, and the matrices they stand for once bound to a group.

A representation is the images ρ(h_i), dρ(A_k) of a group's generators. Expressions follow EMLP: ``V`` the defining
representation, ``Scalar``, ``T(p, q) = V^⊗p ⊗ V*^⊗q``, ``+``, ``*``, ``n*rep``, ``**``, ``.T`` and
``a >> b = b ⊗ a*`` (the space of linear maps a -> b).

Layout: a direct sum lists its terms in the order written, ``n*rep`` as n consecutive copies; the Kronecker product is
row-major, (x ⊗ y)[i*|y| + j] = x[i] y[j], so vec of a linear map (out, in) is its rows one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from math import prod

import numpy as np

from ._arguments import array_of
from .errors import RepError
from .group_element import GroupElement
from .images import Images, kron
from .matrix_group import MatrixGroup

__all__ = ["DualRep", "ProductRep", "Rep", "Scalar", "ScalarRep", "SumRep", "T", "V", "VectorRep"]


class Rep:
    """A representation of a group, or an expression that becomes one when it is bound: ``rep(G)``.

    Example:
        >>> G = groups.Oh()
        >>> rep = (8 * Scalar + 4 * V + 2 * V**2)(G)
        >>> rep.size, rep.rho(G.sample(1)[0]).shape
        (38, (38, 38))
    """

    group: MatrixGroup | None

    # ---- algebra --------------------------------------------------------------------------------------------

    def __call__(self, group: MatrixGroup) -> Rep:
        """This expression as a representation of ``group``."""
        if not isinstance(group, MatrixGroup):
            raise RepError(f"a representation is bound to a MatrixGroup, got {type(group).__name__}")
        return self._bind(group)

    def __add__(self, other: Rep) -> Rep:
        a, b = _together(self, other)
        return _sum((*a.terms, *b.terms), a.group)

    def __radd__(self, other) -> Rep:
        if isinstance(other, int) and other == 0:
            return self
        return NotImplemented

    def __mul__(self, other) -> Rep:
        if isinstance(other, (int, np.integer)):
            return self.__rmul__(other)
        if not isinstance(other, Rep):
            raise RepError(f"cannot multiply a representation by {other!r}; expected a Rep or an integer")
        a, b = _together(self, other)
        # (x + y) ⊗ b is x ⊗ b + y ⊗ b, coordinate for coordinate
        return _sum(tuple((n, _product(t, b)) for n, t in a.terms), a.group)

    def __rmul__(self, n) -> Rep:
        if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 0:
            raise RepError(f"the number of copies of a representation must be an integer >= 0, got {n!r}")
        if len(self.terms) == 1:
            m, term = self.terms[0]
            return _sum(((int(n) * m, term),), self.group)
        return _sum(self.terms * int(n), self.group)

    def __pow__(self, p: int) -> Rep:
        if not isinstance(p, (int, np.integer)) or p < 0:
            raise RepError(f"the power of a representation must be an integer >= 0, got {p!r}")
        return reduce(lambda a, b: a * b, [self] * int(p), ScalarRep(self.group))

    def __rshift__(self, other: Rep) -> Rep:
        """Linear maps self -> other: other ⊗ self*."""
        if not isinstance(other, Rep):
            raise RepError(f"a >> b takes two representations, got {other!r}")
        return other * self.T

    @property
    def T(self) -> Rep:
        """The dual representation, ρ*(g) = ρ(g)^-T."""
        return DualRep(self, self.group)

    @property
    def terms(self) -> tuple[tuple[int, Rep], ...]:
        """The direct sum as (copies, term) in the order written; (1, self) when it is not a sum."""
        return ((1, self),)

    @property
    def units(self) -> np.ndarray:
        """(size,) powers of two by which coordinates are multiplied to be without physical units, where V has any."""
        return np.ones(self.size)

    @property
    def slices(self) -> list[tuple[int, Rep, slice]]:
        """(copies, term, slice of the feature vector) of each term in the order written."""
        out, at = [], 0
        for n, term in self.terms:
            out.append((n, term, slice(at, at + n * term.size)))
            at += n * term.size
        return out

    # ---- the representation ---------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """The dimension of the representation."""
        raise NotImplementedError

    def rho(self, g) -> np.ndarray:
        """ρ(g), (*batch, size, size) float64.

        Args:
            g: a GroupElement (or a batch of them) of this group; or a (d, d) matrix, for representations built from
                V alone.

        Raises:
            RepError: unbound, an element of another group, or a matrix where the word is needed.
        """
        self._require_bound()
        if isinstance(g, GroupElement):
            if g.group.digest != self.group.digest:
                raise RepError(
                    f"{self} is a representation of {self.group.name}, got an element of {g.group.name}"
                )
            return self._rho(g, g.index.shape[:-1])
        matrix = _square(g, self.group.d, "g")
        return self._rho(matrix, matrix.shape[:-2])

    def drho(self, A) -> np.ndarray:
        """dρ(A), (size, size) float64, for A (d, d) in the Lie algebra.

        Raises:
            RepError: unbound, or A outside the span of ``lie_algebra`` where the images are only known there.
        """
        self._require_bound()
        return self._drho(_square(A, self.group.d, "A"))

    @cached_property
    def images(self) -> Images:
        """The matrices on the generators of the group."""
        G = self._require_bound()
        n = self.size
        discrete = (
            self._rho(G.generators, (len(G.discrete_generators),)) if len(G.discrete_generators) else []
        )
        lie = [self._drho(a) for a in G.lie_algebra]
        return Images.of_content(np.asarray(discrete).reshape(-1, n, n), np.array(lie).reshape(-1, n, n))

    def _require_bound(self) -> MatrixGroup:
        if self.group is None:
            raise RepError(f"{self} is not bound to a group; write rep(G)")
        return self.group

    def _bind(self, group):
        self._require_same(group)
        return replace(self, group=group)

    def _require_same(self, group) -> None:
        if self.group is not None and self.group.digest != group.digest:
            raise RepError(f"{self} already belongs to {self.group.name} and cannot be bound to {group.name}")

    def _rho(self, g, batch):
        raise NotImplementedError

    def _drho(self, A):
        raise NotImplementedError

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, repr=False)
class ScalarRep(Rep):
    """The trivial representation, ρ(g) = 1."""

    group: MatrixGroup | None = None
    size = 1

    @property
    def T(self):
        return self

    def _rho(self, g, batch):
        return np.ones((*batch, 1, 1))

    def _drho(self, A):
        return np.zeros((1, 1))

    def __str__(self):
        return "Scalar"


@dataclass(frozen=True, repr=False)
class VectorRep(Rep):
    """The defining representation, ρ(g) = g."""

    group: MatrixGroup | None = None

    @property
    def size(self):
        return self._require_bound().d

    @property
    def units(self):
        return self._require_bound()._units

    def _rho(self, g, batch):
        return g.matrix if isinstance(g, GroupElement) else g

    def _drho(self, A):
        return A

    def __str__(self):
        return "V"


@dataclass(frozen=True, repr=False)
class DualRep(Rep):
    """The dual ρ*(g) = ρ(g)^-T of a representation that is neither a sum nor a product."""

    base: Rep
    group: MatrixGroup | None = None

    @property
    def T(self):
        return self.base

    @property
    def size(self):
        return self.base.size

    @property
    def units(self):
        return 1 / self.base.units

    def _bind(self, group):
        return DualRep(self.base(group), group)

    def _rho(self, g, batch):
        return np.swapaxes(np.linalg.inv(self.base._rho(g, batch)), -1, -2)

    def _drho(self, A):
        return -self.base._drho(A).T

    def __str__(self):
        return f"{self.base}*"


@dataclass(frozen=True, repr=False)
class ProductRep(Rep):
    """The tensor product ρ_1(g) ⊗ ρ_2(g) ⊗ ..., row-major."""

    factors: tuple[Rep, ...]
    group: MatrixGroup | None = None

    @property
    def T(self):
        return ProductRep(tuple(f.T for f in self.factors), self.group)

    @property
    def size(self):
        return prod([f.size for f in self.factors])

    @property
    def units(self):
        return reduce(np.kron, [f.units for f in self.factors])

    def _bind(self, group):
        return ProductRep(tuple(f(group) for f in self.factors), group)

    def _rho(self, g, batch):
        return reduce(kron, [f._rho(g, batch) for f in self.factors])

    def _drho(self, A):
        out, size = np.zeros((1, 1)), 1
        for f in self.factors:
            out = np.kron(out, np.eye(f.size)) + np.kron(np.eye(size), f._drho(A))
            size *= f.size
        return out

    def __str__(self):
        out = []
        for f in self.factors:
            name = f"({f})" if isinstance(f, SumRep) else str(f)
            if out and out[-1][0] == name:
                out[-1][1] += 1
            else:
                out.append([name, 1])
        return "·".join(name if p == 1 else f"{name}^{p}" for name, p in out)


@dataclass(frozen=True, repr=False)
class SumRep(Rep):
    """The direct sum of (copies, term) in the order written."""

    parts: tuple[tuple[int, Rep], ...]
    group: MatrixGroup | None = None

    @property
    def terms(self):
        return self.parts

    @property
    def T(self):
        return SumRep(tuple((n, t.T) for n, t in self.parts), self.group)

    @property
    def size(self):
        return sum(n * t.size for n, t in self.parts)

    @property
    def units(self):
        return np.concatenate([np.tile(t.units, n) for n, t in self.parts] or [np.ones(0)])

    def _bind(self, group):
        return SumRep(tuple((n, t(group)) for n, t in self.parts), group)

    def _blocks(self, matrices, batch):
        out = np.zeros((*batch, self.size, self.size))
        at = 0
        for (n, t), m in zip(self.parts, matrices):
            for _ in range(n):
                out[..., at : at + t.size, at : at + t.size] = m
                at += t.size
        return out

    def _rho(self, g, batch):
        return self._blocks([t._rho(g, batch) for _, t in self.parts], batch)

    def _drho(self, A):
        return self._blocks([t._drho(A) for _, t in self.parts], ())

    def __str__(self):
        return " + ".join(_times(n, str(t)) for n, t in self.parts) or "0"


Scalar = ScalarRep()
V = VectorRep()


def T(p: int, q: int = 0) -> Rep:
    """Tensors of rank (p, q): V^⊗p ⊗ V*^⊗q.

    Example:
        >>> T(1, 1)(groups.GL(3)).size  # linear maps V -> V
        9
    """
    return V**p * V.T**q


def _times(n: int, name: str) -> str:
    return name if n == 1 else f"{n}x{name}" if name[0].isdigit() else f"{n}{name}"


def _sum(terms, group) -> Rep:
    merged: list[tuple[int, Rep]] = []
    for n, t in terms:
        if n == 0:
            continue
        if merged and merged[-1][1] == t:
            merged[-1] = (merged[-1][0] + n, t)
        else:
            merged.append((n, t))
    if len(merged) == 1 and merged[0][0] == 1:
        return merged[0][1]
    return SumRep(tuple(merged), group)


def _product(a: Rep, b: Rep) -> Rep:
    if isinstance(a, ScalarRep):
        return b
    factors = tuple(
        f
        for r in (a, b)
        for f in (r.factors if isinstance(r, ProductRep) else (r,))
        if not isinstance(f, ScalarRep)
    )
    return factors[0] if len(factors) == 1 else ProductRep(factors, a.group)


def _together(a: Rep, b: Rep) -> tuple[Rep, Rep]:
    if not isinstance(b, Rep):
        raise RepError(f"cannot combine a representation with {b!r}; expected a Rep")
    if a.group is None and b.group is not None:
        return a(b.group), b
    if b.group is None and a.group is not None:
        return a, b(a.group)
    if a.group is not None and a.group.digest != b.group.digest:
        raise RepError(
            f"{a} belongs to {a.group.name}, {b} to {b.group.name}: representations of different groups "
            "do not combine"
        )
    return a, b


def _square(m, d: int, what: str) -> np.ndarray:
    m = array_of(m, what, RepError).astype(float)
    if m.shape[-2:] != (d, d):
        raise RepError(f"{what} has shape {m.shape}, expected ({d}, {d})")
    return m
