"""Subgroups of a group by what they are to keep: vectors, tensors, forms, maps, subspaces."""

from collections.abc import Callable, Sequence

import numpy as np

from emkernel.errors import GroupError
from emkernel.matrix_group import MatrixGroup

from ._algebra import closure
from .product import _words

__all__ = ["Stabiliser"]

LISTED = 20_000  # largest finite group whose elements are tried one by one
ZERO, NONZERO = 1e-9, 1e-5


def Stabiliser(
    group: MatrixGroup,
    *,
    tensors: Sequence = (),
    forms: Sequence = (),
    maps: Sequence = (),
    subspaces: Sequence = (),
    name: str | None = None,
) -> MatrixGroup:
    """The subgroup of G that keeps all that is given.

    For a finite G of at most 20,000 elements exactly, by trying each, with few generators. For an infinite G the Lie
    algebra is exact, from linear equations on that of G; of further components only those are found that
    hold a word of at most four discrete generators of G which keeps everything by itself. So the result always keeps
    what it should and may, for an infinite G, lack components: give G with more generators where they matter.

    Args:
        group: G, acts on R^d.
        tensors: arrays (d,), (d, d), ... with (g ⊗ g ⊗ ...) t = t; one index is a vector.
        forms: matrices (d, d) with g^T F g = F.
        maps: matrices (d, d) with g M g^-1 = M.
        subspaces: arrays (k, d) whose rows span a subspace W with g W = W.

    Raises:
        GroupError: wrong shapes; a finite group too large to try; or no clear gap in the singular values of the
            equations, when something given is kept only up to few digits.

    Example:
        >>> from emkernel.groups import SO, Oh
        >>> Stabiliser(Oh(), tensors=[[0, 0, 1]]).order
        8
        >>> len(Stabiliser(SO(4), tensors=[[0, 0, 0, 1]]).lie_algebra)
        3
    """
    moves = _conditions(group.d, tensors, forms, maps, subspaces)
    name = name or f"Stabiliser({group.name})"

    def defect(g: np.ndarray) -> float:
        size = max(1.0, np.abs(g).max())
        return max((np.abs(move(g) - start).max() / size**power for move, start, power, _ in moves), default=0.0)

    if group.is_finite:
        return _of_finite(name, group, defect)
    algebra = closure(group)
    lie = algebra
    if moves and len(algebra):
        columns = [np.concatenate([np.ravel(change(a)) for *_, change in moves]) for a in algebra]
        _, s, vh = np.linalg.svd(np.stack(columns, 1), full_matrices=True)
        s = np.pad(s, (0, len(algebra) - len(s)))
        unclear = s[(s > ZERO) & (s < NONZERO)]
        if len(unclear):
            raise GroupError(f"{name}: the singular value {unclear[0]:.1e} is neither zero nor not: what is to be kept "
                             "is kept by some directions of the Lie algebra only up to few digits. Write it in full "
                             "precision, in units of comparable size")
        lie = np.tensordot(vh[int((s > ZERO).sum()) :], algebra, 1)
    one = np.eye(group.d)
    discrete = [w for w in _words(group) if np.abs(w - one).max() > 1e-9 and defect(w) < 1e-10]
    return MatrixGroup(name, discrete, lie, d=group.d)


def _conditions(d: int, tensors, forms, maps, subspaces) -> list[tuple[Callable, np.ndarray, int, Callable]]:
    """For each thing kept: g -> its image, what that should be, its degree in g, and the derivative X -> X.thing."""
    out: list[tuple[Callable, np.ndarray, int, Callable]] = []

    def checked(what: str, given, shape: tuple[int, ...] | None) -> np.ndarray:
        t = np.asarray(given, float)
        fits = t.shape == shape if shape else t.ndim > 0 and set(t.shape) == {d}
        if not fits or not np.isfinite(t).all() or not np.any(t):
            expected = shape or f"({d},), ({d}, {d}), ..."
            raise GroupError(f"Stabiliser: {what} has shape {t.shape}, expected {expected}, finite and not zero")
        return t / np.linalg.norm(t)

    for i, given in enumerate(tensors):
        t = checked(f"tensors[{i}]", given, None)

        def derivative(x, t=t):
            return sum(_along(x, t, axis) for axis in range(t.ndim))

        def image(g, t=t):
            for axis in range(t.ndim):
                t = _along(g, t, axis)
            return t

        out.append((image, t, t.ndim, derivative))
    for i, given in enumerate(forms):
        f = checked(f"forms[{i}]", given, (d, d))
        out.append((lambda g, f=f: g.T @ f @ g, f, 2, lambda x, f=f: x.T @ f + f @ x))
    for i, given in enumerate(maps):
        m = checked(f"maps[{i}]", given, (d, d))
        zero = np.zeros((d, d))
        out.append((lambda g, m=m: g @ m - m @ g, zero, 1, lambda x, m=m: x @ m - m @ x))
    for i, given in enumerate(subspaces):
        rows = np.asarray(given, float)
        if rows.ndim != 2 or rows.shape[1] != d or not np.isfinite(rows).all() or not np.any(rows):
            raise GroupError(f"Stabiliser: subspaces[{i}] has shape {rows.shape}, expected (k, {d}), finite, not zero")
        s, vh = np.linalg.svd(rows)[1:]
        rank = int((s > 1e-9 * s[0]).sum())
        inner, outer = vh[:rank].T, vh[rank:]
        if rank < d:
            zero = np.zeros((d - rank, rank))
            keep = lambda g, p=outer, w=inner: p @ g @ w  # noqa: E731
            out.append((keep, zero, 1, keep))
    return out


def _along(g: np.ndarray, t: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(np.tensordot(g, t, (1, axis)), 0, axis)


def _of_finite(name: str, group: MatrixGroup, defect: Callable[[np.ndarray], float]) -> MatrixGroup:
    order = group.order or 0
    if order > LISTED:
        raise GroupError(f"{name}: {group.name} has {order} elements, and at most {LISTED} are tried one by one. Give "
                         "a smaller group, or generators of the subgroup")
    kept = [g for g in group.elements(LISTED).matrix if defect(g) < 1e-9]
    generators: list[np.ndarray] = []
    found = [np.eye(group.d)]
    for g in kept:
        if len(found) == len(kept):
            break
        if np.abs(np.stack(found) - g).max((1, 2)).min() < 1e-7:
            continue
        generators.append(g)
        found = list(MatrixGroup(name, generators, trust_digits=True).elements(LISTED).matrix)
    result = MatrixGroup(name, generators, d=group.d)
    if result.order != len(kept):
        raise GroupError(f"{name}: {len(kept)} elements keep what is given, and generate {result.order}: it is kept "
                         "only up to rounding. Write it in full precision")
    return result
