"""Unitary groups: g* g = 1. Complex generators of size n act on R^2n as (real parts, imaginary parts)."""

import numpy as np

from emkernel.matrix_group import MatrixGroup

from ._count import count

__all__ = ["SU", "U"]


def traceless_antihermitian(n: int) -> np.ndarray:
    """Basis of su(n), the generalised Gell-Mann matrices times i; (n² - 1, n, n) complex."""
    lie = []
    for a, b in zip(*np.triu_indices(n, 1)):
        real, imaginary = np.zeros((2, n, n), complex)
        real[a, b], real[b, a] = 1, -1
        imaginary[a, b] = imaginary[b, a] = 1j
        lie += [real, imaginary]
    for k in range(1, n):
        lie.append(1j * np.diag([1.0] * k + [-k] + [0.0] * (n - k - 1)))
    return np.array(lie).reshape(-1, n, n)


def SU(n: int) -> MatrixGroup:
    """Special unitary group SU(n) on C^n = R^2n, compact and connected.

    Example:
        >>> groups.SU(2).d, len(groups.SU(2).lie_algebra)
        (4, 3)
    """
    return MatrixGroup(f"SU({n})", lie_algebra=traceless_antihermitian(count(n, "SU(n)", least=2)))


def U(n: int) -> MatrixGroup:
    """Unitary group U(n) on C^n = R^2n: SU(n) with a common phase."""
    phase = 1j * np.eye(count(n, "U(n)"))
    return MatrixGroup(f"U({n})", lie_algebra=[phase, *traceless_antihermitian(n)])
