"""Whether all that is built on a group is right: elements, representations, bases, couplings, layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ._check_rep import BALL, WORDS, products, relations
from ._equivariance import check_equivariance, sample_elements
from ._reports import SEED, Check, GroupReport, Sheet
from .errors import GroupError
from .matrix_group import MatrixGroup
from .nn import PointConv
from .rep import Rep, Scalar, SumRep, V
from .solver.coupling import couplings, equivariant_basis
from .solver.irreps import Irrep, irrep_table, irreps

LISTED = 20_000  # largest finite group whose characters are averaged
UNKNOWNS = 400  # largest nullspace problem that is solved again for its dimension
TRIPLES = 60


def check_group(
    G: MatrixGroup,
    *,
    order: int | None = None,
    dimension: int | None = None,
    form: np.ndarray | None = None,
    degree: int = 2,
) -> GroupReport:
    """Whether everything that is built on a group is right: elements, representations, bases, couplings, layers.

    Generators describe some group whatever they are; that it is the one that was meant shows only against what is known
    of it: its order, the dimension of its Lie algebra, or a bilinear form that it preserves.

    Args:
        G: any matrix group; what goes wrong with it becomes a red line, not an exception.
        order: the number of elements it should have.
        dimension: of the Lie algebra it should have.
        form: (d, d) matrix F with h^T F h = F and A^T F + F A = 0, or several of them.
        degree: highest tensor power of V that is split into irreducibles.

    Raises:
        GroupError: the form is not a (d, d) matrix, or the first argument not a group.

    Example:
        >>> print(check_group(groups.Th(), order=24))
    """
    if not isinstance(G, MatrixGroup):
        raise GroupError(f"expected a MatrixGroup, got {type(G).__name__}")
    forms = np.zeros((0, G.d, G.d)) if form is None else np.asarray(form, float)
    if forms.shape[-2:] != (G.d, G.d):
        raise GroupError(f"form has shape {forms.shape}, expected ({G.d}, {G.d})")
    if degree < 1:
        raise ValueError(f"degree must be at least 1, got {degree}")
    sheet = Sheet()
    size, compact = sheet.attempt(
        "order and compactness", lambda: (G.order, G.is_compact), default=(None, None)
    )
    algebra, splits = sheet.attempt("Lie algebra", _algebra, G, default=(None, None))
    for F in forms.reshape(-1, G.d, G.d):
        sheet.line("the stated form is invariant", _form_defect(G, F))
    if compact:
        sheet.line("the positive form is invariant", _form_defect(G, G.invariant_form))
    if order is not None:
        sheet.line(
            f"order {order}", np.inf if size is None else abs(size - order), 0, f"found {size or 'infinite'}"
        )
    if dimension is not None:
        wrong = np.inf if algebra is None else abs(algebra - dimension)
        sheet.line(f"Lie algebra of dimension {dimension}", wrong, 0, f"found {algebra}")
    sheet.attempt("elements", _check_elements, sheet, G)
    pieces = sheet.attempt("irreducible representations", _pieces, G, degree, default=[])
    multiplicities = sheet.attempt("multiplicities", _multiplicities, G, pieces, degree, default=())
    powers = [V(G), *([(V**2)(G)] if degree > 1 else [])]
    all_reps = SumRep(tuple((1, r) for r in [*powers, V.T(G), *pieces]), G)
    sheet.attempt("representations", relations, sheet, all_reps)
    for rep in powers:
        sheet.attempt(f"splitting {rep}", _check_splitting, sheet, rep)
    facts = [
        f"{f'finite, order {size}' if size else 'infinite'}; Lie algebra of dimension {algebra}; "
        f"{'compact' if compact else 'not compact'}; "
        + (
            "completely reducible"
            if splits
            else "not certified completely reducible: representations stay whole"
        )
    ]
    facts += sheet.attempt("invariant forms", _invariant_forms, G, default=[])
    count = sheet.attempt("counting", _Count, G)
    if count is not None:
        pairs = [
            (V(G), V.T(G)),
            (Scalar(G), powers[-1]),
            *((a, b) for a in powers for b in powers if a.size <= b.size),
        ]
        for a, b in pairs:
            sheet.attempt(f"Hom({a}, {b})", _check_basis, sheet, a, b, count)
        facts += sheet.attempt("couplings", _check_couplings, sheet, G, pieces, count, default=[])
    sheet.checks += sheet.attempt("PointConv", _check_layer, G, degree, default=[])
    many, lie = len(G.discrete_generators), len(G.lie_algebra)
    title = f"{G.name}: d = {G.d}, {many} discrete and {lie} Lie algebra generators"
    return GroupReport(
        title, tuple(sheet.checks), (), tuple(facts), size, algebra, compact, splits, multiplicities
    )


def _algebra(G: MatrixGroup) -> tuple[int, bool]:
    coordinates = irrep_table(G).coordinates
    return len(coordinates.lie_closure), coordinates.completely_reducible


def _form_defect(G: MatrixGroup, F: np.ndarray | None) -> float:
    assert F is not None
    size = max(np.abs(F).max(), 1e-300)
    defects = [
        np.abs(h.T @ F @ h - F).max() / (size * max(1.0, np.abs(h).max() ** 2)) for h in G.discrete_generators
    ]
    defects += [np.abs(A.T @ F + F @ A).max() / (size * np.abs(A).max()) for A in G.lie_algebra if np.any(A)]
    return max(defects, default=0.0)


def _check_elements(sheet: Sheet, G: MatrixGroup) -> None:
    elements = [g for _, g in sample_elements(G, WORDS)]
    g, back = (np.stack([m.matrix for m in ms]) for ms in (elements, [e.inverse for e in elements]))
    size = np.abs(g).max((1, 2)) * np.abs(back).max((1, 2))
    error = max((np.abs(x - np.eye(G.d)).max((1, 2)) / size).max() for x in (g @ back, back @ g))
    sheet.line("elements have inverses", error)
    if G.order is not None and G.order <= BALL:
        _, count, closed = products(G, V(G).images)
        sheet.line(
            "as many products of generators as the order", abs(count - G.order) if closed else np.inf, 0
        )


def _pieces(G: MatrixGroup, degree: int) -> list[Irrep]:
    table = irrep_table(G)
    if table.coordinates.completely_reducible:
        return irreps(G, degree)
    found = [part[0] for k in range(1, degree + 1) for part in table.decompose((V**k)(G)).parts]
    return list(dict.fromkeys([table.trivial, *found]))


def _multiplicities(G: MatrixGroup, pieces: list[Irrep], degree: int) -> tuple:
    found = [irrep_table(G).decompose((V**k)(G)).multiplicities for k in range(1, degree + 1)]
    return tuple((r, tuple(m.get(r.label, 0) for m in found)) for r in pieces)


def _invariant_forms(G: MatrixGroup) -> list[str]:
    forms = equivariant_basis(V(G), V.T(G))
    symmetric = (forms + forms.transpose(0, 2, 1)).reshape(-1, G.d * G.d)
    many = int(np.linalg.matrix_rank(symmetric, tol=1e-8)) if len(forms) else 0
    text = f"invariant bilinear forms of V: {many} symmetric, {len(forms) - many} antisymmetric"
    if many == len(forms) == 1:
        w = np.linalg.eigvalsh(symmetric.reshape(G.d, G.d))
        signs = sorted([int((w > 1e-8).sum()), int((w < -1e-8).sum())])
        text += f", of signature {tuple(signs) if signs[0] else (signs[1], 0)}"
    return [text]


def _check_splitting(sheet: Sheet, rep: Rep) -> None:
    G = rep._require_bound()
    parts = irrep_table(G).decompose(rep).parts
    to = np.concatenate([p[1].reshape(-1, rep.size) for p in parts])
    back = np.concatenate([p[2].transpose(1, 0, 2).reshape(rep.size, -1) for p in parts], 1)
    blocks = SumRep(tuple((len(p[1]), p[0]) for p in parts), G)
    error = np.abs(to @ back - np.eye(rep.size)).max() if to.shape == (rep.size, rep.size) else np.inf
    for _, g in sample_elements(G, WORDS):
        full = rep.rho(g)
        error = max(error, np.abs(to @ full @ back - blocks.rho(g)).max() / max(1.0, np.abs(full).max()))
    text = " + ".join((f"{len(m)}x" if len(m) > 1 else "") + r.label for r, m, _ in parts)
    sheet.line(f"{rep} = {text} on unseen elements", error)


class _Count:
    """dim Hom(a, b) by characters of all elements, or by the singular values of the user's generators."""

    def __init__(self, G: MatrixGroup):
        self.elements = G.elements(LISTED) if (G.order or LISTED + 1) <= LISTED else None
        self._characters: dict[Rep, np.ndarray] = {}

    def __call__(self, a: Rep, b: Rep) -> int | None:
        if self.elements is not None:
            mean = float(np.mean(self._character(a) * self._character(b)))
            if abs(mean - round(mean)) > 1e-6:
                raise GroupError(f"the characters of {a} and {b} have the product {mean}, not a whole number")
            return round(mean)
        if a.size * b.size > UNKNOWNS:
            return None
        blocks = [np.zeros((1, a.size * b.size))]
        for p, q in zip(_orthogonal(a), _orthogonal(b)):
            block = np.kron(q, np.eye(a.size)) - np.kron(np.eye(b.size), p.T)
            blocks.append(block / max(1e-300, np.linalg.norm(p, 2), np.linalg.norm(q, 2)))
        s = np.linalg.svd(np.concatenate(blocks), compute_uv=False)
        s = s / max(1.0, s[0])
        clear = not ((s > 1e-10) & (s < 1e-6)).any()
        return a.size * b.size - int((s > 1e-8).sum()) if clear else None

    def _character(self, rep: Rep) -> np.ndarray:
        if rep not in self._characters:
            self._characters[rep] = np.trace(rep.rho(self.elements), axis1=1, axis2=2)
        return self._characters[rep]


