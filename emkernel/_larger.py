"""Whether kernels of low degree are equivariant under a larger group than the one they were made for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import comb

import numpy as np
import torch
from torch import nn

from ._conditioning import change_of
from ._reports import SEED
from .errors import SolverError
from .matrix_group import MatrixGroup
from .nn import ImplicitKernel
from .nn.bilinear import irrep_sum
from .nn.steerable import SteerableKernel
from .rep import Rep, Scalar, V
from .solver.invariants import equivariant_polynomials
from .solver.irreps import irrep_table
from .solver.nullspace import one_thread

__all__ = ["motions", "of_fields", "of_kernels"]

UNKNOWNS = 800  # largest d² + n_in² + n_out² that is solved for
HIGHEST, MONOMIALS = 12, 120  # degree that is tried, and monomials of it
COEFFICIENTS = 1500  # of such a polynomial from V to Hom(rep_in, rep_out)
ENTRIES = 3 * 10**7  # of the system of linear equations
PAIRS = 16  # of irreducibles that are looked at one by one

Fields = list[tuple[Rep, Rep, bool]]  # rep_in, rep_out, and whether there are gates


@one_thread
def motions(rep_in: Rep, rep_out: Rep, degree: int, gates: bool = True) -> np.ndarray | None:
    """The linear vector fields X of the edge vector under which all kernels of a degree are equivariant.

    The kernels are k(v) = Σ_p f_p p(v), with p the equivariant polynomials V -> Hom(rep_in, rep_out) up to the degree,
    and f_p functions of the invariants that radial functions and gates see. All are equivariant under exp(tX) iff

        dp(v) X v = B p(v) - p(v) A,      dI(v) X v = 0

    for some A and B, which do not depend on p, and every such invariant I: a linear problem, solved at random v. Among
    the X is the Lie algebra of the group; where there are more, no weights make the kernel tell the group from one of
    that dimension. Discrete symmetries are not seen in this way.

    Args:
        rep_in, rep_out: bound representations; one copy of a piece stands for any number of them.
        degree: highest degree of the polynomials.
        gates: whether invariants of these degrees multiply the kernel, as in :class:`ImplicitKernel`.

    Returns:
        (r, d·d) orthonormal, in the coordinates that layers compute in; None where that is too large to be solved for,
        or not clear to rounding.
    """
    group = rep_in._require_bound()
    d, m, n = group.d, rep_out.size, rep_in.size
    unknowns, monomials = d * d + m * m + n * n, comb(d + degree - 1, degree)
    if unknowns > UNKNOWNS or monomials > MONOMIALS or m * n * monomials > COEFFICIENTS:
        return None
    seen = degree * gates if group.is_compact else max(degree, 2)
    try:
        maps = equivariant_polynomials(V(group), rep_in >> rep_out, degree)
        invariants = equivariant_polynomials(V(group), Scalar(group), seen)
    except SolverError:
        return None
    back, to_out = (torch.tensor(b) for b in (change_of(V(group))[1], change_of(rep_out)[0]))
    from_in = torch.tensor(change_of(rep_in)[1])

    def values(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = v @ back.T
        square = (v * v).sum(1, keepdim=True)[:, : int(group.is_compact)]
        kernels = to_out @ maps(x).reshape(len(x), -1, m, n) @ from_in
        return kernels, torch.cat([invariants(x)[:, 1:], square], 1)

    equations = sum(maps.counts) * m * n
    points = 16 + 2 * d + 2 * unknowns // max(1, equations)
    if points * equations * unknowns > ENTRIES:
        return None
    v = torch.randn(points, d, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    v = v / v.norm(dim=1, keepdim=True)
    with warnings.catch_warnings():
        # torch prepares derivatives by its own torch.jit.script
        warnings.simplefilter("ignore", DeprecationWarning)
        slopes = [torch.func.jvp(values, (v,), (e.expand_as(v),))[1] for e in torch.eye(d).to(v)]
    k, _ = values(v)
    dk, di = (torch.stack(s, -1) for s in zip(*slopes))
    size = k.square().mean((0, 2, 3), keepdim=True).sqrt()
    k, dk = k / size, dk / size[..., None]
    di = di / di.square().mean((0, 2), keepdim=True).sqrt()
    rows = torch.cat(
        [
            torch.einsum("epoij,el->epoijl", dk, v).flatten(0, 3).flatten(1),
            -torch.einsum("ox,epyi->epoixy", torch.eye(m).to(v), k).flatten(0, 3).flatten(1),
            torch.einsum("epox,yi->epoixy", k, torch.eye(n).to(v)).flatten(0, 3).flatten(1),
        ],
        1,
    )
    still = torch.einsum("ebj,el->ebjl", di, v).flatten(0, 1).flatten(1)
    system = torch.cat([rows, nn.functional.pad(still, (0, m * m + n * n))]).numpy()
    if not np.isfinite(system).all():
        return None
    _, s, vh = np.linalg.svd(np.linalg.qr(system, mode="r"))
    if ((s > 1e-11 * s[0]) & (s < 1e-6 * s[0])).any():
        return None
    _, s, vh = np.linalg.svd(vh[int((s > 1e-8 * s[0]).sum()) :, : d * d])
    return vh[: int((s > 1e-6).sum())]


def of_fields(rep: Rep, degree: int) -> str | None:
    """A sentence on kernels of this degree from a representation to itself, where a larger group has the same ones."""
    found = _text(rep._require_bound(), [(rep, rep, True)], degree)
    return found and f"kernels of degree {degree} from {rep} to {rep} {found}"


def of_kernels(kernels: Sequence[SteerableKernel]) -> str | None:
    """A sentence on the kernels of a module, where one larger group has the same ones.

    Nothing is said of kernels of several groups, where steerable attributes tell directions apart, or where the fields
    are too large.
    """
    groups = {k.rep_in._require_bound() for k in kernels}
    if len(groups) != 1 or any(k.embed.has_steerable_attributes for k in kernels):
        return None
    (group,) = groups
    kinds = {
        (tuple(k.layout_in.irreps), tuple(k.layout_out.irreps), isinstance(k, ImplicitKernel)) for k in kernels
    }
    fields = [
        (irrep_sum(group, [(1, r) for r in a]), irrep_sum(group, [(1, r) for r in b]), gates) for a, b, gates in kinds
    ]
    degree = max(k.embed.degree for k in kernels)
    if found := _text(group, fields, degree):
        return f"kernels of degree {degree} between these fields {found}"
    pairs = dict.fromkeys((a, b, gates) for into, out, gates in kinds for a in into for b in out)
    if len(pairs) > PAIRS:
        return None
    for a, b, gates in pairs:
        one = [(irrep_sum(group, [(1, a)]), irrep_sum(group, [(1, b)]), gates)]
        if found := _text(group, one, degree):
            return (
                f"kernels of degree {degree} between these fields together tell the group from larger ones, but those "
                f"from {a.label} to {b.label} alone {found}"
            )
    return None


def _text(group: MatrixGroup, fields: Fields, degree: int) -> str | None:
    own = len(irrep_table(group).coordinates.lie_closure)
    many = _dimension(fields, degree)
    if many is None or many <= own:
        return None
    text = f"are equivariant under a larger group as well, of dimension {many} where this one has {own}"
    k = degree + 1
    while (more := _dimension(fields, k) if k <= HIGHEST else None) is not None and more > own:
        if more < many:
            many, text = more, f"{text}; from degree {k} on of dimension {more}"
        k += 1
    return text + (f"; from degree {k} on they are not" if more is not None else f", up to degree {k - 1} at least")


def _dimension(fields: Fields, degree: int) -> int | None:
    """The number of independent vector fields that all these kernels have in common."""
    outside = 0
    for rep_in, rep_out, gates in fields:
        if (X := motions(rep_in, rep_out, degree, gates)) is None:
            return None
        outside = outside + np.eye(X.shape[1]) - X.T @ X
    return int((np.linalg.eigvalsh(outside) < 1e-9).sum())
