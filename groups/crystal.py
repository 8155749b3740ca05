"""The 32 crystallographic point groups and the 7 limiting (Curie) groups, under the names of either notation.

One orientation for both notations: the main axis is z. Further axes are those of the axial families and of the cube:
twofold axes along x for 222, 422, 32, 622, -42m, -3m, -6m2 (that is the setting -62m) and ∞2; mirrors across x for
mm2, 4mm, 3m, 6mm and ∞m; the mirror of m and the twofold axis of 2 are across and along z.
"""

import re
import unicodedata
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial

from emkernel.errors import GroupError
from emkernel.matrix_group import MatrixGroup

from .axial import Cnh, Cnv, Cz, Dnd, Dnh, Dz, Inv, O2z, O2zInv, S2n, SO2z, SO2zF, SO2zInv
from .orthogonal import SO, O, Trivial
from .point import Octa, Oh, T, Td, Th

__all__ = ["point_group", "point_groups"]

# Hermann-Mauguin symbol -> Schoenflies symbols, the usual one first, and constructor
_ROWS: dict[str, tuple[tuple[str, ...], Callable[[], MatrixGroup]]] = {
    "1": (("C1",), partial(Trivial, 3)), "-1": (("Ci", "S2"), Inv),
    "2": (("C2",), partial(Cz, 2)), "m": (("Cs", "C1h", "C1v"), partial(Cnh, 1)), "2/m": (("C2h",), partial(Cnh, 2)),
    "222": (("D2",), partial(Dz, 2)), "mm2": (("C2v",), partial(Cnv, 2)), "mmm": (("D2h",), partial(Dnh, 2)),
    "4": (("C4",), partial(Cz, 4)), "-4": (("S4",), partial(S2n, 2)), "4/m": (("C4h",), partial(Cnh, 4)),
    "422": (("D4",), partial(Dz, 4)), "4mm": (("C4v",), partial(Cnv, 4)), "-42m": (("D2d",), partial(Dnd, 2)),
    "4/mmm": (("D4h",), partial(Dnh, 4)),
    "3": (("C3",), partial(Cz, 3)), "-3": (("C3i", "S6"), partial(S2n, 3)), "32": (("D3",), partial(Dz, 3)),
    "3m": (("C3v",), partial(Cnv, 3)), "-3m": (("D3d",), partial(Dnd, 3)),
    "6": (("C6",), partial(Cz, 6)), "-6": (("C3h",), partial(Cnh, 3)), "6/m": (("C6h",), partial(Cnh, 6)),
    "622": (("D6",), partial(Dz, 6)), "6mm": (("C6v",), partial(Cnv, 6)), "-6m2": (("D3h",), partial(Dnh, 3)),
    "6/mmm": (("D6h",), partial(Dnh, 6)),
    "23": (("T",), T), "m-3": (("Th",), Th), "432": (("O",), Octa), "-43m": (("Td",), Td), "m-3m": (("Oh",), Oh),
    "∞": (("C∞",), SO2z), "∞m": (("C∞v",), O2z), "∞/m": (("C∞h",), SO2zInv), "∞2": (("D∞",), SO2zF),
    "∞/mm": (("D∞h",), O2zInv), "∞∞": (("K",), partial(SO, 3)), "∞∞m": (("Kh",), partial(O, 3)),
}  # fmt: skip
_OTHER = {"∞/mmm": "∞/mm", "∞22": "∞2", "∞mm": "∞m", "-62m": "-6m2", "m3": "m-3", "m3m": "m-3m"}

# every symbol -> its Hermann-Mauguin symbol
SYMBOLS: dict[str, str] = {s: hm for hm, (names, _) in _ROWS.items() for s in (hm, *names)} | _OTHER


def standard(name: str) -> str:
    """One spelling: no spaces, ∞ for inf, -3 for a barred 3 or a minus sign in Unicode."""
    name = unicodedata.normalize("NFD", name).replace("\N{MINUS SIGN}", "-")
    name = re.sub("([0-9])[\u0304\u0305]", r"-\1", name)
    return "".join(name.split()).replace("inf", "∞")


def point_group(name: str) -> MatrixGroup:
    """The crystallographic or limiting point group of space of that name, in either notation.

    Args:
        name: a Hermann-Mauguin symbol, as in ``"m-3m"``, ``"∞/mm"`` or ``"inf/mm"``, or a Schoenflies symbol, as in
            ``"Oh"``, ``"S4"`` or ``"Dinfh"``. Always with the meaning of crystallography: ``"C4"`` turns space
            about z, ``"S4"`` is a rotoreflection, ``"O"`` the rotations of the cube.

    Raises:
        GroupError: no point group has that symbol (with the nearest ones).

    Example:
        >>> groups.point_group("S4").order, groups.point_group("Dinfh").name
        (4, 'O2zInv')
        >>> groups.point_group("m-3m") == groups.point_group("Oh")
        True
    """
    symbol = standard(name)
    if symbol not in SYMBOLS:
        near = get_close_matches(symbol, SYMBOLS, n=4, cutoff=0.5)
        raise GroupError(f"no point group is called {name!r}" + (f"; close to it: {', '.join(near)}" if near else "")
                         + "; point_groups() lists all symbols")
    return _ROWS[SYMBOLS[symbol]][1]()


def point_groups() -> dict[str, tuple[str, ...]]:
    """Hermann-Mauguin symbol -> Schoenflies symbols, for the 32 crystallographic and the 7 limiting groups.

    Example:
        >>> groups.point_groups()["-3"]
        ('C3i', 'S6')
    """
    return {hm: names for hm, (names, _) in _ROWS.items()}
