"""Groups of space with a main axis, here z: the seven axial families and the limits of n → ∞.

The limits are the groups of the paper's figure 3: SO(2) about z, alone and joined by the mirror M along x, the
inversion Inv, and the rotation F by π about x. Schoenflies symbols name the finite families; the proper ones
about z are ``Cz`` and ``Dz``, because ``C`` and ``D`` are groups of the plane.
"""

import numpy as np

from emkernel.matrix_group import MatrixGroup

from ._count import count
from .plane import turn

__all__ = ["Cnh", "Cnv", "Cz", "Dnd", "Dnh", "Dz", "F", "Inv", "M", "O2z", "O2zInv", "S2n", "SO2z", "SO2zF",
           "SO2zInv"]

MIRROR_X = np.diag([-1.0, 1.0, 1.0])
MIRROR_Z = np.diag([1.0, 1.0, -1.0])
FLIP_X = np.diag([1.0, -1.0, -1.0])
INVERSION = -np.eye(3)
ROTATE_Z = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


def turn_z(n: int) -> np.ndarray:
    """Rotation of space by 2π/n about z; (3, 3)."""
    h = np.eye(3)
    h[:2, :2] = turn(n)
    return h


# ---- continuous: SO(2) about z, and what the paper joins to it ------------------------------------------------


def SO2z() -> MatrixGroup:
    """SO(2): rotations about z (C_∞)."""
    return MatrixGroup("SO2z", lie_algebra=[ROTATE_Z])


def O2z() -> MatrixGroup:
    """O(2) ≅ SO(2) x M: rotations about z and mirrors that contain z (C_∞v)."""
    return MatrixGroup("O2z", [MIRROR_X], [ROTATE_Z])


def SO2zInv() -> MatrixGroup:
    """SO(2) x Inv: rotations about z and the inversion (C_∞h)."""
    return MatrixGroup("SO2zInv", [INVERSION], [ROTATE_Z])


def SO2zF() -> MatrixGroup:
    """SO(2) x F: rotations about z and by π about axes across it (D_∞)."""
    return MatrixGroup("SO2zF", [FLIP_X], [ROTATE_Z])


def O2zInv() -> MatrixGroup:
    """O(2) x Inv: every symmetry of a cylinder along z (D_∞h)."""
    return MatrixGroup("O2zInv", [MIRROR_X, INVERSION], [ROTATE_Z])


# ---- two elements ---------------------------------------------------------------------------------------------


def M() -> MatrixGroup:
    """Mirror along x: (x, y, z) -> (-x, y, z)."""
    return MatrixGroup("M", [MIRROR_X])


def Inv() -> MatrixGroup:
    """Inversion: x -> -x (C_i)."""
    return MatrixGroup("Inv", [INVERSION])


def F() -> MatrixGroup:
    """Rotation by π about x: (x, y, z) -> (x, -y, -z)."""
    return MatrixGroup("F", [FLIP_X])


# ---- finite families ------------------------------------------------------------------------------------------


def Cz(n: int) -> MatrixGroup:
    """C_n about z, order n: rotation by 2π/n."""
    count(n, "Cz(n)")
    return MatrixGroup(f"Cz({n})", [turn_z(n)] if n > 1 else [], d=3)


def Cnv(n: int) -> MatrixGroup:
    """C_nv about z, order 2n: a pyramid; C_n and the mirror along x."""
    return MatrixGroup(f"Cnv({n})", [*Cz(n).discrete_generators, MIRROR_X])


def Cnh(n: int) -> MatrixGroup:
    """C_nh about z, order 2n: C_n and the mirror along z."""
    return MatrixGroup(f"Cnh({n})", [*Cz(n).discrete_generators, MIRROR_Z])


def S2n(n: int) -> MatrixGroup:
    """S_2n about z, order 2n: rotation by π/n with the mirror along z."""
    count(n, "S2n(n)")
    return MatrixGroup(f"S2n({n})", [turn_z(2 * n) @ MIRROR_Z])


def Dz(n: int) -> MatrixGroup:
    """D_n about z, order 2n: C_n and the rotation by π about x; proper rotations only."""
    return MatrixGroup(f"Dz({n})", [*Cz(n).discrete_generators, FLIP_X])


def Dnh(n: int) -> MatrixGroup:
    """D_nh about z, order 4n: a prism; D_n and the mirror along z."""
    return MatrixGroup(f"Dnh({n})", [*Dz(n).discrete_generators, MIRROR_Z])


def Dnd(n: int) -> MatrixGroup:
    """D_nd about z, order 4n: an antiprism; S_2n and the rotation by π about x."""
    return MatrixGroup(f"Dnd({n})", [*S2n(n).discrete_generators, FLIP_X])
