"""Triton kernels of the coupled sum and of its derivative; imported only where one is about to run.

A program owns one tile of what comes out of one span of edges (see CSR), reads from a table where its numbers stand,
and runs over the edges of the span in blocks. Nothing is added atomically: results do not change from run to run.
Float32 is multiplied as float32, never as TensorFloat32, which would cost equivariance; half precisions are accumulated
in float32.
"""

from __future__ import annotations

from functools import cached_property

import torch
import triton
import triton.language as tl

from ._fused_triton import _accumulator, _multiply_add, collect

__all__ = ["collect", "coupled_grad", "coupled_sum"]

BLOCK_E = 16


@triton.jit
def _sum_part(
    M, f, g, source, part, chosen, groups, entries, partial, out, i, span, nodes, chunks, R, Q, G,
    ACC: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    begin = tl.load(span + 1)
    end = tl.load(span + 2)
    first_chunk = tl.load(span + 3)
    last_chunk = tl.load(span + 4)
    at_f = tl.load(part)
    stride_k = tl.load(part + 1)
    size = tl.load(part + 2)
    copies = tl.load(part + 3)
    group = groups + 4 * tl.load(chosen + 1)
    fields = tl.load(chosen + 2)
    width = tl.load(group + 1)
    first = tl.load(group + 2)
    rows = tl.load(group + 3) - first
    k = tl.arange(0, BLOCK_K)
    u = tl.arange(0, BLOCK_U)
    m = tl.arange(0, BLOCK_M)
    kept = (u < width)[:, None] & (m < copies)[None, :]
    # once at least, to write the zeros of a target without edges
    for at in range(begin, tl.maximum(end, begin + 1), BLOCK_E):
        e = at + tl.arange(0, BLOCK_E).to(tl.int64)
        live = e < end
        j = tl.load(source + e, mask=live, other=0)
        features = (k[:, None] * stride_k + m[None, :])[None, :, :]
        inside = live[:, None, None] & ((k < size)[:, None] & (m < copies)[None, :])[None, :, :]
        x = tl.load(f + (j * Q + at_f)[:, None, None] + features, mask=inside, other=0.0).to(ACC)
        for n in range(rows):
            acc = tl.zeros((BLOCK_U, BLOCK_M), dtype=ACC)
            for s in range(fields):
                at_g = tl.load(group + 4 * s)
                entry = entries + 5 * (tl.load(group + 4 * s + 2) + n)
                at_M = tl.load(entry)
                component = tl.load(entry + 1)
                # else the coupling is the identity, and there is no M
                coupled = (live & (at_M + 0 * e >= 0))[:, None] & (k < size)[None, :]
                w = tl.load(M + (e * R + at_M)[:, None] + k[None, :], mask=coupled, other=0.0).to(ACC)
                w += ((k == component) & (at_M + 0 * k < 0))[None, :].to(ACC)
                t = tl.sum(w[:, :, None] * x, axis=1)
                gates = tl.load(
                    g + (e * G + at_g)[None, :] + u[:, None],
                    mask=live[None, :] & (u < width)[:, None],
                    other=0.0,
                )
                acc = _multiply_add(gates, t.to(gates.dtype), acc)
            entry = entries + 5 * (first + n)
            base = tl.load(entry + 2).to(tl.int64)
            row = tl.load(entry + 3)
            place = tl.load(entry + 4) + u[:, None] * stride_k + m[None, :]
            if at > begin:
                tl.debug_barrier()
                acc += tl.load(out + base * nodes + i * row + place, mask=kept, other=0.0)
            if at + BLOCK_E >= end:
                for c in range(first_chunk, last_chunk):
                    acc += tl.load(partial + base * chunks + c * row + place, mask=kept, other=0.0)
            tl.store(out + base * nodes + i * row + place, acc, mask=kept)


@triton.jit
def _sum_kernel(
    M, f, g, source, spans, sets, parts, groups, entries, partial, out, nodes, chunks, tiles, R, Q, G,
    ACC: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """out[i, q] = Σ_{e in span i} Σ_s g_e^s ⊗ (M_e^{sq} f_{source(e)}) + Σ of the partial sums of its chunks."""
    i = (tl.program_id(0) // tiles).to(tl.int64)
    span = spans + 5 * i
    if tl.load(span) >= 0:
        chosen = sets + 3 * (tl.program_id(0) % tiles)
        part = parts + 7 * tl.load(chosen)
        size = tl.load(part + 2)
        # tiles that are not mostly padding
        if size == 1:
            _sum_part(
                M, f, g, source, part, chosen, groups, entries, partial, out, i, span, nodes, chunks, R, Q, G,
                ACC, 1, BLOCK_U, BLOCK_M, BLOCK_E,
            )  # fmt: skip
        elif size <= 4 and BLOCK_K > 4:
            _sum_part(
                M, f, g, source, part, chosen, groups, entries, partial, out, i, span, nodes, chunks, R, Q, G,
                ACC, 4, BLOCK_U, BLOCK_M, BLOCK_E,
            )  # fmt: skip
        else:
            _sum_part(
                M, f, g, source, part, chosen, groups, entries, partial, out, i, span, nodes, chunks, R, Q, G,
                ACC, BLOCK_K, BLOCK_U, BLOCK_M, BLOCK_E,
            )  # fmt: skip


@triton.jit
def _grad_part(
    S, M, f, g, source, part, groups, entries, out_M, out_f, out_g, node, begin, end, nodes, edges, R, Q, G,
    ACC: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    at_f = tl.load(part)
    stride_k = tl.load(part + 1)
    size = tl.load(part + 2)
    copies = tl.load(part + 3)
    first_group = tl.load(part + 4)
    last_group = tl.load(part + 5)
    tile = tl.load(part + 6).to(tl.int64)
    k = tl.arange(0, BLOCK_K)
    u = tl.arange(0, BLOCK_U)
    m = tl.arange(0, BLOCK_M)
    for at in range(begin, end, BLOCK_E):
        e = at + tl.arange(0, BLOCK_E).to(tl.int64)
        live = e < end
        j = tl.load(source + e, mask=live, other=0)
        features = (k[:, None] * stride_k + m[None, :])[None, :, :]
        inside = live[:, None, None] & ((k < size)[:, None] & (m < copies)[None, :])[None, :, :]
        x = tl.load(f + (j * Q + at_f)[:, None, None] + features, mask=inside, other=0.0).to(ACC)
        back_f = tl.zeros((BLOCK_E, BLOCK_K, BLOCK_M), dtype=ACC)
        for n in range(first_group, last_group):
            at_g = tl.load(groups + 4 * n)
            width = tl.load(groups + 4 * n + 1)
            first = tl.load(groups + 4 * n + 2)
            last = tl.load(groups + 4 * n + 3)
            gated = live[:, None] & (u < width)[None, :]
            gates = tl.load(g + (e * G + at_g)[:, None] + u[None, :], mask=gated, other=0.0)
            back_g = tl.zeros((BLOCK_E, BLOCK_U), dtype=ACC)
            for r in range(first, last):
                at_M = tl.load(entries + 5 * r)
                component = tl.load(entries + 5 * r + 1)
                base = tl.load(entries + 5 * r + 2).to(tl.int64)
                row = tl.load(entries + 5 * r + 3)
                column = tl.load(entries + 5 * r + 4)
                grad = tl.load(
                    S + base * nodes + node * row + column + u[:, None] * stride_k + m[None, :],
                    mask=(u < width)[:, None] & (m < copies)[None, :], other=0.0,
                )  # fmt: skip
                back_t = tl.zeros((BLOCK_E, BLOCK_M), dtype=ACC)
                back_t = _multiply_add(gates, grad, back_t)
                # else the coupling is the identity, and there is no M
                coupled = (live & (at_M + 0 * e >= 0))[:, None] & (k < size)[None, :]
                place = (e * R + at_M)[:, None] + k[None, :]
                w = tl.load(M + place, mask=coupled, other=0.0).to(ACC)
                w += ((k == component) & (at_M + 0 * k < 0))[None, :].to(ACC)
                back_f += w[:, :, None] * back_t[:, None, :]
                t = tl.sum(w[:, :, None] * x, axis=1)
                back_g = _multiply_add(t.to(grad.dtype), tl.trans(grad), back_g)
                back_w = tl.sum(x * back_t[:, None, :], axis=2)
                tl.store(out_M + tile * edges * R + place, back_w.to(out_M.dtype.element_ty), mask=coupled)
            tl.store(
                out_g + (e * G + at_g)[:, None] + u[None, :], back_g.to(out_g.dtype.element_ty), mask=gated
            )
        tl.store(
            out_f + (e * Q + at_f)[:, None, None] + features, back_f.to(out_f.dtype.element_ty), mask=inside
        )


@triton.jit
def _grad_kernel(
    S, M, f, g, source, spans, parts, groups, entries, out_M, out_f, out_g, nodes, edges, tiles, R, Q, G,
    ACC: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """What Σ S · out of the sum passes back to M, to f on every edge, and to g, of each part for itself."""
    span = spans + 5 * (tl.program_id(0) // tiles).to(tl.int64)
    number = tl.program_id(0) % tiles
    part = parts + number * 7
    node = tl.load(span)
    begin = tl.load(span + 1)
    end = tl.load(span + 2)
    out_g += number.to(tl.int64) * edges * G
    size = tl.load(part + 2)
    # tiles that are not mostly padding
    if size == 1:
        _grad_part(
            S, M, f, g, source, part, groups, entries, out_M, out_f, out_g, node, begin, end, nodes, edges, R, Q, G,
            ACC, 1, BLOCK_U, BLOCK_M, BLOCK_E,
        )  # fmt: skip
    elif size <= 4 and BLOCK_K > 4:
        _grad_part(
            S, M, f, g, source, part, groups, entries, out_M, out_f, out_g, node, begin, end, nodes, edges, R, Q, G,
            ACC, 4, BLOCK_U, BLOCK_M, BLOCK_E,
        )  # fmt: skip
    else:
        _grad_part(
            S, M, f, g, source, part, groups, entries, out_M, out_f, out_g, node, begin, end, nodes, edges, R, Q, G,
            ACC, BLOCK_K, BLOCK_U, BLOCK_M, BLOCK_E,
        )  # fmt: skip


class _Tuned:
    """A kernel with the number of warps that is fastest, or a fixed one where timing is not wanted."""

    def __init__(self, kernel, *warps: int):
        self.kernel, self.warps = kernel, warps

    @cached_property
    def tuned(self):
        # made at its first use, as some versions of Triton ask here for a GPU
        return triton.autotune([triton.Config({}, num_warps=w) for w in self.warps], key=["R", "Q", "G"])(
            self.kernel
        )

    def run(self, programs: int, out: torch.Tensor, *args, tune: bool, **constants) -> None:
        if programs == 0:
            return
        with torch.cuda.device_of(out):
            if tune and out.is_cuda and not torch.are_deterministic_algorithms_enabled():
                self.tuned[(programs,)](*args, **constants)
            else:
                self.kernel[(programs,)](*args, **constants, num_warps=self.warps[0])


_SUM = _Tuned(_sum_kernel, 1, 2, 4)
_GRAD = _Tuned(_grad_kernel, 4, 1, 2, 8)


def coupled_sum(M, f, g, sets, parts, groups, entries, source, rows, chunks, total, blocks) -> torch.Tensor:
    """(E, R), (num_sources, Q), (E, G) -> (num_targets · total,)."""
    (n, c), tiles, (dtype, ACC) = (rows.shape[0], chunks.shape[0]), sets.shape[0], _accumulator(f.dtype)
    # half precisions are added up before they are rounded
    partial, out = (f.new_empty(many * total, dtype=dtype) for many in (c, n))
    constants = {
        "ACC": ACC,
        "BLOCK_K": blocks[0],
        "BLOCK_U": blocks[1],
        "BLOCK_M": blocks[2],
        "BLOCK_E": BLOCK_E,
    }
    for spans, result, many in ((chunks, partial, c), (rows, out, n)):
        args = (M, f, g, source, spans, sets, parts, groups, entries, partial, result, many, c, tiles)
        # few places of the table of chunks are in use: what is fastest there says nothing
        _SUM.run(
            many * tiles, result, *args, M.shape[1], f.shape[1], g.shape[1], tune=spans is rows, **constants
        )
    return out.to(f.dtype)


def coupled_grad(S, M, f, g, parts, groups, entries, source, rows, chunks, blocks, layers):
    """(num_targets · total,) -> (layers, E, R), (E, Q), (parts, E, G), accumulated as float32 or float64."""
    edges, tiles, (dtype, ACC) = len(source), len(parts), _accumulator(f.dtype)
    out_M = (
        M.new_zeros(layers, *M.shape, dtype=dtype) if layers > 1 else M.new_empty(1, *M.shape, dtype=dtype)
    )
    out_f, out_g = f.new_zeros(edges, f.shape[1], dtype=dtype), g.new_zeros(tiles, *g.shape, dtype=dtype)
    constants = {
        "ACC": ACC,
        "BLOCK_K": blocks[0],
        "BLOCK_U": blocks[1],
        "BLOCK_M": blocks[2],
        "BLOCK_E": BLOCK_E,
    }
    for spans in (rows, chunks):
        args = (
            S,
            M,
            f,
            g,
            source,
            spans,
            parts,
            groups,
            entries,
            out_M,
            out_f,
            out_g,
            len(rows),
            edges,
            tiles,
        )
        args += (M.shape[1], f.shape[1], g.shape[1])
        _GRAD.run(len(spans) * tiles, out_f, *args, tune=spans is rows, **constants)
    return out_M, out_f, out_g
