"""How far a kernel is from equivariance, element by element of the group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ._conditioning import tolerance
from ._field import EXTENT, evaluated, kernel_of
from ._scene import Layer, Scene
from ._view import display
from .errors import GroupError
from .group_element import GroupElement
from .matrix_group import MatrixGroup
from .nn.steerable import SteerableKernel
from .rep import V

__all__ = ["Errors", "errors"]

SPREAD = 20.0  # elements of groups that are not compact stretch vectors by at most this much
LETTERS = 12  # in the longest words
FLOOR = 1e-17  # where an error of 0 is drawn on a logarithmic scale
SEED = 7


@dataclass(frozen=True)
class Errors:
    """How far a kernel is from k(g x) = ρ_out(g) k(x) ρ_in(g)^-1, element by element.

    Attributes:
        group: the group.
        by: what ``at`` is: "letters in the word g", or "distance |g − 1|".
        at: (n,) of each element g.
        double, single: (n,) relative errors in float64 and float32.
        broken: (n,) those of the kernel with a constant matrix of 1 % of its size added, which no symmetry allows.
        allowed: the tolerances in float64 and float32.
    """

    group: MatrixGroup
    by: str
    at: np.ndarray
    double: np.ndarray
    single: np.ndarray
    broken: np.ndarray
    allowed: tuple[float, float]

    def scene(self) -> Scene:
        """The errors on a logarithmic scale over ``at``, with the tolerances."""
        low, high, end = -17.5, 1, max(self.at.max(initial=0), 1e-300) * 1.05

        def place(at, error) -> np.ndarray:
            y = np.log10(np.clip(np.nan_to_num(error, nan=np.inf), FLOOR, 10.0**high))
            return np.stack([2 * np.asarray(at) / end - 1, 2 * (y - low) / (high - low) - 1], -1)

        rows = [("float64", self.double, self.allowed[0], 0), ("float32", self.single, self.allowed[1], 2)]
        layers = [Layer("lines", [place([0, end], [bound] * 2)], f"allowed in {name}", colour=c, strong=False)
                  for name, _, bound, c in rows]  # fmt: skip
        layers += [Layer("dots", place(self.at, error), name, colour=c) for name, error, _, c in rows]
        layers.append(Layer("dots", place(self.at, self.broken), "float64, with a constant matrix added", colour=1))
        across = tuple((float(place([t], [1])[0, 0]), f"{t:.3g}") for t in _ticks(end))
        up = tuple((float(place([0], [10.0**e])[0, 1]), f"1e{e}") for e in range(-16, 1, 4))
        note = ("Relative errors at group elements. As a control, the last row is of the same kernel with a constant "
                "matrix of 1 % of its size added, which breaks the symmetry. "
                f"An error of 0 is drawn at {FLOOR:.0e}.")  # fmt: skip
        return Scene("k(g x) against ρ(g) k(x) ρ(g)⁻¹", (self.by, "relative error"), note, tuple(layers), 1.0, None,
                     (across, up))  # fmt: skip


def _ticks(end: float) -> list[float]:
    """Three to six round numbers from 0 to the end."""
    step = 10.0 ** np.floor(np.log10(end / 2))
    step = next(step * m for m in (1, 2, 5) if end / (step * m) < 6)
    return [step * k for k in range(int(end / step) + 1)]


def errors(kernel: SteerableKernel, n: int = 60) -> Errors:
    """The error of a kernel without edge attributes at n elements, the identity not among them.

    Relative to the larger of the two sides, in coordinates without units; words of up to a dozen letters, or samples
    that stretch vectors moderately.

    Raises:
        RepError: the kernel has edge attributes.
        GroupError: the group is trivial.
    """
    G, rng = kernel_of(kernel).rep_in._require_bound(), np.random.default_rng(SEED)
    change, inverse, _ = display(G)
    g = _elements(G, n, change, inverse, rng)
    x = rng.standard_normal((24, G.d))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True) * rng.uniform(0.2, EXTENT, (24, 1))) @ inverse.T
    into, out = (r.units for r in (kernel.rep_in, kernel.rep_out))
    found = []
    for dtype in (torch.float64, torch.float32):
        moved = np.concatenate([x, *(x @ m.T for m in g.matrix)])
        k = evaluated(kernel, moved, dtype).reshape(len(g) + 1, len(x), len(out), len(into))
        found.append(_errors(kernel, g, k, out[:, None] / into))
        if dtype == torch.float64:
            off = rng.standard_normal(k.shape[2:]) * into / out[:, None]
            size = np.abs(k[0] * (out[:, None] / into)).max()
            broken = _errors(kernel, g, k + 0.01 * size * off, out[:, None] / into)
    if np.any(G.lie_algebra):
        by, at = "distance |g − 1|", np.linalg.norm(change @ g.matrix @ inverse - np.eye(G.d), 2, axis=(1, 2))
    else:
        by, at = "letters in the word g", np.abs(g.power).sum(1).astype(float)
    reps = (kernel.rep_in, kernel.rep_out, V(G))
    allowed = tolerance(torch.float64, reps), tolerance(torch.float32, reps)
    order = np.argsort(at, kind="stable")
    return Errors(G, by, at[order], found[0][order], found[1][order], broken[order], allowed)


def _errors(kernel: SteerableKernel, g: GroupElement, k: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Of values k (1 + n, points, out, in) at points, and at their images under n elements."""
    after = kernel.rep_out.rho(g)[:, None] @ k[:1] @ kernel.rep_in.rho(g.inverse)[:, None]
    left, right = k[1:] * units, after * units
    size = np.maximum(np.abs(left).max((1, 2, 3)), np.abs(right).max((1, 2, 3)))
    return np.abs(left - right).max((1, 2, 3)) / np.maximum(size, 1e-300)


def _elements(
    G: MatrixGroup, n: int, change: np.ndarray, inverse: np.ndarray, rng: np.random.Generator
) -> GroupElement:
    """Words of 1 to ``LETTERS`` letters, or samples from near the identity to far from it, that stretch moderately."""
    many, lie = len(G.discrete_generators), len(G.lie_algebra)
    if lie:
        g = G.sample(8 * n, rng)
        reach = np.linspace(0, 1 if G.is_compact else 8, 8 * n)[:, None, None]
        g = GroupElement(G, g.coefs * reach, g.index, g.power * (rng.random((8 * n, 1)) < 0.5))
    else:
        long = np.arange(8 * n) % LETTERS + 1
        power = np.where(np.arange(LETTERS) < long[:, None], rng.choice([-1, 1], (8 * n, LETTERS)), 0)
        index = rng.integers(0, max(many, 1), (8 * n, LETTERS))
        g = GroupElement(G, np.zeros((8 * n, LETTERS, 0)), index, power * bool(many))
    m = change @ np.stack([g.matrix, g.inverse.matrix]) @ inverse
    with np.errstate(all="ignore"):
        spread = np.nan_to_num(np.linalg.norm(m, axis=(2, 3)).prod(0) / G.d, nan=np.inf)
    moved = np.flatnonzero((spread <= SPREAD) & (np.abs(m[0] - np.eye(G.d)).max((1, 2)) > 1e-9))
    if not len(moved):
        raise GroupError(f"{G.name}: no element but the identity was found at which a kernel could err")
    return g[moved[np.unique(np.linspace(0, len(moved) - 1, n).astype(int))]]
