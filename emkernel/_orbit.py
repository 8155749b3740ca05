"""The orbit of a point, and where generators move it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from ._scene import Layer, Scene, flat
from ._view import View, display
from .group_element import GroupElement
from .matrix_group import MatrixGroup

__all__ = ["Orbit", "orbit"]

FAR = 3.0  # elements of groups that are not compact move a point at most so many times as far away, or so much nearer
LIMITS = (600, 40, 160, 600)  # points of an orbit, by the number of Lie algebra generators
DRAWN = 6  # generators whose action is drawn
BEGUN = 12  # points of an infinite orbit from which paths are drawn
HALF = 24  # steps of such a path on either side
EDGES = 1500  # steps of discrete generators that are drawn
SEED = 7


@dataclass(frozen=True)
class Orbit:
    """Points g·x of the orbit of one point x under a group.

    Attributes:
        group: the group.
        elements: the g, n of them, the identity first.
        positions: (n, d) the g·x.
        complete: whether this is the whole orbit.
        view: how it is looked at.
    """

    group: MatrixGroup
    elements: GroupElement
    positions: np.ndarray
    complete: bool
    view: View

    @property
    def points(self) -> np.ndarray:
        """(n, 2 or 3) what is drawn of the positions."""
        return self.positions @ self.view.change.T @ self.view.axes.T

    def scene(self) -> Scene:
        """The orbit, and how each generator moves along it."""
        layers, G, v = [], self.group, self.view
        paths = _flows(G, v.change, v.inverse, self.positions)
        for k, (label, lines) in enumerate(paths):
            layers.append(Layer("lines", [flat(path @ v.axes.T) for path in lines], label, colour=k))
        points = flat(self.points)
        layers += [Layer("dots", points, "orbit", colour=-1), Layer("dots", points[:1], "x", colour=-2, strong=True)]
        many, order = len(self.positions), G._known_order
        note = f"{many} points of an infinite orbit."
        if self.complete:
            kept = f"; each kept by {order // many} of {order} elements" if order else ""
            note = f"{many} points, all there are{kept}."
        elif order:
            note = f"{many} points of the orbit, the first in order of words."
        left = len(G.discrete_generators) + len(G.lie_algebra) - len(paths)
        note += f" {left} more generators are not drawn." if left > 0 else ""
        names = v.axis_names if G.d > 1 else (*v.axis_names, "")
        return Scene(f"Orbit of a point under {G.name}", names, f"{note} {v.note}".strip(), tuple(layers))


def orbit(G: MatrixGroup, point: np.ndarray | None = None, *, limit: int | None = None) -> Orbit:
    """The points g·x for words g in the generators: all of a finite orbit, bounded samples of an infinite one.

    Args:
        G: any matrix group.
        point: (d,) the point x; by default one of length 1 that no mirror keeps.
        limit: most points, by default 600, and fewer of a curve or a surface.

    Raises:
        ValueError: a point of another shape, or 0.

    Example:
        >>> from emkernel import figures
        >>> len(figures.orbit(groups.Oh()).positions)
        48
    """
    change, inverse, _ = display(G)
    if point is None:
        # away from the mirrors of crystals; and no two coordinates alike
        start = np.array([1, 0.4, 0.65])[: G.d] if G.d <= 3 else max(0.5, 0.05 ** (1 / (G.d - 1))) ** np.arange(G.d)
        point = inverse @ (start / np.linalg.norm(start))
    point = np.asarray(point, float)
    if point.shape != (G.d,):
        raise ValueError(f"point has shape {point.shape}, expected ({G.d},) for {G.name}")
    if not (np.isfinite(point).all() and point.any()):
        raise ValueError(f"point is {point}; expected finite numbers, not all 0: every element keeps 0")
    limit = LIMITS[min(len(G.lie_algebra), 3)] if limit is None else limit
    elements, complete = _words(G, change, inverse, point, limit)
    positions = elements.matrix @ point
    return Orbit(G, elements, positions, complete, View.of(G, positions))


def _words(
    G: MatrixGroup, change: np.ndarray, inverse: np.ndarray, point: np.ndarray, limit: int
) -> tuple[GroupElement, bool]:
    """(elements whose images of a point differ, the identity first; whether these are all).

    Without a Lie algebra all words in order of their length, otherwise a sample. Lengths are of change · x.
    """
    if np.any(G.lie_algebra):
        return _sampled(G, change, point, limit), False
    letters = [(i, 1) for i in range(len(G.discrete_generators))]
    letters += [(i, -1) for i, q in enumerate(G._orders) if q is None]
    steps = [change @ np.linalg.matrix_power(G.discrete_generators[i], p) @ inverse for i, p in letters]
    seen, spelled = [change @ point], [()]
    size, begin, complete = np.linalg.norm(seen[0]), 0, True
    while begin < len(seen) < limit:
        begin, ends = len(seen), range(begin, len(seen))
        for n, step in ((n, step) for n in ends for step in enumerate(steps)):
            image = step[1] @ seen[n]
            far = np.linalg.norm(image) / size
            if not 1 / FAR <= far <= FAR:
                complete = False
            elif np.abs(np.array(seen) - image).max(1).min() > 1e-6 * size:
                complete &= len(seen) < limit
                if len(seen) == limit:
                    break
                seen.append(image)
                spelled.append((step[0], *spelled[n]))
    return _elements(G, letters, spelled), bool(complete and begin == len(seen))


def _elements(G: MatrixGroup, letters: list[tuple[int, int]], spelled: list[tuple[int, ...]]) -> GroupElement:
    long = max([1, *map(len, spelled)])
    index, power = np.zeros((2, len(spelled), long), int)
    for n, word in enumerate(spelled):
        for s, letter in enumerate(word):
            index[n, s], power[n, s] = letters[letter]
    return GroupElement(G, np.zeros((len(spelled), long, len(G.lie_algebra))), index, power)


def _sampled(G: MatrixGroup, change: np.ndarray, point: np.ndarray, limit: int) -> GroupElement:
    """The identity and a sample that goes further than that of ``G.sample`` where there is no end to it."""
    rng = np.random.default_rng(SEED)
    g = G.sample(8 * limit, rng)
    g = GroupElement(G, g.coefs * rng.uniform(0, 12, (len(g), 1, 1)), g.index, g.power)
    g.coefs[0], g.power[0] = 0, 0
    with np.errstate(all="ignore"):
        far = np.linalg.norm(g.matrix @ point @ change.T, axis=1) / np.linalg.norm(change @ point)
    return g[np.flatnonzero((far >= 1 / FAR) & (far <= FAR))[:limit]]


def _flows(
    G: MatrixGroup, change: np.ndarray, inverse: np.ndarray, positions: np.ndarray
) -> list[tuple[str, list[np.ndarray]]]:
    """(name, paths (p, d) in the coordinates y = change · x) of the first generators.

    Of a discrete generator h the steps y -> h y, of A the paths exp(tA) y, as far as they stay near.
    """
    out, y = [], positions @ change.T
    few = y[: BEGUN if np.any(G.lie_algebra) else EDGES // max(1, min(DRAWN, len(G.discrete_generators)))]
    size = np.linalg.norm(y[0])
    for i, h in enumerate(G.discrete_generators[:DRAWN]):
        ends = few @ (change @ h @ inverse).T
        far = np.linalg.norm(ends, axis=1) / size
        out.append((f"h{i + 1}", list(np.stack([few, ends], 1)[(far <= FAR) & (far >= 1 / FAR)])))
    for k, A in enumerate(G.lie_algebra[: max(0, DRAWN - len(out))]):
        turns = _path(change @ A @ inverse)
        paths = [_near(turns @ start, size) for start in few]
        out.append((f"A{k + 1}", [p for p in paths if len(p) > 1]))
    return out[:DRAWN]


def _path(A: np.ndarray) -> np.ndarray:
    """exp(tA) for t on both sides of 0: a full turn, or as far as one looks where it does not turn."""
    values, size = np.linalg.eigvals(A), max(np.linalg.norm(A, 2), 1e-300)
    turns = np.abs(values).max() > 1e-5 * size and np.abs(values.real).max() < 1e-9 * size
    step = scipy.linalg.expm(A * (np.pi / np.abs(values).max() if turns else 3 / size) / HALF)
    powers = [np.linalg.matrix_power(step, n) for n in range(HALF + 1)]
    return np.stack([*(np.linalg.inv(p) for p in powers[:0:-1]), *powers])


def _near(path: np.ndarray, size: float) -> np.ndarray:
    """The part of a path about its middle where |y| is within ``FAR`` times a size; nothing of a point that stays."""
    far = np.linalg.norm(path, axis=1) / size
    out = np.flatnonzero((far > FAR) | (far < 1 / FAR))
    low, high = out[out < HALF].max(initial=-1) + 1, out[out > HALF].min(initial=len(path))
    return path[low:high] if np.abs(path - path[HALF]).max() > 1e-9 * size else path[:0]
