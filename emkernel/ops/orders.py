"""The order of the contraction, chosen for each hidden irreducible."""

from __future__ import annotations

import torch

from .bundle import Bundle
from .neighbours import Grouped, Neighbours
from .operands import Operands
from .plain import Pair

__all__ = ["ORDERS", "cheaper", "ordered"]

ORDERS = ("aggregate", "message")


def ordered(
    pairs: list[tuple[Pair, torch.Tensor]],
    bundles: list[Bundle],
    operands: Operands,
    graph: Neighbours,
    contraction: str,
) -> list[tuple[Pair, torch.Tensor, str]]:
    """Each pair with its coupling and its order, one for all pairs of a hidden irreducible.

    Args:
        pairs, bundles, graph, contraction: as :func:`emkernel.ops.contract.node_order` takes them.
        operands: its tensors.
    """
    edges = graph.padded_source.shape[0] if isinstance(graph, Grouped) else graph.num_edges
    sent = {(a, b) for bundle in bundles for a in bundle.folds for b in bundle.inputs}
    found = {}
    for a in {pair.a: None for pair, _ in pairs}:
        mine = [(pair, C) for pair, C in pairs if pair.a == a]
        able = isinstance(graph, Grouped) and all((a, pair.b) in sent for pair, _ in mine)
        if not able or contraction == "aggregate":
            found[a] = "aggregate"
        elif contraction == "message":
            found[a] = "message"
        else:
            found[a] = cheaper(
                edges,
                graph.num_targets,
                operands.values[a].shape[2],
                operands.width(a),
                [(operands.features[pair.b].shape[2], *C.shape) for pair, C in mine],
                [(x.channels, x.folds[a].shape[1] // x.size, x.size) for x in bundles if a in x.folds],
            )
    return [(pair, C, found[pair.a]) for pair, C in pairs]


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
