"""Groups by name, as the command line and the configuration of a training run give them."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from inspect import signature

from emkernel.errors import GroupError
from emkernel.matrix_group import MatrixGroup

from .axial import Cnh, Cnv, Cz, Dnd, Dnh, Dz, F, Inv, M, O2z, O2zInv, S2n, SO2z, SO2zF, SO2zInv
from .lorentz import O11, SO13, Lorentz, Opq, SOplus13, SOpq
from .orthogonal import SO, O, Trivial
from .permutation import S
from .plane import C, D
from .point import Ico, Ih, Octa, Oh, T, Td, Th
from .symplectic import Sp
from .unitary import SU, U

__all__ = ["catalogue", "families", "get"]

_CONSTRUCTORS: tuple[Callable[..., MatrixGroup], ...] = (
    C, Cnh, Cnv, Cz, D, Dnd, Dnh, Dz, F, Ico, Ih, Inv, Lorentz, M, O, O11, O2z, O2zInv, Octa, Oh, Opq, S, S2n, SO,
    SO13, SO2z, SO2zF, SO2zInv, SOplus13, SOpq, SU, Sp, T, Td, Th, Trivial, U,
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
}  # fmt: skip


def catalogue() -> dict[str, Callable[[], MatrixGroup]]:
    """Name -> constructor without arguments, for every group that has a name of its own.

    Among them all 32 crystallographic point groups, every group of the paper's figure 3, and the Lorentz groups.

    Example:
        >>> catalogue()["Oh"]().order
        48
    """
    return dict(_MEMBERS)


def families() -> dict[str, Callable[..., MatrixGroup]]:
    """Name -> constructor that takes whole numbers, e.g. ``families()["C"](7)``."""
    return {c.__name__: c for c in _CONSTRUCTORS if signature(c).parameters}


def get(name: str) -> MatrixGroup:
    """The group of that name: a key of :func:`catalogue`, or a family with its numbers, as in ``"C(7)"``.

    Raises:
        GroupError: no such name (with the nearest ones), or the numbers do not fit the family.

    Example:
        >>> get("SO(4)").d, get("Opq(2, 1)").d
        (4, 3)
    """
    name = name.strip()
    if name in _MEMBERS:
        return _MEMBERS[name]()
    call = re.fullmatch(r"(\w+)\(\s*(\d{1,6}(?:\s*,\s*\d{1,6})*)?\s*\)", name, re.ASCII)
    constructor = {c.__name__: c for c in _CONSTRUCTORS}.get(call[1]) if call else None
    if call is None or constructor is None:
        raise GroupError(f"no group is called {name!r}{_nearest(name)}; `emkernel groups` lists all names")
    numbers = [int(n) for n in (call[2] or "").split(",") if n.strip()]
    expected = list(signature(constructor).parameters)
    if len(numbers) != len(expected):
        raise GroupError(f"{call[1]} takes {len(expected)} numbers ({', '.join(expected) or 'none'}), got {name!r}")
    return constructor(*numbers)


def _nearest(name: str) -> str:
    spelt = {known.casefold(): known for known in [*_MEMBERS, *(f"{f}(n)" for f in families())]}
    near = [spelt[m] for m in get_close_matches(name.casefold(), spelt, n=4, cutoff=0.6)]
    shorthand = re.fullmatch(r"([A-Za-z]+)(\d+)([a-z]?)", name)
    if shorthand:
        letters, number, suffix = shorthand.groups()
        near = [f"{f}({number})" for f in (letters + suffix, f"{letters}n{suffix}") if f in families()] + near
    return "; close to it: " + ", ".join(dict.fromkeys(near)) if near else ""
