"""The implicit steerable kernel: an equivariant MLP from ρ_st ⊕ ρ_z to ρ_in* ⊗ ρ_out (paper, Lemma 1 and eq. 10)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from ..errors import RepError
from ..ops.contract import Field, Pair, fold, kernel_blocks
from ..rep import Rep
from ..solver.coupling import couplings
from ..solver.irreps import Irrep, irrep_table
from ._module import EquivariantModule, check_features, check_rep
from .bilinear import Bilinear, irrep_sum
from .embed import EdgeEmbedding
from .layout import Layout
from .linear import Linear

__all__ = ["ImplicitKernel"]


class ImplicitKernel(EquivariantModule):
    """k(x, z) with k(g x, ρ_z(g) z) = ρ_out(g) k(x, z) ρ_in(g)^-1 for every g (paper, eq. 4 and 10).

    The network embeds (x, z) (:class:`EdgeEmbedding`), mixes it equivariantly (a bilinear layer where attributes are
    steerable), and gates each steerable hidden channel by an MLP of all invariants: h_a = (W_a Y_a) · MLP(invariants).
    The last layer, linear and shared by all edges, couples the hidden irreducibles a to the maps b -> c between input
    and output irreducibles: vec k transforms under ρ_in* ⊗ ρ_out, the dual for groups that are not orthogonal.

    Args:
        rep_in, rep_out: bound representations of the feature fields.
        edge_rep: representation ρ_z of the edge attributes, or None.
        degree: highest degree of the polynomials of x.
        width: hidden channels per irreducible that meet the last layer.
        hidden: width of the MLP of invariants.
        layers: its hidden layers.
        radial: number of radial functions.
        cutoff: length scale of the edges, in the units of ``pos``.
        bilinear: whether hidden fields are also formed from products of embedded fields; by default where ``edge_rep``
            has a steerable part, whose products with x carry information.

    Shapes:
        edge_vec (E, d), edge_attr (E, edge_rep.size) -> (E, rep_out.size, rep_in.size)

    Raises:
        RepError: unbound or mismatched representations, attributes missing or of the wrong width.

    Example:
        >>> k = ImplicitKernel(V(G), (Scalar + V)(G), edge_rep=(3 * Scalar)(G))
        >>> k(torch.randn(7, G.d), torch.randn(7, 3)).shape
    """

    def __init__(
        self,
        rep_in: Rep,
        rep_out: Rep,
        edge_rep: Rep | None = None,
        *,
        degree: int = 2,
        width: int = 8,
        hidden: int = 32,
        layers: int = 2,
        radial: int = 10,
        cutoff: float = 1.0,
        bilinear: bool | None = None,
    ):
        super().__init__()
        check_rep(rep_in=rep_in, rep_out=rep_out, edge_rep=edge_rep)
        for name, value in (("width", width), ("hidden", hidden), ("degree", degree)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.rep_in, self.rep_out, self.edge_rep = rep_in, rep_out, edge_rep
        self.width = width
        group, table = rep_in.group, irrep_table(rep_in.group)
        self.embed = EdgeEmbedding(group, edge_rep, degree, radial, cutoff)
        self.layout_in, self.layout_out = Layout(rep_in), Layout(rep_out)

        products = self.embed.has_steerable_attributes if bilinear is None else bilinear
        candidates = {r.index: r for r in (table.trivial, *self.embed.irreps)}
        if products:
            known = (
                [table.irreps[i] for k in range(degree + 1) for i in table.level(k)]
                if table.coordinates.completely_reducible
                else []
            )
            candidates |= {r.index: r for r in known}
        candidates = list(candidates.values())
        found = {
            a.index: [
                (b, c, C)
                for b, rb in enumerate(self.layout_in.irreps)
                for c, rc in enumerate(self.layout_out.irreps)
                if len(C := couplings(table, a, rb, rc))
            ]
            for a in candidates
        }

        self.products = None
        source = [(m, r) for r, m in zip(self.embed.irreps, self.embed.copies)]
        if products and source:
            useful = [a for a in candidates if found[a.index]]
            target = irrep_sum(
                group, [(width, a) for a in useful if not a.is_trivial] + [(width, table.trivial)]
            )
            mid = irrep_sum(group, source)
            self.products = Bilinear(mid, mid, target, width)
            made = {c.index for c in self.products._wanted}
            source = source + [(width, a) for a in useful if a.index in made and not a.is_trivial]
        steerable: dict[int, int] = {}
        for m, r in source:
            steerable[r.index] = steerable.get(r.index, 0) + m
        self._sources = list(steerable)
        # only hidden irreducibles that couple the input to the output
        self.hidden_irreps: list[Irrep] = [
            a for a in candidates if found[a.index] and (a.is_trivial or a.index in steerable)
        ]
        if not self.hidden_irreps:
            raise RepError(
                f"no equivariant kernel from {rep_in} to {rep_out}: no polynomial of degree up to {degree} "
                "couples them; raise degree, or pass steerable edge attributes"
            )
        self._has_trivial = self.hidden_irreps[0].is_trivial
        self._steerable = [a for a in self.hidden_irreps if not a.is_trivial]
        self.mix = None
        if self._steerable:
            rep_source = irrep_sum(group, [(m, table.irreps[i]) for i, m in steerable.items()])
            rep_hidden = irrep_sum(group, [(width, a) for a in self._steerable])
            self.mix = Linear(rep_source, rep_hidden, bias=False)
        scalars = self.embed.scalars + (width if self.products is not None else 0)
        sizes = [max(scalars, 1)] + [hidden] * layers + [width * len(self.hidden_irreps)]
        net: list[nn.Module] = []
        for n, m in zip(sizes, sizes[1:]):
            net += [nn.Linear(n, m), nn.SiLU()]
        self.net = nn.Sequential(*net[:-1])
        self._no_scalars = scalars == 0
        # per hidden irreducible the fields that are mixed to ``width`` channels; no more than these are worth keeping
        self.fields = [width] * self._has_trivial
        if self.mix is not None:
            self.fields += [min(len(w), width) for w in self.mix.weight]

        self.pairs: list[Pair] = []
        self.weight = nn.ParameterList()
        rows = [0] * len(self.layout_out.irreps)
        for b, m in enumerate(self.layout_in.copies):
            for a, irrep in enumerate(self.hidden_irreps):
                parts = [(c, C) for with_b, c, C in found[irrep.index] if with_b == b]
                if not parts:
                    continue
                for c, C in parts:
                    rows[c] += len(C) * width * m
                coupling = np.concatenate([C.swapaxes(0, 1).reshape(-1, *C.shape[2:]) for _, C in parts])
                self._constant(f"coupling{len(self.pairs)}", coupling)
                plain = irrep.is_trivial and np.array_equal(coupling[:, 0], np.eye(coupling.shape[2]))
                self.pairs.append(Pair(a, b, tuple((c, len(C)) for c, C in parts), plain))
        for k, m in zip(rows, self.layout_out.copies):
            self.weight.append(nn.Parameter(torch.empty(k, m), requires_grad=k > 0))
        self._folds()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Last layer N(0, 1/fan_in): unit-variance hidden fields and features give unit-variance messages."""
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=math.sqrt(1.5 / layer.in_features))
                nn.init.zeros_(layer.bias)
        # gates near one at the start, so that the steerable polynomials pass
        nn.init.ones_(self.net[-1].bias)
        for w in self.weight:
            nn.init.normal_(w, std=1 / math.sqrt(max(1, len(w))))
        if self.mix is not None:
            self.mix.reset_parameters()

    # ---- derived constants ----------------------------------------------------------------------------------

    def _folds(self) -> None:
        for i, (pair, C) in enumerate(zip(self.pairs, self.couplings)):
            s = self.fields[pair.a]
            self.register_buffer(f"_fold{i}", fold(C, s) if s < self.width else None, persistent=False)

    def _constants_changed(self) -> None:
        if hasattr(self, "pairs"):
            self._folds()

    @property
    def couplings(self) -> list[torch.Tensor]:
        """The coupling tensors (Q, d_a, d_b), one per pair."""
        return [getattr(self, f"coupling{i}") for i in range(len(self.pairs))]

    @property
    def folded(self) -> list[torch.Tensor | None]:
        return [getattr(self, f"_fold{i}") for i in range(len(self.pairs))]

    # ---- evaluation -----------------------------------------------------------------------------------------

    def hidden(self, edge_vec: torch.Tensor, edge_attr: torch.Tensor | None = None) -> list[Field]:
        """The activations before the last layer, ``dense()`` (E, d_a, width) per hidden irreducible."""
        scalars, blocks = self.embed(edge_vec, edge_attr)
        if self.products is not None:
            made = self.products.blocks(blocks, blocks)
            extra = {irrep.index: block for irrep, block in zip(self.products.layout_out.irreps, made)}
            # compressed: products of large fields would swamp the network of invariants
            scalars = torch.cat([scalars, torch.asinh(extra[0][:, 0])], 1)
            have = {r.index: [x] for r, x in zip(self.embed.irreps, blocks)}
            for r in self.products._wanted:
                if not r.is_trivial:
                    have.setdefault(r.index, []).append(extra[r.index])
            blocks = [torch.cat(have[i], 2) for i in self._sources]
        if self._no_scalars:
            scalars = edge_vec.new_ones(edge_vec.shape[0], 1)
        gates = self.net(scalars).unflatten(1, (len(self.hidden_irreps), self.width)).unbind(1)
        out = [Field(gates[0][:, None])] if self._has_trivial else []
        if self.mix is not None:
            for x, w, g in zip(self.mix.copies(blocks), self.mix.weight, gates[len(out) :]):
                field = Field(x, w, g)
                out.append(field if len(w) < self.width else Field(field.dense()))
        return out

    def check_edges(self, edge_vec: torch.Tensor, edge_attr: torch.Tensor | None) -> None:
        """Raise unless the arguments fit the group and the edge representation."""
        d = self.rep_in.group.d
        if edge_vec.ndim != 2 or edge_vec.shape[1] != d:
            raise ValueError(
                f"edge_vec has shape {tuple(edge_vec.shape)}, expected (E, {d}) for {self.rep_in.group.name}"
            )
        if (edge_attr is None) != (self.edge_rep is None):
            raise RepError(
                "edge_attr is missing: the kernel has edge_rep = " + str(self.edge_rep)
                if edge_attr is None
                else "edge_attr was passed to a kernel built without edge_rep"
            )
        if edge_attr is not None:
            check_features(edge_attr, self.edge_rep, "edge_attr", edge_vec)
            if edge_attr.shape[:-1] != edge_vec.shape[:-1]:
                raise ValueError(
                    f"edge_attr has {edge_attr.shape[0]} rows, edge_vec {edge_vec.shape[0]}: one per edge is "
                    "expected"
                )

    def forward(self, edge_vec: torch.Tensor, edge_attr: torch.Tensor | None = None) -> torch.Tensor:
        self.check_edges(edge_vec, edge_attr)
        hidden = [h.dense() for h in self.hidden(edge_vec, edge_attr)]
        sizes = [
            [(r.size, m) for r, m in zip(lay.irreps, lay.copies)] for lay in (self.layout_in, self.layout_out)
        ]
        blocks = kernel_blocks(hidden, self.pairs, self.couplings, list(self.weight), *sizes)
        edges, n_in = edge_vec.shape[0], self.rep_in.size
        # the columns of k in the user's layout, a row at a time: k = back_out · blocks · to_in
        columns = []
        for row in blocks:
            _, d, m = row[0].shape[:3]
            flat = [x.reshape(edges * d * m, db, mb) for x, (db, mb) in zip(row, sizes[0])]
            columns.append(self.layout_in.flat_dual(flat).reshape(edges, d, m, n_in))
        rows = [x.permute(0, 3, 1, 2).reshape(edges * n_in, *x.shape[1:3]) for x in columns]
        return self.layout_out.flat(rows).reshape(edges, n_in, self.rep_out.size).transpose(1, 2)

    def extra_repr(self) -> str:
        edge = f", edge_rep={self.edge_rep}" if self.edge_rep is not None else ""
        triples = sum(len(p.parts) for p in self.pairs)
        return f"{self.rep_in} -> {self.rep_out}{edge}, {triples} triples, width={self.width}"
