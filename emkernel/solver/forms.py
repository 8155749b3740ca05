"""Invariant bilinear forms: B with ρ(g)^T B ρ(g) = B, the maps from a representation to its dual."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import RepError, SolverError
from ..rep import Rep
from .coupling import unit_free_basis
from .irreps import Irrep, IrrepTable, irrep_table
from .nullspace import canonical, intertwiners, one_thread

__all__ = ["InvariantForms", "invariant_forms", "pairings", "split_by_symmetry", "without"]


@dataclass(frozen=True, eq=False)
class InvariantForms:
    """Orthonormal bases of the invariant bilinear forms of a representation.

    Attributes:
        symmetric: (p, n, n), spanning the B = B^T with ρ(g)^T B ρ(g) = B.
        antisymmetric: (q, n, n), spanning the B = -B^T.
        frame: (n, n) whose columns are a basis in which the representation is well scaled.
        elements: (P, n, n) images of group elements, on which radicals are verified.

    Example:
        >>> ek.invariant_forms(V(groups.Sp(4))).antisymmetric.shape  # phase space
        (1, 4, 4)
    """

    symmetric: np.ndarray
    antisymmetric: np.ndarray
    frame: np.ndarray
    elements: np.ndarray

    def signature(self, form: np.ndarray) -> tuple[int, int, int]:
        """How many squares of either sign a symmetric form (n, n) has, and the dimension of its radical.

        Counted in ``frame``, which by Sylvester's law of inertia changes nothing, so that physical units do not matter:
        diag(c², -1, -1, -1) with c = 299792458 has the signature (1, 3, 0).

        Args:
            form: (n, n) a combination of ``symmetric``.

        Raises:
            ValueError: the form is not a symmetric matrix of this size.
            SolverError: an eigenvalue that is neither zero nor clearly different from it, or small ones without which
                the form is not invariant.
        """
        form, C = np.asarray(form, float), self.frame
        if form.shape != C.shape or not np.isfinite(form).all():
            raise ValueError(f"expected a finite form of shape {C.shape}, got shape {form.shape}")
        if np.abs(form - form.T).max() > 1e-9 * np.abs(form).max():
            raise ValueError("the signature is that of a symmetric form; this matrix is not symmetric")
        w, U = np.linalg.eigh(C.T @ ((form + form.T) / 2) @ C)
        rounding = 50 * np.finfo(float).eps * np.linalg.norm(np.abs(C.T) @ np.abs(form) @ np.abs(C))
        size = np.abs(w).max()
        zero = max(1e-13 * size, rounding)
        unclear = w[(np.abs(w) > zero) & (np.abs(w) < max(1e-6 * size, 100 * zero))]
        if len(unclear):
            raise SolverError(
                f"the form has the eigenvalue {unclear[0]:.1e} among others of {size:.1e}, where zeros should be below "
                f"{zero:.0e}. Likely cause: a badly conditioned basis, or generators with few digits."
            )
        rest = (U * np.where(np.abs(w) > zero, w, 0)) @ U.T
        for g in np.linalg.solve(C, self.elements @ C):
            size = np.abs(rest).max() + 1e-6 * (np.abs(g.T) @ np.abs(rest) @ np.abs(g)).max()
            if np.abs(g.T @ rest @ g - rest).max() > 1e-6 * size:
                raise SolverError(
                    f"the form is not invariant without its eigenvalues below {zero:.0e}. Likely cause: units of very "
                    "different size; scale the coordinates."
                )
        return int((w > zero).sum()), int((w < -zero).sum()), int((np.abs(w) <= zero).sum())


@one_thread
def invariant_forms(rep: Rep) -> InvariantForms:
    """The bilinear forms that a representation preserves: all B with ρ(g)^T B ρ(g) = B.

    They are Hom(ρ, ρ*) (Finzi et al., 2021, section 3), for any group, reductive or not: the squared length for O(n),
    the Minkowski square for Lorentz, the symplectic form for Sp(2n), the square of the absolute time for Galilei.

    Args:
        rep: a bound representation of size n.

    Returns:
        :class:`InvariantForms`: ``symmetric`` (p, n, n) and ``antisymmetric`` (q, n, n), each orthonormal for the
        Frobenius inner product and canonical: the same in every process.

    Raises:
        RepError: the representation is not bound to a group.
        SolverError: no answer that can be trusted.

    Example:
        >>> forms = ek.invariant_forms(V(groups.Lorentz()))
        >>> forms.symmetric.shape, forms.signature(forms.symmetric[0])
        ((1, 4, 4), (1, 3, 0))
    """
    if not isinstance(rep, Rep):
        raise RepError(f"rep must be a Rep, got {type(rep).__name__}")
    rep._require_bound()
    if not rep.size:
        raise RepError(f"{rep} is the zero representation: it has no forms")
    parts = irrep_table(rep.group).decompose(rep).parts
    frame = np.concatenate([back.transpose(1, 0, 2).reshape(rep.size, -1) for _, _, back in parts], 1)
    elements = rep.rho(rep.group.sample(3, 0))
    basis, units = unit_free_basis(rep, rep.T)
    symmetric, antisymmetric = split_by_symmetry(basis)
    return InvariantForms(symmetric / units, antisymmetric / units, frame, elements)


def split_by_symmetry(space: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Canonical orthonormal bases of the symmetric and of the antisymmetric part of an orthonormal (r, n, n)."""
    r, n = space.shape[:2]
    flat = space.reshape(r, n * n)
    # transposition maps the space to itself, so on it it is an involution
    w, U = np.linalg.eigh(flat @ space.transpose(0, 2, 1).reshape(r, n * n).T)
    if np.abs(np.abs(w) - 1).max(initial=0) > 1e-6:
        raise SolverError(
            f"the space of {r} invariant forms is not closed under transposition. Likely cause: generators with few "
            "digits, or in a badly conditioned basis."
        )
    parts = []
    for sign in (1, -1):
        forms = (U[:, w * sign > 0].T @ flat).reshape(-1, n, n)
        forms = (forms + sign * forms.transpose(0, 2, 1)) / 2
        parts.append(_canonical(forms))
    return parts[0], parts[1]


def without(space: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the part of an orthonormal (r, ...) orthogonal to the known elements (s, ...) of it."""
    if not len(space) or not len(known):
        return space
    flat, known = space.reshape(len(space), -1), known.reshape(len(known), -1)
    _, s, vh = np.linalg.svd((known / np.linalg.norm(known, axis=1, keepdims=True)) @ flat.T)
    return _canonical((vh[int((s > 1e-8).sum()) :] @ flat).reshape(-1, *space.shape[1:]))


def _canonical(space: np.ndarray) -> np.ndarray:
    return canonical(space.reshape(len(space), -1).T).T.reshape(space.shape) if len(space) else space


@one_thread
def pairings(table: IrrepTable, a: Irrep, b: Irrep) -> np.ndarray:
    """Basis (r, d_a, d_b) of the invariant forms B(v, w) = v^T B w of an irreducible and another, of norm sqrt(d_a).

    With that norm independent unit-variance vectors have B(v, w) / d_a of order one. Unsplit pieces count as
    irreducibles.
    """
    if table.coordinates.completely_reducible and a.size != b.size:
        return np.zeros((0, a.size, b.size))
    return intertwiners(b.normal, a.normal.dual()) * np.sqrt(a.size)
