"""Equivariant multilayer perceptrons."""

from __future__ import annotations

import torch
from torch import nn

from .._arguments import whole
from ..rep import Rep, Scalar
from ..solver.irreps import irrep_table
from ._module import EquivariantModule, check_features, check_rep
from .bilinear import Bilinear, irrep_sum
from .linear import Linear
from .nonlinear import Gate

__all__ = ["EMLP"]


class EMLP(EquivariantModule):
    """An equivariant MLP: linear, bilinear with a shortcut, gate; repeated; and a last linear layer (Finzi
    et al., 2021, section 6).

    Args:
        rep_in, rep_out: bound representations of one group.
        hidden: representation of the hidden layers, or the number of copies of every irreducible of the input and the
            output in it.
        layers: number of hidden layers.
        bilinear: include the bilinear layers, without which products of fields never form.

    Shapes:
        x (..., rep_in.size) -> (..., rep_out.size)

    Example:
        >>> G = groups.Oh()
        >>> nn.EMLP((4 * V)(G), Scalar(G), hidden=16)(torch.randn(10, 12)).shape
        torch.Size([10, 1])
    """

    def __init__(
        self, rep_in: Rep, rep_out: Rep, hidden: int | Rep = 16, layers: int = 2, bilinear: bool = True
    ):
        super().__init__()
        check_rep(rep_in=rep_in, rep_out=rep_out)
        self.rep_in, self.rep_out = rep_in, rep_out
        if isinstance(hidden, Rep):
            check_rep(rep_in=rep_in, hidden=hidden)
        else:
            hidden, table = whole(hidden, "hidden"), irrep_table(rep_in.group)
            kinds = {
                p[0].index: p[0]
                for rep in (Scalar(rep_in.group), rep_in, rep_out)
                for p in table.decompose(rep).parts
            }
            hidden = irrep_sum(rep_in.group, [(hidden, irrep) for irrep in kinds.values()])
        self.hidden = hidden
        self.linear, self.bilinear, self.gate = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        rep = rep_in
        for _ in range(whole(layers, "layers", 0)):
            self.linear.append(Linear(rep, hidden))
            self.bilinear.append(Bilinear(hidden, hidden, hidden) if bilinear else nn.Identity())
            self.gate.append(Gate(hidden))
            rep = hidden
        self.out = Linear(rep, rep_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_features(x, self.rep_in, "x", self._like)
        flat = x.reshape(-1, self.rep_in.size)
        for linear, bilinear, gate in zip(self.linear, self.bilinear, self.gate):
            flat = linear(flat)
            blocks = linear.layout_out.blocks(flat)
            if isinstance(bilinear, Bilinear):
                blocks = [a + b for a, b in zip(blocks, bilinear.blocks(blocks, blocks))]
            flat = linear.layout_out.flat(gate.blocks(blocks))
        return self.out(flat).reshape(*x.shape[:-1], self.rep_out.size)

    def extra_repr(self) -> str:
        return f"{self.rep_in} -> {self.rep_out}, hidden={self.hidden}"
