"""Permutations of coordinates."""

import numpy as np

from emkernel.matrix_group import MatrixGroup

from ._count import count

__all__ = ["S"]


def S(n: int) -> MatrixGroup:
    """Symmetric group S_n on R^n, order n!: the swap of the first two coordinates and the cycle of all.

    Example:
        >>> S(5).order
        120
    """
    eye = np.eye(count(n, "S(n)"))
    swap = eye[[1, 0, *range(2, n)]] if n > 1 else eye
    cycle = np.roll(eye, 1, axis=0)
    return MatrixGroup(f"S({n})", [swap, cycle][: n - 1], d=n)
