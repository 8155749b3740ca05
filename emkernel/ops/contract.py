"""The contraction orders of the point convolution.

With h_e the hidden activations of the kernel network on edge e = (j, i), and the last layer split over irreducible
triples p = (a ⊗ b -> c) with coupling tensors C_p and channel weights W_p,

    y_i^c = Σ_p W_p S_i^p,      S_i^p = Σ_e C_p (h_e^a ⊗ f_j^b).

The weights act once per node and the kernel (d_out x d_in per edge) is never formed, in either of two orders, chosen
for each hidden irreducible a:

- "aggregate" sums A_i = Σ_e h_e ⊗ f_j over the neighbours and couples it at the node;
- "message" uses that h_e^a = (Y_e^a w) · g_e is a few fields Y, polynomials of the edge vector for instance, mixed to
  many channels: it couples Y_e to f_j on the edge, for several b in one product (:mod:`emkernel.ops.bundle`), and the
  gates g_e w join in the sum over the neighbours.

On a CPU targets are taken a chunk at a time, so that what lies between edges and weights stays in the cache, and none
of it is kept: the backward pass computes it again (:mod:`emkernel.ops.blocked`). On a GPU, where targets are not
grouped by degree, "message" is one kernel for all pairs (:mod:`emkernel.ops.coupled`), and all A_i are one fused sum
(:mod:`emkernel.ops.fused`). "kernel" forms the kernel, and is the reference that all must equal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .blocked import blocked, targets_at_a_time
from .bundle import Bundle
from .coupled import Plan, coupled
from .fused import outer_sum
from .memory import Kept
from .neighbours import CSR, Grouped, Groups, Neighbours
from .operands import Operands

__all__ = ["ORDERS", "Field", "Pair", "cheaper", "kernel_blocks", "node_order"]

ORDERS = ("aggregate", "message")


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


def cheaper(
    edges: int,
    nodes: int,
    fields: int,
    width: int,
    pairs: list[tuple[int, int, int, int]],
    products: list[tuple[int, int, int]],
) -> str:
    """The cheaper order for a hidden irreducible of s fields and u channels.

    Counts what differs, in multiplications of large matrix products: those, numbers and rows that are permuted, calls
    of small products, and products of fewer than 400 multiplications, which are done one by one.
    ``benchmarks/orders.py`` compares the choice with what is measured.

    Args:
        edges, nodes: of the graph.
        fields, width: s and u.
        pairs: (m, Q, d_a, d_b) of each pair.
        products: (m, s Q, D) of each bundle to which it is sent.
    """
    call = 3000
    aggregate = message = 0.0
    for m, q, da, db in pairs:
        outer = width * m * da * db
        aggregate += 5 * edges * outer
        aggregate += 3 * nodes * (outer * (6 + 1.3 * q) + 100 * width * da * db + call)
        message += 7 * edges * fields * width * q * m
    aggregate += 220 * edges * width * pairs[0][2]
    for m, height, size in products:
        product = height * size * m
        each = 90 * product if product < 400 else call + (2 if m >= 16 else 6) * product
        message += 3 * edges * (each + 12 * height * size) + 4 * nodes * call
    return "message" if message < aggregate else "aggregate"


def node_order(
    hidden: list[Field],
    features: list[torch.Tensor],
    graph: Neighbours,
    pairs: list[tuple[Pair, torch.Tensor, str]],
    bundles: list[Bundle],
    weights: list[torch.Tensor],
    sizes: list[tuple[int, int]],
    chunk: int | None = None,
    plan: tuple[Plan, list[torch.Tensor]] | None = None,
    kept: Kept | None = None,
) -> list[torch.Tensor]:
    """Σ_j k(x_ij) f_j at every target, weights applied per node.

    Args:
        hidden: per hidden irreducible, edges in the order of ``graph``.
        features: (num_sources, d_b, m_b) per input irreducible.
        graph: the neighbours.
        pairs: each pair with its coupling (Q, d_a, d_b) and its order, one for all pairs of a; sorted by (b, a).
        bundles: the inputs in order, with the folded couplings of what is sent as messages.
        weights: (K_c, m_c) per output irreducible, rows ordered (b, a, coupling, hidden channel, input channel).
        sizes: (d_c, m_c) per output irreducible.
        chunk: targets at a time, or None: as many as keep what lies between in the cache, all of them on a GPU. It has
            no effect on a graph that is not grouped.
        plan: which pairs are coupled on the edges of a graph that is not grouped, and its tables
            (:func:`emkernel.ops.coupled.plan`); all others aggregate.
        kept: what a layer keeps between calls that differ in no more than hidden, features, graph, orders and weights.

    Returns:
        (num_targets, d_c, m_c) per output irreducible.
    """
    operands = Operands(
        [f.values for f in hidden], [f.gates for f in hidden], [f.mix for f in hidden], features, weights
    )
    device = features[0].device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        operands = operands.like([None if x is None else x.to(dtype) for x in operands.flat()])
        pairs = [(p, C.to(dtype), order) for p, C, order in pairs]
        bundles = [replace(x, folds={a: F.to(dtype) for a, F in x.folds.items()}) for x in bundles]
        plan = plan and (plan[0], [plan[1][0].to(dtype), *plan[1][1:]])
    with torch.autocast(device, enabled=False):
        if isinstance(graph, CSR) and plan is None:
            return _contract(operands, pairs, bundles, sizes, graph)
        if isinstance(graph, CSR):
            return _split(operands, pairs, bundles, sizes, graph, *plan)
        operands.values = [graph.pad(x) for x in operands.values]
        operands.gates = [None if x is None else graph.pad(x) for x in operands.gates]

        def plain(operands: Operands) -> list[torch.Tensor]:
            return _contract(operands, pairs, bundles, sizes, graph)

        if chunk is None and device == "cpu":
            chunk = targets_at_a_time(pairs, bundles, operands, graph)
        whole = chunk is None or chunk >= sum(n for n, _ in graph.groups)
        if whole or torch.compiler.is_compiling() or _transformed(operands):
            out = plain(operands)
        else:
            out = blocked(pairs, bundles, operands, graph, sizes, chunk, plain, kept or Kept())
    return [graph.restore(y.flatten(1)).unflatten(1, y.shape[1:]) for y in out]


def _transformed(operands: Operands) -> bool:
    """Whether torch.func or forward-mode differentiation is at work, which see through plain operations only."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    dual = torch.autograd.forward_ad
    given = [x for x in operands.flat() if x is not None]
    return any(wrapped(x) for x in given) or (
        dual._current_level >= 0 and any(dual.unpack_dual(x).tangent is not None for x in given)
    )


