"""Equivariant nonlinearities."""

from __future__ import annotations

import torch
from torch import nn

from ..rep import Rep
from ._module import EquivariantModule, check_features, check_rep
from .layout import Layout

__all__ = ["Gate", "Invariants"]


class Invariants(EquivariantModule):
    """The invariants of each field: its trivial copies, and q(v) = v^T B v of each other copy with an invariant form B.

    For a compact group B is positive and q the squared norm; for Lorentz it is the Minkowski square.

    Args:
        rep: a bound representation.

    Attributes:
        size: number of invariants.

    Shapes:
        x (N, rep.size) -> (N, size)
    """

    def __init__(self, rep: Rep):
        super().__init__()
        check_rep(rep=rep)
        self.rep = rep
        self.layout = Layout(rep)
        self._kinds: list[str] = []
        self.size = 0
        for i, (irrep, m) in enumerate(zip(self.layout.irreps, self.layout.copies)):
            kind = "trivial" if irrep.is_trivial else "none" if irrep.form is None else "form"
            if kind == "form":
                self._constant(f"form{i}", irrep.form)
            self._kinds.append(kind)
            self.size += m * (kind != "none")

    def of_blocks(self, xs: list[torch.Tensor]) -> torch.Tensor:
        """(N, size) from blocks (N, d, m)."""
        out = []
        for i, (x, kind) in enumerate(zip(xs, self._kinds)):
            if kind == "trivial":
                out.append(x[:, 0])
            elif kind == "form":
                # the mean over components, so that unit-variance fields give invariants of order one
                out.append((x * torch.einsum("ij,njm->nim", getattr(self, f"form{i}"), x)).mean(1))
        return torch.cat(out, 1) if out else xs[0].new_zeros(xs[0].shape[0], 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_features(x, self.rep, "x", self._like)
        return self.of_blocks(self.layout.blocks(x))


class Gate(EquivariantModule):
    """Gated nonlinearity: s -> SiLU(s) on invariant fields, v -> v · σ(w·s + b) on every other copy of an irreducible.

    The gates are a learned function of the invariant fields; of the invariants q(v) where there are none (Weiler et
    al., 2018; Finzi et al., 2021, section 6). Exactly equivariant for any group.

    Args:
        rep: a bound representation; the layer maps it to itself.

    Shapes:
        x (..., rep.size) -> (..., rep.size)
    """

    def __init__(self, rep: Rep):
        super().__init__()
        check_rep(rep=rep)
        self.rep_in = self.rep_out = self.rep = rep
        self.layout = Layout(rep)
        self._trivial = next((i for i, r in enumerate(self.layout.irreps) if r.is_trivial), None)
        self._gated = [i for i in range(len(self.layout.irreps)) if i != self._trivial]
        self._splits = [self.layout.copies[i] for i in self._gated]
        self.invariants = Invariants(rep) if self._trivial is None else None
        inputs = self.invariants.size if self._trivial is None else self.layout.copies[self._trivial]
        self.gates = nn.Linear(max(inputs, 1), sum(self._splits)) if self._splits else None

    def blocks(self, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        """The nonlinearity on blocks (N, d, m)."""
        out = list(xs)
        if self._trivial is not None:
            s = xs[self._trivial][:, 0]
            out[self._trivial] = nn.functional.silu(xs[self._trivial])
        else:
            # compressed, so that large fields do not saturate every gate
            s = torch.asinh(self.invariants.of_blocks(xs))
        if self.gates is not None:
            if not s.shape[1]:  # nothing is invariant: one constant gate per copy
                s = s.new_ones(s.shape[0], 1)
            gates = torch.sigmoid(self.gates(s)).split(self._splits, 1)
            for i, g in zip(self._gated, gates):
                out[i] = xs[i] * g[:, None]
        return out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_features(x, self.rep, "x", self._like)
        flat = x.reshape(-1, self.rep.size)
        return self.layout.flat(self.blocks(self.layout.blocks(flat))).reshape(x.shape)

    def extra_repr(self) -> str:
        return str(self.rep)
