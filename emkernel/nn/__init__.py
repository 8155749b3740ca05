"""Equivariant layers."""

from .bilinear import Bilinear
from .conv import PointConv
from .fixed import FixedKernel
from .grid import GridConv, Pointwise
from .kernel import ImplicitKernel
from .linear import Linear
from .mlp import EMLP
from .nonlinear import Gate, Invariants
from .norm import BatchNorm
from .orbit import OrbitELU
from .pool import InvariantPool

__all__ = [
    "EMLP",
    "BatchNorm",
    "Bilinear",
    "FixedKernel",
    "Gate",
    "GridConv",
    "ImplicitKernel",
    "Invariants",
    "InvariantPool",
    "Linear",
    "OrbitELU",
    "PointConv",
    "Pointwise",
]
