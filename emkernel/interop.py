"""The irreducibles of e3nn, as representations, and the change of basis to its layout of features.

e3nn writes an irreducible of O(3) as ``l`` with a parity, "1o" the vectors and "1e" the pseudovectors, in the basis of
the real spherical harmonics of degree l, whose polar axis is y: 1o has the components (x, y, z) of a vector. Features
"2x0e+3x1o" are all components of the first copy of the first irreducible, then of its second copy, and so on, which is
the layout of ``2 * a + 3 * b`` here.

Geiger, Smidt, "e3nn: Euclidean Neural Networks" (arXiv 2207.09453), section 3.
"""

from __future__ import annotations

import re

import numpy as np
import scipy.linalg
from scipy.spatial.transform import Rotation

from .errors import GroupError, RepError
from .given import GivenRep
from .matrix_group import MatrixGroup, check_is_group
from .rep import Rep
from .solver.irreps import irrep_table

__all__ = ["e3nn_basis", "e3nn_rep"]

TERM = re.compile(r"(?:(\d+)x)?(\d+)([eo])")


def e3nn_rep(group: MatrixGroup, irreps: str) -> Rep:
    """The representation of e3nn's ``Irreps``: D(R) = D^l(R) of a rotation, p D^l(-g) of g = -R, with p = ±1.

    Y(R x) = D^l(R) Y(x) for the real spherical harmonics Y of degree l. A subgroup of O(3) is represented by the
    restriction, so that features of e3nn go through layers that are equivariant under less, as they are.

    Args:
        group: a group of orthogonal (3, 3) matrices.
        irreps: such as "8x0e + 4x1o", or ``e3nn.o3.Irreps``, in any order.

    Returns:
        A bound representation, whose features are those of e3nn.

    Raises:
        GroupError: the matrices are not (3, 3) and orthogonal.
        RepError: no irreducibles of e3nn.

    Example:
        >>> rep = ek.e3nn_rep(groups.O(3), "8x0e + 4x1o + 2x2e")
        >>> conv = nn.PointConv(rep, rep)
        >>> rep.size
        30
    """
    terms = [term.strip() for term in str(irreps).split("+")]
    found = [TERM.fullmatch(term) for term in terms]
    if not all(found):
        wrong = next(term for term, match in zip(terms, found) if not match)
        raise RepError(
            f"{wrong!r} in {str(irreps)!r} is no irreducible of e3nn; expected such as '8x0e + 4x1o'"
        )
    _check_orthogonal(group)
    rep = None
    for many, l, parity in (match.groups() for match in found):
        term = int(many or 1) * _irrep(group, int(l), parity)
        rep = term if rep is None else rep + term
    return rep


def e3nn_basis(rep: Rep) -> tuple[str, np.ndarray]:
    """The change of basis y = Q x from a representation of SO(3) or O(3) to e3nn's layout of the same features.

    Q ρ(g) = D(g) Q, with D = ``e3nn_rep(rep.group, irreps)``; Q is orthogonal where ρ is. Copies of one irreducible
    stand together, in the order of the terms and, within a term, of l; a vector stays (x, y, z). Copies within one
    term, such as those in V³, may be mixed by any orthogonal matrix: keep Q with a model that was trained on it, or
    build the model on ``e3nn_rep``, where there is nothing to choose.

    Args:
        rep: a bound representation of SO(3) or O(3), in orthogonal matrices. Under SO(3) alone parity means nothing,
            and is written as even.

    Returns:
        e3nn's name of the irreducibles, and Q (size, size) in float64.

    Raises:
        GroupError: another group, or other coordinates.

    Example:
        >>> irreps, Q = ek.e3nn_basis((Scalar + V**2)(groups.O(3)))
        >>> irreps
        '2x0e+1x1e+1x2e'
        >>> y = np.random.default_rng(0).standard_normal((5, 10)) @ Q.T  # and back: y @ inv(Q).T
    """
    group = rep._require_bound()
    _check_orthogonal(group)
    if len(group.lie_algebra) == 0 or np.linalg.matrix_rank(group.lie_algebra.reshape(-1, 9)) < 3:
        raise GroupError(
            f"{group.name} is not SO(3) or O(3): it has fewer rotations, under which irreducibles of e3nn split "
            "further and copies mix. Build the layers on e3nn_rep(G, irreps), which keeps the layout for any subgroup"
        )
    table = irrep_table(group)
    named: dict[int, tuple[int, str, np.ndarray]] = {}
    frames: dict[tuple[int, str], list[np.ndarray]] = {}
    for n, term, where in rep.slices:
        parts = table.decompose(term).parts if term.size else ()
        for irrep, _, _ in parts:
            if irrep.index not in named:
                named[irrep.index] = _name(group, irrep.index)
        # the order in which the table met the irreducibles says nothing; the natural parity (-1)^l goes first
        for irrep, to, _ in sorted(parts, key=lambda part: _place(*named[part[0].index][:2])):
            l, parity, back = named[irrep.index]
            for copy in range(n):
                at = where.start + copy * term.size
                for frame in to:
                    row = np.zeros((irrep.size, rep.size))
                    row[:, at : at + term.size] = back @ frame
                    frames.setdefault((l, parity), []).append(row)
    rows = []
    for copies in frames.values():
        # Schur leaves a sign, by which a vector stays what it is
        first = copies[0].ravel()
        rows += [
            np.sign(first[np.argmax(np.abs(first) > (1 - 1e-6) * np.abs(first).max())]) * c for c in copies
        ]
    return "+".join(f"{len(copies)}x{l}{p}" for (l, p), copies in frames.items()), np.concatenate(
        rows or [np.zeros((0, 0))]
    )


