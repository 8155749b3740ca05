"""The contraction a chunk of targets at a time, in buffers that every chunk uses again; its derivative by hand.

What a matrix product reads and writes then stays in the cache, and memory is asked for once: on a CPU, where a new page
costs as much as many thousand multiplications, this is several times faster than whole arrays. Nothing is kept for the
backward pass but the inputs. The formulas are those of :mod:`emkernel.ops.contract`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial

import torch

from .neighbours import Groups, Neighbours

__all__ = ["Operands", "blocked", "targets_at_a_time"]

CACHE = 12 * 2**20  # bytes of intermediate results that are computed at a time


@dataclass
class Operands:
    """The tensors of a contraction, or their derivatives, where None is none.

    Attributes:
        values: (E, d_a, s) per hidden irreducible.
        gates: (E, u) per hidden irreducible; None with ``mix``, where h is the values.
        mix: (s, u) per hidden irreducible.
        features: (num_sources, d_b, m_b) per input irreducible.
        weights: (K_c, m_c) per output irreducible.
    """

    values: list[torch.Tensor]
    gates: list[torch.Tensor | None]
    mix: list[torch.Tensor | None]
    features: list[torch.Tensor]
    weights: list[torch.Tensor]

    def flat(self) -> list[torch.Tensor | None]:
        return [x for f in fields(self) for x in getattr(self, f.name)]

    def like(self, flat) -> Operands:
        """Other tensors, or flags, in the same places."""
        flat = iter(flat)
        return Operands(*([next(flat) for _ in getattr(self, f.name)] for f in fields(self)))

    def width(self, a: int) -> int:
        """Channels u of a hidden irreducible."""
        return self.values[a].shape[2] if self.mix[a] is None else self.mix[a].shape[1]


def targets_at_a_time(pairs, operands: Operands, graph: Neighbours) -> int:
    """So many targets that what lies between inputs and outputs fits the cache."""
    rows, edges = max(1, sum(n for n, _ in graph.groups)), graph.padded_source.shape[0]
    per_edge = sum(x[0].numel() for x in (*operands.values, *operands.features) if len(x))
    per_row = 0
    for pair, C, _, order in pairs:
        (q, da, db), s, m = C.shape, operands.values[pair.a].shape[2], operands.features[pair.b].shape[2]
        per_row += 2 * q * operands.width(pair.a) * m
        if order == "message":
            per_edge += s * q * (db + m)
        else:
            per_row += 2 * da * operands.width(pair.a) * db * m
    per_row += per_edge * edges // rows
    return max(1, CACHE // (per_row * operands.features[0].element_size()))


def blocked(pairs, operands: Operands, graph: Neighbours, sizes, chunk: int, plain) -> list[torch.Tensor]:
    """Σ_e C (h_e ⊗ f_j) W, ``chunk`` targets at a time: (grouped targets, d_c, m_c) per output irreducible.

    Args:
        pairs, graph, sizes: as :func:`emkernel.ops.contract.node_order` takes them.
        operands: its tensors.
        chunk: targets at a time.
        plain: the same function of operands as differentiable operations, for second derivatives.
    """
    return list(_Blocked.apply(pairs, operands, graph, sizes, chunk, plain, *operands.flat()))


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pairs, operands, graph, sizes, chunk, plain, *flat):
        # the places of the tensors; the tensors themselves are kept by save_for_backward
        ctx.places = operands.like([None] * len(flat))
        ctx.args, ctx.chunk, ctx.plain = (pairs, graph, sizes), chunk, plain
        ctx.save_for_backward(*flat)
        rows = sum(n for n, _ in graph.groups)
        operands = operands.like(flat)
        out = [operands.features[0].new_empty(rows, d, m) for d, m in sizes]
        work = _Work(pairs, operands, graph, sizes)
        for groups, edges, rows in graph.chunks(chunk):
            work.forward(groups, edges, [y[rows] for y in out])
        return tuple(out)

    @staticmethod
    def backward(ctx, *grads):
        flat, needed = ctx.saved_tensors, ctx.needs_input_grad[6:]
        pairs, graph, sizes = ctx.args
        if torch.is_grad_enabled():  # of higher order
            flat = [None if x is None else x.view_as(x) for x in flat]
            out = ctx.plain(ctx.places.like(flat))
            out, along = zip(*[(y, g) for y, g in zip(out, grads) if y.requires_grad])
            wanted = [x for x, need in zip(flat, needed) if need]
            found = iter(torch.autograd.grad(out, wanted, along, create_graph=True, materialize_grads=True))
            return *[None] * 6, *(next(found) if need else None for need in needed)
        total = ctx.places.like([torch.zeros_like(x) if need else None for x, need in zip(flat, needed)])
        work = _Work(pairs, ctx.places.like(flat), graph, sizes, total)
        for groups, edges, rows in graph.chunks(ctx.chunk):
            work.backward(groups, edges, [g[rows] for g in grads])
        return *[None] * 6, *total.flat()


class _Work:
    """The contraction on one chunk after another.

    Of a pair (a, b), Q its coupled components: A = Σ_e h ⊗ f (n, d_a u, d_b m), permuted to B (n, d_a d_b, u m);
    or the coupled fields M (E, d_b, s Q), the messages t = M^T f (E, s Q, m) and v = g w (E, s u). Then S (n, Q, u, m).
    X_cb (n, d_c, couplings, u, m) has the couplings of all S to c. What is done to these arrays is the same for all
    chunks of one shape: it is written down once, as a list of calls on fixed arrays.
    """

    def __init__(self, pairs, operands: Operands, graph: Neighbours, sizes, total: Operands | None = None):
        self.pairs, self.operands, self.sizes, self.source = pairs, operands, sizes, graph.padded_source
        self.total = total
        self._arrays: dict[tuple, torch.Tensor] = {}
        self._written: dict[Groups, list[Callable]] = {}
        self._as_message = sorted({p.a for p, *_, order in pairs if order == "message"})
        self._as_sum = sorted({p.a for p, *_, order in pairs if order != "message"})
        # (c, b) -> first row of the weight, number of couplings, channels; each pair's first coupling among these
        self._span: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        self._first: list[list[int]] = []
        start = [0] * len(sizes)
        for p, *_ in pairs:
            self._first.append([])
            u, m = operands.width(p.a), operands.features[p.b].shape[2]
            for c, r in p.parts:
                row, count, *_ = self._span.get((c, p.b), (start[c], 0))
                self._first[-1].append(count)
                self._span[c, p.b] = row, count + r, u, m
                start[c] += r * u * m

    def forward(self, groups: Groups, edges: slice, out: list[torch.Tensor]) -> None:
        """Fill the rows of a chunk."""
        if groups not in self._written:
            self._calls, self._begun = [], set()
            self._shape(groups)
            self._couple(groups)
            for (c, b), (row, *_) in self._span.items():
                X = self._coupled("X", c, b)
                W = self.operands.weights[c][row : row + X.shape[1]]
                self._add(torch.addmm, X, W, to=self._array("y", c, shape=(self.n * self.sizes[c][0], W.shape[1])))
            self._written[groups] = self._calls
        self._shape(groups)
        self._load(edges)
        for call in self._written[groups]:
            call()
        made = {c for c, _ in self._span}
        for c, y in enumerate(out):
            y.copy_(self._array("y", c, shape=y.shape)) if c in made else y.zero_()

    def backward(self, groups: Groups, edges: slice, grads: list[torch.Tensor]) -> None:
        """Add the derivatives of a chunk to the total."""
        if groups not in self._written:
            self._calls, self._begun = [], set()
            self._shape(groups)
            self._couple(groups)
            self._uncouple(groups)
            self._factors()
            self._written[groups] = self._calls
        self._shape(groups)
        self._load(edges)
        for c, g in enumerate(grads):
            self._array("dout", c, shape=g.shape).copy_(g)
        for call in self._written[groups]:
            call()
        for b, x in enumerate(self.total.features):
            if x is not None:
                df = self._array("df", b, shape=(self.e, x[0].numel()))
                x.flatten(1).index_add_(0, self.source[edges], df)
        for name, whole in (("dy", self.total.values), ("dg", self.total.gates)):
            for a, x in enumerate(whole):
                if x is not None:
                    x[edges] = self._array(name, a, shape=(self.e, *x.shape[1:]))

    # ---- arrays and calls -----------------------------------------------------------------------------------

    def _shape(self, groups: Groups) -> None:
        self.n, self.e = sum(n for n, _ in groups), sum(n * k for n, k in groups)

    def _array(self, *name, shape: tuple[int, ...]) -> torch.Tensor:
        """The array of this name, at the beginning of the memory that it has for all chunks."""
        size = 1
        for n in shape:
            size *= n
        if name not in self._arrays or len(self._arrays[name]) < size:
            self._arrays[name] = self.operands.features[0].new_zeros(size)
            self._written.clear()
        return self._arrays[name][:size].view(shape)

    def _do(self, f: Callable, *args, **kwargs) -> None:
        self._calls.append(partial(f, *args, **kwargs))

    def _add(self, f: Callable, left: torch.Tensor, right: torch.Tensor, to: torch.Tensor) -> None:
        """to += left @ right by addmm or baddbmm, the first time to an array without adding."""
        beta = float(to.data_ptr() in self._begun)
        self._begun.add(to.data_ptr())
        self._do(f, to, left, right, beta=beta, out=to)

    def _load(self, edges: slice) -> None:
        """What the calls start from."""
        source = self.source[edges]
        for b, x in enumerate(self.operands.features):
            torch.index_select(x.flatten(1), 0, source, out=self._array("f", b, shape=(self.e, x[0].numel())))
        for name, whole in (("Y", self.operands.values), ("g", self.operands.gates)):
            for a, x in enumerate(whole):
                if x is not None:
                    self._array(name, a, shape=(self.e, *x.shape[1:])).copy_(x[edges])

    def _edgewise(self, a: int) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Y (E, d_a, s), w, g (E, u) of a chunk."""
        Y, w = self.operands.values[a], self.operands.mix[a]
        Y = self._array("Y", a, shape=(self.e, *Y.shape[1:]))
        return Y, w, None if w is None else self._array("g", a, shape=(self.e, w.shape[1]))

    def _sum_field(self, name: str, a: int) -> torch.Tensor:
        """h, or its derivative, (E, d_a u); where it is not a product it is Y."""
        own = self.operands.mix[a] is not None
        name = name if own else {"h": "Y", "dh": "dy"}[name]
        return self._array(name, a, shape=(self.e, self.operands.values[a].shape[1] * self.operands.width(a)))

    def _message_field(self, name: str, a: int) -> torch.Tensor:
        """v, or its derivative, (E, s u)."""
        return self._array(name, a, shape=(self.e, self.operands.mix[a].numel()))

    def _coupled(self, name: str, c: int, b: int) -> torch.Tensor:
        """X_cb, or its derivative, (n d_c, couplings u m)."""
        _, couplings, u, m = self._span[c, b]
        return self._array(name, c, b, shape=(self.n * self.sizes[c][0], couplings * u * m))

    def _pieces(self, name: str, i: int, S: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The places in X_cb, or in its derivative, of each part of S (n, Q, u, m)."""
        p, at = self.pairs[i][0], 0
        for (c, r), first in zip(p.parts, self._first[i]):
            d = self.sizes[c][0]
            X = self._coupled(name, c, p.b).view(self.n, d, -1, *S.shape[2:])
            yield X[:, :, first : first + r], S[:, at : at + d * r].unflatten(1, (d, r))
            at += d * r

    def _dimensions(self, i: int) -> tuple[int, ...]:
        """Q, d_a, d_b, s, u, m of a pair."""
        p, C, *_ = self.pairs[i]
        ops = self.operands
        return *C.shape, ops.values[p.a].shape[2], ops.width(p.a), ops.features[p.b].shape[2]

    # ---- what is done to a chunk ----------------------------------------------------------------------------

    def _couple(self, groups: Groups) -> None:
        """From Y, g and f to X."""
        for a in self._as_sum:
            Y, w, g = self._edgewise(a)
            if w is not None:
                h = self._sum_field("h", a).view(*Y.shape[:2], -1)
                z = self._array("z", a, shape=h.shape)
                self._do(torch.mm, Y.flatten(0, 1), w, out=z.view(-1, w.shape[1]))
                self._do(torch.mul, z, g[:, None], out=h)
        for a in self._as_message:
            _, w, g = self._edgewise(a)
            self._do(torch.mul, g[:, None], w, out=self._message_field("v", a).view(-1, *w.shape))
        for i, (p, C, F, order) in enumerate(self.pairs):
            q, da, db, s, u, m = self._dimensions(i)
            f = self._array("f", p.b, shape=(self.e, db * m))
            if order == "message":
                M = self._array("M", i, shape=(self.e, db, s * q))
                self._do(torch.mm, self._edgewise(p.a)[0].flatten(1), F, out=M.flatten(1))
                t = self._array("t", i, shape=(self.e, s * q, m))
                self._do(torch.bmm, M.mT, f.view(self.e, db, m), out=t)
                S = self._array("S", shape=(self.n, u, q * m))
                for v, t_, S_ in _views(groups, s, self._message_field("v", p.a), t.flatten(1), S):
                    self._do(torch.bmm, v.mT, t_, out=S_)
                S = S.view(self.n, u, q, m).transpose(1, 2)
            else:
                A = self._array("A", shape=(self.n, da * u, db * m))
                for h, f_, A_ in _views(groups, 1, self._sum_field("h", p.a), f, A):
                    self._do(torch.bmm, h.mT, f_, out=A_)
                S = A.view(self.n, da, u, db, m).transpose(2, 3)
                if p.is_identity:
                    S = S[:, 0]
                else:
                    B = self._array("B", shape=(self.n, da, db, u, m))
                    self._do(B.copy_, S)
                    S = self._array("S", shape=(self.n, q, u, m))
                    C = C.flatten(1).expand(self.n, -1, -1)
                    self._do(torch.bmm, C, B.view(self.n, da * db, u * m), out=S.view(self.n, q, u * m))
            for X, piece in self._pieces("X", i, S):
                self._do(X.copy_, piece)

    def _uncouple(self, groups: Groups) -> None:
        """From the derivatives of the output to those of h, v, Y and f."""
        for (c, b), (row, *_) in self._span.items():
            X, dX = self._coupled("X", c, b), self._coupled("dX", c, b)
            rows = slice(row, row + X.shape[1])
            d, m = self.sizes[c]
            g = self._array("dout", c, shape=(self.n * d, m))
            self._do(torch.mm, g, self.operands.weights[c][rows].T, out=dX)
            if (dW := self.total.weights[c]) is not None:
                self._do(dW[rows].addmm_, X.T, g)
        for i, (p, C, F, order) in enumerate(self.pairs):
            q, da, db, s, u, m = self._dimensions(i)
            f, df = (self._array(name, p.b, shape=(self.e, db * m)) for name in ("f", "df"))
            needs_f, needs_y = self.total.features[p.b] is not None, self.total.values[p.a] is not None
            if order == "message":
                dS = self._array("dS", shape=(self.n, u, q * m))
                for dX, piece in self._pieces("dX", i, dS.view(self.n, u, q, m).transpose(1, 2)):
                    self._do(piece.copy_, dX)
                v, dv = self._message_field("v", p.a), self._message_field("dv", p.a)
                t, dt = (self._array(*name, shape=(self.e, s * q, m)) for name in (("t", i), ("dt",)))
                for dv_, t_, dS_ in _views(groups, s, dv, t.flatten(1), dS):
                    self._add(torch.baddbmm, t_, dS_.mT, to=dv_)
                if not (needs_f or needs_y):
                    continue
                for v_, dt_, dS_ in _views(groups, s, v, dt.flatten(1), dS):
                    self._do(torch.bmm, v_, dS_, out=dt_)
                if needs_y:
                    dM = self._array("dM", shape=(self.e, db, s * q))
                    self._do(torch.bmm, f.view(self.e, db, m), dt.mT, out=dM)
                    self._add(torch.addmm, dM.flatten(1), F.T, to=self._array("dy", p.a, shape=(self.e, da * s)))
                if needs_f:
                    M = self._array("M", i, shape=(self.e, db, s * q))
                    self._add(torch.baddbmm, M, dt, to=df.view(self.e, db, m))
                continue
            dA = self._array("dA", shape=(self.n, da, u, db, m))
            if p.is_identity:
                for dX, piece in self._pieces("dX", i, dA[:, 0].transpose(1, 2)):
                    self._do(piece.copy_, dX)
            else:
                dS, dB = (self._array(name, shape=(self.n, k, u * m)) for name, k in (("dS", q), ("B", da * db)))
                for dX, piece in self._pieces("dX", i, dS.view(self.n, q, u, m)):
                    self._do(piece.copy_, dX)
                self._do(torch.bmm, C.flatten(1).T.expand(self.n, -1, -1), dS, out=dB)
                self._do(dA.copy_, dB.view(self.n, da, db, u, m).transpose(2, 3))
            dA = dA.view(self.n, da * u, db * m)
            h, dh = self._sum_field("h", p.a), self._sum_field("dh", p.a)
            for dh_, f_, dA_ in _views(groups, 1, dh, f, dA):
                self._add(torch.baddbmm, f_, dA_.mT, to=dh_)
            if needs_f:
                for h_, df_, dA_ in _views(groups, 1, h, df, dA):
                    self._add(torch.baddbmm, h_, dA_, to=df_)

    def _factors(self) -> None:
        """From the derivatives of h and v to those of Y, g and w."""
        for a, dw in enumerate(self.total.mix):
            Y, w, g = self._edgewise(a)
            if w is None:
                continue
            dg, parts = self._array("dg", a, shape=g.shape), []
            if a in self._as_sum:
                z, dh = self._array("z", a, shape=(*Y.shape[:2], w.shape[1])), self._sum_field("dh", a)
                dh = dh.view(z.shape)
                self._do(z.mul_, dh)
                parts.append(z)
                self._do(dh.mul_, g[:, None])
                if self.total.values[a] is not None:
                    dy = self._array("dy", a, shape=Y.shape)
                    self._add(torch.addmm, dh.flatten(0, 1), w.T, to=dy.flatten(0, 1))
                if dw is not None:
                    self._do(dw.addmm_, Y.flatten(0, 1).T, dh.flatten(0, 1))
            if a in self._as_message:
                dv = self._message_field("dv", a).view(-1, *w.shape)
                both = self._array("dvw", a, shape=dv.shape)
                self._do(torch.mul, dv, w, out=both)
                parts.append(both)
                if dw is not None:
                    self._do(dv.mul_, g[:, None])
                    self._do(_add_sum, dw, dv)
            if self.total.gates[a] is not None:
                self._do(torch.sum, parts[0], 1, out=dg)
                for x in parts[1:]:
                    self._do(_add_sum, dg, x.transpose(0, 1))


def _add_sum(to: torch.Tensor, x: torch.Tensor) -> None:
    to.add_(x.sum(0))


def _views(groups: Groups, each: int, left: torch.Tensor, right: torch.Tensor, node: torch.Tensor):
    """What enters Σ_e h_e^T A_i f_j for each group of n targets of degree k: h (n, k each, p), f (n, k each, q) and A
    (n, p, q), from h (E, each p) and f (E, each q) with ``each`` rows per edge."""
    row = edge = 0
    for n, k in groups:
        at = slice(edge, edge + n * k)
        yield left[at].view(n, k * each, -1), right[at].view(n, k * each, -1), node[row : row + n]
        row, edge = row + n, edge + n * k
