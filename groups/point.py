"""The polyhedral groups, with their rotation axes where crystallography puts them.

Tetrahedron and octahedron have two-fold or four-fold axes along x, y, z and three-fold axes along (±1, ±1, ±1);
the icosahedron has two-fold axes along x, y, z and vertices at the cyclic permutations of (0, ±1, ±φ).
"""

import numpy as np

from emkernel.matrix_group import MatrixGroup

__all__ = ["Ico", "Ih", "Octa", "Oh", "T", "Td", "Th"]

PHI = (1 + 5**0.5) / 2

TURN_111 = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
QUARTER_TURN_Z = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
FIFTH_TURN = np.array([[PHI - 1, -PHI, 1.0], [PHI, 1.0, PHI - 1], [-1.0, PHI - 1, PHI]]) / 2
HALF_TURN_Z = np.diag([-1.0, -1.0, 1.0])
MIRROR_Z = np.diag([1.0, 1.0, -1.0])
INVERSION = -np.eye(3)


def T() -> MatrixGroup:
    """Rotations of the tetrahedron, order 12."""
    return MatrixGroup("T", [TURN_111, HALF_TURN_Z])


def Td() -> MatrixGroup:
    """All symmetries of the tetrahedron, order 24: T with the rotoreflection of order 4."""
    return MatrixGroup("Td", [TURN_111, -QUARTER_TURN_Z])


def Th() -> MatrixGroup:
    """Pyritohedral group, order 24: T with the inversion."""
    return MatrixGroup("Th", [TURN_111, MIRROR_Z])


def Octa() -> MatrixGroup:
    """Rotations of the octahedron and the cube, order 24 (crystallographic symbol O)."""
    return MatrixGroup("Octa", [TURN_111, QUARTER_TURN_Z])


def Oh() -> MatrixGroup:
    """All symmetries of the octahedron and the cube, order 48."""
    return MatrixGroup("Oh", [TURN_111, QUARTER_TURN_Z, INVERSION])


def Ico() -> MatrixGroup:
    """Rotations of the icosahedron, order 60 (crystallographic symbol I)."""
    return MatrixGroup("Ico", [TURN_111, FIFTH_TURN])


def Ih() -> MatrixGroup:
    """All symmetries of the icosahedron, order 120."""
    return MatrixGroup("Ih", [TURN_111, FIFTH_TURN, INVERSION])
