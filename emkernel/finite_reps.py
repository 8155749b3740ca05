"""Representations of finite groups on functions: permutation, regular, quotient and induced representations."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from .cayley import Cayley, cayley, orbits
from .errors import RepError, SolverError
from .expressions import Rep
from .given import GivenRep
from .group_element import GroupElement
from .images import Images
from .matrix_group import MatrixGroup
from .relations import relations

__all__ = ["PermutationRep", "induced", "permutation_rep", "quotient", "regular"]

MAX_POINTS = 60_000
MAX_ROUNDS = 300  # of the search for an orbit
LARGEST_CHECK = (
    20_000  # elements of the finite groups whose whole multiplication table is tried on the points
)


@dataclass(frozen=True, eq=False, repr=False)
class PermutationRep(Rep):
    """Functions on points that a group permutes, (ρ(g) f)(x) = f(g^-1 x): ρ(g) e_x = e_{g x}.

    Made by :func:`permutation_rep`, :func:`regular` and :func:`quotient`. The Lie algebra acts as zero.

    Attributes:
        group: the group.
        permutations: (M, P) integers: the generator h_i sends point x to ``permutations[i, x]``.
        name: for people.
        points: (P, d) the points, where they are vectors of V.

    Example:
        >>> corners = ek.permutation_rep(groups.D(4), points=[[1, 1]])  # of a square
        >>> corners.size, ek.inner_product(Scalar(groups.D(4)), corners)
        (4, 1)
    """

    group: MatrixGroup
    permutations: np.ndarray
    name: str = "permutations"
    points: np.ndarray | None = None

    @property
    def size(self):
        return self.permutations.shape[1]

    @property
    def T(self):
        return self  # permutation matrices are orthogonal

    @cached_property
    def _backwards(self) -> np.ndarray:
        return np.argsort(self.permutations, axis=1)

    def action(self, g: GroupElement) -> np.ndarray:
        """(*batch, P) integers: where g sends each point."""
        batch, steps = g.index.shape[:-1], g.index.shape[-1]
        index, power = g.index.reshape(-1, steps), g.power.reshape(-1, steps)
        out = np.tile(np.arange(self.size), (len(index), 1))
        for s in reversed(range(steps)):
            pairs = np.stack([index[:, s], power[:, s]], 1)
            unique, where = np.unique(pairs, axis=0, return_inverse=True)
            for k, (i, p) in enumerate(unique):
                if p:
                    rows = where.reshape(-1) == k
                    out[rows] = self._power(i, p)[out[rows]]
        return out.reshape(*batch, self.size)

    def _power(self, i: int, p: int) -> np.ndarray:
        step = self.permutations[i] if p > 0 else self._backwards[i]
        out, p = np.arange(self.size), abs(int(p))
        while p:
            if p & 1:
                out = step[out]
            step, p = step[step], p >> 1
        return out

    def character(self, g: GroupElement) -> np.ndarray:
        """(*batch,) how many points g leaves in their place."""
        return (self.action(g) == np.arange(self.size)).sum(-1).astype(float)

    @cached_property
    def images(self) -> Images:
        """The matrices on the generators of the group."""
        return Images.of_content(
            _dense(self.permutations), np.zeros((len(self.group.lie_algebra), self.size, self.size))
        )

    def _bind(self, group):
        self._require_same(group)
        return self

    def _rho(self, g, batch):
        if not isinstance(g, GroupElement):
            raise RepError(
                f"{self} is known on the generators only: pass the group element (the word), not its matrix"
            )
        return _dense(self.action(g))

    def _drho(self, A):
        return np.zeros((self.size, self.size))

    @cached_property
    def _content(self) -> tuple:
        return self.group.digest, self.size, hashlib.sha256(self.permutations.tobytes()).hexdigest()

    def __eq__(self, other):
        return isinstance(other, PermutationRep) and self._content == other._content

    def __hash__(self):
        return hash(self._content)

    def __str__(self):
        return self.name


def permutation_rep(
    group: MatrixGroup, permutations=None, *, points=None, name: str = "permutations", verify: bool = True
) -> PermutationRep:
    """Functions on points that the group permutes: ρ(g) e_x = e_{g x}.

    Args:
        group: any group; an element connected to the identity leaves every point in its place.
        permutations: (M, P) integers, the point to which each discrete generator sends each of P points; or
        points: (P, d) vectors of V, or one: the points are their orbits, in the order in which they are met.
        name: for people.
        verify: whether to try the relations of the group on the given permutations: all of them for a finite group
            of up to 20,000 elements.

    Returns:
        A PermutationRep; its ``points`` (P, d) are the orbits.

    Raises:
        RepError: neither or both of permutations and points; rows that are not permutations; permutations that break
            a relation of the group; orbits that are not finite.

    Example:
        >>> ek.permutation_rep(groups.Oh(), points=[[1, 0, 0]]).size  # the faces of a cube
        6
    """
    if not isinstance(group, MatrixGroup):
        raise RepError(f"expected a MatrixGroup, got {type(group).__name__}")
    if (permutations is None) == (points is None):
        raise RepError("give either permutations, (M, P) integers, or points=, (P, d) vectors")
    if points is not None:
        return _on_points(group, points, name)
    many = len(group.discrete_generators)
    given = np.asarray(permutations)
    if given.ndim != 2 or len(given) != many or (given.size and not np.issubdtype(given.dtype, np.integer)):
        raise RepError(
            f"{name}: permutations have shape {given.shape} of {given.dtype}, expected ({many}, P) integers: one row "
            f"for each discrete generator of {group.name}"
        )
    given = _integers(given)
    for i, row in enumerate(given):
        if not np.array_equal(np.sort(row), np.arange(len(row))):
            raise RepError(
                f"{name}: permutations[{i}] is not a permutation: it must hold each of 0..{len(row) - 1} once"
            )
    rep = PermutationRep(group, given, name)
    if verify:
        _verify(rep)
    return rep


def regular(group: MatrixGroup) -> PermutationRep:
    """Functions on a finite group itself, ρ(g) e_h = e_{gh}: every irreducible as often as its dimension allows.

    Raises:
        GroupError: the group is infinite or has more than 20,000 elements.

    Example:
        >>> ek.regular(groups.Oh()).size
        48
    """
    return PermutationRep(group, _integers(cayley(group).left), "regular")


def quotient(group: MatrixGroup, subgroup) -> PermutationRep:
    """Functions on the cosets gH of a finite group, ρ(g) e_{kH} = e_{gkH}; the trivial representation of H, induced.

    Args:
        group: a finite group of at most 20,000 elements.
        subgroup: a MatrixGroup of the same d, a GroupElement (or a batch), or (K, d, d) matrices that generate it.

    Returns:
        A PermutationRep on the cosets, H itself the first.

    Raises:
        GroupError: the group is infinite or larger.
        RepError: generators of the subgroup that do not lie in the group.

    Example:
        >>> ek.quotient(groups.Oh(), groups.Cnv(4)).size  # the six faces of a cube, each kept by a C4v
        6
    """
    table = cayley(group)
    cosets, label = _cosets(table, _subgroup(table, subgroup))
    first = np.unique(label, return_index=True)[1]
    name = f"functions on {group.name}/{getattr(subgroup, 'name', 'H')}"
    moved = label[table.left[:, first]].reshape(-1, cosets)
    return PermutationRep(group, _integers(moved), name)


def induced(group: MatrixGroup, rep: Rep) -> GivenRep:
    """The representation of a finite group induced from one of a subgroup: ρ(g) (e_t ⊗ v) = e_s ⊗ rep(k) v, g t = s k.

    The t are one element of each coset tH, the first of them the identity; its dimension is |G|/|H| times that of rep.

    Args:
        group: a finite group of at most 20,000 elements.
        rep: a bound representation of a finite MatrixGroup H of the same d whose generators lie in the group.

    Raises:
        GroupError: one of the groups is infinite or larger.
        RepError: not a bound representation, or H does not lie in the group.
        SolverError: elements of H are not recognised, for want of digits.

    Example:
        >>> ek.induced(groups.Oh(), V(groups.Cnv(4))).size  # a vector on each face of a cube
        18
    """
    if not isinstance(rep, Rep):
        raise RepError(f"expected a representation of a subgroup, got {type(rep).__name__}")
    H = rep._require_bound()
    table = cayley(group)
    cosets, label = _cosets(table, _subgroup(table, H))
    first = np.unique(label, return_index=True)[1]
    below = cayley(H)
    n = rep.size
    discrete = []
    for moved in table.left[:, first]:
        target = label[moved]
        # g t = s k with s the chosen element of the coset of g t
        k = np.linalg.solve(table.elements.matrix[first[target]], table.elements.matrix[moved])
        places = below.find(k)
        if (places < 0).any():
            raise SolverError(f"{H.name} has too few digits, or too bad a basis, to find its elements in {group.name}")
        words, where = np.unique(places, return_inverse=True)
        values = rep.rho(below.elements[words])
        image = np.zeros((cosets, n, cosets, n))
        image[target, :, np.arange(cosets), :] = values[where.reshape(-1)]
        discrete.append(image.reshape(cosets * n, cosets * n))
    lie = np.zeros((len(group.lie_algebra), cosets * n, cosets * n))
    stack = np.array(discrete).reshape(-1, cosets * n, cosets * n)
    return GivenRep(group, stack, lie, f"{rep} induced from {H.name}", verify=cosets * n <= 100)


# ---- subgroups and cosets ---------------------------------------------------------------------------------------


def _subgroup(table: Cayley, subgroup) -> np.ndarray:
    """Places of the generators of a subgroup."""
    group = table.group
    if isinstance(subgroup, MatrixGroup):
        if np.any(subgroup.lie_algebra):
            raise RepError(f"{subgroup.name} is infinite and no subgroup of the finite {group.name}")
        matrices, name = subgroup.discrete_generators, subgroup.name
    elif isinstance(subgroup, GroupElement):
        if subgroup.group.digest != group.digest:
            raise RepError(
                f"elements of {subgroup.group.name} given where those of {group.name} are expected"
            )
        matrices, name = subgroup.matrix, "the subgroup"
    else:
        matrices, name = np.asarray(subgroup, float), "the subgroup"
    if matrices.shape[-2:] != (group.d, group.d):
        raise RepError(f"{name} has generators of shape {matrices.shape}, expected (K, {group.d}, {group.d})")
    places = table.find(matrices.reshape(-1, group.d, group.d))
    if (places < 0).any():
        i = int(np.flatnonzero(places < 0)[0])
        raise RepError(f"{name} is no subgroup of {group.name}: its generator {i} is not an element")
    return places


def _cosets(table: Cayley, places: np.ndarray) -> tuple[int, np.ndarray]:
    """(number of cosets gH, (N,) the coset of each element) for H generated by the elements at these places."""
    return orbits(np.concatenate([np.arange(len(table))[None], table.right(places)]))


# ---- permutations -------------------------------------------------------------------------------------------------


def _integers(permutations: np.ndarray) -> np.ndarray:
    permutations = np.ascontiguousarray(permutations, dtype=np.int64)
    permutations.setflags(write=False)
    return permutations


def _dense(permutations: np.ndarray) -> np.ndarray:
    """(*batch, P) where each point goes -> (*batch, P, P) with e_x -> e_{gx}."""
    out = np.zeros((*permutations.shape, permutations.shape[-1]))
    np.put_along_axis(out, permutations[..., None], 1.0, -1)
    return np.swapaxes(out, -1, -2)


def _on_points(group: MatrixGroup, points, name: str) -> PermutationRep:
    points = np.atleast_2d(np.asarray(points, float))
    if points.ndim != 2 or points.shape[1] != group.d or not np.isfinite(points).all():
        raise RepError(f"{name}: points have shape {points.shape}, expected finite vectors (P, {group.d})")
    size = np.abs(points).max(initial=0) or 1.0
    for k, A in enumerate(group.lie_algebra):
        if np.abs(points @ A.T).max(initial=0) > 1e-9 * size * np.abs(A).max():
            raise RepError(
                f"{name}: lie_algebra[{k}] of {group.name} moves the points: their orbits are not finite"
            )
    tol, found, front = 1e-7 * size, np.zeros((0, group.d)), points
    # long powers of a generator as steps, so that long cycles take few rounds
    exponents = [
        (h, range(max(1, int(np.log2(q or 1))))) for h, q in zip(group.discrete_generators, group._orders)
    ]
    steps = [np.linalg.matrix_power(h, 2**e) for h, many in exponents for e in many]
    for _ in range(MAX_ROUNDS):
        known = len(found)
        both = np.concatenate([found, front])
        near = cKDTree(both).query_ball_point(front, tol)
        first = np.array([min(k) for k in near], int)
        found = np.concatenate([found, both[np.unique(first[first >= known])]])
        front = np.concatenate([found[known:] @ h.T for h in steps] or [found[:0]])
        if not len(front) or len(found) > MAX_POINTS or np.abs(front).max() > 1e9 * size:
            break
    if len(front):
        raise RepError(
            f"{name}: the orbits of the points under {group.name} do not close within {len(found)} points"
        )
    tree = cKDTree(found)
    permutations = np.array([tree.query(found @ h.T)[1] for h in group.discrete_generators], int)
    permutations = permutations.reshape(-1, len(found))
    for row in permutations:
        if len(np.unique(row)) != len(found):
            raise RepError(
                f"{name}: the points, or the digits of {group.name}, are too close together to tell orbits apart"
            )
    return PermutationRep(group, _integers(permutations), name, found)


def _verify(rep: PermutationRep) -> None:
    group = rep.group
    if not (group.is_finite and group.order <= LARGEST_CHECK):
        for relation in relations(group, rep.images):
            if not relation.error < 1e-8:
                raise RepError(f"{rep} is no representation of {group.name}: it breaks {relation.worst}")
        return
    table = cayley(group)
    for at in range(0, rep.size, max(1, 4_000_000 // len(table))):
        points = np.arange(at, min(rep.size, at + max(1, 4_000_000 // len(table))))
        moved = np.empty((len(table), len(points)), int)
        moved[0] = points
        for children, i, parents in table.generation:
            moved[children] = rep.permutations[i][moved[parents]]
        for i, places in enumerate(table.left):
            wrong = (moved[places] != rep.permutations[i][moved]).any(1)
            if wrong.any():
                raise RepError(
                    f"{rep} is no representation of {group.name}: equal products of discrete generators, one of them "
                    f"beginning with h_{i}, permute the points differently ({int(wrong.sum())} such products)"
                )
