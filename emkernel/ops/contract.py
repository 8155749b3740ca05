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
of it is kept: the backward pass computes it again (:mod:`emkernel.ops.blocked`); for a compiler this is one operation
(:mod:`emkernel.ops.opaque`). On a GPU, where targets are not grouped by degree, "message" is one kernel for all pairs
(:mod:`emkernel.ops.coupled`), and all A_i are one fused sum (:mod:`emkernel.ops.fused`). "kernel" forms the kernel, and
is the reference that all must equal.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from .blocked import blocked, targets_at_a_time
from .bundle import Bundle
from .coupled import Plan, coupled
from .memory import Kept
from .neighbours import CSR, Grouped, Neighbours
from .opaque import opaque
from .operands import Operands
from .orders import ordered
from .plain import Field, Pair, contract

__all__ = ["kernel_blocks", "node_order"]


def node_order(
    hidden: list[Field],
    features: list[torch.Tensor],
    graph: Neighbours,
    pairs: list[tuple[Pair, torch.Tensor]],
    bundles: list[Bundle],
    weights: list[torch.Tensor],
    sizes: list[tuple[int, int]],
    contraction: str = "auto",
    chunk: int | None = None,
    plan: tuple[Plan, list[torch.Tensor]] | None = None,
    kept: Kept | None = None,
) -> list[torch.Tensor]:
    """Σ_j k(x_ij) f_j at every target, weights applied per node.

    Args:
        hidden: per hidden irreducible, edges in the order of ``graph``.
        features: (num_sources, d_b, m_b) per input irreducible.
        graph: the neighbours.
        pairs: each pair with its coupling (Q, d_a, d_b); sorted by (b, a).
        bundles: the inputs in order, with the folded couplings of what is sent as messages.
        weights: (K_c, m_c) per output irreducible, rows ordered (b, a, coupling, hidden channel, input channel).
        sizes: (d_c, m_c) per output irreducible.
        contraction: one of ``ORDERS``, or "auto": the cheaper one for each hidden irreducible.
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
        pairs = [(p, C.to(dtype)) for p, C in pairs]
        bundles = [replace(x, folds={a: F.to(dtype) for a, F in x.folds.items()}) for x in bundles]
        plan = plan and (plan[0], [plan[1][0].to(dtype), *plan[1][1:]])
    what = operands, pairs, bundles, sizes, graph, contraction, chunk
    with torch.autocast(device, enabled=False):
        return _on_rows(*what, plan) if isinstance(graph, CSR) else _on_groups(*what, kept or Kept())


def _on_rows(
    operands: Operands, pairs, bundles, sizes, graph: CSR, contraction: str, chunk, plan
) -> list[torch.Tensor]:
    """Of a graph that is not grouped."""
    if torch.compiler.is_compiling() and operands.features[0].device.type == "cpu":
        return opaque(operands, pairs, bundles, sizes, graph, contraction, chunk)
    pairs = ordered(pairs, bundles, operands, graph, contraction)
    if plan is None or contraction == "aggregate":
        return contract(operands, pairs, bundles, sizes, graph)
    return _split(operands, pairs, bundles, sizes, graph, *plan)


def _on_groups(
    operands: Operands, pairs, bundles, sizes, graph: Grouped, contraction: str, chunk, kept: Kept
) -> list[torch.Tensor]:
    """Of a graph that is grouped: a chunk at a time, or as plain operations where all targets are one."""
    chosen = ordered(pairs, bundles, operands, graph, contraction)
    padded = replace(
        operands,
        values=[graph.pad(x) for x in operands.values],
        gates=[None if x is None else graph.pad(x) for x in operands.gates],
    )

    def plain(operands: Operands) -> list[torch.Tensor]:
        return contract(operands, chosen, bundles, sizes, graph)

    most, on_cpu = chunk, operands.features[0].device.type == "cpu"
    if most is None and on_cpu:
        most = targets_at_a_time(chosen, bundles, padded, graph)
    if most is None or most >= sum(n for n, _ in graph.groups):
        out = plain(padded)
    elif torch.compiler.is_compiling() and on_cpu:
        return opaque(operands, pairs, bundles, sizes, graph, contraction, chunk)
    elif torch.compiler.is_compiling() or _transformed(padded):
        out = plain(padded)
    else:
        out = blocked(chosen, bundles, padded, graph, sizes, most, plain, kept)
    return [graph.restore(y.flatten(1)).unflatten(1, y.shape[1:]) for y in out]


def _transformed(operands: Operands) -> bool:
    """Whether torch.func or forward-mode differentiation is at work, which see through plain operations only."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    dual = torch.autograd.forward_ad
    given = [x for x in operands.flat() if x is not None]
    return any(wrapped(x) for x in given) or (
        dual._current_level >= 0 and any(dual.unpack_dual(x).tangent is not None for x in given)
    )


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
    return [x + y for x, y in zip(out, contract(rest, pairs, bundles, sizes, graph))]


def _rows(w: torch.Tensor, spans) -> torch.Tensor:
    pieces = [w[start:stop] for start, stop in spans]
    return w[:0] if not pieces else pieces[0] if len(pieces) == 1 else torch.cat(pieces)


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
