"""Whether images of generators extend to a representation of the group."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch

from ._conditioning import GOOD, change_of, condition, tolerance
from ._reports import EXACT, SEED, RepReport, Sheet
from .errors import RepError
from .group_element import GroupElement
from .images import Images
from .lifting import gap
from .matrix_group import MatrixGroup
from .relations import WORDS, relations
from .rep import Rep, V

__all__ = ["check_homomorphism", "check_rep"]

LARGEST = 1e-3  # error that is still put down to rounding, where the basis is bad enough


def check_rep(rep: Rep, *, tol: float = EXACT) -> RepReport:
    """Whether the images of the generators extend to a representation of the group.

    On words in the generators ρ(gh) = ρ(g)ρ(h) holds for any images at all. What is checked is that images depend on
    the element and not on the word: equal products of discrete generators have equal images (all products of a group of
    up to some thousand elements), linear relations between brackets and conjugates of the Lie algebra generators hold
    between their images, and ρ(g) = exp(dρ(log g)) for words g whose logarithm lies in the Lie algebra, and on closed
    loops exp(tA) = 1, which tells a spinor from a tensor.

    Args:
        rep: a bound representation.
        tol: largest relative error; more where the rounding of the images, in the basis in which they are given,
            explains more.

    Raises:
        RepError: not a bound representation.

    Example:
        >>> ek.check_rep((V**2)(groups.Oh())).passed
        True
    """
    if not isinstance(rep, Rep):
        raise RepError(f"expected a Rep, got {type(rep).__name__}")
    group = rep._require_bound()
    sheet = Sheet()
    sheet.attempt(f"{rep} is a representation", check_homomorphism, sheet, rep, tol)
    sheet.close()
    return RepReport(f"{rep} of {group.name}: dimension {rep.size}", sheet.checks)


def check_homomorphism(sheet: Sheet, rep: Rep, tol: float = EXACT) -> None:
    """The lines of :func:`check_rep`."""
    G, images = rep._require_bound(), rep.images
    g, h = G.sample(WORDS, SEED), G.sample(WORDS, SEED + 1)
    tol = max(tol, tolerance(torch.float64, [rep], solve=False))
    found = relations(*_in_good_coordinates(rep))
    # what the rounding of the images explains
    tol = max([tol, *(min(10 * r.rounding, LARGEST) for r in found)])
    for r in found:
        sheet.line(r.name, r.error, tol, r.note if r.error <= tol else f"{r.note}; worst at {r.worst}")
    if len(images.lie):
        error, coefs = 0.0, np.random.default_rng(SEED).standard_normal((3, len(images.lie))) * G._rates / 2
        for A, c in zip(np.tensordot(coefs, G.lie_algebra, 1), coefs):
            path = GroupElement(G, c[None], np.zeros(1, int), np.zeros(1, int))
            for _, t in rep.terms:
                to, back = change_of(t, solve=False)
                exponential = back @ scipy.linalg.expm(to @ t.drho(A) @ back) @ to
                error = max(error, gap(_of_matrix(t, path), exponential))
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


def _in_good_coordinates(rep: Rep) -> tuple[MatrixGroup, Images]:
    """The group and the images of its generators, each where matrices are small: relations stay what they are.

    Compact groups are as they are given: there relations are tried in orthogonal coordinates anyway.
    """
    G, images = rep._require_bound(), rep.images
    if G.is_compact or condition(V(G)) < GOOD:
        return G, images
    to, back = change_of(V(G))
    generators = (to @ m @ back for m in (G.discrete_generators, G.lie_algebra))
    straight = MatrixGroup(G.name, *generators, d=G.d, trust_digits=True)
    to, back = change_of(rep, solve=False)
    return straight, Images.of_content(to @ images.discrete @ back, to @ images.lie @ back)


def _of_matrix(rep: Rep, g: GroupElement) -> np.ndarray:
    """ρ of the matrix alone where that is known, else of the word."""
    try:
        return rep.rho(g.matrix)
    except RepError:
        return rep.rho(g)
