"""The sums of outer products over neighbours, and their derivatives, without an outer product on any edge.

The convolution needs, on edges e = (j -> i) with hidden activations h_e and features f_j,

    A_i = Σ_{e in N(i)} h_e ⊗ f_{j(e)},

one of the three partial derivatives of a trilinear form,

    T(h, f, G) = Σ_e h_eᵀ G_{i(e)} f_{j(e)},
    outer_sum(h, f) = ∂T/∂G,    edge_grad(G, f) = ∂T/∂h,    source_grad(h, G) = ∂T/∂f.

Each is bilinear in its two arguments, and what it passes back to them are the other two: three registrations give all
derivatives of any order. They are opaque custom operations: their kernels have nothing that a compiler could fuse into
them, so that nothing is lost, Triton is only imported where it is about to run, and there is one way for a
plain, a differentiated and a compiled call.

On a GPU the operations are Triton kernels (on the CPU too, interpreted, where TRITON_INTERPRET=1 is set). They move, at
least once, the numbers that go in and come out: E (p + q) + N p q for the sum, E p of h, at most E q of gathered f, and
A. Where Triton is missing, and on the CPU, they are plain torch.
"""

from __future__ import annotations

import os
from functools import cache

import torch
from torch import Tensor

from .neighbours import CSR

__all__ = ["edge_grad", "outer_sum", "source_grad"]

# numbers that the plain implementation holds at a time, of what exists per edge
SLAB = 1 << 20
GRAPH = "Tensor[] graph) -> Tensor"


def outer_sum(h: Tensor, f: Tensor, graph: CSR) -> Tensor:
    """A_i = Σ_{e in N(i)} h_e ⊗ f_{j(e)}, differentiable any number of times.

    Args:
        h: (E, p) values of the edges, in the order of ``graph``.
        f: (num_sources, q) values of the sources, of the dtype of h. Under autocast both are cast, as for a product
            of matrices. Half precisions are summed in float32.
        graph: the edges.

    Returns:
        (num_targets, p, q)

    Raises:
        ValueError: wrong shapes.
        TypeError: different dtypes.

    Example:
        >>> from emkernel.ops.fused import outer_sum
        >>> graph = ek.Neighbours.of(torch.tensor([[1, 2], [0, 0]]), 3, grouped=False)
        >>> outer_sum(torch.tensor([[1.0], [10.0]]), torch.tensor([[1.0], [2.0], [3.0]]), graph).flatten()
        tensor([32.,  0.,  0.])
    """
    _check(graph, h=(h, (graph.num_edges, "p")), f=(f, (graph.num_sources, "q")))
    return _outer_sum(*_cast(h, f), _tables(graph))


def edge_grad(G: Tensor, f: Tensor, graph: CSR) -> Tensor:
    """G_{i(e)} f_{j(e)} on every edge: (num_targets, p, q), (num_sources, q) -> (E, p); else as :func:`outer_sum`."""
    _check(graph, G=(G, (graph.num_targets, "p", "q")), f=(f, (graph.num_sources, "q")))
    return _edge_grad(*_cast(G, f), _tables(graph))


def source_grad(h: Tensor, G: Tensor, graph: CSR) -> Tensor:
    """Σ_{e: j(e) = j} G_{i(e)}ᵀ h_e: (E, p), (num_targets, p, q) -> (num_sources, q); else as :func:`outer_sum`."""
    _check(graph, h=(h, (graph.num_edges, "p")), G=(G, (graph.num_targets, "p", "q")))
    return _source_grad(*_cast(h, G), _tables(graph))


def _check(graph: CSR, **given: tuple[Tensor, tuple[int | str, ...]]) -> None:
    sizes: dict[str, int] = {}
    for name, (x, expected) in given.items():
        fits = x.ndim == len(expected)
        for n, what in zip(x.shape, expected):
            fits = fits and n == (sizes.setdefault(what, n) if isinstance(what, str) else what)
        if not fits:
            shape = ", ".join(str(sizes.get(what, what)) if isinstance(what, str) else str(what) for what in expected)
            raise ValueError(
                f"{name} must be ({shape}) on this graph of {graph.num_edges} edges from {graph.num_sources} sources "
                f"to {graph.num_targets} targets; got {tuple(x.shape)}"
            )


