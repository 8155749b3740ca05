"""What all steerable kernels share: a last layer of couplings, and normalisation by data (paper, eq. 10)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from ..errors import RepError
from ..ops.bundle import Bundle, fold, ranges
from ..ops.contract import kernel_blocks
from ..ops.coupled import Plan, plan, runs_on
from ..ops.memory import Kept
from ..ops.plain import Field, Pair
from ..rep import Rep
from ..solver.coupling import couplings
from ..solver.irreps import Irrep, irrep_table
from ..solver.orbits import Seeded
from ._module import EquivariantModule, check_features, check_like, check_rep, check_tensor
from .embed import EdgeEmbedding
from .layout import Layout

__all__ = ["SteerableKernel"]

NUMBERS = 2**24  # in the kernels that are formed at once to normalise


class SteerableKernel(EquivariantModule):
    """k(x, z) = Σ_abc W_abc C_abc h_a(x, z), with hidden fields h_a of irreducibles a and couplings C of a ⊗ b -> c.

    h_a(g x, ρ_z(g) z) = a(g) h_a(x, z) makes k steerable, k(g x, ρ_z(g) z) = ρ_out(g) k(x, z) ρ_in(g)^-1. A kind of
    kernel is a kind of ``hidden`` fields; it begins its making with :meth:`_embed` and ends it with :meth:`_couple`.

    Attributes:
        embed: the embedding of an edge.
        hidden_irreps, widths: the irreducibles a and how many h_a there are of each.
        fields: how many fields each h_a is mixed from (:class:`emkernel.ops.plain.Field`).
        deviation: what the kernel is divided by, 1 unless normalised.
        kept: what a convolution keeps from one call to the next.
    """

    takes_attributes = True
    embed: EdgeEmbedding

    def __init__(self, rep_in: Rep, rep_out: Rep, edge_rep: Rep | None):
        super().__init__()
        check_rep(rep_in=rep_in, rep_out=rep_out, edge_rep=edge_rep)
        self.rep_in, self.rep_out, self.edge_rep = rep_in, rep_out, edge_rep
        self._paths: dict[int, list[tuple[int, int, np.ndarray | Seeded]]] = {}

    def _embed(self, degree: int, radial: int, cutoff: float, envelope: bool) -> None:
        # before the layouts: what is shipped was solved in the order in which it is met
        self.embed = EdgeEmbedding(self.rep_in.group, self.edge_rep, degree, radial, cutoff, envelope)
        self.layout_in, self.layout_out = Layout(self.rep_in), Layout(self.rep_out)

    def paths(self, a: Irrep) -> list[tuple[int, int, np.ndarray | Seeded]]:
        """(place of b in the input, of c in the output, couplings of a ⊗ b -> c), where there are any."""
        table = irrep_table(self.rep_in.group)
        if a.index not in self._paths:
            self._paths[a.index] = [
                (b, c, C)
                for b, rb in enumerate(self.layout_in.irreps)
                for c, rc in enumerate(self.layout_out.irreps)
                if len(C := couplings(table, a, rb, rc))
            ]
        return self._paths[a.index]

    def hidden(self, edge_vec: torch.Tensor, edge_attr: torch.Tensor | None = None) -> list[Field]:
        """The activations before the last layer, ``dense()`` (E, d_a, width) per hidden irreducible."""
        raise NotImplementedError

    # ---- the last layer -------------------------------------------------------------------------------------

    def _require(self, irreps: list[Irrep]) -> None:
        if not irreps:
            raise RepError(
                f"no equivariant kernel from {self.rep_in} to {self.rep_out}: no polynomial of degree up to "
                f"{self.embed.degree} couples them; raise degree, or pass steerable edge attributes"
            )

    def _couple(self, irreps: list[Irrep], widths: list[int], fields: list[int]) -> None:
        self.hidden_irreps, self.widths, self.fields = irreps, widths, fields
        self.pairs: list[Pair] = []
        self.weight = nn.ParameterList()
        rows = [0] * len(self.layout_out.irreps)
        for b, m in enumerate(self.layout_in.copies):
            for a, irrep in enumerate(irreps):
                parts = [(c, np.asarray(C)) for with_b, c, C in self.paths(irrep) if with_b == b]
                if not parts:
                    continue
                for c, C in parts:
                    rows[c] += len(C) * widths[a] * m
                coupling = np.concatenate([C.swapaxes(0, 1).reshape(-1, *C.shape[2:]) for _, C in parts])
                self._constant(f"coupling{len(self.pairs)}", coupling)
                plain = irrep.is_trivial and np.array_equal(coupling[:, 0], np.eye(coupling.shape[2]))
                self.pairs.append(Pair(a, b, tuple((c, len(C)) for c, C in parts), plain))
        for k, m in zip(rows, self.layout_out.copies):
            self.weight.append(nn.Parameter(torch.empty(k, m), requires_grad=k > 0))
        self.register_buffer("deviation", torch.ones(()))
        sent = [[0] * len(self.layout_in.irreps) for _ in irreps]
        for pair, C in zip(self.pairs, self.couplings):
            if fields[pair.a] < widths[pair.a]:
                sent[pair.a][pair.b] = fields[pair.a] * len(C)
        self._ranges = ranges([(r.size, m) for r, m in zip(self.layout_in.irreps, self.layout_in.copies)], sent)
        self._folds()

    def _reset_last(self, gain: float = 1.0) -> None:
        """N(0, gain/fan_in), and no normalisation."""
        for w in self.weight:
            nn.init.normal_(w, std=math.sqrt(gain / max(1, len(w))))
        nn.init.ones_(self.deviation)

    @property
    def last(self) -> list[torch.Tensor]:
        """The weights (K_c, m_c) of the last layer, normalised."""
        return [w / self.deviation for w in self.weight]

    @torch.no_grad()
    def normalise(
        self,
        edge_vec: torch.Tensor | None = None,
        edge_attr: torch.Tensor | None = None,
        *,
        std: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> float:
        """Divide the kernel by the standard deviation of its components over edges, from now on (paper, section 5.1).

        The generalised He initialisation of Weiler and Cesa (2019), from data: before training, for each layer. The
        divisor ``deviation`` is a buffer of the ``state_dict`` and stays as it is until the weights are drawn anew.

        Args:
            edge_vec: (E, d) edges like those to come; by default of uniform direction, and length up to the cutoff.
            edge_attr: (E, edge_rep.size) their attributes; by default normal, of unit variance.
            std: the standard deviation afterwards; 1 / sqrt(rep_in.size) makes messages of unit variance.
            generator: source of what is drawn; by default the same every time.

        Returns:
            The standard deviation before.

        Raises:
            ValueError: the kernel does not vary over these edges.

        Example:
            >>> model = ek.models.ParticleNet(groups.O2z(), channels=2, layers=1)
            >>> for module in model.modules():
            ...     if isinstance(module, nn.ImplicitKernel):
            ...         divisor = module.normalise(std=module.rep_in.size**-0.5)
        """
        if not (isinstance(std, (int, float)) and math.isfinite(std) and std > 0):
            raise ValueError(f"std must be a positive number, got {std!r:.80}")
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        like = self.weight[0]
        if edge_vec is None:
            many = max(64, min(1024, NUMBERS // (self.rep_in.size * self.rep_out.size)))
            edge_vec = self.embed.example(many, generator).to(like)
        if edge_attr is None and self.edge_rep is not None:
            shape = len(edge_vec), self.edge_rep.size
            edge_attr = torch.randn(shape, generator=generator, dtype=torch.float64).to(like)
        before = float(self.deviation)
        self.deviation.fill_(1)
        found = float(self(edge_vec, edge_attr).std()) if len(edge_vec) else math.nan
        if not (math.isfinite(found) and found > 0):
            self.deviation.fill_(before)
            raise ValueError(
                f"the kernel has standard deviation {found} over {len(edge_vec)} edges: pass edges that "
                "differ and are finite, and such attributes"
            )
        self.deviation.fill_(found / std)
        return found

    # ---- derived constants ----------------------------------------------------------------------------------

    def _folds(self) -> None:
        """The couplings of each hidden irreducible that is mixed from fewer fields, folded for each bundle."""
        self.kept = Kept()
        for i, inputs in enumerate(self._ranges):
            sizes = [self.layout_in.irreps[b].size for b in inputs]
            for a, (s, u) in enumerate(zip(self.fields, self.widths)):
                mine = [(p.b, C) for p, C in zip(self.pairs, self.couplings) if p.a == a and p.b in inputs]
                F = None
                if s < u and mine:
                    F = fold([(sum(sizes[: b - inputs.start]), C) for b, C in mine], sum(sizes), s)
                self.register_buffer(f"_fold{i}_{a}", F, persistent=False)
        found = None
        if runs_on(self.couplings[0]):
            inputs, outputs = (
                [(r.size, m) for r, m in zip(lay.irreps, lay.copies)]
                for lay in (self.layout_in, self.layout_out)
            )
            found = plan(self.pairs, self.couplings, self.fields, self.widths, inputs, outputs)
        self._plan, tables = found or (None, [None] * 5)
        for i, table in enumerate(tables):
            self.register_buffer(f"_table{i}", table, persistent=False)

    def _constants_changed(self) -> None:
        if hasattr(self, "pairs"):
            self._folds()

    @property
    def couplings(self) -> list[torch.Tensor]:
        """The coupling tensors (Q, d_a, d_b), one per pair."""
        return [getattr(self, f"coupling{i}") for i in range(len(self.pairs))]

    @property
    def bundles(self) -> list[Bundle]:
        """The inputs, bundled, with the folded couplings of what may be sent as messages."""
        found = []
        for i, inputs in enumerate(self._ranges):
            folds = {a: getattr(self, f"_fold{i}_{a}") for a in range(len(self.fields))}
            size = sum(self.layout_in.irreps[b].size for b in inputs)
            folds = {a: F for a, F in folds.items() if F is not None}
            found.append(Bundle(inputs, size, self.layout_in.copies[inputs[0]], folds))
        return found

    @property
    def plan(self) -> tuple[Plan, list[torch.Tensor]] | None:
        """Which pairs are coupled on the edges where there is a GPU, with the tables of its kernels."""
        return None if self._plan is None else (self._plan, [getattr(self, f"_table{i}") for i in range(5)])

    # ---- evaluation -----------------------------------------------------------------------------------------

    def check_edges(self, edge_vec: torch.Tensor, edge_attr: torch.Tensor | None) -> None:
        """Raise unless the arguments fit the group and the edge representation."""
        d = self.rep_in.group.d
        check_tensor(edge_vec, "edge_vec")
        check_like(edge_vec, self.weight[0], "edge_vec")
        if edge_vec.ndim != 2 or edge_vec.shape[1] != d:
            raise ValueError(
                f"edge_vec has shape {tuple(edge_vec.shape)}, expected (E, {d}) for {self.rep_in.group.name}"
            )
        self.check_attributes(edge_attr, edge_vec)
        if edge_attr is not None and edge_attr.shape[:-1] != edge_vec.shape[:-1]:
            raise ValueError(
                f"edge_attr has {edge_attr.shape[0]} rows, edge_vec {edge_vec.shape[0]}: one per edge is expected"
            )

    def check_attributes(self, edge_attr: torch.Tensor | None, like: torch.Tensor) -> None:
        """Raise unless there are attributes where the kernel takes any, of its representation and a tensor's dtype."""
        if (edge_attr is None) != (self.edge_rep is None):
            raise RepError(
                "edge_attr is missing: the kernel has edge_rep = " + str(self.edge_rep)
                if edge_attr is None
                else "edge_attr was passed to a kernel built without edge_rep"
            )
        if edge_attr is not None:
            check_features(edge_attr, self.edge_rep, "edge_attr", like)

    def forward(self, edge_vec: torch.Tensor, edge_attr: torch.Tensor | None = None) -> torch.Tensor:
        self.check_edges(edge_vec, edge_attr)
        hidden = [h.dense() for h in self.hidden(edge_vec, edge_attr)]
        sizes = [
            [(r.size, m) for r, m in zip(lay.irreps, lay.copies)] for lay in (self.layout_in, self.layout_out)
        ]
        blocks = kernel_blocks(hidden, self.pairs, self.couplings, self.last, *sizes)
        edges, n_in = edge_vec.shape[0], self.rep_in.size
        # the columns of k in the user's layout, a row at a time: k = back_out · blocks · to_in
        columns = []
        for row in blocks:
            _, d, m = row[0].shape[:3]
            flat = [x.reshape(edges * d * m, db, mb) for x, (db, mb) in zip(row, sizes[0])]
            columns.append(self.layout_in.flat_dual(flat).reshape(edges, d, m, n_in))
        rows = [x.permute(0, 3, 1, 2).reshape(edges * n_in, *x.shape[1:3]) for x in columns]
        return self.layout_out.flat(rows).reshape(edges, n_in, self.rep_out.size).transpose(1, 2)