def _orthogonal(rep: Rep) -> np.ndarray:
    """Images of all generators, (M + D, n, n), in a basis where a compact group is orthogonal."""
    images = rep.images
    basis = None
    if rep._require_bound().is_compact:
        basis = MatrixGroup(
            str(rep), images.discrete, images.lie, d=rep.size, trust_digits=True
        ).orthogonal_basis
    basis = np.eye(rep.size) if basis is None else basis
    return basis @ np.concatenate([images.discrete, images.lie]) @ np.linalg.inv(basis)


def _check_basis(sheet: Sheet, a: Rep, b: Rep, count: _Count) -> None:
    basis, expected = equivariant_basis(a, b), count(a, b)
    error = _intertwining(basis, a, b)
    flat = basis.reshape(-1, a.size * b.size)
    error = max(error, np.abs(flat @ flat.T - np.eye(len(flat))).max(initial=0))
    sheet.line(f"equivariant_basis({a}, {b}) is equivariant and orthonormal", error)
    if expected is not None:
        sheet.line(
            f"equivariant_basis({a}, {b}) is complete",
            abs(len(basis) - expected),
            0,
            f"{len(basis)} maps, {expected} by an independent count",
        )


def _intertwining(maps: np.ndarray, a: Rep, b: Rep) -> float:
    """Largest violation of W a(g) = b(g) W by maps (r, b.size, a.size) on elements they were not solved on."""
    error = 0.0
    for _, g in sample_elements(a._require_bound(), 6):
        before, after = a.rho(g), b.rho(g)
        size = max(1.0, np.abs(before).max(), np.abs(after).max())
        error = max(error, np.abs(maps @ before - after @ maps).max(initial=0) / size)
    return error


