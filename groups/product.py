"""Products of groups: direct, on the sum or on the tensor product of their spaces; semidirect; wreath."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import scipy.linalg

from emkernel.errors import GroupError
from emkernel.matrix_group import MatrixGroup

from ._algebra import closure, is_connected_to_one, outside

__all__ = ["Direct", "Semidirect", "Tensor", "Wreath"]


def Direct(*groups: MatrixGroup, name: str | None = None) -> MatrixGroup:
    """G x H x ... of the ``groups`` on the direct sum of their spaces, as block diagonal matrices.

    Called ``name``, by default after its factors.

    Raises:
        GroupError: no group is given.

    Example:
        >>> groups.Direct(groups.Octa(), groups.C(5)).order
        120
    """
    _require_groups("Direct", groups)
    at = np.cumsum([0, *(g.d for g in groups)])

    def place(i: int, m: np.ndarray, background: np.ndarray) -> np.ndarray:
        out = background.copy()
        out[at[i] : at[i + 1], at[i] : at[i + 1]] = m
        return out

    one, zero = np.eye(at[-1]), np.zeros((at[-1], at[-1]))
    return MatrixGroup(name or " x ".join(g.name for g in groups),
                       [place(i, h, one) for i, g in enumerate(groups) for h in g.discrete_generators],
                       [place(i, a, zero) for i, g in enumerate(groups) for a in g.lie_algebra], d=int(at[-1]))


def Tensor(*groups: MatrixGroup, name: str | None = None) -> MatrixGroup:
    """G ⊗ H ⊗ ... of the ``groups`` on the tensor product of their spaces (row-major, as V*W): the image of the direct
    product, called ``name``, by default after its factors.

    Multiples of the identity are not told apart: (-1) ⊗ (-1) = 1, so the order may be less than the product.

    Raises:
        GroupError: no group is given.

    Example:
        >>> groups.Tensor(groups.D(4), groups.D(4)).order
        32
    """
    _require_groups("Tensor", groups)

    def place(i: int, m: np.ndarray) -> np.ndarray:
        return reduce(np.kron, [m if k == i else np.eye(g.d) for k, g in enumerate(groups)])

    return MatrixGroup(name or " ⊗ ".join(g.name for g in groups),
                       [place(i, h) for i, g in enumerate(groups) for h in g.discrete_generators],
                       [place(i, a) for i, g in enumerate(groups) for a in g.lie_algebra],
                       d=int(np.prod([g.d for g in groups])))


def Wreath(group: MatrixGroup, permuting: MatrixGroup, name: str | None = None) -> MatrixGroup:
    """G ≀ P: m copies of G, on m consecutive blocks of R^(m d), which P permutes; order |G|^m |P|.

    Args:
        group: G, acts on R^d.
        permuting: P, a group of permutation matrices of m points; see :meth:`MatrixGroup.from_permutations`.
        name: by default after its factors.

    Raises:
        GroupError: a generator of P is not a permutation matrix.

    Example:
        >>> groups.Wreath(groups.C(4), groups.S(3)).order
        384
    """
    _require_groups("Wreath", (group, permuting))
    m, d = permuting.d, group.d
    if len(permuting.lie_algebra):
        raise GroupError(f"Wreath: {permuting.name} has a Lie algebra, expected a group of permutation matrices")
    reached = np.eye(m, dtype=bool)
    for i, p in enumerate(permuting.discrete_generators):
        if not np.array_equal(p, np.eye(m)[:, p.argmax(0)]):
            raise GroupError(f"Wreath: discrete_generators[{i}] of {permuting.name} is not a permutation matrix")
        reached |= p.astype(bool)
    reached = np.linalg.matrix_power((reached | reached.T).astype(float), m) > 0
    first = [b for b in range(m) if reached[b].argmax() == b]  # one block in each orbit of P generates the others
    copies = [Direct(*[group if b == k else MatrixGroup("1", d=d) for b in range(m)]) for k in range(m)]
    return MatrixGroup(name or f"{group.name} wr {permuting.name}",
                       [*[h for k in first for h in copies[k].discrete_generators],
                        *[np.kron(p, np.eye(d)) for p in permuting.discrete_generators]],
                       [a for c in copies for a in c.lie_algebra], d=m * d)


def Semidirect(normal: MatrixGroup, group: MatrixGroup, action: Sequence, name: str | None = None) -> MatrixGroup:
    """N ⋊ H, H acting on N by n -> φ(h) n φ(h)^-1: the matrices diag(n, 1) and diag(φ(h), h) on R^(d_N + d_H).

    The product is (n, h)(n', h') = (n φ(h) n' φ(h)^-1, h h'). For R^d ⋊ H see :func:`Affine`.

    Args:
        normal: N, acts on R^d_N.
        group: H, acts on R^d_H.
        action: for each discrete generator of H the matrix φ(h), then for each Lie algebra generator dφ(A); all
            (d_N, d_N).
        name: by default after its factors.

    Raises:
        GroupError: too many or too few matrices; one, named, that does not normalise N, or for which that cannot be
            shown; or φ not a homomorphism: it gives diag(φ(h), h) more elements, or a larger Lie algebra, than H has.
            Relations between discrete generators of an infinite H are not checked.

    Example:
        >>> mirror = [[-1, 0], [0, 1]]
        >>> groups.Semidirect(groups.C(5), groups.C(2), [mirror]).order
        10
    """
    _require_groups("Semidirect", (normal, group))
    many, d = len(group.discrete_generators), normal.d
    action = [np.asarray(m, float) for m in action]
    if len(action) != many + len(group.lie_algebra) or any(m.shape != (d, d) for m in action):
        raise GroupError(f"Semidirect: {group.name} has {many} discrete and {len(group.lie_algebra)} Lie algebra "
                         f"generators and needs as many matrices ({d}, {d}), one for each, got shapes "
                         f"{[m.shape for m in action]}")
    algebra = closure(normal)
    for i, m in enumerate(action):
        what = f"discrete_generators[{i}]" if i < many else f"lie_algebra[{i - many}]"
        reason = _discrete_fault(normal, algebra, m) if i < many else _continuous_fault(normal, algebra, m)
        if reason:
            raise GroupError(f"Semidirect: the action of {what} of {group.name} does not normalise {normal.name}: "
                             + reason)
    pairs = MatrixGroup(f"{group.name} with its action",
                        [scipy.linalg.block_diag(m, h) for m, h in zip(action, group.discrete_generators)],
                        [scipy.linalg.block_diag(m, a) for m, a in zip(action[many:], group.lie_algebra)],
                        d=d + group.d)
    found, expected = len(closure(pairs)), len(closure(group))
    if found != expected or (group.order is not None and pairs.order != group.order):
        said = (f"dimension {found} instead of {expected}" if found != expected
                else f"order {pairs.order or 'infinite'} instead of {group.order}")
        raise GroupError(f"Semidirect: the action is no homomorphism of {group.name}: its pairs (φ(h), h) generate a "
                         f"group of {said}")
    alone = Direct(normal, MatrixGroup("1", d=group.d))
    return MatrixGroup(name or f"{normal.name} : {group.name}",
                       [*alone.discrete_generators, *pairs.discrete_generators],
                       [*alone.lie_algebra, *pairs.lie_algebra], d=d + group.d)


def _discrete_fault(normal: MatrixGroup, algebra: np.ndarray, m: np.ndarray) -> str:
    if np.linalg.svd(m, compute_uv=False)[-1] < 1e-11 * max(1e-300, np.linalg.norm(m, 2)):
        return "it is not invertible"
    back = np.linalg.inv(m)
    for k, a in enumerate(algebra):
        if outside(m @ a @ back, algebra) > 1e-8:
            return f"it takes element {k} of a basis of the Lie algebra of {normal.name} out of it"
    moved = [m @ h @ back for h in normal.discrete_generators]
    if normal.is_finite:
        try:
            joined = MatrixGroup(normal.name, [*normal.discrete_generators, *moved], d=normal.d)
        except GroupError as e:
            return f"conjugated generators are outside ({e})"
        return "" if joined.order == normal.order else "conjugated generators are outside"
    words = _words(normal)
    # backwards as well: the image of an infinite group may be a smaller part of it
    for sense, images in (("taken to", moved), ("the image of", [back @ h @ m for h in normal.discrete_generators])):
        for k, g in enumerate(images):
            if not any(is_connected_to_one(w @ g, algebra) for w in words):
                return (f"discrete_generators[{k}] of {normal.name} is {sense} an element that is not in "
                        f"{normal.name}, as far as words of few generators show")
    return ""


def _continuous_fault(normal: MatrixGroup, algebra: np.ndarray, m: np.ndarray) -> str:
    for k, a in enumerate(algebra):
        if outside(m @ a - a @ m, algebra) > 1e-8 * max(1.0, np.linalg.norm(m)):
            return f"its bracket with element {k} of a basis of the Lie algebra of {normal.name} is out of it"
    for k, h in enumerate(normal.discrete_generators):
        change = np.linalg.solve(h, m @ h) - m
        if outside(change, algebra) > 1e-8 * max(1.0, np.linalg.norm(m)):
            return f"it moves discrete_generators[{k}] of {normal.name} out of its component"
    return ""


def _words(group: MatrixGroup, longest: int = 4, most: int = 200) -> list[np.ndarray]:
    """Short words in the discrete generators and their inverses, the identity first; (d, d) each."""
    letters = [*group.discrete_generators, *np.linalg.inv(group.discrete_generators)]
    words = front = [np.eye(group.d)]
    for _ in range(longest):
        fresh = []
        for w in (h @ w for h in letters for w in front):
            if all(np.abs(w - v).max() > 1e-9 * max(1.0, np.abs(w).max()) for v in [*words, *fresh]):
                fresh.append(w)
        words, front = [*words, *fresh], fresh
        if len(words) > most or not fresh:
            break
    return words[:most]


def _require_groups(what: str, groups: Sequence) -> None:
    wrong = [type(g).__name__ for g in groups if not isinstance(g, MatrixGroup)]
    if wrong or not groups:
        raise GroupError(f"{what} takes MatrixGroups, got {', '.join(wrong) or 'none'}")
