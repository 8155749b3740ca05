"""Motions in homogeneous coordinates (x, 1): linear maps together with translations; not completely reducible."""

import numpy as np

from emkernel.matrix_group import MatrixGroup

from ._count import count
from .linear import GL, unit
from .lorentz import Opq
from .orthogonal import SO, O

__all__ = ["SE", "Aff", "Affine", "E", "Galilei", "Poincare"]


def Affine(group: MatrixGroup, name: str | None = None) -> MatrixGroup:
    """R^d ⋊ H: x -> h x + t for h in the group given and every t in R^d, as [[h, t], [0, 1]] on R^(d+1).

    Args:
        group: H, acts on R^d.
        name: defaults to ``Affine(group)``.

    Example:
        >>> len(groups.Affine(groups.C(4)).lie_algebra)           # the two translations
        2
    """
    d = group.d
    discrete = np.tile(np.eye(d + 1), (len(group.discrete_generators), 1, 1))
    discrete[:, :d, :d] = group.discrete_generators
    lie = np.zeros((len(group.lie_algebra), d + 1, d + 1))
    lie[:, :d, :d] = group.lie_algebra
    shifts = [unit(d + 1, i, d) for i in range(d)]
    return MatrixGroup(name or f"Affine({group.name})", discrete, [*lie, *shifts])


def SE(n: int) -> MatrixGroup:
    """Rigid motions SE(n) of R^n, dimension n(n+1)/2, on (x, 1).

    Example:
        >>> groups.SE(3).d, len(groups.SE(3).lie_algebra)
        (4, 6)
    """
    return Affine(SO(count(n, "SE(n)")), f"SE({n})")


def E(n: int) -> MatrixGroup:
    """Euclidean group E(n), SE(n) with mirrors, on (x, 1)."""
    return Affine(O(count(n, "E(n)")), f"E({n})")


def Aff(n: int) -> MatrixGroup:
    """Affine group of R^n, GL(n) with translations, on (x, 1)."""
    return Affine(GL(count(n, "Aff(n)")), f"Aff({n})")


def Poincare(n: int) -> MatrixGroup:
    """Poincaré group O(1, n) ⋉ R^(1+n), dimension (n+1)(n+2)/2, on (t, x_1..x_n, 1) with c = 1.

    All four components: time reversal and the mirror along x_1 are in it.
    """
    return Affine(Opq(1, count(n, "Poincare(n)")), f"Poincare({n})")


def Galilei(n: int) -> MatrixGroup:
    """Proper Galilei group, dimension (n+1)(n+2)/2: x -> R x + v t + a, t -> t + b, on (x_1..x_n, t, 1).

    Connected: rotations, boosts v, translations a and b; no mirror and no reversal of time.
    """
    time, one = count(n, "Galilei(n)"), n + 1
    rotations = [unit(n + 2, j, i) - unit(n + 2, i, j) for i in range(n) for j in range(i + 1, n)]
    boosts = [unit(n + 2, i, time) for i in range(n)]
    shifts = [unit(n + 2, i, one) for i in range(n + 1)]
    return MatrixGroup(f"Galilei({n})", lie_algebra=[*rotations, *boosts, *shifts])
