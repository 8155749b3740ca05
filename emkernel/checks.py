"""Is it equivariant? Checks of groups, representations, functions and layers, with reports to read.

Errors are relative to the larger of the two sides of the equation, so that they mean the same under a boost as under a
rotation. What a check compares with is found another way than by the code it checks: dimensions from characters or
singular values of the user's own generators, relations by multiplying matrices.
"""

from __future__ import annotations

from ._check_grid import grid_equivariance_error
from ._check_group import check_group
from ._check_rep import check_rep
from ._equivariance import check_equivariance, equivariance_error
from ._reports import TOLERANCE, Check, EquivarianceReport, GroupReport, RepReport, Section

__all__ = [
    "TOLERANCE",
    "Check",
    "EquivarianceReport",
    "GroupReport",
    "RepReport",
    "Section",
    "check_equivariance",
    "check_group",
    "check_rep",
    "equivariance_error",
    "grid_equivariance_error",
]
