"""Whether images of generators extend to a representation: the relations of the group, tried on the images.

On words in the generators ρ(gh) = ρ(g)ρ(h) holds for any images at all. They are a representation when the image
depends on the element and not on the word: whatever combination of generators is trivial in V must be trivial in the
image. The relations are found numerically: powers and equal products of the discrete generators, linear relations
between brackets and conjugates of the Lie algebra, and words and closed loops whose logarithm is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.spatial import cKDTree

from . import _orders
from .images import Images
from .lifting import Lift, Worst, gap, lift, logarithm, units
from .matrix_group import MatrixGroup

__all__ = ["Relation", "products", "relations"]

BALL = 5000  # elements of a discrete group whose products are compared
ROUNDS = 60  # of products by one more generator, or one of its long powers
WORDS = 16
SEED = 7
PRODUCTS = "equal products of discrete generators have equal images"
BRACKETS = "images of brackets and conjugates of the Lie algebra"
LOGARITHMS = "ρ(g) = exp(dρ(log g))"


@dataclass(frozen=True)
class Relation:
    """Relations of one kind, and how well the images satisfy them.

    Attributes:
        name: the kind.
        error: the largest relative error.
        worst: the relation that has it, spelt out in the generators h_i and A_k.
        note: how many were tried.
        rounding: the error that the rounding of the images explains, in the basis in which they were given.
    """

    name: str
    error: float
    worst: str
    note: str
    rounding: float = 0.0


def relations(G: MatrixGroup, images: Images) -> list[Relation]:
    """How well images of the generators satisfy the relations of the group.

    Args:
        G: the group.
        images: (M, n, n) and (D, n, n), one for each generator.

    Returns:
        One entry for each kind of relation that the group has, at most three.

    Example:
        >>> from emkernel.relations import relations
        >>> G = groups.Oh()
        >>> max(r.error for r in relations(G, V(G).images)) < 1e-10
        True
    """
    (V, blur), (images, rounding) = _calm_group(G), _calm(G, images)
    blur = min(max(1e-8, 1e3 * blur), 1e-5)
    found = []
    if len(images.discrete):
        worst = Worst()
        count, closed = _equal_products(worst, G, V, images, blur)
        note = f"{'all' if closed else 'the first'} {count} elements"
        found.append(Relation(PRODUCTS, worst.error, worst.relation, note, rounding))
    if len(images.lie):
        worst, lifted = Worst(), lift(V, images)
        note = f"dimension {len(lifted.algebra)}"
        found.append(Relation(BRACKETS, lifted.error, lifted.worst, note, rounding))
        closing = _loops(worst, V, images)
        count, words = _logarithms(worst, G, V, images, lifted)
        note = f"{count} of {words} words have a logarithm, {closing} of {len(images.lie)} loops close"
        found.append(Relation(LOGARITHMS, worst.error, worst.relation, note, rounding))
    return found


# ---- coordinates --------------------------------------------------------------------------------------------------


def _calm_group(G: MatrixGroup) -> tuple[Images, float]:
    """V in coordinates where products stay small: orthogonal for a compact group, else balanced; (V, rounding)."""
    V = Images(G.discrete_generators, G.lie_algebra, np.zeros((0, G.d, G.d)), G.digest)
    if not G.is_compact:
        return _balanced(V)
    V, rounding = _conjugated(V, G.orthogonal_basis, float(np.linalg.cond(G.orthogonal_basis)))
    discrete = np.array([scipy.linalg.polar(h)[0] for h in V.discrete]).reshape(V.discrete.shape)
    return Images(discrete, (V.lie - V.lie.transpose(0, 2, 1)) / 2, V.held_out, V.digest), rounding


def _calm(G: MatrixGroup, images: Images) -> tuple[Images, float]:
    """Images in coordinates where products stay small, and the relative error that rounding explains there.

    For a compact group the mean of ρ(g)^T ρ(g) over some elements gives coordinates where ρ is nearly orthogonal.
    """
    if not G.is_compact:
        return _balanced(images)
    size = _size(images)
    identity = np.eye(images.size)
    defects = [np.abs(h.T @ h - identity).max(initial=0) for h in images.discrete]
    defects += [np.abs(A + A.T).max(initial=0) / max(np.abs(A).max(initial=0), 1e-300) for A in images.lie]
    if max(defects, default=0.0) < 1e-9:
        return images, np.finfo(float).eps * size
    g = G.sample(_words(images), SEED).evaluate(images.discrete, images.lie)
    mean = np.mean(g.transpose(0, 2, 1) @ g, 0) + identity
    if not np.isfinite(mean).all() or np.linalg.cond(mean) > 1e14:
        return _balanced(images)
    size = max(size, float(np.sqrt(np.linalg.norm(mean, 2))))
    return _conjugated(images, np.linalg.cholesky((mean + mean.T) / 2).T, size)


def _conjugated(images: Images, basis: np.ndarray, size: float) -> tuple[Images, float]:
    rounding = np.finfo(float).eps * size * float(np.linalg.cond(basis))
    return images.conjugate(basis, np.linalg.inv(basis), "orthogonal"), rounding


def _words(images: Images) -> int:
    """How many words are tried: fewer in a large representation."""
    return int(np.clip(3e5 / max(1, images.size) ** 2, 3, WORDS))


def _balanced(images: Images) -> tuple[Images, float]:
    scale = units(images)
    ratio = scale / scale[:, None]
    balanced = Images(images.discrete * ratio, images.lie * ratio, images.held_out * ratio, images.digest)
    return balanced, np.finfo(float).eps * _size(balanced)


def _size(images: Images) -> float:
    """A bound on the norm of the discrete generators, at least 1."""
    norms = (np.sqrt(np.linalg.norm(m, 1) * np.linalg.norm(m, np.inf)) for m in images.discrete)
    return float(max([1.0, *norms])) if images.size else 1.0


# ---- discrete generators ------------------------------------------------------------------------------------------


def products(G: MatrixGroup, images: Images) -> tuple[float, int, bool]:
    """(how much images of equal products differ, number of different products met, whether these are all)."""
    worst = Worst()
    count, closed = _equal_products(worst, G, _calm_group(G)[0], images, 1e-8)
    return worst.error, count, closed


def _equal_products(worst: Worst, G: MatrixGroup, V: Images, images: Images, blur: float) -> tuple[int, bool]:
    """h_i^q = 1, then all products, shortest first: (elements met, whether these are all)."""
    if not len(images.discrete):
        return 1, True
    for i, (r, q) in enumerate(zip(images.discrete, G._orders)):
        if q:
            worst.see(gap(np.linalg.matrix_power(r, q), np.eye(images.size)), f"h_{i}^{q} = 1")
    if len(images.discrete) == 1 and not len(images.lie):
        return G._orders[0] or 1, G._orders[0] is not None
    moves, names = _moves(G, V.discrete, images.discrete)
    count, closed = _ball(worst, moves, names, V.size, images.size, blur)
    if not closed:
        _orders_of_words(worst, moves, names)
    return count, closed


def _moves(G: MatrixGroup, discrete: np.ndarray, images: np.ndarray):
    """Pairs (h, ρ(h)) of the steps of a search: generators, inverses of those of no finite order, and long powers."""
    moves, names = [], []
    for i, (h, r, q) in enumerate(zip(discrete, images, G._orders)):
        powers = [-1, 1] if q is None else [2**e for e in range(max(1, int(np.log2(q)) - 1))]
        for p in powers:
            moves.append((np.linalg.matrix_power(h, p), np.linalg.matrix_power(r, p)))
            names.append(f"h_{i}" if p == 1 else f"h_{i}^{p}")
    return moves, names


def _ball(worst: Worst, moves, names, d: int, n: int, blur: float) -> tuple[int, bool]:
    """Products met in order of length until all are known: each meets the ones it equals, image against image."""
    limit = int(min(BALL, max(50, 5e6 / max(n, 1) ** 2)))
    shadow = np.random.default_rng(SEED).standard_normal((d * d, 6)) / np.sqrt(d)
    points, values = np.eye(d)[None], np.eye(n)[None]
    came = np.full((1, 2), -1)  # the step that led here, and from where
    start, closed = 0, True
    for _ in range(ROUNDS):
        if start == len(points) or len(points) > limit:
            break
        front = np.arange(start, len(points))
        p = np.concatenate([h @ points[front] for h, _ in moves])
        v = np.concatenate([r @ values[front] for _, r in moves])
        origin = np.stack([np.repeat(np.arange(len(moves)), len(front)), np.tile(front, len(moves))], 1)
        small = np.abs(p).max((1, 2)) < 1e3
        closed, p, v, origin = closed and bool(small.all()), p[small], v[small], origin[small]
        start, both, lifts = len(points), np.concatenate([points, p]), np.concatenate([values, v])
        origins = np.concatenate([came, origin])
        keys = both.reshape(len(both), -1) @ shadow
        near = cKDTree(keys).query_ball_point(keys[start:], blur)
        first = np.array([min(k) for k in near], int)
        for at in range(0, len(v), 512):
            x, y = v[at : at + 512], lifts[first[at : at + 512]]
            size = np.maximum(
                1, np.maximum(np.abs(x).max((1, 2), initial=0), np.abs(y).max((1, 2), initial=0))
            )
            errors = np.nan_to_num(np.abs(x - y).max((1, 2), initial=0) / size, nan=np.inf)
            # neighbours in a group without gaps are not equal, and their images only as near as they are
            apart = np.abs(p[at : at + 512] - both[first[at : at + 512]]).max((1, 2))
            errors = np.maximum(errors - 100 * apart, 0)
            k = int(errors.argmax())
            words = [_word(origins, names, m) for m in (start + at + k, first[at + k])]
            worst.see(float(errors[k]), " = ".join(words))
        fresh = np.unique(first[first >= start])
        points, values = np.concatenate([points, both[fresh]]), np.concatenate([values, lifts[fresh]])
        came = np.concatenate([came, origins[fresh]])
    return len(points), closed and start == len(points)


def _word(origins: np.ndarray, names: list[str], at: int) -> str:
    letters = []
    while origins[at, 0] >= 0:
        letters.append(names[origins[at, 0]])
        at = origins[at, 1]
    return " ".join(letters) or "1"


def _orders_of_words(worst: Worst, moves, names) -> None:
    """Random words whose matrix has a finite order, against the order of the image."""
    rng = np.random.default_rng(SEED)
    for _ in range(WORDS):
        letters = rng.integers(0, len(moves), rng.integers(2, 7))
        h = np.linalg.multi_dot([np.eye(len(moves[0][0])), *[moves[k][0] for k in letters]])
        if not np.abs(h).max() < 1e3:
            continue
        q = _orders.order_of(h, 10.0)
        if q:
            r = np.linalg.multi_dot([np.eye(len(moves[0][1])), *[moves[k][1] for k in letters]])
            spelt = f"({' '.join(names[k] for k in letters)})^{q} = 1"
            worst.see(gap(np.linalg.matrix_power(r, q), np.eye(len(r))), spelt)


# ---- the Lie algebra ----------------------------------------------------------------------------------------------


def _loops(worst: Worst, V: Images, images: Images) -> int:
    """exp(t A_k) = 1 after full turns must be exp(t dρ(A_k)) = 1: how many of these loops close."""
    count = 0
    for k, (A, R) in enumerate(zip(V.lie, images.lie)):
        spectrum = np.linalg.eigvals(A)
        speeds = np.abs(spectrum.imag)
        fastest = speeds.max(initial=0)
        speeds = speeds[speeds > 1e-6 * fastest]
        if not len(speeds) or np.abs(spectrum.real).max() > 1e-7 * fastest:
            continue
        for turns in range(1, 25):
            t = 2 * np.pi * turns / speeds.min()
            around = t * speeds / (2 * np.pi)
            if np.abs(around - np.round(around)).max() < 1e-8 * turns:
                break
        if gap(scipy.linalg.expm(t * A), np.eye(V.size)) > 1e-9:
            continue
        count += 1
        error = gap(scipy.linalg.expm(t * R), np.eye(images.size))
        worst.see(error, f"the closed loop exp({t:.6g} A_{k}) = 1")
    return count


def _logarithms(worst: Worst, G: MatrixGroup, V: Images, images: Images, lifted: Lift) -> tuple[int, int]:
    """exp(dρ(log g)) against ρ(g) for generators and random words: (how many have a logarithm, of how many)."""
    many, count = _words(images), 0
    words = [(f"h_{i}", w) for i, w in enumerate(G.generators)]
    words += [(f"random word {i}", w) for i, w in enumerate(G.sample(many, SEED) @ G.sample(many, SEED + 1))]
    for name, word in words:
        log = logarithm(word.evaluate(V.discrete, V.lie), lifted.algebra)
        if log is None:
            continue
        count += 1
        R = (log @ lifted.lifted).reshape(images.size, -1)
        error = gap(scipy.linalg.expm(R), word.evaluate(images.discrete, images.lie))
        worst.see(error, f"{name} = exp of its logarithm")
    return count, len(words)
