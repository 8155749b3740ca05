"""Orthogonal groups: linear maps that keep lengths, g^T g = 1."""

import numpy as np

from emkernel.matrix_group import MatrixGroup

from ._count import count

__all__ = ["O", "SO", "Trivial"]


def rotation_planes(n: int) -> np.ndarray:
    """Basis of so(n), one rotation per coordinate plane: E_ji - E_ij for i < j; (n(n-1)/2, n, n)."""
    i, j = np.triu_indices(n, 1)
    lie = np.zeros((len(i), n, n))
    k = np.arange(len(i))
    lie[k, j, i], lie[k, i, j] = 1, -1
    return lie


def Trivial(d: int) -> MatrixGroup:
    """The identity of R^d alone: every map is equivariant."""
    return MatrixGroup(f"Trivial({d})", d=count(d, "Trivial(d)"))


def SO(n: int) -> MatrixGroup:
    """Special orthogonal group SO(n): rotations of R^n.

    Example:
        >>> groups.SO(3).is_compact, len(groups.SO(3).lie_algebra)
        (True, 3)
    """
    return MatrixGroup(f"SO({n})", lie_algebra=rotation_planes(count(n, "SO(n)")), d=n)


def O(n: int) -> MatrixGroup:
    """Orthogonal group O(n): rotations of R^n and the mirror along the first axis."""
    mirror = np.eye(count(n, "O(n)"))
    mirror[0, 0] = -1
    return MatrixGroup(f"O({n})", [mirror], rotation_planes(n))
