"""A kernel as a field: over a plane that generators preserve, and over an orbit."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch

from ._orbit import Orbit, orbit
from ._scene import Layer, Scene, arrows, crosses, ellipses, flat
from ._view import View
from .errors import RepError
from .matrix_group import MatrixGroup
from .nn import ImplicitKernel
from .nn.steerable import SteerableKernel
from .rep import Rep, Scalar, ScalarRep, V, VectorRep
from .solver.irreps import irrep_table

__all__ = ["EXTENT", "PAIRS", "Field", "evaluated", "example_kernel", "kernel_of", "on_orbit", "on_plane", "pairs_of"]

KINDS = {"Scalar": ScalarRep, "V": VectorRep}
PAIRS = (("Scalar", "Scalar"), ("Scalar", "V"), ("V", "Scalar"), ("V", "V"))
EXTENT = 1.25  # half the side of the plane that is drawn; orbits are of a point of length 1
NUMBERS = 2**22  # in the kernels that are evaluated at once
SQUARES, ARROWS, GLYPHS = 81, 15, 11  # drawn along each side of the plane
LARGE = 12  # dimension above which there are half as many squares
DEGREE = 6  # highest degree of the polynomials of a kernel,
SPLIT, WHOLE = 800, 64  # as long as the power of V is no larger than this: where V splits, and where it does not
BEARING = 120  # points of an orbit at which a kernel is drawn
IMAGES, APART = 48, 0.12  # images of a point of a plane, and the distance between two under an infinite group
VANISHING = 1e-12  # a value that is rounding alone, of a kernel of size 1
CAP = 1.4  # longest arrow, in units of the distance between two
SEED = 7


@dataclass(frozen=True)
class Field:
    """The block k(x): a -> b of a kernel, between one Scalar or V and another, at points.

    Attributes:
        group: the group.
        pair: ("Scalar" or "V", "Scalar" or "V"), a and b.
        positions: (n, d) the points x.
        matrices: (n, b.size, a.size) the values k(x).
        side: points along each side of the grid that comes first, of a plane; 0 on an orbit.
        view: how it is looked at.
        ends: the numbers that are drawn in full blue and in full red.
    """

    group: MatrixGroup
    pair: tuple[str, str]
    positions: np.ndarray
    matrices: np.ndarray
    side: int
    view: View
    ends: tuple[float, float]

    @property
    def points(self) -> np.ndarray:
        """(n, k) what is drawn of the positions."""
        return self.positions @ self.view.change.T @ self._rows.T

    @property
    def shown(self) -> np.ndarray:
        """(n, 1 or k, 1 or k) what is drawn of the values: their components along the axes that are drawn."""
        out, (a, b) = self.matrices, self.pair
        if a == "V":
            out = out @ self.view.inverse @ self._rows.T
        return self._rows @ self.view.change @ out if b == "V" else out

    @property
    def colours(self) -> np.ndarray:
        """(n,) numbers that no group element changes: the value from Scalar to Scalar, the trace from V to V."""
        return _colours(self.matrices, self.pair)

    @property
    def _rows(self) -> np.ndarray:
        return self.view.plane if self.side else self.view.axes

    def scene(self) -> Scene:
        """The field as colours (Scalar to Scalar), arrows (Scalar to V, V to Scalar) or images of a ball (V to V)."""
        a, b = self.pair
        names = self.view.plane_names if self.side else self.view.axis_names
        many = self.side ** len(names) if self.side else 0
        points, note = flat(self.points), ""
        low, high = self.ends
        middle, half = (low + high) / 2, (high - low) / 2
        colours = np.zeros(len(points))
        if a == b:
            what = "the number" if a == "Scalar" else "the trace"
            note = f"Colour: {what}, {_number(middle)} everywhere."
            if half > 1e-9 * max(abs(low), abs(high)):
                note = f"Colour: {what}, from {_number(low)} (blue) to {_number(high)} (red)."
                colours = np.clip((self.colours - middle) / half, -1, 1)
        if self.side and len(names) == 1:
            return self._graph(names[0])
        names = names if len(names) > 1 else (*names, "")
        if a == b == "Scalar":
            image = colours[:many].reshape(self.side, self.side) if self.side else None
            values = None if self.side else colours
            dots = Layer("dots", points[many:], values=values, colour=-2, strong=True)
            return Scene(f"{a} → {b}", names, note, (dots,), EXTENT if self.side else 0.0, image)
        layers, cut = _glyphs(points, self.shown, colours, many, 2 * EXTENT / self.side if self.side else 0.0)
        note += f" Larger than {cut:.2g} is drawn as that." if np.isfinite(cut) else ""
        note += "" if layers else " It vanishes here."
        return Scene(f"{a} → {b}", names, note.strip(), tuple(layers), 1.1 * EXTENT if self.side else 0.0)

    def _graph(self, name: str) -> Scene:
        """In one dimension: the value over the place."""
        x, k = self.points[: self.side, 0], self.matrices[: self.side, 0, 0]
        top = np.abs(k).max()
        if not top > VANISHING:
            return Scene(" → ".join(self.pair), (name, "k"), "It vanishes.", (), EXTENT)
        layers = (Layer("lines", [np.array([[-EXTENT, 0], [EXTENT, 0]])], colour=-1),
                  Layer("lines", [np.stack([x, EXTENT * k / top / 1.1], 1)]))  # fmt: skip
        note = f"The value over {name}, from {_number(-1.1 * top)} to {_number(1.1 * top)}."
        return Scene(" → ".join(self.pair), (name, "k"), note, layers, EXTENT)


def _glyphs(
    points: np.ndarray, shown: np.ndarray, colours: np.ndarray, many: int, spacing: float
) -> tuple[list[Layer], float]:
    """(arrows for vectors, ellipses or crosses for matrices; the size at which they are cut, if they are)."""
    tensors = min(shown.shape[1:]) > 1 or shown.shape[1:] == (1, 1)
    glyphs = flat(shown if tensors else shown.reshape(len(shown), -1))
    sizes = np.linalg.norm(glyphs, 2, axis=(1, 2)) if tensors else np.linalg.norm(glyphs, axis=1)
    if not sizes.max() > VANISHING:
        return [], np.inf
    top = np.quantile(sizes[: many or None], 0.9) or sizes.max()
    spacing = spacing or 0.3 * np.linalg.norm(points, axis=1).max() or 1.0
    scale = spacing * (0.45 if tensors else 1.0) / np.maximum(top, sizes / CAP)
    glyphs = glyphs * scale.reshape(-1, *[1] * (glyphs.ndim - 1))
    layers = []
    for part in (slice(0, many), slice(many, None)):
        at, drawn, strong = points[part], glyphs[part], 0 < many == part.start
        if not len(at):
            continue
        if not tensors:
            layers.append(Layer("lines", arrows(at, drawn, 0.02 * spacing), strong=strong))
        elif at.shape[1] == 2:
            layers.append(Layer("lines", ellipses(at, drawn), values=colours[part], strong=strong))
        else:
            layers.append(Layer("lines", crosses(at, drawn), values=np.repeat(colours[part], 3), strong=strong))
        if part.start == many:
            layers.append(Layer("dots", at, colour=-1))
    return layers, CAP * top if sizes.max() > CAP * top else np.inf


def _number(value: float) -> str:
    return f"{value:.2g}".replace("-", "−")


def kernel_of(kernel) -> SteerableKernel:
    """A kernel without edge attributes, as it was given.

    Raises:
        TypeError: a layer, whose kernel is to be passed, or anything else.
        RepError: the kernel has edge attributes.
    """
    if not isinstance(kernel, SteerableKernel):
        has = isinstance(getattr(kernel, "kernel", None), SteerableKernel)
        hint = "; pass its .kernel" if has else ""
        raise TypeError(f"expected a kernel such as conv.kernel, got {type(kernel).__name__}{hint}")
    if kernel.edge_rep is not None:
        raise RepError(f"a kernel with edge attributes {kernel.edge_rep} is no function of the position alone")
    return kernel


def on_plane(kernel: SteerableKernel, pair: tuple[str, str] = ("V", "V"), view: View | None = None) -> Field:
    """A kernel over a square of a plane that generators preserve, and at one point of it and its images.

    Args:
        kernel: without edge attributes, between sums of Scalar and V; the first block between the pair is drawn.
        pair: of "Scalar" and "V".
        view: by default that of :func:`orbit`.

    Raises:
        RepError: the kernel has edge attributes, or no block between the pair.
    """
    G = kernel_of(kernel).rep_in._require_bound()
    view = orbit(G).view if view is None else view
    side = {("Scalar", "Scalar"): SQUARES, ("V", "V"): GLYPHS}.get(pair, ARROWS)
    side = SQUARES if G.d == 1 else (side // 2 if side == SQUARES and G.d > LARGE else side)
    ticks = EXTENT * (1 - 1 / side) * np.linspace(-1, 1, side)
    points = np.stack(np.meshgrid(*[ticks] * len(view.plane), indexing="ij")[::-1], -1).reshape(-1, len(view.plane))
    if G.d > 1:
        moves = [(view.change @ m @ view.inverse, False) for m in G.discrete_generators]
        moves += [(view.change @ A @ view.inverse, True) for A in G.lie_algebra]
        start = 0.8 * np.array([np.cos(0.35), np.sin(0.35)])
        apart = (APART if G._known_order is None else 1e-3) * EXTENT
        points = np.concatenate([points, _images(view.plane, moves, start, 0.92 * EXTENT, apart)])
    return _field(kernel, pair, view.to_plane(points), side, view)


def _images(
    plane: np.ndarray, moves: list[tuple[np.ndarray, bool]], seed: np.ndarray, extent: float, apart: float
) -> np.ndarray:
    """(n, 2) images of a point of a plane, inside a square, under the generators (m, whether it is A) that preserve it.

    No two are nearer than ``apart``; n is at most ``IMAGES``.
    """
    steps = []
    for m, is_lie in moves:
        small = plane @ m @ plane.T
        if np.abs(m @ plane.T - plane.T @ small).max() > 1e-9 * max(1e-300, np.linalg.norm(m, 2)):
            continue
        if is_lie:
            speed = np.linalg.norm(small @ seed)
            if speed < 1e-9 * np.linalg.norm(m, 2):
                continue
            small = scipy.linalg.expm(small * np.linalg.norm(seed) / speed * np.pi / 8)
        steps += [small, np.linalg.inv(small)]
    seen = [seed]
    for y in seen:
        for image in (step @ y for step in steps):
            new = np.abs(np.array(seen) - image).max(1).min() > apart and np.abs(image).max() <= extent
            if new and len(seen) < IMAGES:
                seen.append(image)
    return np.array(seen)


def on_orbit(kernel: SteerableKernel, pair: tuple[str, str] = ("V", "V"), where: Orbit | None = None) -> Field:
    """A kernel at the points of an orbit.

    Args:
        kernel: as for :func:`on_plane`.
        pair: of "Scalar" and "V".
        where: by default :func:`orbit` of the group.

    Raises:
        RepError: the kernel has edge attributes, or no block between the pair.
    """
    where = orbit(kernel_of(kernel).rep_in._require_bound()) if where is None else where
    if len(where.positions) > BEARING:
        kept = np.unique(np.linspace(0, len(where.positions) - 1, BEARING).astype(int))
        positions = where.positions[kept]
    else:
        positions = where.positions
    return _field(kernel, pair, positions, 0, where.view)


def _field(kernel: SteerableKernel, pair: tuple[str, str], positions: np.ndarray, side: int, view: View) -> Field:
    into, out = (_place(rep, name, pair) for rep, name in zip((kernel.rep_in, kernel.rep_out), pair))
    # on an orbit all is of one colour: which, is seen beside those along a ray
    ray = positions[0] * np.linspace(0, 1.25, 26)[:, None]
    values = evaluated(kernel, np.concatenate([positions, ray]))[:, out, into]
    colours = _colours(values, pair)
    ends = float(colours.min()), float(colours.max())
    return Field(kernel.rep_in._require_bound(), pair, positions, values[: len(positions)], side, view, ends)


def _colours(values: np.ndarray, pair: tuple[str, str]) -> np.ndarray:
    return np.trace(values, axis1=1, axis2=2) if pair[0] == pair[1] else np.zeros(len(values))


def pairs_of(kernel: SteerableKernel, pairs: Sequence[tuple[str, str]] | None) -> Sequence[tuple[str, str]]:
    """The pairs that are asked for, or all whose block the kernel has."""
    if pairs is not None:
        return pairs
    sides = kernel_of(kernel).rep_in, kernel.rep_out
    has = [{name for name, kind in KINDS.items() for _, t, _ in r.slices if isinstance(t, kind)} for r in sides]
    found = [(a, b) for a, b in PAIRS if a in has[0] and b in has[1]]
    if not found:
        raise RepError(
            f"a kernel from {kernel.rep_in} to {kernel.rep_out} has no block between Scalar and V, which are drawn"
        )
    return found


def _place(rep: Rep, name: str, pair: tuple[str, str]) -> slice:
    for _, term, where in rep.slices:
        if name in KINDS and isinstance(term, KINDS[name]):
            return slice(where.start, where.start + term.size)
    raise RepError(f"no block {pair[0]} -> {pair[1]} is in a kernel on {rep}; expected names of terms, Scalar or V")


def example_kernel(G: MatrixGroup, degree: int | None = None, *, seed: int = SEED) -> ImplicitKernel:
    """A random kernel from Scalar + V to Scalar + V in float64, one block for each pair of fields.

    Args:
        G: the group.
        degree: of its polynomials; by default up to 6, as far as that is quick: what tells a sixfold axis from one of
            any angle is of degree 6.
        seed: of its weights; torch's random state is left alone.
    """
    rep, most = (Scalar + V)(G), SPLIT if irrep_table(G).coordinates.completely_reducible else WHOLE
    if degree is None:
        degree = max(k for k in range(1, DEGREE + 1) if k == 1 or G.d**k <= most)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return ImplicitKernel(rep, rep, degree=degree).double()


@torch.no_grad()
def evaluated(kernel: SteerableKernel, positions: np.ndarray, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """(n, out, in) values of a kernel, computed in a dtype."""
    fn = copy.deepcopy(kernel).to("cpu", dtype)
    step = max(1, NUMBERS // (kernel.rep_in.size * kernel.rep_out.size))
    parts = torch.as_tensor(positions, dtype=dtype).split(step)
    return torch.cat([fn(x).double() for x in parts]).numpy()
