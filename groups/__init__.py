"""The catalogue of groups: each is a few lines over :class:`emkernel.MatrixGroup`, to use or to copy."""

from .axial import Cnh, Cnv, Cz, Dnd, Dnh, Dz, F, Inv, M, O2z, O2zInv, S2n, SO2z, SO2zF, SO2zInv
from .catalogue import catalogue, families, get
from .embed import Embed, Generated
from .lorentz import O11, SO13, Lorentz, Opq, SOplus13, SOpq
from .orthogonal import SO, O, Trivial
from .permutation import S
from .plane import C, D
from .point import Ico, Ih, Octa, Oh, T, Td, Th
from .symplectic import Sp
from .unitary import SU, U

__all__ = [
    "C", "Cnh", "Cnv", "Cz", "D", "Dnd", "Dnh", "Dz", "Embed", "F", "Generated", "Ico", "Ih", "Inv",
    "Lorentz", "M", "O", "O11", "O2z", "O2zInv", "Octa", "Oh", "Opq", "S", "S2n", "SO", "SO13", "SO2z",
    "SO2zF", "SO2zInv", "SOplus13", "SOpq", "SU", "Sp", "T", "Td", "Th", "Trivial", "U", "catalogue",
    "families", "get",
]  # fmt: skip
