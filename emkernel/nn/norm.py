"""Batch normalisation per field."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..rep import Rep
from ..solver.forms import pairings
from ..solver.irreps import irrep_table
from ._module import EquivariantModule, check_features, check_rep
from .layout import Layout

__all__ = ["BatchNorm"]


class BatchNorm(EquivariantModule):
    """Invariant fields are standardised over the batch; every other copy of an irreducible is divided by the root of
    an invariant size s of it over the batch (paper, section 5.1; Weiler et al., 2018).

    For a compact group s is the mean square of the components. For any other, with the invariant bilinear forms B_k,
    k = 1..p, of the irreducible, each of norm sqrt(d), and n, n' running over the batch,

        s² = mean_{n,n'} Σ_k B_k(v_n, v_n')² / (p d),

    which is invariant, not negative, and 1 for uncorrelated components of unit variance, whatever the signs of B_k: a
    batch of light-like vectors has a size, and so has one of vectors of Sp(2n), where no vector has a square. An
    irreducible without a form is measured against its dual in ``rep``, if that occurs, copy by copy where there are as
    many; then w_n' of the dual stands for v_n'. Where all forms share a radical, s says nothing of some components:
    such a copy is divided by sqrt(1 + s), which never enlarges it. One without any form is only scaled by its learned
    weight. Running averages of s are used in evaluation.

    Args:
        rep: a bound representation.
        eps: added to s: no copy is enlarged by more than 1/sqrt(eps).
        momentum: of the running averages.
        affine: learn a scale for each copy, and a shift for the invariant ones.

    Shapes:
        x (N, rep.size) -> (N, rep.size)

    Example:
        >>> norm = nn.BatchNorm(V(groups.Oh()))
        >>> y = norm(100 * torch.randn(50, 3))
        >>> round(y.square().mean().item(), 2)
        1.0
    """

    def __init__(self, rep: Rep, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True):
        super().__init__()
        check_rep(rep=rep)
        self.rep_in = self.rep_out = self.rep = rep
        self.eps, self.momentum = eps, momentum
        self.layout = Layout(rep)
        copies = sum(self.layout.copies)
        self.register_buffer("running_square", torch.ones(copies))
        self._trivial = next((i for i, r in enumerate(self.layout.irreps) if r.is_trivial), None)
        trivial = 0 if self._trivial is None else self.layout.copies[self._trivial]
        self.register_buffer("running_mean", torch.zeros(trivial))
        self.weight = nn.Parameter(torch.ones(copies)) if affine else None
        self.bias = nn.Parameter(torch.zeros(trivial)) if affine else None
        # the block that each one is measured against, and what is added to s; None where there is no form
        self._against: list[tuple[int, float] | None] = []
        for i in range(len(self.layout.irreps)):
            self._against.append((i, 0.0) if rep.group.is_compact or i == self._trivial else self._forms(i))

    def _forms(self, i: int) -> tuple[int, float] | None:
        table, irreps = irrep_table(self.rep.group), self.layout.irreps
        for j in sorted(range(len(irreps)), key=lambda j: j != i):
            forms = pairings(table, irreps[i], irreps[j]) if j != self._trivial else ()
            if len(forms):
                self._constant(f"forms{i}", forms)
                s = np.linalg.svd(forms.transpose(0, 2, 1).reshape(-1, irreps[i].size), compute_uv=False)
                whole = len(s) == irreps[i].size and s[-1] > 1e-6 * s[0]
                return j, 0.0 if whole else 1.0
        return None

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
            square = torch.cat([self._square(i, xs) for i in range(len(xs))])
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

    def _square(self, i: int, xs: list[torch.Tensor]) -> torch.Tensor:
        x = xs[i]
        if self._against[i] is None:
            return x.new_ones(x.shape[2])
        if f"forms{i}" not in self._exact:
            return x.square().mean((0, 1))
        j, offset = self._against[i]
        # B(v_n, w_n')² over all pairs is tr(B^T C_v B C_w), C the second moments; in float64, as boosted vectors have
        # moments much larger than their invariants
        forms, x, y = self._exact[f"forms{i}"].to(x.device), x.double(), xs[j].double()
        mine, other = (torch.einsum("nim,njm->mij", v, v) / len(v) for v in (x, y))
        other = other if len(other) == len(mine) else other.mean(0, keepdim=True).expand_as(mine)
        trace = torch.einsum("kij,mil,klp,mjp->m", forms, mine, forms, other) / (len(forms) * x.shape[1])
        return offset + torch.sqrt(trace.clamp(min=0) + self.eps**2).to(xs[i].dtype)

    def _update(self, running: torch.Tensor, value: torch.Tensor) -> None:
        with torch.no_grad():
            running.lerp_(value.detach().to(running.dtype), self.momentum)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_features(x, self.rep, "x", self._like)
        flat = x.reshape(-1, self.rep.size)
        return self.layout.flat(self.blocks(self.layout.blocks(flat))).reshape(x.shape)

    def extra_repr(self) -> str:
        return str(self.rep)
