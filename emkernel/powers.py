"""Symmetric, exterior and traceless powers of representations, as expressions and bound."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, combinations_with_replacement
from math import comb

import numpy as np

from .errors import RepError, SolverError
from .expressions import ProductRep, Rep, ScalarRep, SumRep, VectorRep
from .lifting import units
from .matrix_group import MatrixGroup
from .solver.coupling import unit_free_basis
from .solver.nullspace import canonical
from .subrep import SubRep

__all__ = ["alt", "sym", "traceless"]


def sym(rep: Rep, k: int) -> Rep:
    """Sym^k, the symmetric tensors in ``rep**k``; of dimension C(n + k - 1, k).

    Coordinates are those of the orthonormal basis of symmetrised products e_{i_1} ... e_{i_k}, i_1 <= ... <= i_k in
    lexicographic order. Bound, it is a SubRep of Sym^(k-1) ⊗ rep.

    Args:
        rep: a representation, bound or not.
        k: degree, at least 0.

    Raises:
        RepError: not a representation, or a negative degree.

    Example:
        >>> ek.sym(V, 3)(groups.SO(3)).size
        10
    """
    return _power("sym", rep, k)


def alt(rep: Rep, k: int) -> Rep:
    """Alt^k, the antisymmetric tensors in ``rep**k``; of dimension C(n, k), nothing beyond k = n.

    Coordinates are those of the orthonormal basis e_{i_1} ∧ ... ∧ e_{i_k}, i_1 < ... < i_k in lexicographic order.
    Bound, it is a SubRep of Alt^(k-1) ⊗ rep.

    Args:
        rep: a representation, bound or not.
        k: degree, at least 0.

    Raises:
        RepError: not a representation, or a negative degree.

    Example:
        >>> ek.alt(V, 2)(groups.SO(3)).size
        3
    """
    return _power("alt", rep, k)


def traceless(rep: Rep, k: int, *, form=None) -> Rep:
    """The tensors in Sym^k that a symmetric invariant form B contracts to zero, B_ij t_ij... = 0.

    Of dimension C(n + k - 1, k) - C(n + k - 3, k - 2). For SO(n) they are the harmonic polynomials,
    irreducible for n > 2. Bound, it is a SubRep of Sym^k.

    Args:
        rep: a representation, bound or not.
        k: degree, at least 0.
        form: (n, n) the invariant form. By default the positive form of a compact group for ``rep`` V itself; else the
            one symmetric invariant form of the representation, where there is one only.

    Raises:
        RepError: when bound, no form is invariant or more than one is; or the form that was given is not symmetric and
            invariant, or zero.

    Example:
        >>> ek.traceless(V, 4)(groups.SO(3)).size  # spin 4
        9
    """
    if form is not None:
        form = np.array(form, dtype=float)
        if form.ndim != 2 or form.shape[0] != form.shape[1] or not np.isfinite(form).all():
            raise RepError(f"form has shape {form.shape}, expected a finite matrix (n, n)")
        if not np.any(form) or np.abs(form - form.T).max() > 1e-9 * np.abs(form).max():
            raise RepError("form must be symmetric and not zero")
    return _power("traceless", rep, k, form)


@dataclass(frozen=True, repr=False)
class Power(Rep):
    """A power of a representation that is not yet bound."""

    kind: str
    base: Rep
    k: int
    form: tuple[tuple[float, ...], ...] | None = None
    group = None

    @property
    def size(self):
        return self._require_bound()  # which says how to bind it

    def _bind(self, group: MatrixGroup) -> Rep:
        return _power(self.kind, self.base(group), self.k, self.form)

    def __str__(self):
        return _name(self.kind, self.base, self.k)


def _power(kind: str, rep: Rep, k: int, form=None) -> Rep:
    if not isinstance(rep, Rep):
        raise RepError(f"{kind} takes a representation, got {rep!r}")
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 0:
        raise RepError(f"the degree of {kind} must be an integer >= 0, got {k!r}")
    if rep.group is None:
        if k == 0:
            return ScalarRep()
        return Power(
            kind, rep, int(k), None if form is None else tuple(map(tuple, np.asarray(form).tolist()))
        )
    if form is not None and np.shape(form) != (rep.size, rep.size):
        raise RepError(f"form has shape {np.shape(form)}, expected ({rep.size}, {rep.size}) for {rep}")
    if kind == "traceless":
        return _traceless(rep, int(k), form)
    return _steps(kind, rep, int(k))


def _steps(kind: str, rep: Rep, k: int) -> Rep:
    """Sym^k or Alt^k of a bound representation, one factor at a time."""
    out: Rep = ScalarRep(rep.group)
    for j in range(1, k + 1):
        if kind == "alt" and j > rep.size:
            return SumRep((), rep.group)
        if j == 1:
            out = rep
            continue
        back = (_sym_step if kind == "sym" else _alt_step)(rep.size, j)
        out = SubRep(ProductRep((out, rep), rep.group), back, back.T, _name(kind, rep, j))
    return out


def _name(kind: str, rep: Rep, k: int) -> str:
    return f"{kind}({rep}, {k})"


@lru_cache(maxsize=64)
def _sym_step(n: int, k: int) -> np.ndarray:
    """(C(n+k-2, k-1) n, C(n+k-1, k)): e_α = Σ_i sqrt(α_i / k) e_{α - i} ⊗ e_i for monomials α of degree k."""
    below = {a: i for i, a in enumerate(combinations_with_replacement(range(n), k - 1))}
    monomials = list(combinations_with_replacement(range(n), k))
    back = np.zeros((len(below) * n, len(monomials)))
    for column, a in enumerate(monomials):
        for i in set(a):
            at = a.index(i)
            back[below[a[:at] + a[at + 1 :]] * n + i, column] = np.sqrt(a.count(i) / k)
    back.setflags(write=False)
    return back


@lru_cache(maxsize=64)
def _alt_step(n: int, k: int) -> np.ndarray:
    """(C(n, k-1) n, C(n, k)): e_S = Σ_i ± e_{S - i} ⊗ e_i / sqrt(k), the sign that of moving i to the end."""
    below = {s: i for i, s in enumerate(combinations(range(n), k - 1))}
    subsets = list(combinations(range(n), k))
    back = np.zeros((len(below) * n, len(subsets)))
    for column, s in enumerate(subsets):
        for at, i in enumerate(s):
            back[below[s[:at] + s[at + 1 :]] * n + i, column] = (-1) ** (k - 1 - at) / np.sqrt(k)
    back.setflags(write=False)
    return back


# ---- traceless ----------------------------------------------------------------------------------------------------


def _traceless(rep: Rep, k: int, form) -> Rep:
    if k < 2:
        return _steps("sym", rep, k)
    scale = units(rep.images)  # x = scale y, so that the units of the coordinates do not matter
    form = (_invariant_form(rep) if form is None else np.asarray(form, float)) * np.outer(scale, scale)
    _check_invariant(rep, form, scale)
    n, full = rep.size, _steps("sym", rep, k)
    # Sym^k in Sym^(k-2) ⊗ rep ⊗ rep, the last two contracted
    last = _sym_step(n, k).reshape(-1, n, full.size)
    inner = (_sym_step(n, k - 1) if k > 2 else np.eye(n)).reshape(-1, n, len(last))
    contraction = np.einsum("aix,xjm,ij->am", inner, last, form / np.abs(form).max(), optimize=True)
    _, s, vh = np.linalg.svd(contraction)
    rank = comb(n + k - 3, k - 2)  # multiplication by a quadratic form is injective
    name = _name("traceless", rep, k)
    if not s[rank - 1] > 1e-9 * s[0]:
        raise SolverError(
            f"{name}: the contraction with this form is too badly conditioned ({s[rank - 1] / s[0]:.1e})"
        )
    kernel = canonical(vh[rank:].T)
    if not kernel.shape[1]:
        return SumRep((), rep.group)
    monomials = np.array([np.prod(scale[list(a)]) for a in combinations_with_replacement(range(n), k)])
    return SubRep(full, kernel * monomials[:, None], kernel.T / monomials, name)


def _invariant_form(rep: Rep) -> np.ndarray:
    group = rep.group
    if isinstance(rep, VectorRep) and group.is_compact:
        return group.invariant_form
    forms, units = unit_free_basis(rep, rep.T)
    symmetric = (forms + forms.transpose(0, 2, 1)) / 2
    _, s, vh = np.linalg.svd(symmetric.reshape(len(forms), -1), full_matrices=False)
    many = int((s > 1e-6).sum())
    if many != 1:
        found = f"{many} independent symmetric invariant forms" if many else "no symmetric invariant form"
        advice = "pass one as form=(n, n)" if many else "there is none of this representation"
        raise RepError(f"{rep} of {group.name} has {found}; a traceless power needs one: {advice}")
    return vh[0].reshape(rep.size, rep.size) / units


def _check_invariant(rep: Rep, form: np.ndarray, scale: np.ndarray) -> None:
    images = rep.images
    discrete, lie = (m * scale / scale[:, None] for m in (images.discrete, images.lie))
    moved = [
        (f"discrete_generators[{i}]", np.abs(m).max() ** 2, m.T @ form @ m - form)
        for i, m in enumerate(discrete)
    ]
    moved += [(f"lie_algebra[{i}]", np.abs(m).max(), m.T @ form + form @ m) for i, m in enumerate(lie)]
    for name, size, error in moved:
        missed = np.abs(error).max() / (max(size, 1e-300) * np.abs(form).max())
        if not missed <= 1e-8:
            raise RepError(
                f"form is not invariant under {name} of {rep.group.name}: off by {missed:.1e} of itself"
            )
