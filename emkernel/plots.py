"""Pictures of groups and kernels with matplotlib: an orbit, a kernel over a plane and over the orbit, its errors.

The arrays are those of :mod:`emkernel.figures`. Each function returns a Figure of its own and leaves pyplot alone; a
notebook shows it where matplotlib is set up for that (``%matplotlib inline``), and ``.savefig`` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from . import figures
from ._field import kernel_of, pairs_of
from .figures import Layer, Scene
from .matrix_group import MatrixGroup
from .nn.steerable import SteerableKernel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "errors", "on_orbit", "on_plane", "orbit"]

SIZE = 3.2  # inches, of one picture of several
INK = ("#1f6fc4", "#d9611e", "#1b8f73", "#a4439c", "#8a6d12", "#5b57c7")
NAMED = {-1: "0.45", -2: "0.1"}
MAP = "RdBu_r"


def orbit(G: MatrixGroup, point: np.ndarray | None = None) -> Figure:
    """The orbit of a point, in two or three dimensions, with the steps and paths of the generators.

    Args:
        G: any matrix group.
        point: (d,) the point; by default as in :func:`emkernel.figures.orbit`.

    Raises:
        ImportError: matplotlib is not installed.

    Example:
        >>> from emkernel import plots
        >>> plots.orbit(groups.Oh()).savefig("orbit.png")  # doctest: +SKIP
    """
    return _figure([figures.orbit(G, point).scene()], 2 * SIZE)


def on_plane(kernel: SteerableKernel, pairs: Sequence[tuple[str, str]] | None = None) -> Figure:
    """Blocks of a kernel over a plane, k(x) for pairs of fields: colours, arrows, images of a circle.

    Args:
        kernel: without edge attributes, between sums that hold Scalar or V, such as ``conv.kernel``.
        pairs: of "Scalar" and "V", into and out of the blocks; by default all that the kernel has.

    Raises:
        ImportError: matplotlib is not installed.
        RepError: the kernel has edge attributes, or no such block.
        TypeError: a layer in place of its kernel.

    Example:
        >>> from emkernel import figures, plots
        >>> plots.on_plane(figures.example_kernel(groups.Oh()), [("Scalar", "V")])  # doctest: +SKIP
    """
    view = figures.orbit(kernel_of(kernel).rep_in._require_bound()).view
    return _figure([figures.on_plane(kernel, pair, view).scene() for pair in pairs_of(kernel, pairs)], SIZE)


def on_orbit(kernel: SteerableKernel, pairs: Sequence[tuple[str, str]] | None = None) -> Figure:
    """Blocks of a kernel at the points of an orbit.

    Args:
        kernel: as for :func:`on_plane`.
        pairs: of "Scalar" and "V", into and out of the blocks; by default all that the kernel has.

    Raises:
        ImportError: matplotlib is not installed.
        RepError: the kernel has edge attributes, or no such block.
    """
    where = figures.orbit(kernel_of(kernel).rep_in._require_bound())
    return _figure([figures.on_orbit(kernel, pair, where).scene() for pair in pairs_of(kernel, pairs)], SIZE)


def errors(kernel: SteerableKernel, n: int = 60) -> Figure:
    """The equivariance errors of a kernel at n group elements, in float64 and float32, with the tolerances.

    Raises:
        ImportError: matplotlib is not installed.
        RepError: the kernel has edge attributes.
    """
    return _figure([figures.errors(kernel, n).scene()], 2 * SIZE)


def draw(scene: Scene, ax: Axes) -> Axes:
    """Draw a scene, as the ``scene()`` of what :mod:`emkernel.figures` finds, in axes that exist.

    Args:
        scene: what to draw.
        ax: of projection "3d" where the scene has three axes.

    Returns:
        The same axes.
    """
    solid, reach = len(scene.axes) == 3, scene.reach
    if scene.image is not None:
        box = (-figures.EXTENT, figures.EXTENT) * 2
        ax.imshow(scene.image, cmap=MAP, vmin=-1, vmax=1, extent=box, origin="lower", interpolation="bilinear")
    for k, layer in enumerate(scene.layers):
        if len(layer.points):
            (_dots if layer.kind == "dots" else _lines)(layer, ax, solid, 2 + k)
    for name, letter in zip(scene.axes, "xyz"):
        getattr(ax, f"set_{letter}label")(name)
        getattr(ax, f"set_{letter}lim")(-reach, reach)
        getattr(ax, f"set_{letter}ticks")([])
    for marks, axis in zip(scene.ticks, (ax.xaxis, ax.yaxis)):
        axis.set_ticks([at for at, _ in marks], [text for _, text in marks])
    ax.set_aspect("equal")
    if solid:
        ax.set_box_aspect(None, zoom=0.85)  # the name of the third axis is outside else
    ax.set_title(scene.title, fontsize=10)
    if any(layer.label for layer in scene.layers):
        ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.1), ncols=3, frameon=False)
    return ax


def _figure(scenes: list[Scene], size: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ImportError('pictures are drawn with matplotlib: pip install "emkernel[plot]"') from e
    columns = min(len(scenes), 4)
    rows = ceil(len(scenes) / max(columns, 1))
    figure = Figure(figsize=(columns * size, rows * size * 1.1), layout="constrained")
    for k, scene in enumerate(scenes):
        how = {"projection": "3d"} if len(scene.axes) == 3 else {}
        draw(scene, figure.add_subplot(rows, columns, k + 1, **how))
    return figure


def _dots(layer: Layer, ax: Axes, solid: bool, order: int) -> None:
    points, colour = np.asarray(layer.points), NAMED.get(layer.colour, INK[layer.colour % len(INK)])
    how = {"color": colour} if layer.values is None else {"c": layer.values, "cmap": MAP, "vmin": -1, "vmax": 1}
    how |= {"edgecolors": "0.5", "linewidths": 0.5} if layer.values is not None else {"linewidths": 0}
    ax.scatter(*points.T, s=28 if layer.strong else 9, label=layer.label or None, zorder=order, **how)


def _lines(layer: Layer, ax: Axes, solid: bool, order: int) -> None:
    from matplotlib.collections import LineCollection, PolyCollection
    from mpl_toolkits.mplot3d.art3d import Line3DCollection

    colour = NAMED[-2] if layer.strong and not solid else NAMED.get(layer.colour, INK[layer.colour % len(INK)])
    how: dict = {"linewidths": 1.8 if layer.strong else 0.9, "label": layer.label or None, "zorder": order}
    if layer.values is None:
        how["colors"] = colour
    if solid:
        lines = Line3DCollection(layer.points, **how)
    elif layer.values is not None:
        lines = PolyCollection(layer.points, edgecolors=NAMED[-2 if layer.strong else -1], **how)
    else:
        lines = LineCollection(layer.points, **how)
    if layer.values is not None:
        lines.set(array=layer.values, cmap=MAP, clim=(-1, 1))
    ax.add_collection3d(lines) if solid else ax.add_collection(lines)