def _contract(
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


def _split(
    operands: Operands, pairs, bundles, sizes, graph: CSR, plan: Plan, tables: list[torch.Tensor]
) -> list[torch.Tensor]:
    """The pairs of the plan coupled on the edges, all others at the targets."""
    hidden = [Field(*x) for x in zip(operands.values, operands.mix, operands.gates)]
    kept, others = ([_rows(w, spans[n]) for w, spans in zip(operands.weights, plan.rows)] for n in range(2))
    out = coupled(plan, tables, hidden, operands.features, kept, graph)
    pairs = [x for x in pairs if x[0].a not in plan.places]
    if not pairs:
        return out
    at = {a: n for n, a in enumerate(a for a in range(len(hidden)) if a not in plan.places)}
    rest = Operands(
        *([x[a] for a in at] for x in (operands.values, operands.gates, operands.mix)),
        operands.features,
        others,
    )
    pairs = [(replace(pair, a=at[pair.a]), *x) for pair, *x in pairs]
    return [x + y for x, y in zip(out, _contract(rest, pairs, bundles, sizes, graph))]


def _rows(w: torch.Tensor, spans) -> torch.Tensor:
    pieces = [w[start:stop] for start, stop in spans]
    return w[:0] if not pieces else pieces[0] if len(pieces) == 1 else torch.cat(pieces)


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


def kernel_blocks(
    hidden: list[torch.Tensor],
    pairs: list[Pair],
    couplings: list[torch.Tensor],
    weights: list[torch.Tensor],
    sizes_in: list[tuple[int, int]],
    sizes_out: list[tuple[int, int]],
) -> list[list[torch.Tensor]]:
    """The kernel on every edge between irreducible blocks: out[c][b] is (E, d_c, m_c, d_b, m_b)."""
    edges = hidden[0].shape[0]
    out = [[hidden[0].new_zeros(edges, dc, mc, db, mb) for db, mb in sizes_in] for dc, mc in sizes_out]
    start = [0] * len(sizes_out)
    for pair, coupling in zip(pairs, couplings):
        h, (db, mb) = hidden[pair.a], sizes_in[pair.b]
        for (c, r), C in zip(pair.parts, coupling.split([sizes_out[c][0] * r for c, r in pair.parts])):
            (dc, mc), k = sizes_out[c], r * h.shape[2] * mb
            W = weights[c][start[c] : start[c] + k].reshape(r, h.shape[2], mb, mc)
            start[c] += k
            C = C.unflatten(0, (dc, r)).permute(2, 0, 3, 1)
            # not einsum, whose result has other strides where it runs than where a compiler traces it
            dense = (C.reshape(-1, r) @ W.flatten(1)).reshape(*C.shape[:3], *W.shape[1:])
            dense = dense.permute(0, 3, 1, 5, 2, 4).reshape(h.shape[1] * h.shape[2], dc * mc * db * mb)
            out[c][pair.b] = out[c][pair.b] + (h.flatten(1) @ dense).unflatten(1, (dc, mc, db, mb))
    return out
