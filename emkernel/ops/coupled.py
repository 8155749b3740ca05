"""The convolution with its couplings on the edges, on a GPU: one kernel for all pairs of irreducibles.

With h_e^a = (Y_e^a w) · g_e, fields Y of an irreducible that are mixed to channels and gated, "message" order reads

    S_i^p = Σ_e Σ_s (w^s g_e) ⊗ (M_e^{p,s} f_{j(e)}^b),    M_e^{p,s} = C_p Y_e^{a,s},    y_i^c = Σ_p W_p S_i^p.

M, a few numbers of each edge for all channels, is one product of Y with constants; S of all pairs is one Triton kernel,
which reads from tables where the numbers of each pair stand; y^c is one product for each output irreducible. The sum
is linear in M, f and g each: it and its derivative, a second kernel, give the derivatives of any order. M and S are not
kept: the backward pass computes them again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .fused import _kernels, _tables
from .neighbours import CSR

__all__ = ["Plan", "coupled", "plan", "runs_on"]

MOST_WIDE, MOST_DEEP = 64, 16  # hidden channels, and components of an input irreducible, that a tile holds
TYPICAL = 16  # neighbours
ARGUMENTS = "Tensor[] tables, Tensor[] graph, int[] sizes"

Spans = tuple[tuple[int, int], ...]  # (start, stop) of each


@dataclass(frozen=True)
class Plan:
    """Which hidden irreducibles are coupled on the edges.

    Attributes:
        hidden: their places; of each, whether its fields stand in Y: those of a trivial one are gates alone.
        rows: per output irreducible, the rows of its weights that belong to their pairs, and all others.
        outputs: (d_c, K_c) per output irreducible: S^c is (num_targets, d_c, K_c).
        sizes: numbers of S per target; of a tile the components of an input irreducible, hidden channels and input
            channels; tiles of input channels.
    """

    hidden: tuple[tuple[int, bool], ...]
    rows: tuple[tuple[Spans, Spans], ...]
    outputs: tuple[tuple[int, int], ...]
    sizes: tuple[int, int, int, int, int]

    @property
    def places(self) -> frozenset[int]:
        """The hidden irreducibles that are coupled on the edges."""
        return frozenset(a for a, _ in self.hidden)


def runs_on(x: Tensor) -> bool:
    """Whether there are kernels for this tensor."""
    return _kernels(x) is not None


def _suits(mine, s: int, u: int, copies: list[int]) -> bool:
    """Whether the pairs of a hidden irreducible fit the kernels, and cost less there than as sums of outer products."""
    if not mine or u > MOST_WIDE or any(C.shape[2] > MOST_DEEP for _, C in mine):
        return False
    if s >= u:  # not mixed
        return all(p.is_identity for p, _ in mine)
    # numbers that are moved, and multiplications, of which a dozen cost as much as one of them
    edges = (
        TYPICAL
        * s
        * sum(C.shape[0] * (2 * C.shape[2] + copies[p.b] * (C.shape[2] + u) / 12) for p, C in mine)
    )
    nodes = u * sum(C.shape[1] * C.shape[2] * copies[p.b] * (4 + (TYPICAL + len(C)) / 12) for p, C in mine)
    return edges <= nodes


def plan(
    pairs, couplings: list[Tensor], fields: list[int], widths: list[int], inputs, outputs
) -> tuple[Plan, list[Tensor]] | None:
    """The plan of a kernel and its tables, or None where nothing suits.

    Args:
        pairs, couplings: the pairs and their couplings (Q, d_a, d_b).
        fields, widths: s and u of each hidden irreducible.
        inputs, outputs: (d, m) of each input, and of each output irreducible.

    Returns:
        The plan, and the constants (values of Y, values of M) with the tables of tiles of S, of parts of the
        derivative, of the gates that meet each, and of the rows of S that these make.
    """
    copies, known = [m for _, m in inputs], list(zip(pairs, couplings))
    hidden, at_g, at_y, gates, values = [], {}, {}, 0, 0
    for a, (s, u) in enumerate(zip(fields, widths)):
        mine = [(p, C) for p, C in known if p.a == a]
        if _suits(mine, s, u, copies):
            hidden.append((a, s < u))
            at_g[a], gates = gates, gates + (s * u if s < u else u)
            if s < u:
                at_y[a], values = values, values + s * mine[0][1].shape[1]
    if not hidden:
        return None
    at_f = [sum(d * m for d, m in inputs[:b]) for b in range(len(inputs))]
    deep = _power(max(d for d, _ in inputs))
    wide, tile = _power(max(widths[a] for a in at_g), 16), min(_power(max(copies), 16), max(16, 256 // deep))

    rows, columns, start = [([], []) for _ in outputs], [0] * len(outputs), [0] * len(outputs)
    placed = []  # pair, coupling, where M begins, and (c, component, column of S^c) of each of its rows
    constants, numbers = [], 0
    for pair, C in known:
        each, where, chosen = widths[pair.a] * copies[pair.b], [], pair.a in at_g
        for c, r in pair.parts:
            _extend(rows[c][0 if chosen else 1], start[c], start[c] + r * each)
            start[c] += r * each
            if chosen:
                where += [(c, k, columns[c] + n * each) for k in range(outputs[c][0]) for n in range(r)]
                columns[c] += r * each
        if pair.a in at_y:
            s, begin = fields[pair.a], at_y[pair.a]
            eye = torch.eye(s, dtype=C.dtype, device=C.device)
            block = torch.einsum("qab,st->astqb", C, eye).flatten(2).flatten(0, 1)
            constants.append(torch.nn.functional.pad(block, (0, 0, begin, values - begin - len(block))))
            placed.append((pair, C, numbers, where))
            numbers += block.shape[1]
        elif chosen:
            placed.append((pair, C, None, where))
    places = [sum(d * k for (d, _), k in zip(outputs[:c], columns)) for c in range(len(outputs) + 1)]

    def place(c: int, component: int, column: int, m: int) -> list[int]:
        return [places[c], outputs[c][0] * columns[c], component * columns[c] + column + m]

    sums, parts, groups, entries = [], [], [], []
    for b, (d, m) in enumerate(inputs):
        mine = [x for x in placed if x[0].b == b]
        for layer, first in enumerate(range(0, m, tile) if mine else ()):
            part, left = len(groups), min(tile, m - first)
            for pair, (q, *_), at_M, where in ((p, C.shape, at, w) for p, C, at, w in mine):
                u, s = widths[pair.a], 1 if at_M is None else fields[pair.a]
                for n, row in enumerate(where):
                    of_M = [n, n + 1, left, -1, 0] if at_M is None else [0, d, left, at_M + n * d, q * d]
                    sums.append([at_f[b] + first, m, *of_M, at_g[pair.a], u, s, *place(*row, first)])
                for t in range(s):
                    at = len(entries)
                    for n, row in enumerate(where):
                        of_M = -1 if at_M is None else at_M + (t * q + n) * d
                        entries.append([of_M, n, *place(*row, first)])
                    groups.append([at_g[pair.a] + t * u, u, at, len(entries)])
            parts.append([at_f[b] + first, m, d, left, part, len(groups), layer])
    like = couplings[0]
    tables = [torch.cat(constants, 1) if constants else like.new_zeros(0, 0)]
    tables += [
        torch.tensor(t, dtype=torch.int32, device="cpu").to(like.device)
        for t in (sums, parts, groups, entries)
    ]
    layers = max(-(-m // tile) for m in copies)
    found = Plan(
        tuple(hidden),
        tuple((tuple(kept), tuple(others)) for kept, others in rows),
        tuple((d, k) for (d, _), k in zip(outputs, columns)),
        (places[-1], deep, wide, tile, layers),
    )
    return found, tables


def _extend(spans: list[tuple[int, int]], start: int, stop: int) -> None:
    """Add a span, which may go on where the last one ends."""
    start = spans.pop()[0] if spans and spans[-1][1] == start else start
    spans.append((start, stop))


def _power(number: int, least: int = 1) -> int:
    """The next power of two."""
    return max(least, 1 << (number - 1).bit_length())


def coupled(
    plan: Plan, tables: list[Tensor], hidden, features: list[Tensor], weights: list[Tensor], graph: CSR
) -> list[Tensor]:
    """Σ_e W (C (h_e ⊗ f_j)) over the pairs of the plan: (num_targets, d_c, m_c) per output irreducible.

    Args:
        plan, tables: as :func:`plan` makes them.
        hidden: the fields of all hidden irreducibles, edges in the order of ``graph``.
        features: (num_sources, d_b, m_b) per input irreducible.
        weights: the rows (K_c, m_c) per output irreducible that belong to the plan.
        graph: the edges.
    """
    fields = [hidden[a] for a, mixed in plan.hidden if mixed]
    gates = [
        (hidden[a].gates[:, None] * hidden[a].mix).flatten(1) if mixed else hidden[a].values[:, 0]
        for a, mixed in plan.hidden
    ]
    f = torch.cat([x.flatten(1) for x in features], 1)
    Y = torch.cat([x.values.flatten(1) for x in fields], 1) if fields else f.new_zeros(graph.num_edges, 0)
    given = Y, f, torch.cat(gates, 1), *weights
    if torch.compiler.is_compiling():
        out = _plain(plan, tables, _tables(graph), *given)
    else:
        out = _Coupled.apply(plan, tables, _tables(graph), *given)
    return [y.unflatten(0, (graph.num_targets, d)) for y, (d, _) in zip(out, plan.outputs)]


def _split(S: Tensor, plan: Plan) -> list[Tensor]:
    """S^c (num_targets d_c, K_c) per output irreducible."""
    nodes = S.shape[0] // max(1, plan.sizes[0])
    pieces = S.split([nodes * d * k for d, k in plan.outputs])
    return [x.view(nodes * d, k) for x, (d, k) in zip(pieces, plan.outputs)]


def _plain(
    plan: Plan, tables, graph: list[Tensor], Y: Tensor, f: Tensor, g: Tensor, *weights: Tensor
) -> list[Tensor]:
    """The same as operations that can be differentiated."""
    S = _coupled_sum(Y @ tables[0], f, g, tables[1:], graph, plan.sizes)
    return [x @ w for x, w in zip(_split(S, plan), weights)]


class _Coupled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, plan, tables, graph, *given):
        ctx.plan, ctx.number = plan, len(tables)
        ctx.save_for_backward(*tables, *graph, *given)
        return tuple(_plain(plan, tables, graph, *given))

    @staticmethod
    def backward(ctx, *grads):
        saved, at = ctx.saved_tensors, ctx.number
        tables, graph, given, plan = saved[:at], saved[at : at + 7], saved[at + 7 :], ctx.plan
        needed = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():  # of higher order
            given = [x.view_as(x) for x in given]
            out = _plain(plan, tables, graph, *given)
            out, along = zip(*[(y, grad) for y, grad in zip(out, grads) if y.requires_grad])
            wanted = [x for x, need in zip(given, needed) if need]
            found = iter(torch.autograd.grad(out, wanted, along, create_graph=True, materialize_grads=True))
            return None, None, None, *(next(found) if need else None for need in needed)
        Y, f, g, *weights = given
        M, out = Y @ tables[0], [None] * len(given)
        if any(needed[3:]):
            S = _split(_coupled_sum(M, f, g, tables[1:], graph, plan.sizes), plan)
            out[3:] = [x.T @ y if need else None for x, y, need in zip(S, grads, needed[3:])]
        if any(needed[:3]):
            S = torch.empty(
                grads[0].shape[0] // plan.outputs[0][0] * plan.sizes[0], dtype=f.dtype, device=f.device
            )
            for x, y, w in zip(_split(S, plan), grads, weights):
                torch.mm(y, w.T, out=x)
            back_M, out[1], out[2] = _coupled_grad(S, M, f, g, tables[1:], graph, plan.sizes)
            out[0] = back_M @ tables[0].T
        return None, None, None, *(x if need else None for x, need in zip(out, needed))


@torch.library.custom_op(
    "emkernel::coupled_sum", mutates_args=(), schema=f"(Tensor M, Tensor f, Tensor g, {ARGUMENTS}) -> Tensor"
)
def _coupled_sum(
    M: Tensor, f: Tensor, g: Tensor, tables: list[Tensor], graph: list[Tensor], sizes: list[int]
):
    """S of all targets one after another, for each output irreducible."""
    (source, _, rows, chunks, *_), (total, *blocks, _) = graph, sizes
    M, f, g = M.contiguous(), f.contiguous(), g.contiguous()
    return _kernels_of_coupling().coupled_sum(M, f, g, tables[0], source, rows, chunks, total, blocks)


@torch.library.custom_op(
    "emkernel::coupled_grad", mutates_args=(),
    schema=f"(Tensor S, Tensor M, Tensor f, Tensor g, {ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
)  # fmt: skip
def _coupled_grad(
    S: Tensor, M: Tensor, f: Tensor, g: Tensor, tables: list[Tensor], graph: list[Tensor], sizes: list[int]
):
    """The derivatives of Σ S · coupled_sum(M, f, g) by M, f and g."""
    (source, _, rows, chunks, by_source, columns, column_chunks), (_, *blocks, layers) = graph, sizes
    given, kernels = [x.contiguous() for x in (S, M, f, g)], _kernels_of_coupling()
    of_M, of_f, of_g = kernels.coupled_grad(*given, *tables[1:], source, rows, chunks, blocks, layers)
    of_M = of_M[0] if layers == 1 else of_M.sum(0)
    of_f = kernels.collect(of_f, f.dtype, by_source, columns, column_chunks)
    return of_M.to(M.dtype), of_f, of_g.sum(0).to(g.dtype)


def _kernels_of_coupling():
    from . import _coupled_triton

    return _coupled_triton


@_coupled_sum.register_fake
def _(M, f, g, tables, graph, sizes):
    return f.new_empty(graph[2].shape[0] * sizes[0])


@_coupled_grad.register_fake
def _(S, M, f, g, tables, graph, sizes):
    return torch.empty_like(M), torch.empty_like(f), torch.empty_like(g)


def _remember(ctx, inputs, output):
    *given, tables, graph, ctx.sizes = inputs
    ctx.given, ctx.number = len(given), len(tables)
    ctx.save_for_backward(*given, *tables, *graph)


def _recall(ctx):
    saved, at, end = ctx.saved_tensors, ctx.given, ctx.given + ctx.number
    return saved[:at], (list(saved[at:end]), list(saved[end:]), ctx.sizes)


def _sum_backward(ctx, grad):
    given, rest = _recall(ctx)
    return *_coupled_grad(grad, *given, *rest), [None] * len(rest[0]), [None] * len(rest[1]), None


def _grad_backward(ctx, *along):
    """Of Σ_x <along_x, ∂L/∂x> with L = <S, coupled_sum(M, f, g)>.

    L is linear in S, f and g, and in M but for the pairs whose coupling is the identity, which have no M: these are
    what is left where M = 0.
    """
    (S, *given), rest = _recall(ctx)
    out = [torch.zeros_like(x) for x in (S, *given)]
    for n, x in enumerate(along):
        if x is None:
            continue
        for sign, other in ((1, x), (-1, torch.zeros_like(x)))[: 2 if n == 0 else 1]:
            changed = [other if k == n else y for k, y in enumerate(given)]
            out[0] = out[0] + sign * _coupled_sum(*changed, *rest)
            for k, y in enumerate(_coupled_grad(S, *changed, *rest)):
                if k != n:
                    out[1 + k] = out[1 + k] + sign * y
    return *out, [None] * len(rest[0]), [None] * len(rest[1]), None


_coupled_sum.register_autograd(_sum_backward, setup_context=_remember)
_coupled_grad.register_autograd(_grad_backward, setup_context=_remember)
