"""Batch normalisation per field."""

from __future__ import annotations

import torch
from torch import nn

from ..rep import Rep
from ._module import EquivariantModule, check_features, check_rep
from .layout import Layout
from .nonlinear import Invariants

__all__ = ["BatchNorm"]


class BatchNorm(EquivariantModule):
    """Invariant fields are standardised over the batch; every other copy of an irreducible is divided by its root mean
    square invariant, sqrt(mean |q(v)|), q the invariant form (paper, section 5.1; Weiler et al., 2018).

    A copy without an invariant form is only scaled by its learned weight. Running averages are used in evaluation.

    Args:
        rep: a bound representation.
        eps: added to the mean square.
        momentum: of the running averages.
        affine: learn a scale for each copy, and a shift for the invariant ones.

    Shapes:
        x (N, rep.size) -> (N, rep.size)
    """

    def __init__(self, rep: Rep, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True):
        super().__init__()
        check_rep(rep=rep)
        self.rep_in = self.rep_out = self.rep = rep
        self.eps, self.momentum = eps, momentum
        self.layout = Layout(rep)
        self.invariants = Invariants(rep)
        copies = sum(self.layout.copies)
        self.register_buffer("running_square", torch.ones(copies))
        self._trivial = next((i for i, r in enumerate(self.layout.irreps) if r.is_trivial), None)
        trivial = 0 if self._trivial is None else self.layout.copies[self._trivial]
        self.register_buffer("running_mean", torch.zeros(trivial))
        self.weight = nn.Parameter(torch.ones(copies)) if affine else None
        self.bias = nn.Parameter(torch.zeros(trivial)) if affine else None

    def blocks(self, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        """The normalisation of blocks (N, d, m)."""
        xs = list(xs)
        t = self._trivial
        if t is not None:
            mean = xs[t].mean((0, 1)) if self.training and len(xs[t]) else self.running_mean
            if self.training and len(xs[t]):
                self._update(self.running_mean, mean)
            xs[t] = xs[t] - mean
        if self.training and len(xs[0]):
            square = torch.cat([self._square(i, x) for i, x in enumerate(xs)])
            self._update(self.running_square, square)
        else:
            square = self.running_square
        scale = torch.rsqrt(square + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        out = [x * s for x, s in zip(xs, scale.split(self.layout.copies))]
        if t is not None and self.bias is not None:
            out[t] = out[t] + self.bias
        return out

    def _square(self, i: int, x: torch.Tensor) -> torch.Tensor:
        kind = self.invariants._kinds[i]
        if kind == "none":
            return x.new_ones(x.shape[2])
        if kind == "trivial":
            return x.square().mean((0, 1))
        form = getattr(self.invariants, f"form{i}")
        return (x * torch.einsum("ij,njm->nim", form, x)).mean(1).abs().mean(0)

    def _update(self, running: torch.Tensor, value: torch.Tensor) -> None:
        with torch.no_grad():
            running.lerp_(value.detach().to(running.dtype), self.momentum)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_features(x, self.rep, "x", self._like)
        flat = x.reshape(-1, self.rep.size)
        return self.layout.flat(self.blocks(self.layout.blocks(flat))).reshape(x.shape)

    def extra_repr(self) -> str:
        return str(self.rep)