def _cast(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        return x.to(dtype), y.to(dtype)
    if x.dtype != y.dtype:
        raise TypeError(f"the two arguments have dtypes {x.dtype} and {y.dtype}: convert one of them")
    return x, y


def _tables(graph: CSR) -> list[Tensor]:
    return [
        graph.source, graph.target, graph.rows, graph.row_chunks,
        graph.by_source, graph.columns, graph.column_chunks,
    ]  # fmt: skip


@cache
def _triton():
    try:
        from . import _fused_triton
    except ImportError:
        return None
    return _fused_triton


def _kernels(x: Tensor):
    """The Triton kernels where they can run on this tensor, else None."""
    # the interpreter multiplies bfloat16 by their bits (Triton 3.7 and 3.9)
    interpreted = x.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1" and x.dtype != torch.bfloat16
    return _triton() if x.is_cuda or interpreted else None


def _slabs(edges: int, size: int):
    """Slices of the edges, of which what exists per edge is held at a time."""
    step = max(1, SLAB // max(1, size))
    return (slice(at, min(at + step, edges)) for at in range(0, edges, step))


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which is summed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@torch.library.custom_op("emkernel::outer_sum", mutates_args=(), schema=f"(Tensor h, Tensor f, {GRAPH}")
def _outer_sum(h: Tensor, f: Tensor, graph: list[Tensor]) -> Tensor:
    source, target, rows, row_chunks, *_ = graph
    h, f, kernels = h.contiguous(), f.contiguous(), _kernels(h)
    if kernels is not None:
        return kernels.outer_sum(h, f, source, rows, row_chunks)
    dtype, p, q = _wide(h.dtype), h.shape[1], f.shape[1]
    out = h.new_zeros(rows.shape[0], p, q, dtype=dtype)
    for s in _slabs(len(source), p * q):
        out.index_add_(0, target[s], h[s, :, None].to(dtype) * f[source[s], None, :].to(dtype))
    return out.to(h.dtype)


@torch.library.custom_op("emkernel::edge_grad", mutates_args=(), schema=f"(Tensor G, Tensor f, {GRAPH}")
def _edge_grad(G: Tensor, f: Tensor, graph: list[Tensor]) -> Tensor:
    source, target, rows, row_chunks, *_ = graph
    G, f, kernels = G.contiguous(), f.contiguous(), _kernels(G)
    if kernels is not None:
        return kernels.edge_grad(G, f, source, rows, row_chunks)
    dtype, (_, p, q) = _wide(G.dtype), G.shape
    out = G.new_empty(len(source), p)
    for s in _slabs(len(source), p * q):
        out[s] = (G[target[s]].to(dtype) @ f[source[s], :, None].to(dtype)).squeeze(2)
    return out


@torch.library.custom_op("emkernel::source_grad", mutates_args=(), schema=f"(Tensor h, Tensor G, {GRAPH}")
def _source_grad(h: Tensor, G: Tensor, graph: list[Tensor]) -> Tensor:
    source, target, rows, row_chunks, by_source, columns, column_chunks = graph
    h, G, kernels = h.contiguous(), G.contiguous(), _kernels(h)
    if kernels is not None:
        return kernels.source_grad(h, G, source, rows, row_chunks, by_source, columns, column_chunks)
    dtype, (_, p, q) = _wide(G.dtype), G.shape
    out = G.new_zeros(columns.shape[0], q, dtype=dtype)
    for s in _slabs(len(source), p * q):
        out.index_add_(0, source[s], (h[s, None, :].to(dtype) @ G[target[s]].to(dtype)).squeeze(1))
    return out.to(G.dtype)


@_outer_sum.register_fake
def _(h, f, graph):
    return h.new_empty(graph[2].shape[0], h.shape[1], f.shape[1])


@_edge_grad.register_fake
def _(G, f, graph):
    return G.new_empty(graph[0].shape[0], G.shape[1])


@_source_grad.register_fake
def _(h, G, graph):
    return G.new_empty(graph[5].shape[0], G.shape[2])


def _differentiate(op, first, second) -> None:
    """Register what ``op`` passes back to its two arguments, as functions of (x, y, gradient, graph)."""

    def remember(ctx, inputs, output):
        x, y, graph = inputs
        ctx.save_for_backward(x, y, *graph)

    def backward(ctx, grad):
        x, y, *graph = ctx.saved_tensors
        return (
            first(x, y, grad, graph) if ctx.needs_input_grad[0] else None,
            second(x, y, grad, graph) if ctx.needs_input_grad[1] else None,
            [None] * len(graph),
        )

    op.register_autograd(backward, setup_context=remember)


_differentiate(_outer_sum, lambda h, f, G, g: _edge_grad(G, f, g), lambda h, f, G, g: _source_grad(h, G, g))
_differentiate(_edge_grad, lambda G, f, h, g: _outer_sum(h, f, g), lambda G, f, h, g: _source_grad(h, G, g))
_differentiate(_source_grad, lambda h, G, f, g: _edge_grad(G, f, g), lambda h, G, f, g: _outer_sum(h, f, g))
