"""Whether images of generators extend to a representation of the group."""

from __future__ import annotations

from warnings import catch_warnings, simplefilter

import numpy as np
import scipy.linalg
from scipy.spatial import cKDTree

from ._reports import EXACT, SEED, RepReport, Sheet
from .errors import RepError
from .group_element import GroupElement
from .images import Images
from .matrix_group import MatrixGroup
from .rep import Rep

WORDS = 16
BALL = 500  # elements of a discrete group whose products are compared


def check_rep(rep: Rep, *, tol: float = EXACT) -> RepReport:
    """Whether the images of the generators extend to a representation of the group.

    On words in the generators ρ(gh) = ρ(g)ρ(h) holds for any images at all. What is checked is that images depend on
    the element and not on the word: equal products of discrete generators have equal images (all products of a group of
    up to some hundred elements), linear relations between brackets and conjugates of the Lie algebra generators hold
    between their images, and ρ(g) = exp(dρ(log g)) for words g whose logarithm lies in the Lie algebra, which tells a
    spinor from a tensor.

    Args:
        rep: a bound representation.
        tol: largest relative error.

    Raises:
        RepError: not a bound representation.

    Example:
        >>> check_rep((V**2)(G)).passed
        True
    """
    if not isinstance(rep, Rep):
        raise RepError(f"expected a Rep, got {type(rep).__name__}")
    group = rep._require_bound()
    sheet = Sheet()
    sheet.attempt(f"{rep} is a representation", relations, sheet, rep, tol)
    return RepReport(f"{rep} of {group.name}: dimension {rep.size}", tuple(sheet.checks))


def relations(sheet: Sheet, rep: Rep, tol: float = EXACT) -> None:
    """The lines of :func:`check_rep`."""
    G, images = rep._require_bound(), rep.images
    g, h = G.sample(WORDS, SEED), G.sample(WORDS, SEED + 1)
    if len(images.discrete):
        error, count, closed = products(G, images)
        for r, q in zip(images.discrete, G._orders):
            error = max(error, _gap(np.linalg.matrix_power(r, q), np.eye(rep.size)) if q else 0.0)
        sheet.line(
            "equal products of discrete generators have equal images",
            error,
            tol,
            f"all {count} elements" if closed else f"{count} of more elements",
        )
    if len(images.lie):
        error, algebra, lifted = _lift(G, images)
        sheet.line(
            "images of brackets and conjugates of the Lie algebra", error, tol, f"dimension {len(algebra)}"
        )
        error, count = _logarithms(g @ h, images, algebra, lifted)
        sheet.line("ρ(g) = exp(dρ(log g))", error, tol, f"{count} of {WORDS} words have a logarithm")
        error, coefs = 0.0, np.random.default_rng(SEED).standard_normal((3, len(images.lie))) * G._rates / 2
        for A, c in zip(np.tensordot(coefs, G.lie_algebra, 1), coefs):
            path = GroupElement(G, c[None], np.zeros(1, int), np.zeros(1, int))
            error = max(
                [error, *(_gap(_of_matrix(t, path), scipy.linalg.expm(t.drho(A))) for _, t in rep.terms)]
            )
        sheet.line("dρ is the derivative of ρ: ρ(exp A) = exp(dρ(A))", error, tol)
    error = 0.0
    for _, t in rep.terms:
        a, b, back = t.rho(g), t.rho(h), _of_matrix(t, g.inverse)
        size = max(1.0, np.abs(a).max())
        error = max(
            error,
            np.abs(_of_matrix(t, g @ h) - a @ b).max() / (size * max(1.0, np.abs(b).max())),
            np.abs(back @ a - np.eye(t.size)).max() / (size * max(1.0, np.abs(back).max())),
        )
    sheet.line("ρ(gh) = ρ(g)ρ(h) and ρ(g^-1)ρ(g) = 1", error, tol)