def _check_couplings(sheet: Sheet, G: MatrixGroup, pieces: list[Irrep], count: _Count) -> list[str]:
    table = irrep_table(G)
    first = [p[0] for p in table.decompose(V(G)).parts]
    triples = [(a, b, c) for a in first for b in pieces for c in pieces if not (a.is_trivial or b.is_trivial)]
    triples.sort(key=lambda t: t[0].size * t[1].size * t[2].size)
    error, wrong, found, counted = 0.0, 0, 0, 0
    for a, b, c in triples[:TRIPLES]:
        C = couplings(table, a, b, c)
        maps, joint = C.reshape(len(C), c.size, a.size * b.size), a * b
        error, found = max(error, _intertwining(maps, joint, c)), found + len(C)
        expected = count(joint, c)
        if expected is not None:
            wrong, counted = wrong + abs(len(C) - expected), counted + 1
    many = min(TRIPLES, len(triples))
    sheet.line("couplings a ⊗ b -> c, a in V, on unseen elements", error, note=f"{found} in {many} triples")
    if counted:
        sheet.line(
            "couplings a ⊗ b -> c, a in V, are complete", wrong, 0, f"{counted} triples counted independently"
        )
    return [
        f"couplings with a piece of V: {found} in {many}"
        + (f" of {len(triples)}" if len(triples) > many else "")
        + " triples of nontrivial pieces"
    ]


def _check_layer(G: MatrixGroup, degree: int) -> list[Check]:
    field = (2 * Scalar + V)(G)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        layer = PointConv(field, field, edge_rep=(Scalar + V)(G), degree=min(degree, 2), width=2, hidden=8)
    report = check_equivariance(layer)
    return [replace(c, name=f"PointConv({field} -> {field}) is {c.name}") for c in report.checks]
