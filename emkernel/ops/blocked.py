"""The contraction a chunk of targets at a time, in buffers that every chunk uses again; its derivative by hand.

What a matrix product reads and writes then stays in the cache, and memory is asked for once: a new page costs a CPU as
much as many thousand multiplications, and batched products are two to four times as fast in the cache. Nothing is kept
for the backward pass but the inputs. The formulas are those of :mod:`emkernel.ops.plain`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .bundle import Bundle
from .chunk import Chunk
from .memory import Kept, borrowed
from .neighbours import Grouped
from .operands import Operands

__all__ = ["backward", "blocked", "forward", "targets_at_a_time"]

CACHE = 12 * 2**20  # bytes of intermediate results that are computed at a time
GIVEN = 6  # arguments before the operands


def targets_at_a_time(pairs, bundles: list[Bundle], operands: Operands, graph: Grouped) -> int:
    """So many targets that what lies between inputs and outputs fits the cache, the same number each time."""
    rows, edges = max(1, sum(n for n, _ in graph.groups)), graph.padded_source.shape[0]
    per_edge = sum(x[0].numel() for x in (*operands.values, *operands.features) if len(x))
    per_row = 0
    for pair, C, order in pairs:
        (q, da, db), s, m = C.shape, operands.values[pair.a].shape[2], operands.features[pair.b].shape[2]
        per_row += 2 * q * operands.width(pair.a) * m
        if order == "message":
            per_edge += s * q * (next(x.size for x in bundles if pair.b in x.inputs) + 2 * m)
        else:
            per_row += 2 * da * operands.width(pair.a) * db * m
    per_row += per_edge * edges // rows
    most = max(1, CACHE // (per_row * operands.features[0].element_size()))
    return -(-rows // -(-rows // most))


def blocked(
    pairs, bundles: list[Bundle], operands: Operands, graph: Grouped, sizes, chunk: int, plain, kept: Kept
) -> list[torch.Tensor]:
    """Σ_e C (h_e ⊗ f_j) W, ``chunk`` targets at a time: (grouped targets, d_c, m_c) per output irreducible.

    Args:
        pairs, bundles, graph, sizes: as :func:`emkernel.ops.contract.node_order` takes them.
        operands: its tensors.
        chunk: targets at a time.
        plain: the same function of operands as differentiable operations, for second derivatives.
        kept: between calls with the same pairs, bundles and sizes.
    """
    return list(_Blocked.apply((pairs, bundles, sizes), kept, graph, chunk, plain, operands, *operands.flat()))


@contextmanager
def _work(what, kept: Kept, operands: Operands, graph: Grouped, needs: Operands | None = None) -> Iterator[Chunk]:
    """What does the chunks, on the memory that is free."""
    pairs, bundles, sizes = what
    constants = [C for _, C, _ in pairs] + [F for bundle in bundles for F in bundle.folds.values()]
    like = operands.features[0]
    with borrowed(like.dtype, like.device) as memory:
        kind = like.dtype, like.device, tuple(order for *_, order in pairs)
        work = kept(kind, constants, memory, lambda: Chunk(pairs, bundles, operands, sizes, memory))
        with work.on(operands, graph, needs):
            yield work


def forward(what, kept: Kept, graph: Grouped, chunk: int, operands: Operands) -> list[torch.Tensor]:
    """The values of :func:`blocked`, ``what`` being its pairs, bundles and sizes."""
    rows = sum(n for n, _ in graph.groups)
    out = [operands.features[0].new_empty(rows, d, m) for d, m in what[2]]
    with _work(what, kept, operands, graph) as work:
        for groups, edges, rows in graph.chunks(chunk):
            work.forward(groups, edges, [y[rows] for y in out])
    return out


def backward(
    what, kept: Kept, graph: Grouped, chunk: int, operands: Operands, needed: Operands, grads
) -> Operands:
    """What ``grads``, the derivatives by what comes out, pass back to those operands that are needed."""
    flat = zip(operands.flat(), needed.flat())
    # contiguous where the operand is a transposed view, as derivatives are written to flat views of them
    total = operands.like([x.new_zeros(x.shape) if need else None for x, need in flat])
    with _work(what, kept, operands, graph, needed) as work:
        for groups, edges, rows in graph.chunks(chunk):
            work.backward(groups, edges, [g[rows] for g in grads], total)
        work.finish(total)
    return total


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, what, kept, graph, chunk, plain, operands, *flat):
        # the places of the tensors; the tensors themselves are kept by save_for_backward
        ctx.places = operands.like([None] * len(flat))
        ctx.what, ctx.kept, ctx.graph, ctx.chunk, ctx.plain = what, kept, graph, chunk, plain
        ctx.save_for_backward(*flat)
        return tuple(forward(what, kept, graph, chunk, operands.like(flat)))

    @staticmethod
    def backward(ctx, *grads):
        flat, needed = ctx.saved_tensors, ctx.needs_input_grad[GIVEN:]
        if torch.is_grad_enabled():  # of higher order
            flat = [None if x is None else x.view_as(x) for x in flat]
            out = ctx.plain(ctx.places.like(flat))
            out, along = zip(*[(y, g) for y, g in zip(out, grads) if y.requires_grad])
            wanted = [x for x, need in zip(flat, needed) if need]
            found = iter(torch.autograd.grad(out, wanted, along, create_graph=True, materialize_grads=True))
            return *[None] * GIVEN, *(next(found) if need else None for need in needed)
        places = ctx.places.like(flat), ctx.places.like(needed)
        return *[None] * GIVEN, *backward(ctx.what, ctx.kept, ctx.graph, ctx.chunk, *places, grads).flat()
