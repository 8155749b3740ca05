"""Representations of a group as representations of its subgroups."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import scipy.linalg

from .cayley import cayley
from .errors import RepError
from .expressions import DualRep, ProductRep, Rep, ScalarRep, SumRep, VectorRep
from .finite_reps import PermutationRep
from .given import GivenRep
from .group_element import GroupElement
from .images import Images
from .lifting import gap, lift, logarithm, units
from .matrix_group import MatrixGroup
from .subrep import SubRep

__all__ = ["restrict"]

LISTED = 20_000  # largest finite group that is searched element by element
COMPONENTS = 200  # words of discrete generators that are tried as the way to another component
TWISTS = 6  # random elements near which a logarithm is tried


def restrict(rep: Rep, subgroup: MatrixGroup, words: GroupElement | None = None) -> Rep:
    """The same representation, of a subgroup: ρ(k) for k in H.

    Expressions in V stay expressions in V. A representation known on the generators only needs each generator of H in
    terms of those of G. It is searched for: Lie algebra generators in the algebra that those of G generate by brackets
    and conjugation; discrete ones among the elements of a finite G, else as a word of discrete generators times the
    exponential of that algebra.

    Args:
        rep: a bound representation of G.
        subgroup: H, a MatrixGroup of the same d whose generators lie in G.
        words: the discrete generators of H as a batch of elements of G, to spare or replace the search.

    Returns:
        A representation bound to H.

    Raises:
        RepError: unbound; another d; a generator of H that was not found in G; words that are not the generators.

    Example:
        >>> spin = ek.irreps(groups.SO(3), 2)[-1]  # spin 2, known on the generators
        >>> ek.restrict(spin, groups.Octa()).size
        5
    """
    if not isinstance(rep, Rep):
        raise RepError(f"expected a representation, got {type(rep).__name__}")
    G = rep._require_bound()
    if not isinstance(subgroup, MatrixGroup):
        raise RepError(f"the subgroup must be a MatrixGroup, got {type(subgroup).__name__}")
    if subgroup.d != G.d:
        raise RepError(
            f"{subgroup.name} acts in dimension {subgroup.d} and is no subgroup of {G.name}, d = {G.d}"
        )
    return _restrict(rep, _Inclusion(G, subgroup, words))


def _restrict(rep: Rep, inclusion: _Inclusion) -> Rep:
    H = inclusion.subgroup
    if isinstance(rep, (ScalarRep, VectorRep)):
        return type(rep)(H)
    if isinstance(rep, DualRep):
        return DualRep(_restrict(rep.base, inclusion), H)
    if isinstance(rep, ProductRep):
        return ProductRep(tuple(_restrict(f, inclusion) for f in rep.factors), H)
    if isinstance(rep, SumRep):
        return SumRep(tuple((n, _restrict(t, inclusion)) for n, t in rep.parts), H)
    if isinstance(rep, SubRep):
        return SubRep(_restrict(rep.base, inclusion), rep.back, rep.to, rep.name)
    if isinstance(rep, PermutationRep):
        return inclusion.action_of(rep)
    return inclusion.images_of(rep)


class _Inclusion:
    """The generators of H in terms of those of G; found once, and always, so that H is known to lie in G.

    Each discrete generator is a word of G times exp of a combination of the Lie algebra that G generates.
    """

    def __init__(self, G: MatrixGroup, H: MatrixGroup, words: GroupElement | None):
        self.group, self.subgroup = G, H
        V = Images(G.discrete_generators, G.lie_algebra, np.zeros((0, G.d, G.d)), G.digest)
        basis = G.orthogonal_basis
        if basis is None:
            basis = np.diag(1 / units(V))
        back = np.linalg.inv(basis)
        self._V = V.conjugate(basis, back, "calm")
        self._algebra = lift(self._V, self._V)
        self._lie = self._find_lie(basis @ H.lie_algebra @ back)
        if words is not None:
            self._discrete = [(w, None) for w in self._checked(words)]
        else:
            self._discrete = self._find_discrete(basis @ H.discrete_generators @ back)

    def images_of(self, rep: Rep) -> GivenRep:
        images, n = rep.images, rep.size
        lifted = lift(self._V, images).lifted
        discrete = []
        for word, coefs in self._discrete:
            image = word.evaluate(images.discrete, images.lie)
            if coefs is not None:
                image = image @ scipy.linalg.expm((coefs @ lifted).reshape(n, n))
            discrete.append(image)
        lie = (self._lie @ lifted).reshape(-1, n, n)
        name = f"{rep} of {self.subgroup.name}"
        return GivenRep(self.subgroup, np.array(discrete).reshape(-1, n, n), lie, name)

    def action_of(self, rep: PermutationRep) -> PermutationRep:
        """What is connected to the identity moves no point."""
        moved = [rep.action(word) for word, _ in self._discrete]
        return PermutationRep(
            self.subgroup,
            np.array(moved, np.int64).reshape(-1, rep.size),
            f"{rep} of {self.subgroup.name}",
            rep.points,
        )

    def _checked(self, words: GroupElement) -> GroupElement:
        H = self.subgroup
        if not isinstance(words, GroupElement) or words.group.digest != self.group.digest:
            raise RepError(f"words must be a batch of elements of {self.group.name}")
        if words.matrix.shape != H.discrete_generators.shape:
            raise RepError(
                f"{len(H.discrete_generators)} words expected, one for each discrete generator of {H.name}"
            )
        for i, (a, b) in enumerate(zip(words.matrix, H.discrete_generators)):
            if (error := gap(a, b)) > 1e-9:
                raise RepError(
                    f"words[{i}] is not discrete_generators[{i}] of {H.name}; they differ by {error:.1e}"
                )
        return words

    def _find_lie(self, matrices: np.ndarray) -> np.ndarray:
        """(D, m) coordinates in the Lie algebra of G."""
        flat, algebra = matrices.reshape(len(matrices), self.group.d**2), self._algebra.algebra
        coefs = flat @ algebra.T
        for k, rest in enumerate(np.abs(flat - coefs @ algebra)):
            if rest.max() > 1e-9 * max(1e-300, np.abs(flat[k]).max()):
                raise RepError(
                    f"{self.subgroup.name} is no subgroup of {self.group.name}: lie_algebra[{k}] is not in the Lie "
                    f"algebra of dimension {len(algebra)} that the generators of {self.group.name} generate"
                )
        return coefs

    def _find_discrete(self, matrices: np.ndarray) -> list:
        G = self.group
        if G.is_finite and G.order <= LISTED:
            table = cayley(G)
            places = table.find(self.subgroup.discrete_generators)
            if (places < 0).any():
                self._refuse(int(np.flatnonzero(places < 0)[0]))
            return [(table.elements[k], None) for k in places]
        return [self._find_one(k, matrix) for k, matrix in enumerate(matrices)]

    def _find_one(self, k: int, matrix: np.ndarray) -> tuple[GroupElement, np.ndarray | None]:
        for word, start in self._components:
            rest = np.linalg.solve(start, matrix)
            if gap(rest, np.eye(len(rest))) < 1e-10:
                return word, None
            if not len(self._algebra.algebra):
                continue
            for twist, turned in self._twists:
                log = logarithm(np.linalg.solve(turned, rest), self._algebra.algebra)
                if log is not None:
                    return word @ twist, log
        return self._refuse(k)

    def _refuse(self, k: int):
        G, H = self.group, self.subgroup
        raise RepError(
            f"discrete_generators[{k}] of {H.name} was not found in {G.name}"
            + (
                f": it is none of its {G.order} elements"
                if G.is_finite and G.order <= LISTED
                else f", neither as one of {len(self._components)} words of discrete generators nor as one times an "
                "exponential; if it is an element, pass words="
            )
        )

    @cached_property
    def _components(self) -> list[tuple[GroupElement, np.ndarray]]:
        """Words of discrete generators, shortest first, with their matrices."""
        G = self.group
        letters = list(G.generators)
        letters += [h.inverse for h, q in zip(letters, G._orders) if q is None]
        found = [(G.identity, np.eye(G.d))]
        for word, matrix in found:
            for letter in letters:
                product = matrix @ letter.evaluate(self._V.discrete, self._V.lie)
                if np.abs(product).max() < 1e3 and all(gap(product, m) > 1e-8 for _, m in found):
                    found.append((word @ letter, product))
            if len(found) > COMPONENTS:
                break
        return found

    @cached_property
    def _twists(self) -> list[tuple[GroupElement, np.ndarray]]:
        """The identity and some elements connected to it, as words with their matrices."""
        G = self.group
        g = G.sample(TWISTS, 0)
        smooth = [GroupElement(G, w.coefs, w.index, np.zeros_like(w.power)) for w in (G.identity, *g)]
        return [(w, w.evaluate(self._V.discrete, self._V.lie)) for w in smooth]
