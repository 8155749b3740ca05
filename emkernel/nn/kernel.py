"""The implicit steerable kernel: an equivariant MLP from ρ_st ⊕ ρ_z to ρ_in* ⊗ ρ_out (paper, Lemma 1 and eq. 10)."""

from __future__ import annotations

import math
import warnings

import torch
from torch import nn

from .._arguments import whole
from ..ops.plain import Field
from ..rep import Rep
from ..solver.irreps import irrep_table
from .bilinear import Bilinear, irrep_sum
from .linear import Linear
from .steerable import SteerableKernel

__all__ = ["ImplicitKernel"]


class ImplicitKernel(SteerableKernel):
    """k(x, z) with k(g x, ρ_z(g) z) = ρ_out(g) k(x, z) ρ_in(g)^-1 for every g (paper, eq. 4 and 10).

    The network embeds (x, z) (:class:`EdgeEmbedding`), mixes it equivariantly (a bilinear layer where attributes are
    steerable), and gates each steerable hidden channel by an MLP of all invariants: h_a = (W_a Y_a) · MLP(invariants).
    The last layer, linear and shared by all edges, couples the hidden irreducibles a to the maps b -> c between input
    and output irreducibles: vec k transforms under ρ_in* ⊗ ρ_out, the dual for groups that are not orthogonal.

    Args:
        rep_in, rep_out: bound representations of the feature fields.
        edge_rep: representation ρ_z of the edge attributes, or None.
        degree: highest degree of the polynomials of x. Under a group that has the same ones up to it the kernel is
            equivariant as well: between scalars an n-fold axis is one of any order below degree n.
        width: hidden channels per irreducible that meet the last layer.
        hidden: width of the MLP of invariants.
        layers: its hidden layers.
        radial: number of radial functions.
        cutoff: length scale of the edges, in the lengths of ``G.invariant_form``, for orthogonal G those of ``pos``.
        envelope: multiply by an invariant function of the edge vector that falls to zero at the cutoff, with two
            continuous derivatives (:meth:`EdgeEmbedding.window`): nothing jumps where edges come and go with a radius.
        spread: standard deviation of the gates over edges at the start. Small ones begin as smooth functions of the
            length, large ones tell lengths apart at once, as bonds need.
        bilinear: whether hidden fields are also formed from products of embedded fields; by default where ``edge_rep``
            has a steerable part, whose products with x carry information.

    Shapes:
        edge_vec (E, d), edge_attr (E, edge_rep.size) -> (E, rep_out.size, rep_in.size)

    Raises:
        RepError: unbound or mismatched representations, attributes missing or of the wrong width.
        ValueError: width, hidden or degree < 1.

    Example:
        >>> G = groups.Oh()
        >>> k = nn.ImplicitKernel(V(G), (Scalar + V)(G), edge_rep=(5 * Scalar)(G))
        >>> k(torch.randn(7, 3), torch.randn(7, 5)).shape  # (edges, out, in)
        torch.Size([7, 4, 3])
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
        envelope: bool = False,
        spread: float = 0.15,
        bilinear: bool | None = None,
    ):
        super().__init__(rep_in, rep_out, edge_rep)
        width, hidden, layers = whole(width, "width"), whole(hidden, "hidden"), whole(layers, "layers", 0)
        if not (isinstance(spread, (int, float)) and math.isfinite(spread) and spread > 0):
            raise ValueError(f"spread must be a positive number, got {spread!r:.80}")
        self.width, self.spread = width, spread
        group, table = rep_in.group, irrep_table(rep_in.group)
        self._embed(degree, radial, cutoff, envelope)

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
        coupled = {a.index for a in candidates if self.paths(a)}

        self.products = None
        source = [(m, r) for r, m in zip(self.embed.irreps, self.embed.copies)]
        if products and source:
            useful = [a for a in candidates if a.index in coupled]
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
        hidden_irreps = [a for a in candidates if a.index in coupled and (a.is_trivial or a.index in steerable)]
        self._require(hidden_irreps)
        self._has_trivial = hidden_irreps[0].is_trivial
        self._steerable = [a for a in hidden_irreps if not a.is_trivial]
        self.mix = None
        if self._steerable:
            rep_source = irrep_sum(group, [(m, table.irreps[i]) for i, m in steerable.items()])
            rep_hidden = irrep_sum(group, [(width, a) for a in self._steerable])
            self.mix = Linear(rep_source, rep_hidden, bias=False)
        scalars = self.embed.scalars + (width if self.products is not None else 0)
        sizes = [max(scalars, 1)] + [hidden] * layers + [width * len(hidden_irreps)]
        net: list[nn.Module] = []
        for n, m in zip(sizes, sizes[1:]):
            net += [nn.Linear(n, m), nn.SiLU()]
        self.net = nn.Sequential(*net[:-1])
        self._no_scalars = scalars == 0
        if self._no_scalars and self.mix is None:
            warnings.warn(
                f"the kernel from {rep_in} to {rep_out} is the same for every edge: no polynomial of degree up to "
                f"{degree} of an edge vector is invariant under {group.name} or couples them; raise degree, or pass "
                "edge attributes",
                UserWarning,
                stacklevel=2,
            )
        # per hidden irreducible the fields that are mixed to ``width`` channels; no more than these are worth keeping
        fields = [width] * self._has_trivial
        if self.mix is not None:
            fields += [min(len(w), width) for w in self.mix.weight]

        self._couple(hidden_irreps, [width] * len(hidden_irreps), fields)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Last layer N(0, 1/fan_in): unit-variance hidden fields and features give unit-variance messages.

        The gates of the MLP begin around one, so that the polynomials pass, and vary by ``spread``, so that channels
        differ. Of the Gaussians few see an edge, Σ_r φ_r² ≈ (π/2)^(1/2) whatever their number, so that their weights
        are of order one.
        """
        first, *others = (layer for layer in self.net if isinstance(layer, nn.Linear))
        n, local = first.in_features, self.embed.gaussians
        std = first.weight.new_full((n,), math.sqrt(1 / max(1, n - local)))
        std[:local] = math.sqrt(1 / max(1, self.embed.profiles))
        with torch.no_grad():
            first.weight.normal_().mul_(std)
        for layer in others:
            # x SiLU-ed has the second moment 0.356 for x ~ N(0, 1)
            nn.init.normal_(layer.weight, std=math.sqrt(1 / (0.356 * layer.in_features)))
        for layer in (first, *others):
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.net[-1].weight.mul_(self.spread)
        nn.init.ones_(self.net[-1].bias)
        self._reset_last()
        if self.mix is not None:
            self.mix.reset_parameters()

    def hidden(self, edge_vec: torch.Tensor, edge_attr: torch.Tensor | None = None) -> list[Field]:
        """The activations before the last layer, ``dense()`` (E, d_a, width) per hidden irreducible, from ``edge_vec``
        and ``edge_attr``."""
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
        gates = self.net(scalars)
        if self.embed.envelope:
            gates = gates * self.embed.window(edge_vec)
        gates = gates.unflatten(1, (len(self.hidden_irreps), self.width)).unbind(1)
        out = [Field(gates[0][:, None])] if self._has_trivial else []
        if self.mix is not None:
            for x, w, g in zip(self.mix.copies(blocks), self.mix.weight, gates[len(out) :]):
                field = Field(x, w, g)
                out.append(field if len(w) < self.width else Field(field.dense()))
        return out

    def extra_repr(self) -> str:
        edge = f", edge_rep={self.edge_rep}" if self.edge_rep is not None else ""
        triples = sum(len(p.parts) for p in self.pairs)
        return f"{self.rep_in} -> {self.rep_out}{edge}, {triples} triples, width={self.width}"
