"""Subgroups of a group by what they are to keep: vectors, tensors, forms, maps, subspaces."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import scipy.linalg

from emkernel.errors import GroupError
from emkernel.matrix_group import MatrixGroup

from ._algebra import closure, outside
from ._components import Connected, along, cosets, moved, points_of_stabiliser
from .product import _words

__all__ = ["Stabiliser"]

LISTED = 20_000  # largest finite group whose elements are tried one by one
ZERO, NONZERO = 1e-9, 1e-5
IN_A_ROW = 30  # random elements of the stabiliser in components that are known, after which all are
BATCH, TRIES = 64, 20


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
    algebra is exact, from linear equations on that of G. The components of the stabiliser meet its maximal compact
    subgroup; there Newton's method from random elements of G reaches each one equally often, until 30 in a row are in
    the group that those before generate. That finds all of them, but for a chance of 2^-30, where G is compact; or
    closed under transpose, with what is kept nowhere to be made smaller by it (Kempf and Ness, 1979), as a unit vector
    or a form diag(±1) is. Otherwise a warning says that components may be missing, and why.

    Args:
        group: G, acts on R^d.
        tensors: arrays (d,), (d, d), ... with (g ⊗ g ⊗ ...) t = t; one index is a vector.
        forms: matrices (d, d) with g^T F g = F.
        maps: matrices (d, d) with g M g^-1 = M.
        subspaces: arrays (k, d) whose rows span a subspace W with g W = W.
        name: by default after the group.

    Raises:
        GroupError: wrong shapes; a finite group too large to try; or no clear gap in the singular values of the
            equations, when something given is kept only up to few digits.

    Warns:
        UserWarning: the subgroup keeps what it should and may lack components.

    Example:
        >>> groups.Stabiliser(groups.Oh(), tensors=[[0, 0, 1]]).order
        8
        >>> len(groups.Stabiliser(groups.SO(4), tensors=[[0, 0, 0, 1]]).lie_algebra)
        3
        >>> cubic = np.zeros((3, 3, 3, 3))
        >>> cubic[range(3), range(3), range(3), range(3)] = 1  # x^4 + y^4 + z^4
        >>> groups.Stabiliser(groups.O(3), tensors=[cubic]).order
        48
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
        lie = _keeping(name, algebra, [change for *_, change in moves])
    one = np.eye(group.d)
    words = [w for w in _words(group) if np.abs(w - one).max() > 1e-9 and defect(w) < 1e-10]
    if not moves:
        return MatrixGroup(name, group.discrete_generators, lie, d=group.d)
    discrete, doubt = _components(name, group, algebra, words, _Kept(group, tensors, forms, maps, subspaces))
    if doubt:
        warnings.warn(f"{name} may lack components: {doubt}", UserWarning, stacklevel=2)
    return MatrixGroup(name, discrete, lie, d=group.d)


def _keeping(name: str, algebra: np.ndarray, changes: Sequence[Callable]) -> np.ndarray:
    """The part of the Lie algebra (m, d, d) on which linear functions are zero."""
    if not len(algebra):
        return algebra
    columns = [np.concatenate([np.ravel(change(a)) for change in changes]) for a in algebra]
    _, s, vh = np.linalg.svd(np.stack(columns, 1), full_matrices=True)
    s = np.pad(s, (0, len(algebra) - len(s)))
    unclear = s[(s > ZERO) & (s < NONZERO)]
    if len(unclear):
        raise GroupError(f"{name}: the singular value {unclear[0]:.1e} is neither zero nor not: what is to be kept "
                         "is kept by some directions of the Lie algebra only up to few digits. Write it in full "
                         "precision, in units of comparable size")
    return np.tensordot(vh[int((s > ZERO).sum()) :], algebra, 1)


class _Kept:
    """What is kept, as tensors under the orthogonal elements of G in coordinates x' = L x."""

    def __init__(self, group: MatrixGroup, tensors, forms, maps, subspaces):
        basis = group.orthogonal_basis
        self.basis = np.eye(group.d) if basis is None else basis
        self.inverse = np.linalg.inv(self.basis)
        L, back = self.basis, self.inverse
        spans = [np.linalg.svd(np.asarray(w, float) @ L.T)[1:] for w in subspaces]
        bases = [vh[: int((s > ZERO * s[0]).sum())] for s, vh in spans]
        given = ([moved(L[None], np.asarray(t, float))[0] for t in tensors],
                 [back.T @ np.asarray(f, float) @ back for f in forms],
                 [L @ np.asarray(m, float) @ back for m in maps],
                 [w.T @ w for w in bases])
        self.kinds = [[t / np.linalg.norm(t) for t in kind] for kind in given]
        self.tensors = [t for kind in self.kinds for t in kind]

    def is_minimal(self, symmetric: np.ndarray) -> bool:
        """Whether no exp(X), X in a space of symmetric matrices (m, d, d), makes what is kept smaller: the moment
        Σ <X t, t> is zero. The group of what keeps it is then closed under transpose."""
        tensors, forms, maps, projections = self.kinds
        if any(abs(np.linalg.det(f / np.linalg.norm(f, 2))) > 1e-6 for f in forms) and len(symmetric):
            traces = np.trace(symmetric, axis1=1, axis2=2)  # what keeps such a form has determinant ±1
            symmetric = np.tensordot(scipy.linalg.null_space(traces[None]).T, symmetric, 1)
        for x in symmetric:
            moment = sum(np.vdot(along(x, t, axis), t) for t in tensors for axis in range(t.ndim))
            moment -= sum(np.vdot(x @ f + f @ x, f) for f in forms)
            moment += sum(np.vdot(x @ m - m @ x, m) for m in maps)
            moment += sum(np.vdot(x, p) for p in projections)
            if abs(moment) > ZERO:
                return False
        return True


