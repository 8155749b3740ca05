"""The contraction orders of the point convolution.

With h_e the hidden activations of the kernel network on edge e = (j, i), and the last layer split over irreducible
triples p = (a ⊗ b -> c) with coupling tensors C_p and channel weights W_p,

    y_i^c = Σ_p W_p Σ_e (C_p h_e^a) f_j^b.

"node" expands C_p h on the edges (no feature channel takes part), reduces over the neighbours by one batched matrix
product per triple, and applies the weights once per node: the kernel (d_out x d_in per edge) is never formed. "kernel"
forms it, and is the reference that the other must equal.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """(r, d_c, d_a, d_b) -> (d_a u, d_b d_c r u): the couplings as one matrix on all hidden channels, block diagonal in u."""
    r, dc, da, db = C.shape
    eye = torch.eye(width, dtype=C.dtype, device=C.device)
    return torch.einsum("rcab,uv->aubcrv", C, eye).reshape(da * width, db * dc * r * width)


def _expand(h: torch.Tensor, C: torch.Tensor, folded: torch.Tensor | None) -> torch.Tensor:
    """C h: (P, d_a, u) -> (P, d_b, d_c r u)."""
    r, dc, da, db = C.shape
    if folded is not None:
        return (h.reshape(h.shape[0], -1) @ folded).reshape(h.shape[0], db, -1)
    rows = h.transpose(1, 2).reshape(-1, da) @ C.permute(2, 3, 1, 0).reshape(da, -1)
    return rows.reshape(h.shape[0], h.shape[2], db, dc * r).permute(0, 2, 3, 1).reshape(h.shape[0], db, -1)


def node_order(hidden: list[torch.Tensor], features: list[torch.Tensor], graph: Neighbours, triples: list[Triple],
               couplings: list[torch.Tensor], folded: list[torch.Tensor | None],
               weights: list[torch.Tensor], sizes: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Σ_j k(x_ij) f_j at every target, weights applied per node.

    Args:
        hidden: (E, d_a, u_a) per hidden irreducible, edges in the order of ``graph``.
        features: (num_sources, d_b, m_b) per input irreducible.
        graph: the neighbours.
        triples, couplings, folded: the triples, their (r, d_c, d_a, d_b) tensors and folded forms.
        weights: (K_c, m_c) per output irreducible.
        sizes: (d_c, m_c) per output irreducible.

    Returns:
        (num_targets, d_c, m_c) per output irreducible.
    """
    hidden = [graph.pad(h) for h in hidden]
    gathered = [f.reshape(f.shape[0], -1).index_select(0, graph.padded_source).reshape(-1, *f.shape[1:]) for f in features]
    rows = sum(n for n, _ in graph.groups)
    # the rows of a weight follow the triples in order
    parts = [iter(w.split([t.rows.stop - t.rows.start for t in triples if t.c == c])) for c, w in enumerate(weights)]
    out: list[torch.Tensor | None] = [None] * len(sizes)
    for t, C, F in zip(triples, couplings, folded):
        x = gathered[t.b]
        d, m = x.shape[1:]
        B = _expand(hidden[t.a], C, F)
        edges = [n * k for n, k in graph.groups]
        pieces = zip(graph.groups, B.split(edges), x.split(edges)) if len(edges) > 1 else [(g, B, x) for g in graph.groups]
        sums = [torch.bmm(Bg.reshape(n, k * d, -1).transpose(1, 2), xg.reshape(n, k * d, m)) for (n, k), Bg, xg in pieces]
        S = sums[0] if len(sums) == 1 else torch.cat(sums) if sums else x.new_zeros(0, B.shape[2], m)
        S = S.reshape(rows * sizes[t.c][0], -1)
        W = next(parts[t.c])
        previous = out[t.c]
        out[t.c] = S @ W if previous is None else torch.addmm(previous, S, W)
    done = []
    for (d, m), y in zip(sizes, out):
        if y is None:
            done.append(features[0].new_zeros(graph.num_targets, d, m))
        else:
            done.append(graph.restore(y.reshape(rows, d * m)).reshape(graph.num_targets, d, m))
    return done


def kernel_blocks(hidden: list[torch.Tensor], triples: list[Triple], couplings: list[torch.Tensor],
                  weights: list[torch.Tensor], sizes_in: list[tuple[int, int]],
                  sizes_out: list[tuple[int, int]]) -> list[list[torch.Tensor]]:
    """The kernel on every edge between irreducible blocks: out[c][b] is (E, d_c, m_c, d_b, m_b)."""
    edges = hidden[0].shape[0]
    out = [[hidden[0].new_zeros(edges, dc, mc, db, mb) for db, mb in sizes_in] for dc, mc in sizes_out]
    for t, C in zip(triples, couplings):
        mb, mc = sizes_in[t.b][1], sizes_out[t.c][1]
        W = weights[t.c][t.rows].reshape(C.shape[0], -1, mb, mc)
        out[t.c][t.b] = out[t.c][t.b] + torch.einsum("rcab,eau,rumn->ecnbm", C, hidden[t.a], W)
    return out