def _of_matrix(rep: Rep, g: GroupElement) -> np.ndarray:
    """ρ of the matrix alone where that is known, else of the word."""
    try:
        return rep.rho(g.matrix)
    except RepError:
        return rep.rho(g)


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    error = np.abs(a - b).max(initial=0) / max(1.0, np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    return float(error) if np.isfinite(error) else np.inf


def products(G: MatrixGroup, images: Images) -> tuple[float, int, bool]:
    """(how much images of equal products differ, number of different products met, whether these are all)."""
    d, n = G.d, images.size
    moves = list(zip(G.discrete_generators, images.discrete))
    moves += [(np.linalg.inv(h), np.linalg.inv(r)) for (h, r), q in zip(moves, G._orders) if q is None]
    points, values, error = np.eye(d)[None], np.eye(n)[None], 0.0
    front, closed, limit = slice(0, 1), True, int(min(BALL, max(50, 5e6 / n**2)))
    while moves and len(points[front]):
        p = np.concatenate([h @ points[front] for h, _ in moves])
        v = np.concatenate([r @ values[front] for _, r in moves])
        small = np.abs(p).max((1, 2)) < 1e3
        closed, p, v = closed and bool(small.all()), p[small], v[small]
        known, both, images_of = len(points), np.concatenate([points, p]), np.concatenate([values, v])
        near = cKDTree(both.reshape(len(both), -1)).query_ball_point(p.reshape(len(p), -1), 1e-8)
        first = np.array([min(k) for k in near], int)
        error = max([error, *(_gap(x, images_of[k]) for x, k in zip(v, first))])
        fresh = np.unique(first[first >= known])
        points, values = np.concatenate([points, both[fresh]]), np.concatenate([values, images_of[fresh]])
        front = slice(known, None)
        if len(points) > limit:
            return error, len(points), False
    return error, len(points), closed


def _lift(G: MatrixGroup, images: Images) -> tuple[float, np.ndarray, np.ndarray]:
    """The Lie algebra that the generators generate in V (orthonormal) and, by the same operations, in the image.

    Whatever combination vanishes in V must vanish in the image; the error is by how much it does not.
    """
    d, n, error = G.d, images.size, 0.0
    algebra, lifted = np.zeros((0, d * d)), np.zeros((0, n * n))
    moves = [
        (h, np.linalg.inv(h), r, np.linalg.inv(r)) for h, r in zip(G.discrete_generators, images.discrete)
    ]
    norms = [float(np.linalg.norm(A)) or 1.0 for A in G.lie_algebra]
    todo = [(A / s, R / s) for A, R, s in zip(G.lie_algebra, images.lie, norms)]
    while todo:
        fresh = []
        for A, R in todo:
            a, r = A.reshape(-1), R.reshape(-1)
            for _ in range(2):
                c = algebra @ a
                a, r = a - c @ algebra, r - c @ lifted
            rest = np.linalg.norm(a)
            if rest <= 1e-7 * max(float(np.linalg.norm(A)), 1e-3):
                error = max(error, float(np.abs(r).max() / max(1.0, np.abs(R).max())))
                continue
            algebra, lifted = (
                np.concatenate([algebra, a[None] / rest]),
                np.concatenate([lifted, r[None] / rest]),
            )
            fresh.append((a.reshape(d, d) / rest, r.reshape(n, n) / rest))
        todo = [(h @ A @ h_1, s @ R @ s_1) for A, R in fresh for h, h_1, s, s_1 in moves]
        todo += [
            (A @ B - B @ A, R @ S - S @ R)
            for A, R in fresh
            for B, S in zip(algebra.reshape(-1, d, d), lifted.reshape(-1, n, n))
        ]
    return error, algebra, lifted


def _logarithms(
    words: GroupElement, images: Images, algebra: np.ndarray, lifted: np.ndarray
) -> tuple[float, int]:
    """(deviation of exp(dρ(log g)) from ρ(g), how many of the words have a logarithm in the algebra)."""
    error, count = 0.0, 0
    for matrix, image in zip(words.matrix, words.evaluate(images.discrete, images.lie)):
        if not np.isfinite(matrix).all() or np.linalg.cond(matrix) > 1e6:
            continue
        with catch_warnings():
            simplefilter("ignore")  # an inaccurate logarithm is recognised below, and not used
            log = scipy.linalg.logm(matrix)
        c = algebra @ log.real.reshape(-1)
        if (
            np.abs(log.reshape(-1) - c @ algebra).max() < 1e-9
            and _gap(scipy.linalg.expm(log.real), matrix) < 1e-12
        ):
            count += 1
            error = max(error, _gap(scipy.linalg.expm((c @ lifted).reshape(images.size, -1)), image))
    return error, count
