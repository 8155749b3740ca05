"""Triton kernels of the three fused operations; imported only where one is about to run.

A program owns one tile of one row of a table of spans (see CSR) and runs over the edges of the span in blocks,
masked at its end. Nothing is added atomically: results do not change from run to run. Float32 is multiplied as
float32, never as TensorFloat32, which would cost equivariance; half precisions are accumulated in float32. Places
are int64, as E p and N p q pass 2^31.
"""

from __future__ import annotations

from functools import cached_property

import torch
import triton
import triton.language as tl

__all__ = ["collect", "edge_grad", "outer_sum", "source_grad"]


@triton.jit
def _multiply_add(a, b, acc):
    """acc + a @ b; the units for matrix products do not take float64 on every device."""
    if acc.dtype.is_fp64():
        acc += tl.sum(a[:, :, None] * b[None, :, :], axis=1)
    else:
        acc = tl.dot(a, b, acc, input_precision="ieee")
    return acc


@triton.jit
def _outer_kernel(
    h, f, source, spans, partial, out, P, Q,
    ACC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """out[i] = Σ_{e in span i} h_e ⊗ f_{source(e)} + Σ of the partial sums of its chunks."""
    tiles_q = tl.cdiv(Q, BLOCK_Q)
    tiles = tl.cdiv(P, BLOCK_P) * tiles_q
    i = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    p = (tile // tiles_q) * BLOCK_P + tl.arange(0, BLOCK_P)
    q = (tile % tiles_q) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    place = p[:, None] * Q + q[None, :]
    inside = (p < P)[:, None] & (q < Q)[None, :]
    if tl.load(spans + 5 * i) >= 0:
        begin = tl.load(spans + 5 * i + 1)
        end = tl.load(spans + 5 * i + 2)
        acc = tl.zeros((BLOCK_P, BLOCK_Q), dtype=ACC)
        for at in range(begin, end, BLOCK_E):
            e = at + tl.arange(0, BLOCK_E).to(tl.int64)
            live = e < end
            j = tl.load(source + e, mask=live, other=0)
            left = tl.load(h + e[None, :] * P + p[:, None], mask=live[None, :] & (p < P)[:, None], other=0.0)
            right = tl.load(f + j[:, None] * Q + q[None, :], mask=live[:, None] & (q < Q)[None, :], other=0.0)
            acc = _multiply_add(left, right, acc)
        first = tl.load(spans + 5 * i + 3)
        last = tl.load(spans + 5 * i + 4)
        for c in range(first, last):
            acc += tl.load(partial + c * P * Q + place, mask=inside, other=0.0)
        tl.store(out + i * P * Q + place, acc.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _product_kernel(
    G, x, index, spans, out, P, Q, stride_p, stride_q, INDEXED: tl.constexpr,
    ACC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """out[e] = G_i x_{index(e)} for the edges e of span i, with G_i of shape (P, Q) in the given strides."""
    tiles = tl.cdiv(P, BLOCK_P)
    i = (tl.program_id(0) // tiles).to(tl.int64)
    p = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    row = tl.load(spans + 5 * i)
    begin = tl.load(spans + 5 * i + 1)
    end = tl.load(spans + 5 * i + 2)
    base = G + row * P * Q
    for at in range(begin, end, BLOCK_E):
        e = at + tl.arange(0, BLOCK_E).to(tl.int64)
        live = e < end
        if INDEXED:
            j = tl.load(index + e, mask=live, other=0)
        else:
            j = e
        acc = tl.zeros((BLOCK_E, BLOCK_P), dtype=ACC)
        for start in range(0, Q, BLOCK_Q):
            q = start + tl.arange(0, BLOCK_Q)
            left = tl.load(x + j[:, None] * Q + q[None, :], mask=live[:, None] & (q < Q)[None, :], other=0.0)
            right = tl.load(
                base + q[:, None] * stride_q + p[None, :] * stride_p,
                mask=(q < Q)[:, None] & (p < P)[None, :], other=0.0,
            )  # fmt: skip
            acc = _multiply_add(left, right, acc)
        tl.store(
            out + e[:, None] * P + p[None, :], acc.to(out.dtype.element_ty),
            mask=live[:, None] & (p < P)[None, :],
        )  # fmt: skip


@triton.jit
def _collect_kernel(
    values, index, spans, partial, out, Q, ACC: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_E: tl.constexpr
):
    """out[i] = Σ_{t in span i} values[index(t)] + Σ of the partial sums of its chunks."""
    tiles = tl.cdiv(Q, BLOCK_Q)
    i = (tl.program_id(0) // tiles).to(tl.int64)
    q = (tl.program_id(0) % tiles) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    begin = tl.load(spans + 5 * i + 1)
    end = tl.load(spans + 5 * i + 2)
    acc = tl.zeros((BLOCK_Q,), dtype=ACC)
    for at in range(begin, end, BLOCK_E):
        t = at + tl.arange(0, BLOCK_E).to(tl.int64)
        live = t < end
        e = tl.load(index + t, mask=live, other=0)
        block = tl.load(values + e[:, None] * Q + q[None, :], mask=live[:, None] & (q < Q)[None, :], other=0.0)
        acc += tl.sum(block, axis=0)
    first = tl.load(spans + 5 * i + 3)
    last = tl.load(spans + 5 * i + 4)
    for c in range(first, last):
        acc += tl.load(partial + c * Q + q, mask=q < Q, other=0.0)
    tl.store(out + i * Q + q, acc.to(out.dtype.element_ty), mask=q < Q)


# products of float64 are formed in registers before they are summed
_DOUBLE = triton.Config({"BLOCK_P": 16, "BLOCK_Q": 16, "BLOCK_E": 16}, num_warps=4)


def _suitable(configs, named_args, **_):
    """The configurations whose tiles are not mostly padding."""
    if torch.float64 in (t.dtype for t in named_args.values() if isinstance(t, torch.Tensor)):
        return [_DOUBLE]
    p, q = (triton.next_power_of_2(max(named_args[name], 16)) for name in ("P", "Q"))
    return [c for c in configs if c.kwargs["BLOCK_P"] <= p and c.kwargs["BLOCK_Q"] <= q]


class _Tiled:
    """A kernel with tiles (BLOCK_P, BLOCK_Q, BLOCK_E, warps) from the smallest, which always suits, to the largest."""

    def __init__(self, kernel, *tiles: tuple[int, int, int, int]):
        self.kernel = kernel
        self.configs = [
            triton.Config({"BLOCK_P": p, "BLOCK_Q": q, "BLOCK_E": e}, num_warps=warps) for p, q, e, warps in tiles
        ]

    @cached_property
    def tuned(self):
        # made at its first use, as some versions of Triton ask here for a GPU
        prune = {"early_config_prune": _suitable}
        return triton.autotune(self.configs, key=["P", "Q"], prune_configs_by=prune)(self.kernel)

    def run(self, spans: torch.Tensor, tiles, out: torch.Tensor, *args, tune: bool, **constants) -> None:
        """Launch on every span, with the tile that is fastest, or a fixed one where timing is not wanted."""
        if out.numel() == 0 or spans.shape[0] == 0:
            return

        def grid(meta):
            return (spans.shape[0] * tiles(meta),)

        with torch.cuda.device_of(out):
            if tune and out.is_cuda and not torch.are_deterministic_algorithms_enabled():
                self.tuned[grid](*args, **constants)
            else:
                config = _suitable(self.configs, dict(zip(self.kernel.arg_names, args)))[-1]
                self.kernel[grid](*args, **constants, **config.kwargs, num_warps=config.num_warps)


_OUTER = _Tiled(
    _outer_kernel, (16, 16, 16, 1), (16, 32, 16, 1), (16, 64, 16, 2), (32, 32, 16, 2), (32, 64, 16, 4),
    (32, 64, 32, 4), (64, 64, 16, 4),
)  # fmt: skip
_PRODUCT = _Tiled(
    _product_kernel, (16, 16, 16, 1), (16, 64, 16, 2), (64, 16, 16, 2), (32, 32, 16, 2), (32, 64, 16, 4),
    (64, 32, 16, 4), (64, 64, 16, 8), (64, 64, 32, 8),
)  # fmt: skip


def _accumulator(dtype: torch.dtype) -> tuple[torch.dtype, tl.dtype]:
    return (torch.float64, tl.float64) if dtype == torch.float64 else (torch.float32, tl.float32)


def outer_sum(h, f, source, rows, chunks) -> torch.Tensor:
    """Σ_{e in N(i)} h_e ⊗ f_{j(e)}: (E, p), (num_sources, q) -> (num_targets, p, q)."""
    (n, c), p, q = (rows.shape[0], chunks.shape[0]), h.shape[1], f.shape[1]
    dtype, ACC = _accumulator(h.dtype)
    partial, out = h.new_empty(c, p, q, dtype=dtype), h.new_empty(n, p, q)

    def tiles(meta):
        return triton.cdiv(p, meta["BLOCK_P"]) * triton.cdiv(q, meta["BLOCK_Q"])

    for spans, result in ((chunks, partial), (rows, out)):
        args = (h, f, source, spans, partial, result, p, q)
        # few places of the table of chunks are in use: what is fastest there says nothing
        _OUTER.run(spans, tiles, result, *args, tune=spans is rows, ACC=ACC)
    return out


def _edge_product(G, x, index, rows, chunks, transposed: bool, dtype: torch.dtype) -> torch.Tensor:
    """G_i x_{index(e)}, or G_iᵀ x_e, on every edge e of i."""
    (_, p, q), edges = G.shape, index.shape[0]
    strides = (q, 1)
    if transposed:
        (p, q), strides = (q, p), (1, q)
    out = x.new_empty(edges, p, dtype=dtype)
    if q == 0:
        return out.zero_()

    def tiles(meta):
        return triton.cdiv(p, meta["BLOCK_P"])

    constants = {"INDEXED": not transposed, "ACC": _accumulator(x.dtype)[1]}
    for spans in (rows, chunks):
        args = (G, x, index, spans, out, p, q, *strides)
        _PRODUCT.run(spans, tiles, out, *args, tune=spans is rows, **constants)
    return out


def edge_grad(G, f, source, rows, chunks) -> torch.Tensor:
    """G_{i(e)} f_{j(e)}: (num_targets, p, q), (num_sources, q) -> (E, p)."""
    return _edge_product(G, f, source, rows, chunks, False, f.dtype)


def source_grad(h, G, source, rows, chunks, by_source, columns, column_chunks) -> torch.Tensor:
    """Σ_{e: j(e) = j} G_{i(e)}ᵀ h_e: (E, p), (num_targets, p, q) -> (num_sources, q).

    In one pass over the sources a p x q matrix would be read for every edge. Instead the products, q numbers per
    edge, are formed by target, where G_i is read once, and then collected by source.
    """
    values = _edge_product(G, h, source, rows, chunks, True, _accumulator(h.dtype)[0])
    return collect(values, h.dtype, by_source, columns, column_chunks)


def collect(values, dtype: torch.dtype, by_source, columns, chunks) -> torch.Tensor:
    """Σ_{e: j(e) = j} values_e: (E, q), of the dtype of accumulation -> (num_sources, q)."""
    (n, c), q, ACC = (columns.shape[0], chunks.shape[0]), values.shape[1], _accumulator(dtype)[1]
    partial, out = values.new_empty(c, q), values.new_empty(n, q, dtype=dtype)
    block = min(triton.next_power_of_2(max(q, 1)), 64)
    with torch.cuda.device_of(out):
        for spans, result in ((chunks, partial), (columns, out)):
            if result.numel():
                grid = (spans.shape[0] * triton.cdiv(q, block),)
                args = (values, by_source, spans, partial, result, q)
                _collect_kernel[grid](*args, ACC=ACC, BLOCK_Q=block, BLOCK_E=16, num_warps=2)
    return out
