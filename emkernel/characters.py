"""Characters: traces of representations, and what is counted with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .cayley import cayley, orbits
from .errors import RepError, SolverError
from .expressions import ProductRep, Rep, Scalar, SumRep
from .finite_reps import PermutationRep
from .group_element import GroupElement
from .matrix_group import MatrixGroup
from .powers import sym
from .solver.coupling import equivariant_basis, unit_free_basis
from .solver.irreps import Irrep, irreps

__all__ = [
    "CharacterTable",
    "ConjugacyClasses",
    "character",
    "character_table",
    "conjugacy_classes",
    "frobenius_schur",
    "inner_product",
    "molien",
]

LISTED = 20_000  # largest finite group whose characters are averaged over the elements


def character(rep: Rep, g: GroupElement) -> np.ndarray:
    """χ(g) = tr ρ(g), (*batch,) float64; of a sum the sum, of a product the product, without building either.

    Args:
        rep: a bound representation.
        g: a group element, or a batch of them; or (d, d) matrices, for representations built from V alone.

    Raises:
        RepError: unbound, or an element of another group.

    Example:
        >>> SO3 = groups.SO(3)
        >>> ek.character(V(SO3), SO3.identity)
        array(3.)
    """
    if not isinstance(rep, Rep):
        raise RepError(f"expected a representation, got {type(rep).__name__}")
    group = rep._require_bound()
    if isinstance(g, GroupElement) and g.group.digest != group.digest:
        raise RepError(f"{rep} is a representation of {group.name}, got an element of {g.group.name}")
    if isinstance(rep, SumRep):
        parts = [n * character(t, g) for n, t in rep.parts]
        return np.sum(parts, 0) if parts else np.trace(rep.rho(g), axis1=-2, axis2=-1)
    if isinstance(rep, ProductRep):
        return np.prod([character(f, g) for f in rep.factors], 0)
    if isinstance(rep, PermutationRep) and isinstance(g, GroupElement):
        return rep.character(g)
    return np.asarray(np.trace(rep.rho(g), axis1=-2, axis2=-1))


@dataclass(frozen=True, eq=False)
class ConjugacyClasses:
    """The classes {x g x^-1} of a finite group, the one of the identity first.

    Attributes:
        group: the group.
        representatives: one element of each of the C classes, a batch.
        sizes: (C,) how many elements each has.
        labels: (N,) the class of each of ``group.elements()``.
    """

    group: MatrixGroup
    representatives: GroupElement
    sizes: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    def mean(self, values: np.ndarray) -> float:
        """The mean over the group of a function of classes, (..., C) -> (...)."""
        return values @ self.sizes / self.sizes.sum()


def conjugacy_classes(group: MatrixGroup) -> ConjugacyClasses:
    """The conjugacy classes of a finite group.

    Raises:
        GroupError: the group is infinite or has more than 20,000 elements.

    Example:
        >>> ek.conjugacy_classes(groups.Octa()).sizes.tolist()
        [1, 8, 6, 3, 6]
    """
    table = cayley(group)
    _, labels = orbits(np.concatenate([np.arange(len(table))[None], table.conjugates]))
    _, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    return ConjugacyClasses(group, table.elements[first], sizes, labels)


@dataclass(frozen=True, eq=False)
class CharacterTable:
    """The irreducible characters of a finite group.

    Attributes:
        classes: the C conjugacy classes.
        irreps: the R real irreducible representations.
        real: (R, C) float64, their characters.
        complex: (C, C) complex128, the characters of the complex irreducibles: χ of a real type itself, ψ and its
            conjugate where χ = ψ + ψ* (complex type), ψ where χ = 2ψ (quaternionic type).
        origin: (C,) the real irreducible that each row of ``complex`` is a part of.
    """

    classes: ConjugacyClasses
    irreps: tuple[Irrep, ...]
    real: np.ndarray
    complex: np.ndarray
    origin: np.ndarray

    def __str__(self) -> str:
        sizes = " ".join(f"{n:8d}" for n in self.classes.sizes)
        rows = [f"{'':14s}{sizes}"]
        for r, chi in zip(self.irreps, self.real):
            rows.append(f"{r.label:>4s} {r.type[:8]:8s} " + " ".join(f"{x:8.3f}" for x in chi + 0.0))
        return "\n".join(rows)


def character_table(group: MatrixGroup) -> CharacterTable:
    """All irreducible characters of a finite group, checked by orthogonality and by their number.

    Raises:
        GroupError: the group is infinite or has more than 20,000 elements.
        SolverError: the characters are not orthonormal, or not as many as classes.

    Example:
        >>> ek.character_table(groups.Octa()).real.shape
        (5, 5)
    """
    classes = conjugacy_classes(group)
    found = tuple(irreps(group, None))
    real = np.array([character(r, classes.representatives) for r in found])
    rows, origin = [], []
    for i, (r, chi) in enumerate(zip(found, real)):
        if r.type == "complex":
            psi = (chi - 1j * _twisted(r, classes.representatives)) / 2
            rows += [psi, psi.conj()]
            origin += [i, i]
        else:
            rows.append(chi / (2 if r.type == "quaternionic" else 1) + 0j)
            origin.append(i)
    table = np.array(rows)
    norms = classes.mean(table[:, None].conj() * table)
    if len(table) != len(classes) or np.abs(norms - np.eye(len(table))).max() > 1e-8:
        raise SolverError(
            f"{group.name}: {len(table)} irreducible characters for {len(classes)} classes, orthonormal up to "
            f"{np.abs(norms - np.eye(len(table))).max():.1e}: the irreducibles found are not all, or not irreducible"
        )
    return CharacterTable(classes, found, real, table, np.array(origin))


def _twisted(rep: Rep, g: GroupElement) -> np.ndarray:
    """tr(J ρ(g)) for the complex structure J of an irreducible of complex type, J² = -1."""
    E = equivariant_basis(rep, rep)
    E = E - np.trace(E, axis1=1, axis2=2)[:, None, None] / rep.size * np.eye(rep.size)
    J = E[int(np.abs(E).max((1, 2)).argmax())]
    square = np.trace(J @ J) / rep.size
    if len(E) != 2 or not square < 0:
        raise SolverError(f"{rep} of {rep.group.name} has {len(E)} endomorphisms and is not of complex type")
    return np.einsum("ij,...ji->...", J / np.sqrt(-square), rep.rho(g))


# ---- counts ------------------------------------------------------------------------------------------------------


def inner_product(a: Rep, b: Rep) -> int:
    """dim Hom(a, b), the number of independent equivariant linear maps; for a finite group <χ_a, χ_b>.

    Args:
        a, b: bound representations of the same group.

    Raises:
        RepError: unbound, or of different groups.
        SolverError: the mean of the characters is no integer, or the solver has no answer that can be trusted.

    Example:
        >>> SO3 = groups.SO(3)
        >>> ek.inner_product(Scalar(SO3), (V**4)(SO3))
        3
    """
    group = _same_group(a, b)
    if not _listed(group):
        return len(equivariant_basis(a, b))
    classes = conjugacy_classes(group)
    g = classes.representatives
    # real characters of a finite group: χ(g^-1) = χ(g)
    return _integer(classes.mean(character(a, g) * character(b, g)), f"<{a}, {b}> of {group.name}")


def frobenius_schur(rep: Rep) -> int:
    """The Frobenius-Schur indicator: the mean of χ(g²) over the group.

    It is how many more symmetric than antisymmetric invariant bilinear forms there are: for a real irreducible
    representation 1 when its type is real, 0 when complex, -2 when quaternionic; and additive. For a finite group
    computed as the mean; else by counting forms.

    Args:
        rep: a bound representation.

    Raises:
        RepError: unbound.
        SolverError: the mean is no integer, or the solver has no answer that can be trusted.

    Example:
        >>> ek.frobenius_schur(V(groups.SU(2)))  # quaternions
        -2
    """
    group = _same_group(rep, rep)
    if _listed(group):
        classes = conjugacy_classes(group)
        g = classes.representatives
        return _integer(classes.mean(character(rep, g @ g)), f"the indicator of {rep} of {group.name}")
    forms, _ = unit_free_basis(rep, rep.T)
    # B -> B^T is an involution of the invariant forms; its trace counts the two kinds
    return _integer(np.einsum("kij,kji->", forms, forms), f"the indicator of {rep} of {group.name}")


def molien(rep: Rep, degree: int) -> list[int]:
    """The number of independent invariant polynomials of each degree 0..degree on a representation.

    For a finite group the coefficients of Molien's series, the mean of 1 / det(1 - t ρ(g)) (Molien, 1897); else the
    invariants in the symmetric powers of the dual, counted by the solver.

    Args:
        rep: a bound representation.
        degree: the highest degree.

    Returns:
        degree + 1 counts, the first of them 1.

    Raises:
        RepError: unbound, or a negative degree.
        SolverError: a mean is no integer, or the solver has no answer that can be trusted.

    Example:
        >>> ek.molien(V(groups.Oh()), 6)  # generated in degrees 2, 4 and 6
        [1, 0, 1, 0, 2, 0, 3]
    """
    group = _same_group(rep, rep)
    if not isinstance(degree, (int, np.integer)) or isinstance(degree, bool) or degree < 0:
        raise RepError(f"the degree must be an integer >= 0, got {degree!r}")
    if not _listed(group):
        return [inner_product(Scalar(group), sym(rep.T, k)) for k in range(degree + 1)]
    classes = conjugacy_classes(group)
    series = np.zeros((len(classes), degree + 1))
    for at in range(0, len(classes), 64):
        spectrum = np.linalg.eigvals(rep.rho(classes.representatives[at : at + 64])).astype(complex)
        powers = np.zeros((len(spectrum), degree + 1), complex)
        powers[:, 0] = 1
        for w in spectrum.T:  # times 1 / (1 - w t)
            for k in range(1, degree + 1):
                powers[:, k] += w * powers[:, k - 1]
        series[at : at + 64] = powers.real
    means = classes.mean(series.T)
    return [_integer(m, f"invariants of degree {k} on {rep} of {group.name}") for k, m in enumerate(means)]


def _same_group(a: Rep, b: Rep) -> MatrixGroup:
    for rep in (a, b):
        if not isinstance(rep, Rep):
            raise RepError(f"expected a representation, got {type(rep).__name__}")
    G, H = a._require_bound(), b._require_bound()
    if G.digest != H.digest:
        raise RepError(f"{a} belongs to {G.name}, {b} to {H.name}; expected the same group")
    return G


def _listed(group: MatrixGroup) -> bool:
    return group.is_finite and group.order <= LISTED


def _integer(value: float, what: str) -> int:
    nearest = round(float(value)) if np.isfinite(value) else 0
    if not abs(value - nearest) < 1e-6 or abs(value) > 1e9:
        raise SolverError(
            f"{what}: a count came out as {value:.9g}, which is no integer to rounding. Is it a representation "
            "(check_rep), are all digits there, or is the count too large for double precision?"
        )
    return nearest
