"""Assertions for test suites: a failed one carries the whole report of :mod:`emkernel.checks`.

Example:
    >>> def test_my_layer():
    ...     G = groups.Oh()
    ...     layer = nn.Linear(V(G), V(G))
    ...     ek.testing.assert_equivariant(layer, [torch.randn(5, 3)], [V(G)], V(G))
    >>> test_my_layer()
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from ._conditioning import tolerance
from ._equivariance import dtype_of, group_of, report_equivariance, reps_of
from .checks import TOLERANCE, check_equivariance, check_group, check_rep
from .matrix_group import MatrixGroup
from .rep import Rep

__all__ = ["assert_equivariant", "assert_equivariant_module", "assert_group", "assert_rep"]


def assert_equivariant(
    fn: Callable,
    args: Sequence,
    reps_in: Sequence,
    rep_out,
    tol: float | None = None,
    *,
    n: int = 4,
    generator: torch.Generator | np.random.Generator | int | None = None,
) -> None:
    """f(g·args) = ρ_out(g) f(args) on sampled group elements, in the dtype of the arguments.

    Args:
        fn, args, reps_in, rep_out, n, generator: as for :func:`emkernel.equivariance_error`.
        tol: largest relative error; by default that of the least precise dtype among the arguments: 1e-10 in float64,
            1e-5 in float32, 1e-2 in float16, 5e-2 in bfloat16; larger where the group is written in a basis of large
            condition, as for :func:`emkernel.check_equivariance`.

    Raises:
        AssertionError: it is not, with the report.

    Warns:
        UserWarning: the output vanishes, so that the assertion says nothing.

    Example:
        >>> vector, number = V(groups.O(3)), Scalar(groups.O(3))
        >>> def length(x):
        ...     return x.norm(dim=1, keepdim=True)
        >>> ek.testing.assert_equivariant(length, [torch.randn(5, 3)], [vector], number)
    """
    dtype = dtype_of(args)
    if tol is None:
        group_of(args, reps_in, rep_out)
        tol = tolerance(dtype, reps_of(reps_in, rep_out))
    _assert(report_equivariance(fn, args, reps_in, rep_out, n=n, tol=tol, dtype=dtype, generator=generator))


def assert_equivariant_module(
    module: torch.nn.Module,
    args: Sequence | None = None,
    reps_in: Sequence | None = None,
    rep_out=None,
    *,
    n: int = 4,
    tol: float | Mapping[torch.dtype, float] | None = None,
) -> None:
    """A module that declares its representations is equivariant in float64 and in float32.

    Args:
        module, args, reps_in, rep_out, n, tol: as for :func:`emkernel.check_equivariance`.

    Raises:
        AssertionError: it is not, with the report.

    Example:
        >>> vector = V(groups.Oh())
        >>> ek.testing.assert_equivariant_module(nn.PointConv(vector, vector))
    """
    _assert(check_equivariance(module, args, reps_in, rep_out, n=n, tol=tol))


def assert_group(G: MatrixGroup, **expected) -> None:
    """A group, its representations, bases, couplings and layers pass :func:`emkernel.check_group`.

    Args:
        G: the group.
        **expected: ``order``, ``dimension``, ``form``, ``degree``, ``quick`` of :func:`emkernel.check_group`.

    Raises:
        AssertionError: they do not, with the report.

    Example:
        >>> ek.testing.assert_group(groups.D(4), order=8, quick=True)
    """
    _assert(check_group(G, **expected))


def assert_rep(rep: Rep, *, tol: float = TOLERANCE[torch.float64]) -> None:
    """The images of the generators extend to a representation of the group.

    Args:
        rep: a bound representation.
        tol: largest relative error.

    Raises:
        AssertionError: they do not, with the report.

    Example:
        >>> ek.testing.assert_rep((V**2)(groups.Oh()))
    """
    _assert(check_rep(rep, tol=tol))


def _assert(report) -> None:
    __tracebackhide__ = True
    if not report.passed:
        raise AssertionError(str(report))
    for text in report.warnings:
        warnings.warn(text, UserWarning, stacklevel=3)
