"""Whether the irreducibles and the invariants of a group are right, and all there are."""

from __future__ import annotations

from math import comb

import numpy as np
import torch

from ._check_maps import LISTED, tolerance_of, unseen
from ._conditioning import draw
from ._reports import SEED, Sheet
from .characters import conjugacy_classes, frobenius_schur, molien
from .errors import SolverError
from .matrix_group import MatrixGroup
from .rep import Rep, SumRep, V
from .solver.forms import InvariantForms, invariant_forms
from .solver.invariants import invariant_polynomials
from .solver.irreps import Irrep, irrep_table, irreps

__all__ = ["check_all_irreps", "check_forms", "check_polynomials", "check_splitting", "pieces_of", "table_of"]

ORDER, CLASSES = 1000, 64  # largest finite group all of whose irreducibles are found
MONOMIALS, DEGREE = 400, 4
SERIES = 10**9  # monomials whose invariants the series of Molien counts in double precision
FORMS = 4  # of so many the signatures are printed
INDICATOR = {"real": 1, "complex": 0, "quaternionic": -2}


# ---- irreducibles -------------------------------------------------------------------------------------------------


def pieces_of(G: MatrixGroup, degree: int) -> tuple[list[Irrep], tuple[tuple[Irrep, tuple[int, ...]], ...]]:
    """The irreducibles in V^⊗k for k <= degree, or the unsplit pieces; and how often each is in V, V^2, ..."""
    table = irrep_table(G)
    parts = [table.decompose((V**k)(G)) for k in range(1, degree + 1)]
    if table.coordinates.completely_reducible:
        found = irreps(G, degree)
    else:
        found = list(dict.fromkeys([table.trivial, *(p[0] for d in parts for p in d.parts)]))
    return found, tuple((r, tuple(d.multiplicities.get(r.label, 0) for d in parts)) for r in found)


def table_of(multiplicities: tuple[tuple[Irrep, tuple[int, ...]], ...]) -> list[str]:
    """The lines of a table of :func:`pieces_of`."""
    if not multiplicities:
        return []
    powers = ["V"] + [f"V^{k}" for k in range(2, 1 + len(multiplicities[0][1]))]
    rows = [" piece   dim  type          " + "  ".join(f"in {p}" for p in powers)]
    for r, copies in multiplicities:
        counts = "".join(f"{m:>{5 + len(p)}}" for m, p in zip(copies, powers))
        rows.append(f" {r.label:6} {r.size:4}  {r.type or 'unsplit':12}{counts}")
    return rows


def check_splitting(sheet: Sheet, rep: Rep) -> None:
    """The line on the change of basis from a representation to its irreducibles."""
    G = rep._require_bound()
    parts = irrep_table(G).decompose(rep).parts
    to = np.concatenate([p[1].reshape(-1, rep.size) for p in parts])
    back = np.concatenate([p[2].transpose(1, 0, 2).reshape(rep.size, -1) for p in parts], 1)
    blocks = SumRep(tuple((len(p[1]), p[0]) for p in parts), G)
    error = np.abs(to @ back - np.eye(rep.size)).max() if to.shape == (rep.size, rep.size) else np.inf
    for g in unseen(G):
        full = rep.rho(g)
        error = max(error, np.abs(to @ full @ back - blocks.rho(g)).max() / max(1.0, np.abs(full).max()))
    text = " + ".join((f"{len(m)}x" if len(m) > 1 else "") + r.label for r, m, _ in parts)
    sheet.line(f"{rep} = {text} on unseen elements", error, tolerance_of(rep, rep.T))


