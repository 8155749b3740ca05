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
def _sum_kernel(
    M, f, g, source, spans, table, partial, out, nodes, chunks, tiles, R, Q, G,
    ACC: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_U: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """out[i, q] = Σ_{e in span i} Σ_s g_e^s ⊗ (M_e^{sq} f_{source(e)}) + Σ of the partial sums of its chunks."""
    i = (tl.program_id(0) // tiles).to(tl.int64)
    entry = table + (tl.program_id(0) % tiles) * COLUMNS
    if tl.load(spans + 5 * i) >= 0:
        begin = tl.load(spans + 5 * i + 1)
        end = tl.load(spans + 5 * i + 2)
        at_f = tl.load(entry)
        stride_k = tl.load(entry + 1)
        first_k = tl.load(entry + 2)
        last_k = tl.load(entry + 3)
        copies = tl.load(entry + 4)
        at_M = tl.load(entry + 5)
        stride_s = tl.load(entry + 6)
        at_g = tl.load(entry + 7)
        width = tl.load(entry + 8)
        fields = tl.load(entry + 9)
        base = tl.load(entry + 10).to(tl.int64)
        row = tl.load(entry + 11)
        column = tl.load(entry + 12)
        u = tl.arange(0, BLOCK_U)
        m = tl.arange(0, BLOCK_M)
        acc = tl.zeros((BLOCK_U, BLOCK_M), dtype=ACC)
        for at in range(begin, end, BLOCK_E):
            e = at + tl.arange(0, BLOCK_E).to(tl.int64)
            live = e < end
            coupled = live & (at_M + 0 * e >= 0)  # else the coupling is the identity, and there is no M
            j = tl.load(source + e, mask=live, other=0)
            for s in range(fields):
                t = tl.zeros((BLOCK_E, BLOCK_M), dtype=ACC)
                for k in range(first_k, last_k):
                    w = tl.load(M + e * R + at_M + s * stride_s + k, mask=coupled, other=1.0)
                    x = tl.load(
                        f + j[:, None] * Q + at_f + k * stride_k + m[None, :],
                        mask=live[:, None] & (m < copies)[None, :], other=0.0,
                    )  # fmt: skip
                    t += w[:, None].to(ACC) * x.to(ACC)
                gates = tl.load(
                    g + e[None, :] * G + at_g + s * width + u[:, None],
                    mask=live[None, :] & (u < width)[:, None], other=0.0,
                )  # fmt: skip
                acc = _multiply_add(gates, t.to(gates.dtype), acc)
        inside = (u < width)[:, None] & (m < copies)[None, :]
        place = column + u[:, None] * stride_k + m[None, :]
        first = tl.load(spans + 5 * i + 3)
        last = tl.load(spans + 5 * i + 4)
        for c in range(first, last):
            acc += tl.load(partial + base * chunks + c * row + place, mask=inside, other=0.0)
        tl.store(out + base * nodes + i * row + place, acc.to(out.dtype.element_ty), mask=inside)


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
    """A kernel with the number of warps, and of registers, that is fastest, or the first where timing is not wanted."""

    def __init__(self, kernel, *choices: tuple[int, int | None]):
        self.kernel, self.choices = kernel, choices

    @cached_property
    def tuned(self):
        # made at its first use, as some versions of Triton ask here for a GPU
        configs = [triton.Config({}, num_warps=warps, maxnreg=registers) for warps, registers in self.choices]
        return triton.autotune(configs, key=["R", "Q", "G"])(self.kernel)

    def run(self, programs: int, out: torch.Tensor, *args, tune: bool, **constants) -> None:
        if programs == 0:
            return
        with torch.cuda.device_of(out):
            if tune and out.is_cuda and not torch.are_deterministic_algorithms_enabled():
                self.tuned[(programs,)](*args, **constants)
            else:
                self.kernel[(programs,)](*args, **constants, num_warps=self.choices[0][0])


# with fewer registers more programs run at once, and hide what each waits for
_SUM = _Tuned(_sum_kernel, (2, None), (1, None), (1, 64), (1, 96), (2, 64), (4, 64), (4, None))
_GRAD = _Tuned(_grad_kernel, (4, None), (1, None), (2, None), (2, 128), (4, 80), (4, 128), (8, 64), (8, None))


def coupled_sum(M, f, g, table, source, rows, chunks, total, blocks) -> torch.Tensor:
    """(E, R), (num_sources, Q), (E, G) -> (num_targets · total,)."""
    (n, c), dtype, ACC = (rows.shape[0], chunks.shape[0]), *_accumulator(f.dtype)
    partial, out = f.new_empty(c * total, dtype=dtype), f.new_empty(n * total)
    tiles, columns = table.shape
    constants = {
        "ACC": ACC,
        "COLUMNS": columns,
        "BLOCK_U": blocks[1],
        "BLOCK_M": blocks[2],
        "BLOCK_E": BLOCK_E,
    }
    for spans, result, many in ((chunks, partial, c), (rows, out, n)):
        args = (
            M,
            f,
            g,
            source,
            spans,
            table,
            partial,
            result,
            many,
            c,
            tiles,
            M.shape[1],
            f.shape[1],
            g.shape[1],
        )
        # few places of the table of chunks are in use: what is fastest there says nothing
        _SUM.run(many * tiles, result, *args, tune=spans is rows, **constants)
    return out


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
