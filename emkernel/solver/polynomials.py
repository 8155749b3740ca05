"""Equivariant polynomials of a point: the irreducible pieces of the symmetric powers of V, modulo the invariant form.

For a compact group these are the harmonic polynomials of the paper's kernel (section 5.1): in coordinates where the
group is orthogonal, Y_k spans the polynomials of degree k that are orthogonal to |x|^2 Y_{k-2}. For a completely
reducible group with a nondegenerate invariant form q the same holds with q in place of |x|^2; otherwise Y_k is the
whole Sym^k V. Next to them stand the invariant polynomials, of which radial functions are made: |x|^2 alone for a
compact group, generators of the ring of invariants for any other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._arguments import whole
from .forms import split_by_symmetry
from .invariants import invariant_coefficients, monomials
from .irreps import Irrep, IrrepTable
from .nullspace import canonical, intertwiners, one_thread

__all__ = ["Invariant", "Polynomials", "polynomials"]


@dataclass(frozen=True)
class Invariant:
    """An invariant polynomial I(v) = Σ_a c_a v^a of one degree, |I(v)| <= |v|^degree.

    Attributes:
        degree: of every monomial.
        coefficients: (M,) of the monomials in the order of :func:`emkernel.solver.invariants.monomials`.
        is_square: whether it is a quadratic form without negative values.
    """

    degree: int
    coefficients: np.ndarray
    is_square: bool


@dataclass(frozen=True)
class Polynomials:
    """Y_1..Y_L as Y_k(x) = step_k (Y_{k-1}(x) ⊗ v) with v = basis x and Y_0 = 1.

    Attributes:
        basis: (d, d) from the user's coordinates to those in which the polynomials are evaluated.
        steps: for each degree k, (n_k, n_{k-1} d).
        parts: for each degree k, (irrep, copies): the order of the components of Y_k, copy by copy.
        form: (d, d) symmetric nondegenerate B of the invariant q(v) = v^T B v that is divided out, or None.
        is_positive: whether the form is positive definite: the group is compact.
        invariants: for a group that is not compact, generators of the invariant polynomials of v.
    """

    basis: np.ndarray
    steps: tuple[np.ndarray, ...]
    parts: tuple[tuple[tuple[Irrep, int], ...], ...]
    form: np.ndarray | None
    is_positive: bool
    invariants: tuple[Invariant, ...] = ()


@one_thread
def polynomials(table: IrrepTable, degree: int) -> Polynomials:
    """The equivariant polynomials of degree 1 to ``degree``, split into the irreducibles of the table.

    Normalised so that over directions of |v| = 1 the components of Y_k have unit variance on average.

    Args:
        table: irreducibles of the group; it may grow.
        degree: highest degree, at least 1.
    """
    degree = whole(degree, "degree")
    co = table.coordinates
    d = table.group.d
    positive = table.group.is_compact
    form = np.eye(d) if positive else _form(table)
    rng = np.random.default_rng(0)
    count = 64
    images, below = co.images, None
    steps, parts = [], []
    points = rng.standard_normal((4, d))
    values = [np.ones((len(points), 1))]
    for k in range(1, degree + 1):
        width = values[-1].shape[1] * d
        if len(points) < 2 * width + count:
            points = rng.standard_normal((2 * width + count, d))
            points /= np.linalg.norm(points, axis=1, keepdims=True)
            values = [np.ones((len(points), 1))]
            for s in steps:
                values.append(_outer(values[-1], points) @ s.T)
        product = co.images if k == 1 else images.tensor(co.images)
        Z = _outer(values[-1], points)
        if k == 1:
            P = np.eye(d)
        else:
            square = np.einsum("ni,ij,nj->n", points, form, points) if form is not None else None
            P = _new_polynomials(Z, None if square is None else square[:, None] * values[-2])
        if not len(P):
            break
        below = product.conjugate(P, P.T, f"polynomials {k}")
        split = table.split(below, k)
        frames = np.concatenate([f.transpose(0, 2, 1).reshape(-1, len(P)) for _, f in split])
        step = frames @ P
        step = step * np.sqrt(len(step) / np.mean(((Z @ step.T) ** 2).sum(1)))
        steps.append(step)
        parts.append(tuple((table.irreps[i], len(f)) for i, f in split))
        values.append(Z @ step.T)
        images = below.conjugate(frames, frames.T, "split")
    invariants = () if positive else _invariants(table, max(degree, 2))
    return Polynomials(co.basis, tuple(steps), tuple(parts), form, positive, invariants)


def _form(table: IrrepTable) -> np.ndarray | None:
    """A well-conditioned nondegenerate symmetric invariant form of V, of norm 1; None where there is none."""
    if not table.coordinates.completely_reducible:
        return None
    images = table.coordinates.images
    forms, _ = split_by_symmetry(intertwiners(images, images.dual()))
    if not len(forms):
        return None
    forms = forms / np.linalg.norm(forms, 2, axis=(1, 2))[:, None, None]
    rng = np.random.default_rng(0)
    weights = np.concatenate(
        [np.ones((1, len(forms))), rng.standard_normal((8 * (len(forms) > 1), len(forms)))]
    )
    mixed = np.tensordot(weights, forms, 1)
    s = np.abs(np.linalg.eigvalsh(mixed))
    quality = s.min(1) / s.max(1)
    best = 0 if quality[0] > 0.1 else int(np.argmax(quality))
    return mixed[best] / s[best].max() if quality[best] > 1e-6 else None


def _invariants(table: IrrepTable, degree: int) -> tuple[Invariant, ...]:
    """Generators of the invariant polynomials of V up to a degree, scaled to |I(v)| <= |v|^degree."""
    images, d = table.coordinates.images, table.group.d
    out = []
    for k, found in enumerate(invariant_coefficients(images, table.trivial, degree), 1):
        for c in found * monomials(d, k).weight:
            square = False
            if k == 2:
                form = np.zeros((d, d))
                form[np.triu_indices(d)] = c / 2
                w = np.linalg.eigvalsh(form + form.T)
                c = c / np.abs(w).max() * (1 if w[-1] >= -w[0] else -1)
                square = w[0] > -1e-9 * w[-1] or w[-1] < -1e-9 * w[0]
            out.append(Invariant(k, c, bool(square)))
    return tuple(out)


def _outer(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    return (values[:, :, None] * points[:, None, :]).reshape(len(points), -1)


def _new_polynomials(Z: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """Orthonormal rows P such that the functions P Z span those of Z, orthogonally to the known ones."""
    _, s, vh = np.linalg.svd(Z, full_matrices=False)
    space = vh[s > 1e-9 * s[0]]
    if known is not None:
        coefs = np.linalg.lstsq(Z @ space.T, known, rcond=None)[0].T
        u, s, vh = np.linalg.svd(coefs)
        space = vh[int((s > 1e-9).sum()) :] @ space
    return canonical(space.T).T if len(space) else space
