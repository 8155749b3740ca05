"""Pictures as points and lines, for whoever draws them: in two dimensions, or in three to be turned."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["Layer", "Scene", "arrows", "crosses", "ellipses", "flat"]

ROUND = 24  # points of an ellipse


@dataclass(frozen=True)
class Layer:
    """Dots, or lines, of one kind.

    Attributes:
        kind: "dots" or "lines".
        points: (n, k) dots; or lines, each (p, k).
        label: what they are, for the legend; none for "".
        values: (n,) in [-1, 1], drawn from blue to red; else all have the one colour.
        colour: 0, 1, ... of generators; -1 pale, -2 strong, of the text.
        strong: whether they stand out.
    """

    kind: str
    points: np.ndarray | list[np.ndarray]
    label: str = ""
    values: np.ndarray | None = None
    colour: int = 0
    strong: bool = False


@dataclass(frozen=True)
class Scene:
    """One picture.

    Attributes:
        title: what it shows.
        axes: the names of its 2 or 3 axes.
        note: what to know.
        layers: what is drawn, from below.
        extent: half the side of the square or cube that is shown; 0 for all there is.
        image: (rows, columns) in [-1, 1] over that square, the first row at the bottom; or None.
        ticks: for each axis the (place, text) of its marks; none where lengths mean nothing by themselves.
    """

    title: str
    axes: tuple[str, ...]
    note: str
    layers: tuple[Layer, ...]
    extent: float = 0.0
    image: np.ndarray | None = None
    ticks: tuple[tuple[tuple[float, str], ...], ...] = ()

    @cached_property
    def reach(self) -> float:
        """Half the side of the square, or the radius of the ball, that is shown."""
        if self.extent:
            return self.extent
        sizes = [np.linalg.norm(p, axis=-1).max() for layer in self.layers for p in layer.points]
        return 1.05 * max(sizes, default=0.0) or 1.0


def arrows(at: np.ndarray, vectors: np.ndarray, least: float) -> list[np.ndarray]:
    """Lines (p, k) that are arrows from (n, k) points, with heads; a dot's worth where shorter than ``least``."""
    out = []
    for x, v in zip(at, vectors):
        length = np.linalg.norm(v)
        if not length > least:
            continue
        side = np.eye(len(v))[np.abs(v).argmin()]
        side = side - v * (side @ v) / length**2
        sides = [side / np.linalg.norm(side)]
        if len(v) == 3:
            sides.append(np.cross(v / length, sides[0]))
        head = min(0.35 * length, 8 * least)
        tip, neck = x + v, x + v * (1 - head / length)
        barbs = [neck + sign * 0.5 * head * s for s in sides for sign in (1, -1)]
        out.append(np.array([x, tip, *(p for b in barbs for p in (b, tip))]))
    return out


def ellipses(at: np.ndarray, matrices: np.ndarray) -> list[np.ndarray]:
    """Lines (p, 2): the images of a circle under (n, 2, 2) matrices, about (n, 2) points."""
    angle = np.linspace(0, 2 * np.pi, ROUND + 1)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    return [x + (m @ circle).T for x, m in zip(at, matrices)]


def crosses(at: np.ndarray, matrices: np.ndarray) -> list[np.ndarray]:
    """Lines (2, k): the principal axes of the images of a ball under (n, k, k) matrices, about (n, k) points."""
    left, sizes, _ = np.linalg.svd(matrices)
    axes = left * sizes[:, None, :]
    return [np.stack([x - a, x + a]) for x, m in zip(at, axes) for a in m.T]


def flat(a: np.ndarray) -> np.ndarray:
    """A number on a line as a point, a vector or a matrix of the plane."""
    return np.pad(a, [(0, 0)] + [(0, 1)] * (a.ndim - 1)) if a.shape[-1] == 1 else a
