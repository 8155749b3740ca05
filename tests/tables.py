"""One table of groups that drives the laws: constructor, size, and counts of equivariant maps known on paper."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import cos, pi, sin, sqrt

import numpy as np

from emkernel import MatrixGroup, groups


@dataclass(frozen=True)
class Row:
    """A group and what is known of it without computing.

    Attributes:
        make: constructs the group from generators written out in this file.
        order: number of elements, None when infinite.
        hom: dimensions of Hom(V, V), Hom(V², V) and Hom(V², V²).
        compact: whether a positive invariant form exists.
        reducible: whether its representations provably split into irreducibles.
        condition: of the basis, which rounding is multiplied by.
    """

    make: Callable[[], MatrixGroup]
    order: int | None
    hom: tuple[int, int, int]
    compact: bool = True
    reducible: bool = True
    condition: float = 1.0


# ---- generators -------------------------------------------------------------------------------------------------


def turn(angle):
    return np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])


def so(n):
    """Rotations of R^n, one per coordinate plane."""
    out = []
    for i in range(n):
        for j in range(i):
            a = np.zeros((n, n))
            a[i, j], a[j, i] = 1.0, -1.0
            out.append(a)
    return out


def so13():
    """Boosts and rotations on (t, x, y, z), each written out."""
    out = [np.zeros((4, 4)) for _ in range(6)]
    for k in range(3):
        out[k][0, k + 1] = out[k][k + 1, 0] = 1.0
        i, j = (k + 1) % 3 + 1, (k + 2) % 3 + 1
        out[3 + k][i, j], out[3 + k][j, i] = -1.0, 1.0
    return out


def su(n):
    """Traceless antihermitian matrices, complex."""
    out = []
    for a in range(n):
        for b in range(a):
            x = np.zeros((n, n), complex)
            x[a, b], x[b, a] = 1.0, -1.0
            y = np.zeros((n, n), complex)
            y[a, b] = y[b, a] = 1j
            out += [x, y]
    for k in range(1, n):
        out.append(1j * np.diag([1.0] * k + [-float(k)] + [0.0] * (n - k - 1)))
    return out


def blocks(*matrices):
    """Block diagonal."""
    d = sum(len(m) for m in matrices)
    out, at = np.zeros((d, d)), 0
    for m in matrices:
        out[at : at + len(m), at : at + len(m)] = m
        at += len(m)
    return out


def permutation(images):
    return np.eye(len(images))[:, list(images)]


def skew_basis(d, condition=50.0):
    """An invertible matrix of this condition number, nothing special otherwise."""
    rng = np.random.default_rng(d)
    u, _ = np.linalg.qr(rng.standard_normal((d, d)))
    v, _ = np.linalg.qr(rng.standard_normal((d, d)))
    return u @ np.diag(np.geomspace(1.0, condition, d)) @ v


def skew(group, condition=50.0):
    """The same group in a basis of this condition number."""
    s = skew_basis(group.d, condition)
    back = np.linalg.inv(s)
    return MatrixGroup(
        f"skew {group.name}",
        [s @ h @ back for h in group.discrete_generators],
        [s @ a @ back for a in group.lie_algebra],
        d=group.d,
    )


CYCLE = permutation([1, 2, 0])
HALF_Z = np.diag([-1.0, -1.0, 1.0])
QUARTER_Z = blocks(turn(pi / 2), np.eye(1)).round()
PHI = (1 + sqrt(5)) / 2
FIFTH = np.array([[PHI - 1, -PHI, 1], [PHI, 1, PHI - 1], [-1, PHI - 1, PHI]]) / 2
PARITY, TIME = np.diag([1.0, -1.0, -1.0, -1.0]), np.diag([-1.0, 1.0, 1.0, 1.0])
# unit quaternions i and (1 + i + j + k)/2 as complex 2x2 matrices generate the binary tetrahedral group
QUATERNION_I = np.array([[1j, 0], [0, -1j]])
QUATERNION_W = np.array([[1 + 1j, 1 + 1j], [-1 + 1j, 1 - 1j]]) / 2
NILPOTENT, DIAGONAL = np.array([[0.0, 1.0], [0.0, 0.0]]), np.diag([1.0, -1.0])
BOOST = np.array([[0.0, 1.0], [1.0, 0.0]])


def euclidean_plane():
    """SE(2) on (x, y, 1)."""
    rotation, along_x, along_y = np.zeros((3, 3, 3))
    rotation[1, 0], rotation[0, 1], along_x[0, 2], along_y[1, 2] = 1, -1, 1, 1
    return MatrixGroup("SE(2)", lie_algebra=[rotation, along_x, along_y])


# ---- the table --------------------------------------------------------------------------------------------------

TABLE = {
    "trivial": Row(lambda: MatrixGroup("1", d=2), 1, (4, 8, 16)),
    "C3": Row(lambda: MatrixGroup("C3", [turn(2 * pi / 3)]), 3, (2, 2, 6)),
    "C4": Row(lambda: MatrixGroup("C4", [turn(pi / 2)]), 4, (2, 0, 8)),
    "C1000": Row(lambda: MatrixGroup("C1000", [turn(2 * pi / 1000)]), 1000, (2, 0, 6)),
    "D7": Row(lambda: MatrixGroup("D7", [turn(2 * pi / 7), np.diag([-1.0, 1.0])]), 14, (1, 0, 3)),
    "mirror": Row(lambda: MatrixGroup("mirror", [np.diag([-1.0, 1.0, 1.0])]), 2, (5, 14, 41)),
    "T": Row(lambda: MatrixGroup("T", [CYCLE, HALF_Z]), 12, (1, 2, 7)),
    "Th": Row(lambda: MatrixGroup("Th", [CYCLE, HALF_Z, -np.eye(3)]), 24, (1, 0, 7)),
    "octahedral": Row(lambda: MatrixGroup("O", [CYCLE, QUARTER_Z]), 24, (1, 1, 4)),
    "icosahedral": Row(lambda: MatrixGroup("I", [CYCLE, FIFTH]), 60, (1, 1, 3)),
    "S5": Row(
        lambda: MatrixGroup("S5", [permutation([1, 0, 2, 3, 4]), permutation([1, 2, 3, 4, 0])]),
        120,
        (2, 5, 15),
    ),
    "2T": Row(lambda: MatrixGroup("2T", [QUATERNION_I, QUATERNION_W]), 24, (4, 0, 32)),
    "C3 x C5": Row(
        lambda: MatrixGroup(
            "C3 x C5", [blocks(turn(2 * pi / 3), np.eye(2)), blocks(np.eye(2), turn(2 * pi / 5))]
        ),
        15,
        (4, 2, 36),
    ),
    "skew octahedral": Row(lambda: skew(group("octahedral")), 24, (1, 1, 4), condition=50),
    "skew D7": Row(lambda: skew(group("D7")), 14, (1, 0, 3), condition=50),
    "U(1)": Row(lambda: MatrixGroup("U(1)", lie_algebra=[[[1j]]]), None, (2, 0, 6)),
    "O(2)": Row(lambda: MatrixGroup("O(2)", [np.diag([-1.0, 1.0])], so(2)), None, (1, 0, 3)),
    "SO(2) about z": Row(
        lambda: MatrixGroup("SO(2)z", lie_algebra=[blocks(so(2)[0], np.zeros((1, 1)))]), None, (3, 7, 19)
    ),
    "SO(3)": Row(lambda: MatrixGroup("SO(3)", lie_algebra=so(3)), None, (1, 1, 3)),
    "O(3)": Row(lambda: MatrixGroup("O(3)", [-np.eye(3)], so(3)), None, (1, 0, 3)),
    "skew SO(3)": Row(lambda: skew(group("SO(3)")), None, (1, 1, 3), condition=50),
    "SO(4)": Row(lambda: MatrixGroup("SO(4)", lie_algebra=so(4)), None, (1, 0, 4)),
    "SU(2)": Row(lambda: MatrixGroup("SU(2)", lie_algebra=su(2)), None, (4, 0, 32)),
    "SU(3)": Row(lambda: MatrixGroup("SU(3)", lie_algebra=su(3)), None, (2, 2, 12)),
    "SO(3) x S3": Row(
        lambda: MatrixGroup(
            "SO(3) x S3",
            [blocks(np.eye(3), permutation([1, 0, 2])), blocks(np.eye(3), CYCLE)],
            [blocks(a, np.zeros((3, 3))) for a in so(3)],
        ),
        None,
        (3, 9, 33),
    ),
    "O(1,1)": Row(
        lambda: MatrixGroup("O(1,1)", [DIAGONAL, -np.eye(2)], [BOOST]), None, (1, 0, 3), compact=False
    ),
    "SO+(1,1)": Row(lambda: MatrixGroup("SO+(1,1)", lie_algebra=[BOOST]), None, (2, 0, 6), compact=False),
    "O(1,3)": Row(lambda: MatrixGroup("O(1,3)", [TIME, PARITY], so13()), None, (1, 0, 3), compact=False),
    "SO+(1,3)": Row(lambda: MatrixGroup("SO+(1,3)", lie_algebra=so13()), None, (1, 0, 4), compact=False),
    "SL(2)": Row(
        lambda: MatrixGroup("SL(2)", lie_algebra=[NILPOTENT, NILPOTENT.T, DIAGONAL]),
        None,
        (1, 0, 2),
        compact=False,
    ),
    "skew O(1,1)": Row(
        lambda: skew(group("O(1,1)"), 10.0), None, (1, 0, 3), compact=False, condition=10
    ),
    "shear": Row(
        lambda: MatrixGroup("shear", lie_algebra=[NILPOTENT]), None, (2, 3, 6), compact=False, reducible=False
    ),
    "integer shear": Row(
        lambda: MatrixGroup("shear(Z)", [np.eye(2) + NILPOTENT]),
        None,
        (2, 3, 6),
        compact=False,
        reducible=False,
    ),
    "Borel": Row(
        lambda: MatrixGroup("Borel", lie_algebra=[DIAGONAL, NILPOTENT]),
        None,
        (1, 0, 2),
        compact=False,
        reducible=False,
    ),
    "SE(2)": Row(euclidean_plane, None, (1, 3, 4), compact=False, reducible=False),
}
FINITE = [name for name, row in TABLE.items() if row.order]
COMPACT = [name for name, row in TABLE.items() if row.compact]
# the larger ones have tests of their own
CATALOGUE = {f"catalogue {name}": make for name, make in groups.catalogue().items() if make().d <= 6}
EVERY = [*TABLE, *CATALOGUE]


@cache
def group(name: str) -> MatrixGroup:
    """The group of this row, or of the catalogue, built once."""
    return CATALOGUE[name]() if name in CATALOGUE else TABLE[name].make()


def condition(name: str) -> float:
    """Of the basis in which the group is given."""
    return TABLE[name].condition if name in TABLE else 1.0
