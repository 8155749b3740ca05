"""The catalogue of groups: each is a few lines over :class:`emkernel.MatrixGroup`, to use or to copy."""

from .axial import Cnh, Cnv, Cz, Dnd, Dnh, Dz, F, Inv, M, O2z, O2zInv, S2n, SO2z, SO2zF, SO2zInv
from .catalogue import catalogue, families, get
from .crystal import point_group, point_groups
from .embed import Embed, Generated
from .linear import CO, CSO, GL, GLC, SL, SLC, Borel, Heisenberg, Scale, Unipotent
from .lorentz import O11, SO13, Lorentz, Opq, SOplus13, SOpq, SOpqFull
from .motions import SE, Aff, Affine, E, Galilei, Poincare
from .orthogonal import SO, O, Trivial
from .permutation import A, B, Rubik, S
from .plane import C, D
from .point import Ico, Ih, Octa, Oh, T, Td, Th
from .product import Direct, Semidirect, Tensor, Wreath
from .stabiliser import Stabiliser
from .symplectic import Sp
from .unitary import SU, U

__all__ = [
    "A", "Aff", "Affine", "B", "Borel", "C", "CO", "CSO", "Cnh", "Cnv", "Cz", "D", "Direct", "Dnd", "Dnh", "Dz", "E",
    "Embed", "F", "GL", "GLC", "Galilei", "Generated", "Heisenberg", "Ico", "Ih", "Inv", "Lorentz", "M", "O", "O11",
    "O2z", "O2zInv", "Octa", "Oh", "Opq", "Poincare", "Rubik", "S", "S2n", "SE", "SL", "SLC", "SO", "SO13", "SO2z",
    "SO2zF", "SO2zInv", "SOplus13", "SOpq", "SOpqFull", "SU", "Scale", "Semidirect", "Sp", "Stabiliser", "T", "Td",
    "Tensor", "Th", "Trivial", "U", "Unipotent", "Wreath", "catalogue", "families", "get", "point_group",
    "point_groups",
]  # fmt: skip
