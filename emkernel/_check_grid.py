"""How far a function of fields on a grid is from equivariance under a whole group, of which a grid has but a part."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from ._conditioning import draw
from ._equivariance import group_of, sample_elements
from ._reports import SEED
from .group_element import GroupElement
from .nn import GridConv
from .nn._lattice import lattice_basis, per_axis
from .rep import Rep

__all__ = ["grid_equivariance_error"]

WAVES = 32
IMAGES = 8


def grid_equivariance_error(
    fn: Callable,
    rep_in: Rep | None = None,
    rep_out: Rep | None = None,
    edge_rep: Rep | None = None,
    *,
    size: int | Sequence[int] = 33,
    wavelength: float = 8.0,
    spacing=None,
    n: int = 8,
    elements: GroupElement | None = None,
    generator: torch.Generator | int | None = None,
) -> float:
    """max_g |F(g f) - ρ_out(g) F(f)| / |ρ_out(g) F(f)| at the centre of the grid, the fixed point of g.

    f is a random smooth field, a sum of plane waves under a Gaussian that vanishes towards the edges, and
    (g f)(x) = ρ_in(g) f(g^-1 x) is evaluated, not interpolated: the error is that of the function F on the grid alone.
    |·| is the root of the mean square over fields and components. F runs on a copy, in float64.

    Args:
        fn: (B, rep_in.size, *size) -> (B, rep_out.size, *sizes), whose entry in the middle is looked at, or
            (B, rep_out.size); a :class:`GridConv`, a network, or a function; with ``edge_rep`` it takes (B,
            edge_rep.size) too.
        rep_in, rep_out, edge_rep: their representations; by default those that the module declares.
        size: entries along each axis.
        wavelength: of the shortest waves in f, in steps of the grid along its longest lattice vector.
        spacing: as for :class:`GridConv`, by default its own, or 1.
        n: sampled group elements, next to the discrete generators.
        elements: group elements to take instead.
        generator: source of fields and elements; by default a fixed one.

    Raises:
        RepError: representations that are missing, or of two groups.
        ValueError: the output has no entry in the middle.

    Example:
        >>> G = groups.O(2)
        >>> conv = ek.nn.GridConv(Scalar(G), V(G), 7, padding="same")
        >>> ek.checks.grid_equivariance_error(conv, wavelength=12.0) < 0.05
        True
    """
    rep_in, rep_out, edge_rep = (
        given if given is not None else getattr(fn, name, None)
        for name, given in (("rep_in", rep_in), ("rep_out", rep_out), ("edge_rep", edge_rep))
    )
    group = group_of([None] * 3, (rep_in, rep_out, edge_rep), None)
    if elements is None:
        chosen = [g for _, g in sample_elements(group, n, generator)]
    else:
        chosen = [elements[i] for i in range(len(elements))]
    rng = generator if isinstance(generator, torch.Generator) else torch.Generator().manual_seed(generator or SEED)
    if spacing is None:
        spacing = fn.basis.T if isinstance(fn, GridConv) else 1.0
    basis, size = lattice_basis(spacing, group.d), per_axis("size", size, group.d)
    if isinstance(fn, nn.Module):
        fn = copy.deepcopy(fn).double()
    field = _Field(rep_in, basis, size, wavelength, rng)
    attr = None if edge_rep is None else draw(IMAGES, edge_rep, rng)

    def value(g: GroupElement) -> torch.Tensor:
        args = [field(g)] if attr is None else [field(g), attr @ torch.as_tensor(edge_rep.rho(g)).T]
        y = fn(*args)
        if any(k % 2 == 0 for k in y.shape[2:]):
            raise ValueError(
                f"the output is {tuple(y.shape[2:])} entries and has none in the middle: take sizes of 1 modulo the "
                "strides, and kernels of odd size"
            )
        return y[(slice(None), slice(None), *(k // 2 for k in y.shape[2:]))]

    with torch.no_grad():
        y, worst = value(group.identity), 0.0
        for g in chosen:
            wanted = y @ torch.as_tensor(rep_out.rho(g)).T
            worst = max(worst, float((value(g) - wanted).norm() / wanted.norm()))
    return worst


class _Field:
    """(g f)(x) = ρ(g) f(g^-1 x) on the grid, (IMAGES, rep.size, *size), f = Σ_m c_m cos(k_m·x + φ_m) exp(-|x|²/2w²)."""

    def __init__(self, rep: Rep, basis: np.ndarray, size: tuple[int, ...], wavelength: float, rng: torch.Generator):
        self.rep, self.size, d = rep, size, len(size)
        axes = [torch.arange(k, dtype=torch.float64) - (k - 1) / 2 for k in size]
        index = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, d)
        self.points = index @ torch.as_tensor(basis).T
        step = float(np.linalg.norm(basis, axis=0).max())
        # wave vectors uniform in the ball of the shortest wavelength
        k = torch.randn(WAVES, d, generator=rng, dtype=torch.float64)
        k = k / k.norm(dim=1, keepdim=True) * torch.rand(WAVES, 1, generator=rng, dtype=torch.float64) ** (1 / d)
        self.waves = k * (2 * math.pi / (wavelength * step))
        self.phases = 2 * math.pi * torch.rand(WAVES, generator=rng, dtype=torch.float64)
        self.coefs = draw(IMAGES * WAVES, rep, rng).reshape(IMAGES, WAVES, rep.size)
        half = np.linalg.norm(basis, axis=0) * (np.array(size) - 1) / 2
        self.width = max(float(half[half > 0].min(initial=np.inf)) / 4, 1e-300) if half.any() else 1.0

    def __call__(self, g: GroupElement) -> torch.Tensor:
        x = self.points @ torch.as_tensor(g.inverse.matrix).T
        window = torch.exp(-x.square().sum(1, keepdim=True) / (2 * self.width**2))
        waves = torch.cos(x @ self.waves.T + self.phases) * window
        values = torch.einsum("pm,bmc,ec->bep", waves, self.coefs, torch.as_tensor(self.rep.rho(g)))
        return values.unflatten(2, self.size)
