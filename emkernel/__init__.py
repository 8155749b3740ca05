"""emkernel: steerable point convolutions for any matrix group given by its generators.

    generators -> MatrixGroup -> Rep -> (EMLP nullspace) -> irreducibles, couplings -> layers -> PointConv -> model

Zhdanov, Hoffmann, Cesa, "Implicit Neural Convolutional Kernels for Steerable CNNs" (arXiv 2212.06096), on Finzi,
Welling, Wilson, "A Practical Method for Constructing Equivariant Multilayer Perceptrons for Arbitrary Matrix Groups"
(arXiv 2104.09459).
"""

from importlib import import_module

from . import nn
from .batch import GraphBatch
from .checks import check_equivariance, check_group, check_rep, equivariance_error
from .errors import DataError, GroupError, RepError, SolverError
from .graph import knn_graph, radius_graph
from .group_element import GroupElement
from .matrix_group import MatrixGroup
from .ops.neighbours import Neighbours
from .rep import GivenRep, Rep, Scalar, T, V
from .solver.coupling import equivariant_basis
from .solver.irreps import Irrep, irreps

__version__ = "0.1.0"

__all__ = [
    "DataError",
    "GivenRep",
    "GraphBatch",
    "GroupElement",
    "GroupError",
    "Irrep",
    "MatrixGroup",
    "Neighbours",
    "Rep",
    "RepError",
    "Scalar",
    "SolverError",
    "T",
    "V",
    "check_equivariance",
    "check_group",
    "check_rep",
    "data",
    "equivariance_error",
    "equivariant_basis",
    "groups",
    "irreps",
    "knn_graph",
    "models",
    "nn",
    "radius_graph",
    "testing",
]

_LAZY = ("data", "groups", "models", "testing")


def __getattr__(name: str):
    if name in _LAZY:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
