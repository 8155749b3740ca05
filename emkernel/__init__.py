"""emkernel: steerable point convolutions for any matrix group given by its generators.

    generators -> MatrixGroup -> Rep -> (EMLP nullspace) -> irreducibles, couplings -> layers -> PointConv -> model

Zhdanov, Hoffmann, Cesa, "Implicit Neural Convolutional Kernels for Steerable CNNs" (arXiv 2212.06096), on Finzi,
Welling, Wilson, "A Practical Method for Constructing Equivariant Multilayer Perceptrons for Arbitrary Matrix Groups"
(arXiv 2104.09459).
"""

import logging
from importlib import import_module

from . import nn
from .batch import GraphBatch
from .characters import (
    character,
    character_table,
    conjugacy_classes,
    frobenius_schur,
    inner_product,
    molien,
)
from .checks import check_equivariance, check_group, check_rep, equivariance_error
from .errors import DataError, GroupError, RepError, SolverError
from .finite_reps import PermutationRep, induced, permutation_rep, quotient, regular
from .graph import interval_graph, knn_graph, periodic_graph, radius_graph
from .group_element import GroupElement
from .interop import e3nn_basis, e3nn_rep
from .matrix_group import MatrixGroup
from .ops.neighbours import Neighbours
from .powers import alt, sym, traceless
from .rep import GivenRep, Rep, Scalar, SubRep, T, V, from_function
from .restriction import restrict
from .solver.coupling import equivariant_basis
from .solver.forms import InvariantForms, invariant_forms
from .solver.invariants import PolynomialMaps, equivariant_polynomials, invariant_polynomials
from .solver.irreps import Irrep, irreps

__version__ = "0.1.0"
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "DataError",
    "GivenRep",
    "GraphBatch",
    "GroupElement",
    "GroupError",
    "InvariantForms",
    "Irrep",
    "MatrixGroup",
    "Neighbours",
    "PermutationRep",
    "PolynomialMaps",
    "Rep",
    "RepError",
    "Scalar",
    "SolverError",
    "SubRep",
    "T",
    "V",
    "alt",
    "character",
    "character_table",
    "check_equivariance",
    "check_group",
    "check_rep",
    "conjugacy_classes",
    "data",
    "e3nn_basis",
    "e3nn_rep",
    "equivariance_error",
    "equivariant_basis",
    "equivariant_polynomials",
    "figures",
    "frobenius_schur",
    "from_function",
    "groups",
    "induced",
    "inner_product",
    "interval_graph",
    "invariant_forms",
    "invariant_polynomials",
    "irreps",
    "knn_graph",
    "models",
    "molien",
    "nn",
    "periodic_graph",
    "permutation_rep",
    "plots",
    "quotient",
    "radius_graph",
    "regular",
    "restrict",
    "sym",
    "testing",
    "traceless",
]

_LAZY = ("data", "figures", "groups", "models", "plots", "testing")


def __getattr__(name: str):
    if name in _LAZY:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
