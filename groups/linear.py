"""General linear groups and their subgroups that are triangular, of determinant one, or of a phase."""

import numpy as np

from emkernel.matrix_group import MatrixGroup

from ._count import count

__all__ = ["CO", "CSO", "GL", "GLC", "SL", "SLC", "Borel", "Heisenberg", "Scale", "Unipotent"]


def unit(n: int, i: int, j: int) -> np.ndarray:
    """E_ij, the (n, n) matrix with a one at row i, column j."""
    e = np.zeros((n, n))
    e[i, j] = 1
    return e


def mirror_first(n: int) -> np.ndarray:
    """The mirror along the first axis; (n, n)."""
    return np.eye(n) - 2 * unit(n, 0, 0)


def traceless(n: int) -> list[np.ndarray]:
    """Basis of sl(n): E_ij for i != j, and E_ii - E_(i+1)(i+1)."""
    lie = [unit(n, i, j) for i in range(n) for j in range(n) if i != j]
    return lie + [unit(n, i, i) - unit(n, i + 1, i + 1) for i in range(n - 1)]


def GL(n: int) -> MatrixGroup:
    """General linear group GL(n, R), dimension n², both components: every invertible map.

    Example:
        >>> len(groups.GL(3).lie_algebra), groups.GL(3).is_compact
        (9, False)
    """
    count(n, "GL(n)")
    return MatrixGroup(f"GL({n})", [mirror_first(n)], [np.eye(n), *traceless(n)])


def SL(n: int) -> MatrixGroup:
    """Special linear group SL(n, R), dimension n² - 1, connected: determinant 1."""
    return MatrixGroup(f"SL({n})", lie_algebra=traceless(count(n, "SL(n)", least=2)))


def GLC(n: int) -> MatrixGroup:
    """GL(n, C) on C^n = R^2n, real dimension 2n², connected."""
    lie = [np.eye(count(n, "GLC(n)")), *traceless(n)]
    return MatrixGroup(f"GLC({n})", lie_algebra=[phase * a for a in lie for phase in (1, 1j)])


def SLC(n: int) -> MatrixGroup:
    """SL(n, C) on C^n = R^2n, real dimension 2(n² - 1), connected; SLC(2) covers SO⁺(1, 3)."""
    lie = traceless(count(n, "SLC(n)", least=2))
    return MatrixGroup(f"SLC({n})", lie_algebra=[phase * a for a in lie for phase in (1, 1j)])


# ---- rescalings -----------------------------------------------------------------------------------------------


def Scale(n: int) -> MatrixGroup:
    """R⁺: the rescalings x -> s x of R^n, s > 0."""
    return MatrixGroup(f"Scale({n})", lie_algebra=[np.eye(count(n, "Scale(n)"))])


def rotations(n: int) -> list[np.ndarray]:
    return [unit(n, j, i) - unit(n, i, j) for i in range(n) for j in range(i + 1, n)]


def CSO(n: int) -> MatrixGroup:
    """SO(n) x R⁺: rotations and rescalings of R^n, the angle-preserving maps of determinant > 0."""
    return MatrixGroup(f"CSO({n})", lie_algebra=[np.eye(count(n, "CSO(n)")), *rotations(n)])


def CO(n: int) -> MatrixGroup:
    """O(n) x R⁺: rotations, mirrors and rescalings of R^n."""
    count(n, "CO(n)")
    return MatrixGroup(f"CO({n})", [mirror_first(n)], [np.eye(n), *rotations(n)])


# ---- triangular: not completely reducible ---------------------------------------------------------------------


def Borel(n: int) -> MatrixGroup:
    """Upper triangular matrices with a positive diagonal, dimension n(n+1)/2."""
    count(n, "Borel(n)")
    return MatrixGroup(f"Borel({n})", lie_algebra=[unit(n, i, j) for i in range(n) for j in range(i, n)])


def Unipotent(n: int) -> MatrixGroup:
    """Upper triangular matrices with ones on the diagonal, dimension n(n-1)/2; Unipotent(2) is the shear."""
    count(n, "Unipotent(n)")
    return MatrixGroup(f"Unipotent({n})", d=n,
                       lie_algebra=[unit(n, i, j) for i in range(n) for j in range(i + 1, n)])


def Heisenberg(n: int) -> MatrixGroup:
    """Heisenberg group of n pairs (p, q), dimension 2n + 1: [[1, p, c], [0, 1, q], [0, 0, 1]] on R^(n+2)."""
    last = count(n, "Heisenberg(n)") + 1
    lie = [unit(n + 2, 0, i) for i in range(1, last)] + [unit(n + 2, i, last) for i in range(1, last)]
    return MatrixGroup(f"Heisenberg({n})", lie_algebra=[*lie, unit(n + 2, 0, last)])
