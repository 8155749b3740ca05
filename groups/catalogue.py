"""Groups by name, as the command line and the configuration of a training run give them."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from inspect import signature

from emkernel.errors import GroupError
from emkernel.matrix_group import MatrixGroup

from .axial import Cnh, Cnv, Cz, Dnd, Dnh, Dz, F, Inv, M, O2z, O2zInv, S2n, SO2z, SO2zF, SO2zInv
from .crystal import SYMBOLS, point_group, standard
from .linear import CO, CSO, GL, GLC, SL, SLC, Borel, Heisenberg, Scale, Unipotent
from .lorentz import O11, SO13, Lorentz, Opq, SOplus13, SOpq, SOpqFull
from .motions import SE, Aff, E, Galilei, Poincare
from .orthogonal import SO, O, Trivial
from .permutation import A, B, Rubik, S
from .plane import C, D
from .point import Ico, Ih, Octa, Oh, T, Td, Th
from .symplectic import Sp
from .unitary import SU, U

__all__ = ["catalogue", "families", "get"]

_CONSTRUCTORS: tuple[Callable[..., MatrixGroup], ...] = (
    A, Aff, B, Borel, C, CO, CSO, Cnh, Cnv, Cz, D, Dnd, Dnh, Dz, E, F, GL, GLC, Galilei, Heisenberg, Ico, Ih, Inv,
    Lorentz, M, O, O11, O2z, O2zInv, Octa, Oh, Opq, Poincare, Rubik, S, S2n, SE, SL, SLC, SO, SO13, SO2z, SO2zF,
    SO2zInv, SOplus13, SOpq, SOpqFull, SU, Scale, Sp, T, Td, Th, Trivial, U, Unipotent,
)  # fmt: skip

_MEMBERS: dict[str, Callable[[], MatrixGroup]] = {
    "Trivial2": partial(Trivial, 2), "Trivial3": partial(Trivial, 3),
    "C2": partial(C, 2), "C3": partial(C, 3), "C4": partial(C, 4), "C6": partial(C, 6), "C8": partial(C, 8),
    "D1": partial(D, 1), "D3": partial(D, 3), "D4": partial(D, 4), "D6": partial(D, 6),
    "SO2": partial(SO, 2), "O2": partial(O, 2),
    "C2z": partial(Cz, 2), "C3z": partial(Cz, 3), "C4z": partial(Cz, 4), "C6z": partial(Cz, 6),
    "C2v": partial(Cnv, 2), "C3v": partial(Cnv, 3), "C4v": partial(Cnv, 4), "C6v": partial(Cnv, 6),
    "Cs": partial(Cnh, 1), "C2h": partial(Cnh, 2), "C3h": partial(Cnh, 3), "C4h": partial(Cnh, 4),
    "C6h": partial(Cnh, 6), "S4z": partial(S2n, 2), "S6z": partial(S2n, 3),
    "D2z": partial(Dz, 2), "D3z": partial(Dz, 3), "D4z": partial(Dz, 4), "D6z": partial(Dz, 6),
    "D2h": partial(Dnh, 2), "D3h": partial(Dnh, 3), "D4h": partial(Dnh, 4), "D6h": partial(Dnh, 6),
    "D2d": partial(Dnd, 2), "D3d": partial(Dnd, 3),
    "M": M, "Inv": Inv, "F": F,
    "SO2z": SO2z, "O2z": O2z, "SO2zInv": SO2zInv, "SO2zF": SO2zF, "O2zInv": O2zInv,
    "SO3": partial(SO, 3), "O3": partial(O, 3), "SO4": partial(SO, 4),
    "T": T, "Td": Td, "Th": Th, "Octa": Octa, "Oh": Oh, "Ico": Ico, "Ih": Ih,
    "S3": partial(S, 3), "S4": partial(S, 4), "S5": partial(S, 5),
    "O11": O11, "SOplus13": SOplus13, "SO13": SO13, "Lorentz": Lorentz,
    "U2": partial(U, 2), "SU2": partial(SU, 2), "SU3": partial(SU, 3), "Sp2": partial(Sp, 2), "Sp4": partial(Sp, 4),
    "A4": partial(A, 4), "B3": partial(B, 3), "Rubik": Rubik,
    "GL2": partial(GL, 2), "GL3": partial(GL, 3), "SL2": partial(SL, 2), "SL3": partial(SL, 3),
    "GLC1": partial(GLC, 1), "SLC2": partial(SLC, 2), "Scale3": partial(Scale, 3), "CSO3": partial(CSO, 3),
    "CO3": partial(CO, 3),
    "SE2": partial(SE, 2), "E2": partial(E, 2), "SE3": partial(SE, 3), "E3": partial(E, 3), "Aff2": partial(Aff, 2),
    "Galilei1": partial(Galilei, 1), "Galilei3": partial(Galilei, 3), "Poincare1": partial(Poincare, 1),
    "Poincare3": partial(Poincare, 3), "Heisenberg1": partial(Heisenberg, 1), "Shear": partial(Unipotent, 2),
    "Borel2": partial(Borel, 2), "Borel3": partial(Borel, 3),
}  # fmt: skip


def catalogue() -> dict[str, Callable[[], MatrixGroup]]:
    """Name -> constructor without arguments, for every group that has a name of its own.

    Among them all 32 crystallographic and 7 limiting point groups (:func:`point_groups` gives their symbols), every
    group of the paper's figure 3, the Lorentz groups, and small members of each family.

    Example:
        >>> groups.catalogue()["Oh"]().order
        48
    """
    return dict(_MEMBERS)


def families() -> dict[str, Callable[..., MatrixGroup]]:
    """Name -> constructor that takes whole numbers, e.g. ``families()["C"](7)``."""
    return {c.__name__: c for c in _CONSTRUCTORS if signature(c).parameters}


_BUILDERS = ("Affine", "Direct", "Embed", "Generated", "Semidirect", "Stabiliser", "Tensor", "Wreath")

# Schoenflies symbols that a reader may take for a family of groups: name -> what else it could mean
_AMBIGUOUS = {
    **{f"C{n}": f"the cyclic group of the plane, C({n})" for n in (1, 2, 3, 4, 6)},
    **{f"D{n}": f"the dihedral group of the plane, D({n})" for n in (2, 3, 4, 6)},
    **{f"S{n}": f"the symmetric group, S({n})" for n in (2, 4, 6)},
    "O": "the orthogonal groups, O(n)",
}


def get(name: str) -> MatrixGroup:
    """The group of that name.

    A key of :func:`catalogue`; a family with its numbers, as in ``"C(7)"``; or a point group by its Hermann-Mauguin
    symbol or its Schoenflies symbol (see :func:`point_group`), as long as that means nothing else here: ``"C4"``
    and ``"S4"`` stay the rotations of the plane and the permutations of four coordinates, ``"D2"`` is refused.

    Raises:
        GroupError: no such name (with the nearest ones), a symbol with two meanings (with both), or the numbers do not
            fit the family.

    Example:
        >>> [groups.get(name).name for name in ("SO(4)", "Opq(2, 1)", "4/mmm", "inf/mm")]
        ['SO(4)', 'Opq(2,1)', 'Dnh(4)', 'O2zInv']
    """
    if not isinstance(name, str):
        raise GroupError(f"a group is looked up by its name, got {type(name).__name__}")
    name = name.strip()
    if name in _MEMBERS:
        return _MEMBERS[name]()
    symbol = standard(name)
    if symbol in _AMBIGUOUS:
        raise GroupError(f"{name!r} could mean {_AMBIGUOUS[symbol]}, or the point group of that Schoenflies symbol, "
                         f"point_group({symbol!r}), which is get({SYMBOLS[symbol]!r})")
    if symbol in SYMBOLS:
        return point_group(symbol)
    call = re.fullmatch(r"(\w+)\(\s*(\d{1,6}(?:\s*,\s*\d{1,6})*)?\s*\)", name, re.ASCII)
    constructor = {c.__name__: c for c in _CONSTRUCTORS}.get(call[1]) if call else None
    if call is None or constructor is None:
        builder = name.partition("(")[0]
        if builder in _BUILDERS:
            raise GroupError(f"{builder} makes a group from others, which have no place in a name: call "
                             f"emkernel.groups.{builder} in a file my_group.py, and name my_group.py:NAME")
        if builder in families():
            numbers = list(signature(families()[builder]).parameters)
            raise GroupError(f"no group is called {name!r}; {builder} is a family, {builder}({', '.join(numbers)}) "
                             f"with whole numbers, as in '{builder}({', '.join('3' * len(numbers))})'")
        raise GroupError(f"no group is called {name!r}{_nearest(name)}; `emkernel groups` lists all names")
    numbers = [int(n) for n in (call[2] or "").split(",") if n.strip()]
    expected = list(signature(constructor).parameters)
    if len(numbers) != len(expected):
        raise GroupError(f"{call[1]} takes {len(expected)} numbers ({', '.join(expected) or 'none'}), got {name!r}")
    return constructor(*numbers)


def _nearest(name: str) -> str:
    spelt = {known.casefold(): known for known in [*_MEMBERS, *(f"{f}(n)" for f in families()), *_BUILDERS]}
    near = [spelt[m] for m in get_close_matches(name.casefold(), spelt, n=4, cutoff=0.6)]
    shorthand = re.fullmatch(r"([A-Za-z]+)(\d+)([a-z]?)", name)
    if shorthand:
        letters, number, suffix = shorthand.groups()
        near = [f"{f}({number})" for f in (letters + suffix, f"{letters}n{suffix}") if f in families()] + near
    return "; close to it: " + ", ".join(dict.fromkeys(near)) if near else ""
