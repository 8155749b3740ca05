"""Couplings of irreducible triples, a ⊗ b -> c (Clebsch-Gordan tensors), and bases of equivariant linear maps."""

from __future__ import annotations

import numpy as np

from ..errors import RepError
from ..matrix_group import MatrixGroup
from ..rep import Rep
from .irreps import Irrep, IrrepTable, irrep_table
from .nullspace import coupling_maps
from .orbits import Seeded

__all__ = ["common_group", "couplings", "equivariant_basis", "unit_free_basis"]

MANY_ORDERS = 1e8  # of magnitude between units, beyond which no basis is orthonormal and equivariant in floating point


def couplings(table: IrrepTable, a: Irrep, b: Irrep, c: Irrep) -> np.ndarray | Seeded:
    """Basis (r, d_c, d_a, d_b) of Hom(a ⊗ b, c): c(g) C = C (a(g) ⊗ b(g)), each of Frobenius norm sqrt(d_c).

    With that norm independent unit-variance inputs give unit-variance outputs, averaged over components. Millions of
    numbers, of permutation groups, come as Seeded: ``np.asarray`` computes them.
    """
    if a.is_trivial or b.is_trivial:
        maps = table.maps(b if a.is_trivial else a, c)
        return maps.reshape(len(maps), c.size, a.size, b.size)
    key = (a.index, b.index, c.index)
    if key not in table.couplings:
        table.couplings[key] = _solved(table, a, b, c)
    return table.couplings[key]


def _solved(table: IrrepTable, a: Irrep, b: Irrep, c: Irrep) -> np.ndarray | Seeded:
    """One solution serves both orders of a and b, and all orders of the three factors where invariant forms B make
    each its own dual: B_c C is then an invariant function of three vectors."""
    if all(r.form is not None and r.type == "real" for r in (a, b, c)):
        order = sorted((0, 1, 2), key=lambda i: (c, a, b)[i].index)
        first, second, third = ((c, a, b)[i] for i in order)
        if (first, second, third) != (a, b, c):
            maps = couplings(table, first, second, third)  # (r, third, first, second)
            if not len(maps):
                return np.zeros((0, c.size, a.size, b.size))
            C = _with_form(third, maps).transpose(0, *(1 + (order.index(i) + 1) % 3 for i in range(3)))
            C = _with_form(c, C)
            return C if c.size == third.size else C * np.sqrt(c.size / third.size)
    elif a.index > b.index:
        return couplings(table, b, a, c).transpose(0, 1, 3, 2)
    return coupling_maps(a.normal, b.normal, c.normal) * np.sqrt(c.size)


def _with_form(r: Irrep, C: np.ndarray | Seeded) -> np.ndarray | Seeded:
    """B C along axis 1."""
    return C if r.is_orthogonal else np.tensordot(r.form, C, (1, 1)).swapaxes(0, 1)


def equivariant_basis(rep_in: Rep, rep_out: Rep) -> np.ndarray:
    """Orthonormal basis of the equivariant linear maps rep_in -> rep_out.

    W is equivariant iff ρ_out(h_i) W = W ρ_in(h_i) and dρ_out(A_k) W = W dρ_in(A_k) (Finzi et al., 2021, eq. 3 and 4).
    Both representations are split into irreducibles, between which Schur's lemma leaves the endomorphisms.

    Args:
        rep_in, rep_out: bound representations of the same group.

    Returns:
        (rank, rep_out.size, rep_in.size) float64, orthonormal for the Frobenius inner product (of coordinates without
        units, where those of the group differ by many orders of magnitude).

    Raises:
        RepError: unbound, or of different groups.
        SolverError: no answer that can be trusted.

    Example:
        >>> SO3 = groups.SO(3)
        >>> ek.equivariant_basis(V(SO3), (V * V)(SO3)).shape  # the cross product
        (1, 9, 3)
    """
    basis, units = unit_free_basis(rep_in, rep_out)
    if units.max(initial=1) / units.min(initial=1) > MANY_ORDERS:
        return basis / units
    return _orthonormal(basis / units)


def unit_free_basis(rep_in: Rep, rep_out: Rep) -> tuple[np.ndarray, np.ndarray]:
    """(basis, units): W units for equivariant W, orthonormal, and the units, (rep_out.size, rep_in.size)."""
    table = irrep_table(common_group(rep_in, rep_out))
    maps = []
    for a, to, _ in table.decompose(rep_in).parts:
        for b, _, back in table.decompose(rep_out).parts:
            for M in table.maps(a, b):
                maps.append(
                    np.einsum("mpb,ba,naq->mnpq", back, M, to, optimize=True).reshape(
                        -1, rep_out.size, rep_in.size
                    )
                )
    units = rep_out.units[:, None] / rep_in.units
    if not maps:
        return np.zeros((0, *units.shape)), units
    return _orthonormal(np.concatenate(maps) * units), units


def common_group(rep_in: Rep, rep_out: Rep) -> MatrixGroup:
    """The group of two bound representations, or a RepError."""
    for name, rep in (("rep_in", rep_in), ("rep_out", rep_out)):
        if not isinstance(rep, Rep):
            raise RepError(f"{name} must be a Rep, got {type(rep).__name__}")
    G, H = rep_in._require_bound(), rep_out._require_bound()
    if G.digest != H.digest:
        raise RepError(f"rep_in belongs to {G.name}, rep_out to {H.name}; expected the same group")
    return G


def _orthonormal(maps: np.ndarray) -> np.ndarray:
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
    gram = flat @ flat.T
    if np.abs(gram - np.diag(np.diag(gram))).max(initial=0) > 1e-12 * np.abs(gram).max(initial=1.0):
        flat = np.linalg.qr(flat.T)[0].T
    else:
        flat = flat / np.sqrt(np.diag(gram))[:, None]
    return flat.reshape(maps.shape)
