"""Symplectic groups: linear canonical transformations of (positions, momenta), g^T J g = J."""

import numpy as np

from emkernel.errors import GroupError
from emkernel.matrix_group import MatrixGroup

from ._count import count

__all__ = ["Sp"]


def symplectic_form(d: int) -> np.ndarray:
    """J = [[0, 1], [-1, 0]] in blocks of d/2; (d, d)."""
    zero, one = np.zeros((d // 2, d // 2)), np.eye(d // 2)
    return np.block([[zero, one], [-one, zero]])


def Sp(d: int) -> MatrixGroup:
    """Real symplectic group Sp(d, R) on R^d, d even: A = J E for E symmetric; not compact.

    Raises:
        GroupError: d is odd.
    """
    if count(d, "Sp(d)", least=2) % 2:
        raise GroupError(f"Sp(d) takes the even dimension of phase space, got {d}")
    lie = []
    for i, j in zip(*np.triu_indices(d)):
        symmetric = np.zeros((d, d))
        symmetric[i, j] = symmetric[j, i] = 1
        lie.append(symplectic_form(d) @ symmetric)
    return MatrixGroup(f"Sp({d})", lie_algebra=lie)
