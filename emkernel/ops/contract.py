"""The contraction orders of the point convolution.

With h_e the hidden activations of the kernel network on edge e = (j, i), and the last layer split over irreducible
triples p = (a ⊗ b -> c) with coupling tensors C_p and channel weights W_p,

    y_i^c = Σ_p W_p Σ_e C_p (h_e^a ⊗ f_j^b).

The weights act once per node and the kernel (d_out x d_in per edge) is never formed, in either of two orders:
"aggregate" sums A_i = Σ_e h_e ⊗ f_j over the neighbours and couples it at the node; "expand" applies C_p to
h_e on the edges, where no feature channel takes part, and sums the products over the neighbours. Which is
cheaper depends on the number of neighbours and channels. "kernel" forms the kernel, and is the reference
that both must equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch

from .neighbours import Neighbours

__all__ = ["Triple", "fold", "kernel_blocks", "node_order"]

FOLD_LIMIT = 48


@dataclass(frozen=True)
class Triple:
    """Where one irreducible triple a ⊗ b -> c finds its tensors.

    Attributes:
        a, b, c: places among the hidden, input and output blocks.
        rows: slice of the weight of block c, ordered (coupling, hidden channel, input channel).
    """

    a: int
    b: int
    c: int
    rows: slice


def fold(C: torch.Tensor, width: int) -> torch.Tensor:
    """(r, d_c, d_a, d_b) -> (d_a u, d_b d_c r u): one matrix on all hidden channels, diagonal in u."""
    r, dc, da, db = C.shape
    eye = torch.eye(width, dtype=C.dtype, device=C.device)
    return torch.einsum("rcab,uv->aubcrv", C, eye).reshape(da * width, db * dc * r * width)


def _expand(h: torch.Tensor, C: torch.Tensor, folded: torch.Tensor | None) -> torch.Tensor:
    """C h: (P, d_a, u) -> (P, d_b, d_c r u)."""
    r, dc, da, db = C.shape
    if folded is not None:
        return (h.flatten(1) @ folded).unflatten(1, (db, -1))
    rows = h.transpose(1, 2).reshape(-1, da) @ C.permute(2, 3, 1, 0).reshape(da, -1)
    return rows.reshape(h.shape[0], h.shape[2], db, dc * r).permute(0, 2, 3, 1).flatten(2)


def _cheaper(edges: int, nodes: int, u: int, m: int, da: int, db: int, q: int) -> str:
    """The order with fewer operations for one pair (a, b) with q = Σ r d_c coupled components.

    Counts multiplications, and memory traffic at ten multiplications per number moved.
    """
    unit = 2 * da * u if da * u <= FOLD_LIMIT else 2 * da + 20
    expand = edges * db * q * u * (unit + 2 * m + 10)
    aggregate = edges * 2 * da * u * db * m + nodes * u * m * da * db * (2 * q + 20)
    return "expand" if expand < aggregate else "aggregate"


def node_order(
    hidden: list[torch.Tensor],
    features: list[torch.Tensor],
    graph: Neighbours,
    triples: list[Triple],
    couplings: list[torch.Tensor],
    folded: list[torch.Tensor | None],
    weights: list[torch.Tensor],
    sizes: list[tuple[int, int]],
    order: str = "auto",
) -> list[torch.Tensor]:
    """Σ_j k(x_ij) f_j at every target, weights applied per node.

    Args:
        hidden: (E, d_a, u) per hidden irreducible, edges in the order of ``graph``.
        features: (num_sources, d_b, m_b) per input irreducible.
        graph: the neighbours.
        triples, couplings, folded: the triples, sorted by (a, b), their (r, d_c, d_a, d_b) tensors and folded forms.
        weights: (K_c, m_c) per output irreducible.
        sizes: (d_c, m_c) per output irreducible.
        order: "aggregate", "expand", or "auto": the cheaper for each pair (a, b).

    Returns:
        (num_targets, d_c, m_c) per output irreducible.
    """
    hidden = [graph.pad(h) for h in hidden]
    gathered = [f.flatten(1).index_select(0, graph.padded_source).unflatten(1, f.shape[1:]) for f in features]
    rows, edges = sum(n for n, _ in graph.groups), graph.padded_source.shape[0]
    # the rows of a weight follow the triples in order
    parts = [
        iter(w.split([t.rows.stop - t.rows.start for t in triples if t.c == c]))
        for c, w in enumerate(weights)
    ]
    out: list[torch.Tensor | None] = [None] * len(sizes)
    for (a, b), items in groupby(zip(triples, couplings, folded), key=lambda item: (item[0].a, item[0].b)):
        pair, h, x = list(items), hidden[a], gathered[b]
        u, m = h.shape[2], x.shape[2]
        how = order
        if order == "auto":
            how = _cheaper(
                edges, rows, u, m, h.shape[1], x.shape[1], sum(C.shape[0] * C.shape[1] for _, C, _ in pair)
            )
        if how == "aggregate":
            A = _aggregate(h.flatten(1), x.flatten(1), graph).reshape(rows, h.shape[1], u, x.shape[1], m)
            A = A.transpose(2, 3).reshape(rows, h.shape[1] * x.shape[1], u * m)
        for t, C, F in pair:
            if how == "aggregate":
                S = C.permute(1, 0, 2, 3).reshape(-1, A.shape[1]) @ A
            else:
                B = _expand(h, C, F)
                S = _aggregate(B.flatten(0, 1), x.flatten(0, 1), graph, x.shape[1])
            S = S.reshape(rows * sizes[t.c][0], C.shape[0] * u * m)
            W, previous = next(parts[t.c]), out[t.c]
            out[t.c] = S @ W if previous is None else torch.addmm(previous, S, W)
    done = []
    for (d, m), y in zip(sizes, out):
        if y is None:
            done.append(features[0].new_zeros(graph.num_targets, d, m))
        else:
            done.append(graph.restore(y.reshape(rows, d * m)).reshape(graph.num_targets, d, m))
    return done


def _aggregate(
    left: torch.Tensor, right: torch.Tensor, graph: Neighbours, components: int = 1
) -> torch.Tensor:
    """Σ over the edges (and their components) of each target of left ⊗ right: (P c, p), (P c, q) -> (targets, p, q)."""
    p, q = left.shape[1], right.shape[1]
    sizes = [n * k * components for n, k in graph.groups]
    if not sizes:
        return left.new_zeros(0, p, q)
    pieces = zip(left.split(sizes), right.split(sizes)) if len(sizes) > 1 else [(left, right)]
    sums = [
        torch.bmm(x.reshape(n, -1, p).transpose(1, 2), y.reshape(n, -1, q))
        for (n, _), (x, y) in zip(graph.groups, pieces)
    ]
    return sums[0] if len(sums) == 1 else torch.cat(sums)


def kernel_blocks(
    hidden: list[torch.Tensor],
    triples: list[Triple],
    couplings: list[torch.Tensor],
    weights: list[torch.Tensor],
    sizes_in: list[tuple[int, int]],
    sizes_out: list[tuple[int, int]],
) -> list[list[torch.Tensor]]:
    """The kernel on every edge between irreducible blocks: out[c][b] is (E, d_c, m_c, d_b, m_b)."""
    edges = hidden[0].shape[0]
    out = [[hidden[0].new_zeros(edges, dc, mc, db, mb) for db, mb in sizes_in] for dc, mc in sizes_out]
    for t, C in zip(triples, couplings):
        (db, mb), (dc, mc), h = sizes_in[t.b], sizes_out[t.c], hidden[t.a]
        W = weights[t.c][t.rows].reshape(C.shape[0], h.shape[2], mb, mc)
        dense = torch.einsum("rcab,rumn->aucnbm", C, W).reshape(h.shape[1] * h.shape[2], dc * mc * db * mb)
        out[t.c][t.b] = out[t.c][t.b] + (h.flatten(1) @ dense).unflatten(1, (dc, mc, db, mb))
    return out
