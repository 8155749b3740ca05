"""Equivariant linear layers: Schur's lemma as one matrix product per irreducible."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..rep import Rep
from ..solver.irreps import irrep_table
from ._module import EquivariantModule, check_features, check_rep
from .layout import Layout

__all__ = ["Linear"]


class Linear(EquivariantModule):
    """y = W x + b with W in Hom_G(rep_in, rep_out) and b invariant (Finzi et al., 2021, eq. 3 and 4).

    In the basis of irreducibles W mixes the copies of each one, by a matrix times its endomorphisms (Schur), so no
    dense basis of Hom is ever formed.

    Args:
        rep_in, rep_out: bound representations of one group.
        bias: add a learnable invariant vector.

    Shapes:
        x (..., rep_in.size) -> (..., rep_out.size)

    Raises:
        RepError: unbound or mismatched representations, or features of the wrong width.

    Example:
        >>> G = groups.Oh()
        >>> layer = nn.Linear((4 * V)(G), (2 * Scalar + V**2)(G))
        >>> layer(torch.randn(10, 12)).shape
        torch.Size([10, 11])
    """

    def __init__(self, rep_in: Rep, rep_out: Rep, bias: bool = True):
        super().__init__()
        check_rep(rep_in=rep_in, rep_out=rep_out)
        self.rep_in, self.rep_out = rep_in, rep_out
        self.layout_in, self.layout_out = Layout(rep_in), Layout(rep_out)
        table = irrep_table(rep_in.group)
        self.weight = nn.ParameterList()
        self.bias = nn.ParameterList()
        self._sources: list[list[tuple[int, str | None]]] = []
        self._offsets: list[str | None] = []
        for b, (out, m_out) in enumerate(zip(self.layout_out.irreps, self.layout_out.copies)):
            sources, rows = [], 0
            for a, (irrep, m_in) in enumerate(zip(self.layout_in.irreps, self.layout_in.copies)):
                maps = table.maps(irrep, out)
                if not len(maps):
                    continue
                name = None
                if not (len(maps) == 1 and irrep.index == out.index):
                    name = f"map{a}_{b}"
                    self._constant(name, maps)
                sources.append((a, name))
                rows += len(maps) * m_in
            self._sources.append(sources)
            # an empty weight gets no gradient, which data-parallel training would wait for
            self.weight.append(nn.Parameter(torch.empty(rows, m_out), requires_grad=rows > 0))
            offsets = table.maps(table.trivial, out) if bias else ()
            name = None
            if len(offsets):
                name = f"offset{b}"
                self._constant(name, offsets[:, :, 0])
                self.bias.append(nn.Parameter(torch.empty(len(offsets), m_out)))
            self._offsets.append(name)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights N(0, 1/fan_in), so unit-variance features stay so; zero bias."""
        for w in self.weight:
            nn.init.normal_(w, std=1 / math.sqrt(max(1, len(w))))
        for b in self.bias:
            nn.init.zeros_(b)

    def blocks(self, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        """The layer between blocks (N, d, m) of ``layout_in`` and of ``layout_out``."""
        out, biases = [], iter(self.bias)
        for w, x, offset in zip(self.weight, self.copies(xs), self._offsets):
            y = x @ w
            if offset is not None:
                y = y + getattr(self, offset).T @ next(biases)
            out.append(y)
        return out

    def copies(self, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        """What each weight mixes: all copies (N, d, rows) of an output irreducible that the blocks hold."""
        out = []
        for sources, irrep in zip(self._sources, self.layout_out.irreps):
            parts = []
            for a, name in sources:
                x = xs[a]
                if name is not None:
                    x = torch.einsum("rij,njm->nirm", getattr(self, name), x).flatten(2)
                parts.append(x)
            if not parts:
                parts = [xs[0].new_zeros(xs[0].shape[0], irrep.size, 0)]
            out.append(parts[0] if len(parts) == 1 else torch.cat(parts, 2))
        return out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_features(x, self.rep_in, "x", self.weight[0])
        flat = x.reshape(-1, self.rep_in.size)
        return self.layout_out.flat(self.blocks(self.layout_in.blocks(flat))).reshape(
            *x.shape[:-1], self.rep_out.size
        )

    def extra_repr(self) -> str:
        return f"{self.rep_in} -> {self.rep_out}, bias={len(self.bias) > 0}"
