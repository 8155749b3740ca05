"""Pseudo-orthogonal groups: linear maps that keep an indefinite metric, g^T η g = η.

The metric is η = diag(1, ..., 1, -1, ..., -1), p times +1 and q times -1. For space-time (p, q) = (1, 3): time
first, η = diag(1, -1, -1, -1), and the speed of light is 1.
"""

import numpy as np

from emkernel.matrix_group import MatrixGroup

from ._count import count

__all__ = ["Lorentz", "O11", "Opq", "SO13", "SOplus13", "SOpq", "SOpqFull"]


def metric(p: int, q: int) -> np.ndarray:
    """The form η that O(p, q) keeps; (p+q, p+q)."""
    return np.diag([1.0] * p + [-1.0] * q)


def boosts_and_rotations(p: int, q: int) -> np.ndarray:
    """Basis of so(p, q), one per coordinate plane: η_i E_ji - η_j E_ij for i < j, so that A^T η + η A = 0.

    A boost where the signs η_i, η_j differ, a rotation (up to its sense) where they agree.
    """
    eta = np.diag(metric(p, q))
    i, j = np.triu_indices(p + q, 1)
    lie = np.zeros((len(i), p + q, p + q))
    k = np.arange(len(i))
    lie[k, j, i], lie[k, i, j] = eta[i], -eta[j]
    return lie


def Opq(p: int, q: int) -> MatrixGroup:
    """O(p, q): mirrors along the first axis of either sign, boosts and rotations."""
    d = count(p, "Opq(p, q)", least=0) + count(q, "Opq(p, q)", least=0)
    count(d, "Opq(p, q): p + q")
    mirrors = []
    for axis in [0] * (p > 0) + [p] * (q > 0):
        mirror = np.eye(d)
        mirror[axis, axis] = -1
        mirrors.append(mirror)
    return MatrixGroup(f"Opq({p},{q})", mirrors, boosts_and_rotations(p, q))


def SOpq(p: int, q: int) -> MatrixGroup:
    """The connected part SO⁺(p, q): boosts and rotations alone."""
    d = count(p, "SOpq(p, q)", least=0) + count(q, "SOpq(p, q)", least=0)
    count(d, "SOpq(p, q): p + q")
    return MatrixGroup(f"SOpq({p},{q})", lie_algebra=boosts_and_rotations(p, q), d=d)


def SOpqFull(p: int, q: int) -> MatrixGroup:
    """SO(p, q), determinant 1: two components when p, q > 0, of which SOpq(p, q) is the connected one."""
    connected = SOpq(p, q)
    both = np.eye(p + q)
    if p and q:
        both[0, 0] = both[p, p] = -1
    return MatrixGroup(f"SOpqFull({p},{q})", [both] if p and q else [], connected.lie_algebra, d=p + q)


def SOplus13() -> MatrixGroup:
    """Proper orthochronous Lorentz group SO⁺(1, 3): boosts and rotations."""
    return MatrixGroup("SOplus13", lie_algebra=boosts_and_rotations(1, 3))


def SO13() -> MatrixGroup:
    """SO(1, 3): the proper Lorentz transformations, SO⁺(1, 3) with the total inversion of space-time."""
    return MatrixGroup("SO13", [-np.eye(4)], boosts_and_rotations(1, 3))


def Lorentz() -> MatrixGroup:
    """Lorentz group O(1, 3): time reversal, inversion of space, boosts, rotations; on (t, x, y, z) with c = 1."""
    time_reversal = np.diag([-1.0, 1.0, 1.0, 1.0])
    parity = np.diag([1.0, -1.0, -1.0, -1.0])
    return MatrixGroup("Lorentz", [time_reversal, parity], boosts_and_rotations(1, 3))


def O11() -> MatrixGroup:
    """O(1, 1): space-time with one direction of space."""
    boost = np.array([[0.0, 1.0], [1.0, 0.0]])
    return MatrixGroup("O11", [np.diag([-1.0, 1.0]), np.diag([1.0, -1.0])], [boost])
