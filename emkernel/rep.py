"""Representations: the algebra of expressions, those given by their images, and those on invariant subspaces."""

from .expressions import DualRep, ProductRep, Rep, Scalar, ScalarRep, SumRep, T, V, VectorRep
from .given import GivenRep, from_function
from .images import Images
from .subrep import SubRep

__all__ = [
    "DualRep",
    "GivenRep",
    "Images",
    "ProductRep",
    "Rep",
    "Scalar",
    "ScalarRep",
    "SubRep",
    "SumRep",
    "T",
    "V",
    "VectorRep",
    "from_function",
]
