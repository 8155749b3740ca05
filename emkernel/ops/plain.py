"""The contraction as operations that can be differentiated any number of times: what all faster ways must equal."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .bundle import Bundle
from .fused import outer_sum
from .neighbours import CSR, Grouped, Groups, Neighbours
from .operands import Operands

__all__ = ["Field", "Pair", "contract"]


@dataclass(frozen=True)
class Pair:
    """The couplings of one hidden irreducible a with one input irreducible b to all output irreducibles c.

    They are one tensor (Q, d_a, d_b) with Q = Σ_c d_c r_c rows, ordered (c, component of c, coupling).

    Attributes:
        a, b: places among the hidden and the input blocks.
        parts: (c, r_c): the place of each output block and the number of couplings to it.
        is_identity: whether a is trivial and the tensor the identity, so that there is nothing to couple.
    """

    a: int
    b: int
    parts: tuple[tuple[int, int], ...]
    is_identity: bool = False


@dataclass(frozen=True)
class Field:
    """The hidden activations of one irreducible, h = (values w) · gates, as they come before the product.

    Attributes:
        values: (E, d_a, s), s fields of the irreducible.
        mix: (s, u), or None: then s = u and h = values.
        gates: (E, u), with ``mix``.
    """

    values: torch.Tensor
    mix: torch.Tensor | None = None
    gates: torch.Tensor | None = None

    def dense(self) -> torch.Tensor:
        """h (E, d_a, u)."""
        return self.values if self.mix is None else (self.values @ self.mix) * self.gates[:, None]


def contract(
    operands: Operands, pairs, bundles: list[Bundle], sizes: list[tuple[int, int]], graph: Neighbours
) -> list[torch.Tensor]:
    """(targets, d_c, m_c) per output irreducible as operations that can be differentiated any number of times."""
    hidden = [Field(*x) for x in zip(operands.values, operands.mix, operands.gates)]
    features = operands.features
    summed = _Sums(hidden, features, graph) if isinstance(graph, CSR) else _GroupedSums(hidden, features, graph)
    sent = {}
    if isinstance(graph, Grouped):
        sent = {i: S for bundle in bundles for i, S in _messages(hidden, summed.gathered, pairs, bundle, graph.groups)}
    coupled: list[list[torch.Tensor]] = [[] for _ in sizes]
    for i, (pair, C, _) in enumerate(pairs):
        S = sent[i] if i in sent else _couple(summed(pair.a, pair.b), None if pair.is_identity else C)
        pieces = S.split([sizes[c][0] * r for c, r in pair.parts], 1) if len(pair.parts) > 1 else [S]
        for (c, r), piece in zip(pair.parts, pieces):
            coupled[c].append(piece.unflatten(1, (sizes[c][0], r)).flatten(2))
    out = []
    for (d, m), pieces, W in zip(sizes, coupled, operands.weights):
        if not pieces:
            out.append(features[0].new_zeros(summed.rows, d, m))
            continue
        S = (pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)).flatten(0, 1)
        out.append((S @ W).reshape(summed.rows, d, m))
    return out


class _GroupedSums:
    """A = Σ_e h_e ⊗ f_j (targets, d_a, u, d_b, m) for one pair after another, as matrix products."""

    def __init__(self, hidden: list[Field], features: list[torch.Tensor], graph: Grouped):
        self.hidden, self.groups, self.rows = hidden, graph.groups, sum(n for n, _ in graph.groups)
        self.gathered = [
            f.flatten(1).index_select(0, graph.padded_source).unflatten(1, f.shape[1:]) for f in features
        ]
        self.dense: dict[int, torch.Tensor] = {}

    def __call__(self, a: int, b: int) -> torch.Tensor:
        if a not in self.dense:
            self.dense[a] = self.hidden[a].dense()
        h, f = self.dense[a], self.gathered[b]
        return _product(h.flatten(1), f.flatten(1), self.groups).reshape(-1, *h.shape[1:], *f.shape[1:])


class _Sums:
    """The same, all pairs at once."""

    def __init__(self, hidden: list[Field], features: list[torch.Tensor], graph: CSR):
        dense = [h.dense() for h in hidden]
        self.rows = graph.num_targets
        self.shapes = [h.shape[1:] for h in dense], [f.shape[1:] for f in features]
        h, f = (torch.cat([x.flatten(1) for x in xs], 1) for xs in (dense, features))
        A = outer_sum(h, f, graph)
        sizes = [[d * m for d, m in shapes] for shapes in self.shapes]
        self.parts = [x.split(sizes[1], 2) for x in A.split(sizes[0], 1)]

    def __call__(self, a: int, b: int) -> torch.Tensor:
        return self.parts[a][b].unflatten(2, self.shapes[1][b]).unflatten(1, self.shapes[0][a])


def _couple(A: torch.Tensor, C: torch.Tensor | None) -> torch.Tensor:
    """C A: (targets, d_a, u, d_b, m) -> (targets, Q, u, m)."""
    A = A.transpose(2, 3)
    if C is None:
        return A[:, 0]
    u, m = A.shape[3:]
    return (C.flatten(1) @ A.flatten(3).flatten(1, 2)).unflatten(2, (u, m))


def _messages(hidden: list[Field], gathered: list[torch.Tensor], pairs, bundle: Bundle, groups: Groups):
    """(place of the pair, Σ_e g_e w (C Y_e f_j) (targets, Q, u, m)) for all pairs of a bundle that are sent."""
    x = [gathered[b] for b in bundle.inputs]
    x = x[0] if len(x) == 1 else torch.cat(x, 1)
    for a, F in bundle.folds.items():
        mine = [(i, len(C)) for i, (p, C, order) in enumerate(pairs) if p.a == a and p.b in bundle.inputs]
        if not mine or pairs[mine[0][0]][2] != "message":
            continue
        field, rows = hidden[a], sum(q for _, q in mine)
        M = (field.values.flatten(1) @ F).unflatten(1, (-1, x.shape[1]))
        gates = field.gates[:, None] * field.mix
        T = _product(gates.flatten(1), torch.bmm(M, x).flatten(1), groups, field.values.shape[2])
        S = T.unflatten(2, (rows, x.shape[2])).transpose(1, 2).split([q for _, q in mine], 1)
        yield from ((i, piece) for (i, _), piece in zip(mine, S))


def _product(left: torch.Tensor, right: torch.Tensor, groups: Groups, each: int = 1) -> torch.Tensor:
    """Σ over the edges of each target and ``each`` rows of an edge: (E, each p), (E, each q) -> (targets, p, q)."""
    p, q = left.shape[1] // each, right.shape[1] // each
    sizes = [n * k for n, k in groups]
    if not sizes:
        return left.new_zeros(0, p, q)
    pieces = zip(left.split(sizes), right.split(sizes)) if len(sizes) > 1 else [(left, right)]
    sums = [
        torch.bmm(x.reshape(n, k * each, p).transpose(1, 2), y.reshape(n, k * each, q))
        for (n, k), (x, y) in zip(groups, pieces)
    ]
    return sums[0] if len(sums) == 1 else torch.cat(sums)