def _components(
    name: str, group: MatrixGroup, algebra: np.ndarray, words: list[np.ndarray], kept: _Kept
) -> tuple[list[np.ndarray], str]:
    """(discrete generators, what leaves open whether they reach all components of the stabiliser)."""
    L, back = kept.basis, kept.inverse
    whole = L @ algebra @ back
    skew, symmetric = _halves(whole)
    generators = []
    for i, h in enumerate(L @ group.discrete_generators @ back):
        k, positive = scipy.linalg.polar(h)
        w, v = np.linalg.eigh(positive)
        if outside((v * np.log(w)) @ v.T, symmetric) > 1e-8:
            return words, (f"discrete_generators[{i}] of {group.name} is not in the component of an orthogonal matrix. "
                           "Only short words were tried")
        generators.append(k)
    if len(skew) + len(symmetric) != len(algebra):
        return words, f"{group.name} is neither compact nor closed under transpose. Only short words were tried"
    connected = Connected(skew)
    sheets = cosets(generators, connected) if connected.is_closed else None
    if sheets is None:
        return words, (f"{group.name} is not seen to be closed with finitely many components. Only short words were "
                       "tried")
    changes = [lambda a, t=t: sum(along(a, t, axis) for axis in range(t.ndim)) for t in kept.tensors]
    part = Connected(_keeping(name, skew, changes))
    minimal = kept.is_minimal(symmetric)
    doubt = "" if minimal else (
        f"{group.name} is not compact, and its elements make what is to be kept smaller. Only words and orthogonal "
        "elements were tried; give what is kept, or the group, in coordinates where it is smallest")
    chosen: list[np.ndarray] = [] if minimal else list(words)
    orthogonal: list[np.ndarray] = []
    found = [np.eye(group.d)]
    prints = part.fingerprint(found[0])[None]
    rng = np.random.default_rng(0)
    streak, tries = 0, 0
    candidates = [(w, scipy.linalg.polar(L @ w @ back)[0]) for w in words] if minimal else []
    while streak < IN_A_ROW:
        if not candidates:
            if tries == TRIES:
                return chosen, doubt or f"random elements of {group.name} led to it {streak} times in a row only"
            tries += 1
            starts = np.array(sheets)[rng.integers(len(sheets), size=BATCH)] @ connected.sample(BATCH, rng)
            points = points_of_stabiliser(starts, skew, kept.tensors)
            candidates = [(_rounded(back @ k @ L), k) for k in points]
        element, k = candidates.pop(0)
        if part.find(k, found, prints) is not None:
            streak += tries > 0
            continue
        streak = 0
        chosen.append(element)
        orthogonal.append(k)
        generated = cosets(orthogonal, part)
        if generated is None:
            return chosen, doubt or "it has too many components"
        found, prints = generated, np.stack([part.fingerprint(h) for h in generated])
    return chosen, doubt


def _halves(algebra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal bases of the antisymmetric and the symmetric matrices in a space of matrices."""
    out = []
    for sign in (-1, 1):
        if not len(algebra):
            out.append(algebra)
            continue
        other = (algebra - sign * algebra.transpose(0, 2, 1)).reshape(len(algebra), -1)
        _, s, vh = np.linalg.svd(other.T)
        space = np.tensordot(vh[int((s > ZERO).sum()) :], algebra, 1)
        out.append(np.linalg.qr(space.reshape(len(space), -1).T)[0].T.reshape(space.shape) if len(space) else space)
    return out[0], out[1]


def _rounded(h: np.ndarray) -> np.ndarray:
    """Entries within rounding of a multiple of one half as that."""
    near = np.round(2 * h) / 2
    return np.where(np.abs(h - near) < 1e-12, near, h) + 0.0


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
            return sum(along(x, t, axis) for axis in range(t.ndim))

        def image(g, t=t):
            for axis in range(t.ndim):
                t = along(g, t, axis)
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
