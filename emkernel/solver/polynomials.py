"""Equivariant polynomials of a point: the irreducible pieces of the symmetric powers of V, modulo the invariant form.

For a compact group these are the harmonic polynomials of the paper's kernel (section 5.1): in coordinates where the
group is orthogonal, Y_k spans the polynomials of degree k that are orthogonal to |x|^2 Y_{k-2}. For a group with an
indefinite invariant form q the same holds with q in place of |x|^2; without a form, Y_k is the whole Sym^k V.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..images import Images
from .irreps import Irrep, IrrepTable
from .nullspace import canonical, one_thread

__all__ = ["Polynomials", "polynomials"]


@dataclass(frozen=True)
class Polynomials:
    """Y_1..Y_L as Y_k(x) = step_k (Y_{k-1}(x) ⊗ v) with v = basis x and Y_0 = 1.

    Attributes:
        basis: (d, d) from the user's coordinates to those in which the polynomials are evaluated.
        steps: for each degree k, (n_k, n_{k-1} d).
        parts: for each degree k, (irrep, copies): the order of the components of Y_k, copy by copy.
        form: (d, d) symmetric B of the invariant q(v) = v^T B v, or None.
        is_positive: whether the form is positive definite.
    """

    basis: np.ndarray
    steps: tuple[np.ndarray, ...]
    parts: tuple[tuple[tuple[Irrep, int], ...], ...]
    form: np.ndarray | None
    is_positive: bool


@one_thread
def polynomials(table: IrrepTable, degree: int) -> Polynomials:
    """The equivariant polynomials of degree 1 to ``degree``, split into the irreducibles of the table.

    Normalised so that over directions of |v| = 1 the components of Y_k have unit variance on average.

    Args:
        table: irreducibles of the group; it may grow.
        degree: highest degree, at least 1.
    """
    if degree < 1:
        raise ValueError(f"degree must be at least 1, got {degree}")
    co = table.coordinates
    d = table.group.d
    form = _form(table)
    positive = form is not None and bool(np.linalg.eigvalsh(form)[0] > 0)
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
        images = Images(
            *(frames @ m @ np.linalg.inv(frames) for m in (below.discrete, below.lie, below.held_out)),
            below.digest + "split",
        )
    return Polynomials(co.basis, tuple(steps), tuple(parts), form, positive)


def _form(table: IrrepTable) -> np.ndarray | None:
    """The identity for a compact group; else a nondegenerate symmetric invariant form of V, if there is one."""
    if table.group.is_compact:
        return np.eye(table.group.d)
    if not table.coordinates.completely_reducible:
        return None
    from ..rep import VectorRep

    form = np.zeros((table.group.d,) * 2)
    for irrep, to, _ in table.decompose(VectorRep(table.group)).parts:
        if irrep.form is None:
            return None
        form = form + np.einsum("mai,ab,mbj->ij", to, irrep.form, to)
    inverse = table.coordinates.inverse
    return inverse.T @ form @ inverse


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
