"""Whether all that is built on a group is right: elements, representations, bases, couplings, layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ._arguments import whole
from ._check_irreps import (
    check_all_irreps,
    check_forms,
    check_polynomials,
    check_splitting,
    pieces_of,
    table_of,
)
from ._check_maps import Count, check_basis, check_couplings, tolerance_of, unseen
from ._check_rep import check_homomorphism
from ._conditioning import condition
from ._equivariance import check_equivariance
from ._larger import of_fields
from ._progress import working
from ._reports import SEED, GroupReport, Sheet
from .errors import GroupError, SolverError
from .matrix_group import MatrixGroup
from .nn import PointConv
from .relations import products
from .rep import Rep, Scalar, SumRep, V
from .solver.irreps import irrep_table, irreps

__all__ = ["check_group"]

COUNTED = 500  # order up to which the elements of a finite group are counted by multiplying them
LARGEST = 500  # dimension of a tensor power that is split
RELATED = 300  # dimension of the sum of representations whose relations are tried
CROOKED = 1e6, 2e3  # condition of a representation, and of V, whose relations rounding does not hide
COUPLED = 64  # dimension of the pieces that a layer couples
DEGREE = 2  # of kernels, unless said otherwise


def check_group(
    G: MatrixGroup,
    *,
    order: int | None = None,
    dimension: int | None = None,
    form: np.ndarray | None = None,
    degree: int = 2,
    quick: bool = False,
) -> GroupReport:
    """Whether everything that is built on a group is right: elements, representations, bases, couplings, layers.

    Generators describe some group whatever they are; that it is the one that was meant shows only against what is known
    of it: its order, the dimension of its Lie algebra, or a bilinear form that it preserves. The report says what the
    group is, what was checked and how well it holds, and what was not done and why: whatever is too large is left out
    with a line that says so. Where kernels of degree 2 between scalars or vectors are those of a larger continuous
    group it says up to which degree.

    Args:
        G: any matrix group; what goes wrong with it becomes a red line, not an exception.
        order: the number of elements it should have.
        dimension: of the Lie algebra it should have.
        form: (d, d) matrix F with h^T F h = F and A^T F + F A = 0, or several of them.
        degree: highest tensor power of V that is split into irreducibles.
        quick: only what the group is: its size, invariants, and irreducibles in the powers of V.

    Raises:
        GroupError: the form is not a (d, d) matrix, or the first argument not a group.
        ValueError: degree < 1.

    Example:
        >>> report = ek.check_group(groups.Th(), order=24, quick=True)
        >>> report.passed, report.dimension, report.is_compact
        (True, 0, True)
    """
    if not isinstance(G, MatrixGroup):
        raise GroupError(f"expected a MatrixGroup, got {type(G).__name__}")
    forms = np.zeros((0, G.d, G.d)) if form is None else np.asarray(form, float)
    if forms.ndim not in (2, 3) or forms.shape[-2:] != (G.d, G.d):
        raise GroupError(f"form has shape {forms.shape}, expected ({G.d}, {G.d})")
    degree = whole(degree, "degree")
    with working(f"checking {G.name}") as say:
        sheet = Sheet(lambda title: say(f"checking {G.name}, {title}"))
        return _report(sheet, G, order, dimension, forms.reshape(-1, G.d, G.d), degree, quick)


def _report(sheet: Sheet, G: MatrixGroup, order, dimension, forms: np.ndarray, degree: int, quick: bool) -> GroupReport:
    size, compact, algebra, splits = _check_size(sheet, G)
    _check_expected(sheet, G, size, algebra, order, dimension, forms)
    sheet.section("invariants")
    sheet.attempt("invariant forms", check_forms, sheet, G)
    sheet.attempt("invariant polynomials", check_polynomials, sheet, G)
    sheet.section("irreducibles" if splits else "representations")
    top = max([1, *(k for k in range(1, degree + 1) if G.d**k <= LARGEST)])
    if top < degree:
        sheet.refuse(f"splitting V^{top + 1}, of dimension {G.d ** (top + 1)}: larger than {LARGEST}")
    degree = top
    pieces, multiplicities = sheet.attempt(
        "irreducibles in powers of V", pieces_of, G, degree, default=([], ())
    )
    for row in table_of(multiplicities):
        sheet.fact(row)
    powers = [(V**k)(G) for k in range(1, degree + 1)]
    for rep in powers:
        sheet.attempt(f"splitting {rep}", check_splitting, sheet, rep)
    if splits is False:
        sheet.attempt("irreducibles", _why_unsplit, sheet, G)
    complete = None
    if not quick:
        if size is not None:
            complete = sheet.attempt("all irreducibles", check_all_irreps, sheet, G)
        powers = powers[:2]
        sheet.section("relations of the group")
        sheet.attempt("representations", _check_relations, sheet, [V(G), V.T(G), *pieces, *powers[1:]])
        sheet.section("equivariant maps")
        count = Count(G)
        pairs = [(powers[0], V.T(G)), (Scalar(G), powers[-1])]
        for a, b in [*pairs, *((a, b) for a in powers for b in powers if a.size <= b.size)]:
            sheet.attempt(f"Hom({a}, {b})", check_basis, sheet, a, b, count)
        sheet.section("couplings")
        sheet.attempt("couplings", check_couplings, sheet, G, pieces, count)
        sheet.section("a layer")
        sheet.attempt("PointConv", _check_layer, sheet, G, multiplicities)
        for rep in (Scalar(G), V(G)):
            if text := sheet.attempt("kernels of low degree", of_fields, rep, DEGREE):
                sheet.fact(text)
    sheet.close()
    many, lie = len(G.discrete_generators), len(G.lie_algebra)
    title = f"{G.name}: d = {G.d}, {many} discrete and {lie} Lie algebra generators"
    return GroupReport(
        title,
        sheet.checks,
        (),
        tuple(sheet.sections),
        size,
        algebra,
        compact,
        splits,
        multiplicities,
        complete,
    )


# ---- what the group is ----------------------------------------------------------------------------------------------


def _check_size(sheet: Sheet, G: MatrixGroup) -> tuple[int | None, bool | None, int | None, bool | None]:
    """(order, compact, dimension of the Lie algebra, completely reducible), None where that is not found out."""
    sheet.section("group")
    size, compact = sheet.attempt(
        "order and compactness", lambda: (G.order, G.is_compact), default=(None, None)
    )
    algebra, splits = sheet.attempt("Lie algebra", _algebra, G, default=(None, None))
    kind = f"finite, order {size}" if size else "infinite"
    if splits is None:
        kind += "; coordinates to solve in were not found"
    else:
        kind += f"; Lie algebra of dimension {algebra}; {'compact' if compact else 'not compact'}; "
        kind += "reductive" if splits else "not certified reductive"
        kind += ", representations split" if splits else ", representations stay whole"
    sheet.fact(kind)
    if compact:
        sheet.line("the positive form is invariant", _form_defect(G, G.invariant_form))
    sheet.attempt("elements", _check_elements, sheet, G)
    return size, compact, algebra, splits


def _algebra(G: MatrixGroup) -> tuple[int, bool]:
    coordinates = irrep_table(G).coordinates
    return len(coordinates.lie_closure), coordinates.completely_reducible


def _check_expected(sheet: Sheet, G: MatrixGroup, size, algebra, order, dimension, forms: np.ndarray) -> None:
    for F in forms:
        sheet.line("the stated form is invariant", _form_defect(G, F))
    if order is not None:
        wrong = np.inf if size is None else abs(size - order)
        sheet.line(f"expected order {order}", wrong, 0, f"found {size or 'an infinite group'}")
    if dimension is not None:
        wrong = np.inf if algebra is None else abs(algebra - dimension)
        sheet.line(f"expected a Lie algebra of dimension {dimension}", wrong, 0, f"found {algebra}")


def _form_defect(G: MatrixGroup, F: np.ndarray | None) -> float:
    """How far F is from h^T F h = F and A^T F + F A = 0, relative to the terms that are summed."""
    assert F is not None
    defects = []
    for h in G.discrete_generators:
        defects.append(
            np.abs(h.T @ F @ h - F).max() / (np.abs(h.T) @ np.abs(F) @ np.abs(h) + np.abs(F)).max()
        )
    for A in G.lie_algebra:
        defects.append(np.abs(A.T @ F + F @ A).max() / max((np.abs(A.T) @ np.abs(F)).max(), 1e-300))
    return max(map(float, np.nan_to_num(defects, nan=np.inf)), default=0.0)


def _check_elements(sheet: Sheet, G: MatrixGroup) -> None:
    unit = V(G).units[:, None] / V(G).units
    g, back = (np.stack([m.matrix * unit for m in ms]) for ms in (unseen(G), [e.inverse for e in unseen(G)]))
    size = np.abs(g).max((1, 2)) * np.abs(back).max((1, 2))
    error = max((np.abs(x - np.eye(G.d)).max((1, 2)) / size).max() for x in (g @ back, back @ g))
    sheet.line("elements have inverses", error, tolerance_of(V(G), V(G)))  # κ²: a matrix and its inverse
    if G.order is not None and G.order <= COUNTED:
        _, count, closed = products(G, V(G).images)
        wrong = abs(count - G.order) if closed else np.inf
        sheet.line("as many products of generators as the order", wrong, 0)


def _why_unsplit(sheet: Sheet, G: MatrixGroup) -> None:
    try:
        irreps(G, 1)
    except SolverError as e:
        sheet.refuse(f"irreducibles: {e}")


# ---- what is built on it --------------------------------------------------------------------------------------------


def _check_relations(sheet: Sheet, reps: list[Rep]) -> None:
    tried: list[Rep] = []
    group = reps[0]._require_bound()
    if not group.is_compact and (kappa := condition(V(group))) > CROOKED[1]:
        sheet.refuse(f"the relations of the group: a basis of condition {kappa:.0e} hides them")
        return
    for rep in reps:
        if tried and sum(r.size for r in tried) + rep.size > RELATED:
            sheet.refuse(
                f"the relations of the group on {rep}: more than {RELATED} dimensions with the others"
            )
        elif (kappa := condition(rep)) > CROOKED[0]:
            sheet.refuse(
                f"the relations of the group on {rep}: its basis, of condition {kappa:.0e}, hides them"
            )
        else:
            tried.append(rep)
    if tried:
        sheet.fact("on " + ", ".join(map(str, tried)))
        check_homomorphism(sheet, SumRep(tuple((1, r) for r in tried), group))


def _check_layer(sheet: Sheet, G: MatrixGroup, multiplicities) -> None:
    field = (2 * Scalar + V)(G)
    sizes = [max((r.size for r, copies in multiplicities if any(copies[:k])), default=1) for k in (1, 2)]
    degree = 2 if multiplicities and len(multiplicities[0][1]) > 1 and sizes[1] <= COUPLED else 1
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        layer = PointConv(field, field, edge_rep=(Scalar + V)(G), degree=degree, width=2, hidden=8)
    report = check_equivariance(layer)
    sheet.fact(f"PointConv({field} -> {field}), with edge attributes Scalar + V, pieces of degree {degree}")
    for c in report.checks:
        sheet.add(replace(c, name=f"PointConv is {c.name}"))
    for text in report.warnings:
        sheet.fact(f"warning: {text}")
    if sizes[degree - 1] < sizes[1]:
        sheet.refuse(f"a layer with the pieces of V^2: dimension {sizes[1]}, at most {COUPLED}")