def check_all_irreps(sheet: Sheet, G: MatrixGroup) -> tuple[Irrep, ...] | None:
    """All irreducibles of a small finite group, against its order, its classes and their indicators."""
    order = len(G.elements(ORDER)) if (G.order or np.inf) <= ORDER else None
    if order is None:
        sheet.refuse(f"all irreducibles: the group is too large (order {G.order}, at most {ORDER})")
        return None
    classes = conjugacy_classes(G)
    if len(classes) > CLASSES:
        sheet.refuse(f"all irreducibles: the group has {len(classes)} conjugacy classes, at most {CLASSES}")
        return None
    found = tuple(irreps(G, None))
    marks = {"complex": "*", "quaternionic": "**"}
    labels = " ".join(r.label + marks.get(str(r.type), "") for r in found)
    sheet.fact(f"all {len(found)} irreducibles (* complex, ** quaternionic type): {labels}")
    filled = sum(r.size**2 / len(r.endomorphisms) for r in found)
    sheet.line("Σ d²/e over all irreducibles is the order", abs(filled - order), 0, f"{filled:g} of {order}")
    complex_ones = sum(2 if r.type == "complex" else 1 for r in found)
    note = f"{complex_ones} for {len(classes)} classes"
    sheet.line("as many complex irreducibles as conjugacy classes", abs(complex_ones - len(classes)), 0, note)
    wrong = sum(frobenius_schur(r) != INDICATOR.get(str(r.type)) for r in found)
    sheet.line("types agree with the means of χ(g²)", wrong, 0)
    return found


# ---- invariants ---------------------------------------------------------------------------------------------------


def check_forms(sheet: Sheet, G: MatrixGroup) -> None:
    """The lines on the invariant bilinear forms of V."""
    forms = invariant_forms(V(G))
    many, odd = len(forms.symmetric), len(forms.antisymmetric)
    text = f"invariant bilinear forms of V: {many} symmetric, {odd} antisymmetric"
    if 0 < many <= FORMS:
        signatures = [_signature(forms, form) for form in forms.symmetric]
        text += "; signature " if many == 1 else "; signatures of a basis of the symmetric ones "
        text += ", ".join(signatures)
    sheet.fact(text)
    error = 0.0
    for g in unseen(G):
        for form in (*forms.symmetric, *forms.antisymmetric):
            size = np.abs(g.matrix.T) @ np.abs(form) @ np.abs(g.matrix)
            error = max(error, np.abs(g.matrix.T @ form @ g.matrix - form).max() / size.max())
    if many + odd:
        sheet.line("bilinear forms are invariant on unseen elements", error, tolerance_of((V**2)(G)))


def _signature(forms: InvariantForms, form: np.ndarray) -> str:
    try:
        *signs, radical = forms.signature(form)
    except SolverError:
        return "unclear to rounding"
    less, more = sorted(signs)
    text = f"({more}, 0)" if not less else f"({less}, {more})"
    return text + (f" with a radical of dimension {radical}" if radical else "")


def check_polynomials(sheet: Sheet, G: MatrixGroup) -> None:
    """The lines on the invariant polynomials of V."""
    many = [comb(G.d + k - 1, k) for k in range(2 * DEGREE + 1)]  # monomials; their number grows with k
    degree = sum(n <= MONOMIALS for n in many[: DEGREE + 1]) - 1
    p = invariant_polynomials(V(G), degree)
    counts = p.counts
    listed = (G.order or np.inf) <= LISTED
    series = molien(V(G), sum(n <= SERIES for n in many) - 1) if listed else counts
    sheet.fact("invariant polynomials of V of degree 0, 1, ...: " + " ".join(map(str, series)))
    if listed:
        wrong = sum(abs(a - b) for a, b in zip(series, counts))
        sheet.line("as many polynomials as Molien's series", wrong, 0, f"up to degree {degree}")
    x = draw(8, V(G), torch.Generator().manual_seed(SEED))
    before = p(x)
    size, error = p(x.abs()).abs().amax().item(), 0.0
    for g in unseen(G):
        after = p(x @ torch.tensor(g.matrix).T)
        top = max(size, before.abs().max().item(), after.abs().max().item())
        error = max(error, (after - before).abs().max().item() / top)
    sheet.line("polynomials are invariant on unseen elements", error, tolerance_of((V ** max(degree, 1))(G)))
