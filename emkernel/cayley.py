"""The elements of a finite matrix group and how they multiply, found by looking matrices up."""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from . import _sharpen
from .errors import GroupError
from .group_element import GroupElement
from .matrix_group import MatrixGroup, check_is_group

__all__ = ["Cayley", "cayley", "orbits"]

NEAR = 1e-5  # two matrices closer than this are the same element


class Cayley:
    """All elements of a finite group, the identity first, and the places of products in that list.

    Args:
        group: a finite group of at most 20,000 elements.

    Attributes:
        elements: the elements as words.
        matrices: (N, d, d) in coordinates where the group is orthogonal.

    Raises:
        GroupError: the group is infinite or larger.
    """

    def __init__(self, group: MatrixGroup):
        self.group = group
        self.elements: GroupElement = group.elements()
        self._basis = group.orthogonal_basis
        self._back = np.linalg.inv(self._basis)
        generators = self._basis @ group.discrete_generators @ self._back
        if len(self.elements) <= 500:  # without the rounding of a badly conditioned basis
            generators = _sharpen.polish(generators, 1e-4, 500) if len(generators) else generators
        self._generators = generators
        self.matrices = self.elements.evaluate(generators, np.zeros((0, group.d, group.d)))
        rng = np.random.default_rng(0)
        # a few numbers tell the elements apart; the matrices then decide
        self._shadow = rng.standard_normal((group.d**2, 6)) / group.d
        self._tree = cKDTree(self._keys(self.matrices))

    def __len__(self) -> int:
        return len(self.matrices)

    def _keys(self, matrices: np.ndarray) -> np.ndarray:
        return matrices.reshape(len(matrices), -1) @ self._shadow

    def _find(self, matrices: np.ndarray) -> np.ndarray:
        """(n, d, d) in orthogonal coordinates -> (n,) places, -1 for matrices that are not in the group."""
        found = np.full(len(matrices), -1)
        ok = np.isfinite(matrices).all((1, 2))
        if ok.any():
            place = self._tree.query(self._keys(matrices[ok]))[1]
            near = np.abs(self.matrices[place] - matrices[ok]).max((1, 2)) < NEAR
            found[ok] = np.where(near, place, -1)
        return found

    def find(self, matrices: np.ndarray) -> np.ndarray:
        """(n, d, d) in the coordinates of V -> (n,) places in the list, -1 for matrices that are not in the group."""
        return self._find(self._basis @ matrices @ self._back)

    def _product(self, matrices: np.ndarray) -> np.ndarray:
        places = self._find(matrices)
        if (places < 0).any():
            raise GroupError(
                f"{self.group.name}: a product of two elements is not among its {len(self)} elements"
            )
        return places

    @cached_property
    def left(self) -> np.ndarray:
        """(M, N) the place of h_i g_j."""
        return np.array([self._product(h @ self.matrices) for h in self._generators], int).reshape(-1, len(self))

    def right(self, places: np.ndarray) -> np.ndarray:
        """(K, N) the place of g_j k for the elements k at these places."""
        return np.array([self._product(self.matrices @ self.matrices[k]) for k in places], int).reshape(
            -1, len(self)
        )

    @cached_property
    def conjugates(self) -> np.ndarray:
        """(M, N) the place of h_i g_j h_i^-1."""
        generators = self._basis @ self.group.discrete_generators @ self._back
        return np.array([self._product(h @ self.matrices @ h.T) for h in generators], int).reshape(
            -1, len(self)
        )

    @cached_property
    def generation(self) -> list[tuple[np.ndarray, int, np.ndarray]]:
        """(places, i, places of the parents) with g = h_i g_parent, parents always before their children."""
        known = np.zeros(len(self), bool)
        known[0] = True
        front, out = np.array([0]), []
        while len(front):
            fresh = []
            for i, moved in enumerate(self.left):
                children, first = np.unique(moved[front], return_index=True)
                new = ~known[children]
                children, parents = children[new], front[first[new]]
                known[children] = True
                if len(children):
                    out.append((children, i, parents))
                    fresh.append(children)
            front = np.concatenate(fresh) if fresh else front[:0]
        return out


def orbits(moves: np.ndarray) -> tuple[int, np.ndarray]:
    """(how many, (N,) the orbit of each point) under moves (K, N) of points, numbered by their first points."""
    n = moves.shape[1]
    points = np.tile(np.arange(n), len(moves))
    graph = coo_array((np.ones(moves.size, bool), (points, moves.reshape(-1))), shape=(n, n))
    many, labels = connected_components(graph, directed=False)
    _, first = np.unique(labels, return_index=True)
    rank = np.empty(many, int)
    rank[np.argsort(first)] = np.arange(many)
    return many, rank[labels]


@lru_cache(maxsize=8)
def cayley(group: MatrixGroup) -> Cayley:
    """The elements of this group; the last few groups are kept."""
    check_is_group(group)
    return Cayley(group)