def _name(group: MatrixGroup, index: int) -> tuple[int, str, np.ndarray]:
    """e3nn's name of an irreducible in the table, and the map from its basis."""
    table = irrep_table(group)
    l = (table.irreps[index].size - 1) // 2
    for parity in "eo":
        ((same, _, back),) = table.decompose(_irrep(group, l, parity)).parts
        if same.index == index:
            return l, parity, back[0]
    raise AssertionError("an irreducible of SO(3) or O(3) that is neither even nor odd")


def _place(l: int, parity: str) -> tuple[int, bool]:
    return l, parity != "eo"[l % 2]


def _irrep(group: MatrixGroup, l: int, parity: str) -> GivenRep:
    about = _turns(l)
    discrete = []
    for h in group.discrete_generators:
        proper = round(np.linalg.det(h))
        D = scipy.linalg.expm(np.tensordot(Rotation.from_matrix(proper * h).as_rotvec(), about, 1))
        whole = np.round(D)
        D = np.where(np.abs(D - whole) < 1e-13, whole, D)
        discrete.append(-D if proper < 0 and parity == "o" else D)
    lie = [np.tensordot([A[2, 1], A[0, 2], A[1, 0]], about, 1) for A in group.lie_algebra]
    size = 2 * l + 1
    return GivenRep(
        group,
        np.array(discrete).reshape(-1, size, size),
        np.array(lie).reshape(-1, size, size),
        name=f"{l}{parity}",
    )


def _turns(l: int) -> np.ndarray:
    """dD^l of the rotations about x, y and z, (3, 2l+1, 2l+1), on real spherical harmonics of polar axis y.

    On the complex ones Y(R x) turns by i L; the real ones are (Y_-m + (-1)^m Y_m) / √2 and
    i (Y_-m - (-1)^m Y_m) / √2, the latter first, from m = l to 1, then the former (Condon and Shortley's phases).
    """
    m = np.arange(-l, l + 1)
    up = np.diag(np.sqrt(l * (l + 1) - m[:-1] * m[1:]), 1)
    momenta = np.stack([(up + up.T) / 2, (up - up.T) / 2j, np.diag(m)])
    real = np.zeros((2 * l + 1, 2 * l + 1), complex)
    real[l, l] = 1
    for n in range(1, l + 1):
        real[l + n, l - n], real[l + n, l + n] = 0.5**0.5, (-1) ** n * 0.5**0.5
        real[l - n, l - n], real[l - n, l + n] = 1j * 0.5**0.5, -1j * (-1) ** n * 0.5**0.5
    turns = (real @ (1j * momenta) @ real.conj().T).real
    # exact: squares are multiples of 1/4
    turns = np.sign(turns) * np.sqrt(np.round(4 * turns**2)) / 2
    return turns[[1, 2, 0]]  # their z, x and y are our y, z and x


def _check_orthogonal(group: MatrixGroup) -> None:
    check_is_group(group)
    h, A = group.discrete_generators, group.lie_algebra
    if group.d != 3:
        raise GroupError(
            f"{group.name} acts on R^{group.d}; irreducibles of e3nn are of groups of (3, 3) matrices"
        )
    error = max(
        np.abs(h.transpose(0, 2, 1) @ h - np.eye(3)).max(initial=0),
        np.abs(A + A.transpose(0, 2, 1)).max(initial=0) / max(1.0, np.abs(A).max(initial=0)),
    )
    if error > 1e-9:
        raise GroupError(
            f"{group.name} is not written in orthogonal matrices (off by {error:.1e}), which are what e3nn represents; "
            "write a compact group as L g L^-1 with L = G.orthogonal_basis"
        )
