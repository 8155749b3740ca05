"""Finite groups of the plane: rotations by 2π/n, with and without mirrors."""

import numpy as np
from scipy.special import cosdg, sindg

from emkernel.matrix_group import MatrixGroup

from ._count import count

__all__ = ["C", "D"]


def turn(n: int) -> np.ndarray:
    """Rotation of the plane by 2π/n, counterclockwise; (2, 2). In degrees, so that quarter turns are exact."""
    c, s = cosdg(360 / n), sindg(360 / n)
    return np.array([[c, -s], [s, c]]) + 0.0


def C(n: int) -> MatrixGroup:
    """Cyclic group C_n of the plane, order n: h = rotation by 2π/n.

    Example:
        >>> groups.C(4).order
        4
    """
    count(n, "C(n)")
    return MatrixGroup(f"C({n})", [turn(n)] if n > 1 else [], d=2)


def D(n: int) -> MatrixGroup:
    """Dihedral group D_n of the plane, order 2n: rotation by 2π/n and the mirror x -> -x.

    Example:
        >>> groups.D(6).order
        12
    """
    mirror = np.diag([-1.0, 1.0])
    return MatrixGroup(f"D({n})", [*C(n).discrete_generators, mirror])
