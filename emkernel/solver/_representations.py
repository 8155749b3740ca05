"""Representations in coordinates that follow from the good ones of V, or are as good."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from .. import _compact
from ..errors import RepError, SolverError
from ..images import Images
from ..matrix_group import MatrixGroup
from ..rep import DualRep, ProductRep, Rep, ScalarRep, SubRep, SumRep, VectorRep
from ._irrep import Irrep
from .reductive import adjoint_basis

if TYPE_CHECKING:
    from .irreps import IrrepTable


def in_good_coordinates(table: IrrepTable, rep: Rep) -> tuple[Images, np.ndarray, np.ndarray]:
    """(images, L, L^-1): the representation in coordinates x' = L x that follow from those of V, or are as good."""
    co = table.coordinates
    if isinstance(rep, VectorRep):
        return co.images, co.basis, co.inverse
    if isinstance(rep, DualRep):
        images, basis, inverse = in_good_coordinates(table, rep.base)
        return images.dual(), inverse.T, basis.T
    if isinstance(rep, ProductRep):
        images, basis, inverse = in_good_coordinates(table, rep.factors[0])
        for factor in rep.factors[1:]:
            other = in_good_coordinates(table, factor)
            images, basis = images.tensor(other[0]), np.kron(basis, other[1])
            inverse = np.kron(inverse, other[2])
        return images, basis, inverse
    if isinstance(rep, SumRep):
        parts = [in_good_coordinates(table, t) for n, t in rep.terms for _ in range(n)]
        images = Images.direct_sum([p[0] for p in parts])
        return images, *(scipy.linalg.block_diag(*(p[k] for p in parts)) for k in (1, 2))
    if isinstance(rep, SubRep):
        images, basis, _ = in_good_coordinates(table, rep.base)
        Q, R = np.linalg.qr(basis @ rep.back)
        return images.conjugate(Q.T, Q, name_of_subspace(rep)), R, np.linalg.inv(R)
    if isinstance(rep, ScalarRep) or (isinstance(rep, Irrep) and rep in table.irreps):
        return table.irreps[getattr(rep, "index", 0)].normal, np.eye(rep.size), np.eye(rep.size)
    return _of_its_own(table, rep)


def _of_its_own(table: IrrepTable, rep: Rep) -> tuple[Images, np.ndarray, np.ndarray]:
    """A representation that is known by its images alone."""
    co, images = table.coordinates, table.coordinates.normalise(rep.images)
    if table.group.is_compact:
        basis = MatrixGroup(
            str(rep), images.discrete, images.lie, d=rep.size, trust_digits=True
        ).orthogonal_basis
        if basis is None:
            raise RepError(
                f"{rep} preserves no positive form although {table.group.name} is compact: its images on "
                "the generators are not a representation"
            )
    elif co.completely_reducible:
        units = _compact.units(images.discrete, images.lie)
        balanced = images.conjugate(np.diag(units), np.diag(1 / units), "units")
        basis = adjoint_basis(co.images, balanced)
        if basis is None:
            raise SolverError(
                f"{rep}: no coordinates are found in which this representation of {table.group.name} is closed "
                "under transpose with the group, so that it need not split into irreducibles. Likely causes: "
                "images that are not rational in the matrix entries, as exp(tA) -> t, or a basis of large "
                "condition."
            )
        basis = basis * units
    else:
        basis = np.diag(_compact.units(images.discrete, images.lie))
    inverse = np.linalg.inv(basis)
    changed = images.conjugate(basis, inverse, "orthogonal")
    return replace(changed, find_probes=co.probes_of(changed)), basis, inverse


def name_of_subspace(rep: SubRep) -> str:
    return f"subspace {hashlib.sha256(rep.back.tobytes()).hexdigest()}"
