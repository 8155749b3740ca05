"""Equivariant nonlinearities."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..rep import Rep
from ..solver.forms import pairings, split_by_symmetry, without
from ..solver.irreps import irrep_table
from ._module import EquivariantModule, check_features, check_rep
from .layout import Layout

__all__ = ["Gate", "Invariants"]


class Invariants(EquivariantModule):
    """Invariant numbers of each field: its trivial copies, and the invariant forms of the other irreducibles.

    For a compact group the squared norm of each copy v. For any other, with all invariant bilinear forms B:

    - v_i^T B v_i for each symmetric B, such as the Minkowski square of each copy;
    - v_i^T B v_{i+1} for each antisymmetric B, such as the symplectic form of neighbouring copies;
    - v_i^T B w_i for two irreducibles dual to each other, such as V and V.T of GL(n);
    - on pieces that do not split into irreducibles, the invariant linear functions, and the forms, degenerate ones
      included, that are not products of these.

    Forms are divided by the dimension, so that fields of unit variance give invariants of order one. An indefinite form
    may vanish or be negative; nothing is divided by it.

    Args:
        rep: a bound representation.

    Attributes:
        size: number of invariants.

    Shapes:
        x (N, rep.size) -> (N, size)

    Example:
        >>> square = nn.Invariants(V(groups.Lorentz()))  # (t² - x² - y² - z²)/4, up to a sign
        >>> square(torch.tensor([[5.0, 3.0, 0.0, 0.0]])).abs().item()
        4.0
    """

    def __init__(self, rep: Rep):
        super().__init__()
        check_rep(rep=rep)
        self.rep = rep
        self.layout = Layout(rep)
        table, found = irrep_table(rep.group), list(enumerate(zip(self.layout.irreps, self.layout.copies)))
        # (kind, block, block of the other vector, name of the constant, how many)
        self._terms: list[tuple[str, int, int, str, int]] = []
        linear: dict[int, np.ndarray] = {}
        for i, (irrep, m) in found:
            if irrep.is_trivial:
                self._terms.append(("trivial", i, i, "", m))
                continue
            if rep.group.is_compact:
                self._add("square", i, i, [irrep.form], m)
                continue
            linear[i] = table.maps(irrep, table.trivial)[:, 0]
            symmetric, antisymmetric = split_by_symmetry(pairings(table, irrep, irrep) / irrep.size**0.5)
            products = np.einsum("ai,bj->abij", linear[i], linear[i]).reshape(-1, irrep.size, irrep.size)
            symmetric = without(symmetric, products + products.transpose(0, 2, 1))
            self._add("linear", i, i, linear[i][:, None], m)
            self._add("square", i, i, symmetric * irrep.size**0.5, m)
            self._add("neighbours", i, i, antisymmetric * irrep.size**0.5, m - 1)
        for n, i in enumerate(linear):
            for j in list(linear)[n + 1 :]:
                a, b = self.layout.irreps[i], self.layout.irreps[j]
                forms = pairings(table, a, b) / a.size**0.5
                products = np.einsum("ai,bj->abij", linear[i], linear[j]).reshape(-1, a.size, b.size)
                m = min(self.layout.copies[i], self.layout.copies[j])
                self._add("dual", i, j, without(forms, products) * a.size**0.5, m)
        self.size = sum(m for *_, m in self._terms)

    def _add(self, kind: str, i: int, j: int, forms, m: int) -> None:
        for k, form in enumerate(forms if m else ()):
            name = f"form{i}" if kind == "square" and not k else f"{kind}{i}_{j}_{k}"
            self._constant(name, form)
            self._terms.append((kind, i, j, name, m))

    def of_blocks(self, xs: list[torch.Tensor], compress: bool = False) -> torch.Tensor:
        """(N, size) from blocks xs (N, d, m); with ``compress`` all but the trivial ones under asinh."""
        out = []
        for kind, i, j, name, m in self._terms:
            x, y = xs[i], xs[j]
            if kind == "trivial":
                out.append(x[:, 0])
                continue
            form = getattr(self, name)
            if kind == "linear":
                value = (form @ x)[:, 0]
            else:
                if kind == "neighbours":
                    x, y = x[:, :, :-1], y[:, :, 1:]
                elif kind == "dual":
                    x, y = x[:, :, :m], y[:, :, :m]
                # the mean over components, so that unit-variance fields give invariants of order one
                value = (x * torch.einsum("ij,njm->nim", form, y)).mean(1)
            out.append(torch.asinh(value) if compress else value)
        return torch.cat(out, 1) if out else xs[0].new_zeros(xs[0].shape[0], 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_features(x, self.rep, "x", self._like)
        return self.of_blocks(self.layout.blocks(x))


class Gate(EquivariantModule):
    """Gated nonlinearity: s -> SiLU(s) on invariant fields, v -> v · σ(w·s + b) on every other copy of an irreducible.

    The gates are a learned function of the invariant fields; of the forms of :class:`Invariants` where there are none
    (Weiler et al., 2018; Finzi et al., 2021, section 6). Exactly equivariant for any group.

    Args:
        rep: a bound representation; the layer maps it to itself.

    Shapes:
        x (..., rep.size) -> (..., rep.size)

    Example:
        >>> gate = nn.Gate((8 * Scalar + 4 * V)(groups.Oh()))
        >>> gate(torch.randn(50, 20)).shape
        torch.Size([50, 20])
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
            # split before the sigmoid: inductor writes over one that is saved beside parts of it (torch 2.13)
            for i, g in zip(self._gated, self.gates(s).split(self._splits, 1)):
                out[i] = xs[i] * torch.sigmoid(g)[:, None]
        return out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_features(x, self.rep, "x", self._like)
        flat = x.reshape(-1, self.rep.size)
        return self.layout.flat(self.blocks(self.layout.blocks(flat))).reshape(x.shape)

    def extra_repr(self) -> str:
        return str(self.rep)
