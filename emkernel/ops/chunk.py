"""The contraction on one chunk of targets, and its derivatives by hand, written down as calls on fixed arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from .bundle import Bundle
from .memory import Memory, Recorder
from .neighbours import Grouped, Groups
from .operands import Operands

__all__ = ["Chunk"]


@dataclass(frozen=True)
class Sent:
    """Messages t = M f that are one product on each edge.

    Attributes:
        name: of their arrays.
        bundle: the inputs.
        columns: theirs, in the features.
        height: rows of M.
        parts: of each hidden irreducible a its rows, the folded couplings and its pairs.
    """

    name: tuple[int, int]
    bundle: Bundle
    columns: slice
    height: int
    parts: dict[int, tuple[slice, torch.Tensor, list[int]]]


class Chunk(Recorder):
    """The contraction on one chunk after another.

    Fields h that are summed stand side by side in H (E, P), all features in f (E, R), and A = Σ_e h ⊗ f (n, P, R). Its
    part of a pair (a, b) is permuted to B (n, d_a d_b, u m) and coupled to T (n, Q, u m). Where fields are sent as
    messages, there are for each bundle of inputs the coupled fields M (E, s Q, D), the messages t = M f (E, s Q, m)
    and v = g w (E, s u), which make T (n, u, Q m). All T are put in their places in S (n d_c, K_c), for each output c,
    whose product with the weights is the output.

    What is done to these arrays is the same for all chunks of one shape: it is written down once, as a list of calls.
    They refer to nothing else, and so serve for other operands of the same shapes: :meth:`on` says which.

    Args:
        pairs, bundles, sizes: as :func:`emkernel.ops.contract.node_order` takes them.
        operands: tensors like those to come.
        memory: of the arrays.
    """

    def __init__(self, pairs, bundles: list[Bundle], operands: Operands, sizes, memory: Memory):
        super().__init__(memory)
        self.pairs, self.sizes, self.operands = pairs, sizes, operands
        messages = {p.a for p, _, order in pairs if order == "message"}
        self._messages, self._sums = sorted(messages), [a for a in range(len(operands.values)) if a not in messages]
        self._in_h = _slices(operands.values[a].shape[1] * operands.width(a) for a in self._sums)
        self._in_h = dict(zip(self._sums, self._in_h))
        self._in_f = _slices(x[0].numel() for x in operands.features)
        # the rows of the weights that belong to each pair and output
        self._rows: list[list[slice]] = []
        self._depth = [0] * len(sizes)
        for p, *_ in pairs:
            self._rows.append([])
            for c, r in p.parts:
                start, self._depth[c] = self._depth[c], self._depth[c] + self._channels(p) * r
                self._rows[-1].append(slice(start, self._depth[c]))
        # w, its derivative, and dv^T g (s u, u), of which the derivative is a diagonal where there are messages
        mixed = {a: w for a, w in enumerate(operands.mix) if w is not None}
        self._w = {a: memory.own(w.shape) for a, w in mixed.items()}
        self._dw = {a: memory.own(w.shape) for a, w in mixed.items() if a not in messages}
        self._meet = {a: memory.own((w.numel(), w.shape[1])) for a, w in mixed.items() if a in messages}
        self._sent = [sent for k, bundle in enumerate(bundles) for sent in self._products(k, bundle)]

    def _products(self, k: int, bundle: Bundle) -> Iterator[Sent]:
        """The products of a bundle: one for all hidden irreducibles of a single field, and one for each other."""
        of = {a: [i for i, (p, *_) in enumerate(self.pairs) if p.a == a and p.b in bundle.inputs] for a in bundle.folds}
        ready = [a for a in self._messages if of.get(a)]
        single = [a for a in ready if self.operands.values[a].shape[2] == 1]
        at = slice(self._in_f[bundle.inputs[0]].start, self._in_f[bundle.inputs[-1]].stop)
        for joint in [single] * bool(single) + [[a] for a in ready if a not in single]:
            heights = [self.operands.values[a].shape[2] * sum(len(self.pairs[i][1]) for i in of[a]) for a in joint]
            parts = {a: (rows, bundle.folds[a], of[a]) for a, rows in zip(joint, _slices(heights))}
            yield Sent((k, joint[0]), bundle, at, sum(heights), parts)

    @contextmanager
    def on(self, operands: Operands, graph: Grouped, needs: Operands | None = None) -> Iterator[None]:
        """Take operands, and let go of them in the end.

        ``needs`` says whether a derivative by each is asked for, and is None where there is no backward pass.
        """
        self.operands, self.source, self.needs = operands, graph.padded_source, needs
        self._x = torch.cat([x.flatten(1) for x in operands.features], 1)
        for a, w in self._w.items():
            w.copy_(operands.mix[a])
        if needs is not None:
            self._needs_x = any(needs.features)
            self._dx = torch.zeros_like(self._x)
            # transposed, as products with few columns are slow
            self._dW = [w.new_zeros(w.shape[::-1]) for w in operands.weights]
            for w in (*self._dw.values(), *self._meet.values()):
                w.zero_()
        try:
            yield
        finally:
            self.operands = self.source = self._x = self._dx = self._dW = None

    def forward(self, groups: Groups, edges: slice, out: list[torch.Tensor]) -> None:
        """Fill the rows of a chunk."""
        couple = self._calls_for(self._couple, groups)
        self._load(edges)
        for call in couple:
            call()
        for c, y in enumerate(out):
            if self._depth[c]:
                torch.mm(self._coupled(c), self.operands.weights[c], out=y.view(-1, y.shape[2]))
            else:
                y.zero_()

    def backward(self, groups: Groups, edges: slice, grads: list[torch.Tensor], total: Operands) -> None:
        """The derivatives of a chunk: of what belongs to its edges, to the total, and added to the sums over all."""
        couple = self._calls_for(self._couple, groups)
        uncouple = self._calls_for(self._uncouple, groups, tuple(self.needs.flat()))
        self._load(edges)
        for call in couple:
            call()
        for c, g in enumerate(grads):
            if self._depth[c]:
                S, g = self._coupled(c), g.flatten(0, 1)
                if self.needs.weights[c]:
                    self._dW[c].addmm_(g.T, S)
                torch.mm(g, self.operands.weights[c].T, out=S)
        for call in uncouple:
            call()
        if self._needs_x:
            self._dx.index_add_(0, self.source[edges], self._array("df", shape=(self.e, self._x.shape[1])))
        for name, whole in (("dY", total.values), ("dg", total.gates)):
            for a, x in enumerate(whole):
                if x is not None:
                    x[edges] = self._array(name, a, shape=(self.e, *x.shape[1:]))

    def finish(self, total: Operands) -> None:
        """Hand over the derivatives of features, weights and mixings."""
        for x, at in zip(total.features, self._in_f):
            if x is not None:
                x.view(x.shape[0], at.stop - at.start).copy_(self._dx[:, at])
        for W, dW in zip(total.weights, self._dW):
            if W is not None:
                W.copy_(dW.T)
        for a, w in enumerate(total.mix):
            if w is not None:
                w.copy_(self._dw[a] if a in self._dw else self._meet[a].unflatten(0, w.shape).diagonal(dim1=1, dim2=2))

    # ---- arrays and calls -----------------------------------------------------------------------------------

    def _calls_for(self, what: Callable, groups: Groups, needs: tuple | None = None) -> list[Callable]:
        """The calls that ``what`` makes for a chunk."""
        self.n, self.e = sum(n for n, _ in groups), sum(n * k for n, k in groups)
        return self._written((groups, needs), lambda: what(groups))

    def _load(self, edges: slice) -> None:
        """What the calls start from."""
        torch.index_select(self._x, 0, self.source[edges], out=self._features("f"))
        for name, whole in (("Y", self.operands.values), ("g", self.operands.gates)):
            for a, x in enumerate(whole):
                if x is not None:
                    self._array(name, a, shape=(self.e, *x.shape[1:])).copy_(x[edges])

    def _factor(self, name: str, a: int) -> torch.Tensor:
        """Y (E, d_a, s) or g (E, u), or its derivative."""
        whole = (self.operands.values if name.endswith("Y") else self.operands.gates)[a]
        return self._array(name, a, shape=(self.e, *whole.shape[1:]))

    def _features(self, name: str) -> torch.Tensor:
        """f (E, R), or its derivative."""
        return self._array(name, shape=(self.e, self._x.shape[1]))

    def _fields(self, name: str) -> torch.Tensor:
        """H (E, P), or its derivative."""
        return self._array(name, shape=(self.e, sum(at.stop - at.start for at in self._in_h.values())))

    def _field(self, name: str, a: int) -> torch.Tensor:
        """The part of one field (E, d_a, u)."""
        return self._fields(name)[:, self._in_h[a]].unflatten(1, (-1, self.operands.width(a)))

    def _gates(self, name: str, a: int) -> torch.Tensor:
        """v (E, s u), or its derivative."""
        return self._array(name, a, shape=(self.e, self.operands.mix[a].numel()))

    def _sum(self) -> torch.Tensor:
        """A (n, P, R), or its derivative."""
        return self._array("A", shape=(self.n, self._fields("H").shape[1], self._x.shape[1]))

    def _part(self, p) -> torch.Tensor:
        """The part of A of a pair (n, d_a, u, d_b, m)."""
        part = self._sum()[:, self._in_h[p.a], self._in_f[p.b]].unflatten(1, (-1, self.operands.width(p.a)))
        return part.unflatten(3, self.operands.features[p.b].shape[1:])

    def _channels(self, p) -> int:
        """u m of a pair."""
        return self.operands.width(p.a) * self.operands.features[p.b].shape[2]

    def _coupled(self, c: int) -> torch.Tensor:
        """S (n d_c, K_c), or its derivative."""
        return self._array("S", c, shape=(self.n * self.sizes[c][0], self._depth[c]))

    def _pieces(self, i: int, T: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each part (n, d_c, r, u, m) of S to which a pair contributes, and that of its T (n, Q, u, m)."""
        at = 0
        for (c, r), rows in zip(self.pairs[i][0].parts, self._rows[i]):
            shape = self.n, (d := self.sizes[c][0]), r, *T.shape[2:]
            S = self._coupled(c).view(self.n, d, -1)[:, :, rows]
            yield S.view(shape), T[:, at : at + d * r].view(shape)
            at += d * r

    # ---- what is done to a chunk ----------------------------------------------------------------------------

    def _couple(self, groups: Groups) -> None:
        """From Y, g and f to S."""
        for a in self._sums:
            Y, w = self._factor("Y", a), self._w.get(a)
            if w is None:
                self._do(self._field("H", a).copy_, Y)
                continue
            z = self._array("z", a, shape=(*Y.shape[:2], w.shape[1]))
            self._do(torch.mm, Y.flatten(0, 1), w, out=z.flatten(0, 1))
            self._do(torch.mul, z, self._factor("g", a)[:, None], out=self._field("H", a))
        for a in self._messages:
            w = self._w[a]
            self._do(torch.mul, self._factor("g", a)[:, None], w, out=self._gates("v", a).view(-1, *w.shape))
        f = self._features("f")
        if self._sums:
            for H_, f_, A_ in _views(groups, 1, self._fields("H"), f, self._sum()):
                self._do(torch.bmm, H_.mT, f_, out=A_)
        for i, (p, C, order) in enumerate(self.pairs):
            if order == "message":
                continue
            part = self._part(p).transpose(2, 3)
            T = part[:, 0]
            if not p.is_identity:
                B = self._array("B", shape=part.shape)
                self._do(B.copy_, part)
                T = self._array("T", shape=(self.n, len(C), *part.shape[3:]))
                C = C.flatten(1).expand(self.n, -1, -1)
                self._do(torch.bmm, C, B.flatten(3).flatten(1, 2), out=T.flatten(2))
            for S, piece in self._pieces(i, T):
                self._do(S.copy_, piece)
        for sent in self._sent:
            M, t = self._messages_of(sent)
            for a, (rows, F, _) in sent.parts.items():
                self._do(torch.mm, self._factor("Y", a).flatten(1), F, out=M[:, rows].flatten(1))
            self._do(torch.bmm, M, self._inputs(sent, f), out=t)
            for a, (rows, *_) in sent.parts.items():
                T = self._received(sent, a)
                for v_, t_, T_ in self._views(groups, a, self._gates("v", a), t[:, rows], T):
                    self._do(torch.bmm, v_.mT, t_, out=T_)
                for S, piece in self._places(sent, a, T):
                    self._do(S.copy_, piece)

    def _uncouple(self, groups: Groups) -> None:
        """From the derivatives of S to those of Y, g, w and f."""
        f, df = self._features("f"), self._features("df")
        coupled = {(p.a, p.b) for p, *_ in self.pairs}
        if any((a, b) not in coupled for a in self._sums for b in range(len(self._in_f))):
            self._do(self._sum().zero_)
        for i, (p, C, order) in enumerate(self.pairs):
            if order == "message":
                continue
            part = self._part(p).transpose(2, 3)
            T = part[:, 0] if p.is_identity else self._array("T", shape=(self.n, len(C), *part.shape[3:]))
            for S, piece in self._pieces(i, T):
                self._do(piece.copy_, S)
            if not p.is_identity:
                B = self._array("B", shape=part.shape)
                C = C.flatten(1).T.expand(self.n, -1, -1)
                self._do(torch.bmm, C, T.flatten(2), out=B.flatten(3).flatten(1, 2))
                self._do(part.copy_, B)
        if self._sums:
            for dH_, f_, A_ in _views(groups, 1, self._fields("dH"), f, self._sum()):
                self._do(torch.bmm, f_, A_.mT, out=dH_)
        if self._needs_x and self._sums:
            for H_, df_, A_ in _views(groups, 1, self._fields("H"), df, self._sum()):
                self._do(torch.bmm, H_, A_, out=df_)
        elif self._needs_x:
            self._do(df.zero_)
        for sent in self._sent:
            for a in sent.parts:
                self._unsend(groups, sent, a, f, df)
        self._factors()

    def _unsend(self, groups: Groups, sent: Sent, a: int, f: torch.Tensor, df: torch.Tensor) -> None:
        """The derivatives of the messages of a hidden irreducible."""
        (rows, F, _), (M, t), dT = sent.parts[a], self._messages_of(sent), self._received(sent, a)
        for S, piece in self._places(sent, a, dT):
            self._do(piece.copy_, S)
        for dv_, t_, dT_ in self._views(groups, a, self._gates("dv", a), t[:, rows], dT):
            self._add(torch.baddbmm, t_, dT_.mT, to=dv_)
        needs_y = self.needs.values[a]
        if not (self._needs_x or needs_y):
            return
        dt = self._array("dt", shape=t[:, rows].shape)
        for v_, dt_, dT_ in self._views(groups, a, self._gates("v", a), dt, dT):
            self._do(torch.bmm, v_, dT_, out=dt_)
        if needs_y:
            dM = self._array("dM", shape=M[:, rows].shape)
            self._do(torch.bmm, dt, self._inputs(sent, f).mT, out=dM)
            self._add(torch.addmm, dM.flatten(1), F.T, to=self._factor("dY", a).flatten(1))
        if self._needs_x:
            to = self._inputs(sent, df)
            if to.is_contiguous():
                self._do(torch.baddbmm, to, M[:, rows].mT, dt, out=to)
            else:
                more = self._array("more", shape=to.shape)
                self._do(torch.bmm, M[:, rows].mT, dt, out=more)
                self._do(to.add_, more)

    def _factors(self) -> None:
        """From the derivatives of H and v to those of Y, g and w."""
        needs = self.needs
        for a in self._sums:
            Y, w, dh = self._factor("Y", a), self._w.get(a), self._field("dH", a)
            if w is None:
                self._do(self._factor("dY", a).copy_, dh)
                continue
            z, dz = (self._array(name, a, shape=(*Y.shape[:2], w.shape[1])) for name in ("z", "dz"))
            if needs.gates[a]:
                self._do(z.mul_, dh)
                self._do(torch.sum, z, 1, out=self._factor("dg", a))
            self._do(torch.mul, dh, self._factor("g", a)[:, None], out=dz)
            if needs.values[a]:
                self._do(torch.mm, dz.flatten(0, 1), w.T, out=self._factor("dY", a).flatten(0, 1))
            if needs.mix[a]:
                self._do(self._dw[a].addmm_, Y.flatten(0, 1).T, dz.flatten(0, 1))
        for a in self._messages:
            w = self._w[a]
            g, dg, dv = self._factor("g", a), self._factor("dg", a), self._gates("dv", a)
            if needs.mix[a]:
                self._do(self._meet[a].addmm_, dv.T, g)
            if needs.gates[a] and len(w) == 1:
                self._do(torch.mul, dv, w, out=dg)
            elif needs.gates[a]:
                self._do(dv.view(-1, *w.shape).mul_, w)
                self._do(torch.sum, dv.view(-1, *w.shape), 1, out=dg)

    # ---- messages -------------------------------------------------------------------------------------------

    def _messages_of(self, sent: Sent) -> tuple[torch.Tensor, torch.Tensor]:
        """M (E, s Q, D) and t (E, s Q, m)."""
        M, t = (self.e, sent.height, sent.bundle.size), (self.e, sent.height, sent.bundle.channels)
        return self._array("M", *sent.name, shape=M), self._array("t", *sent.name, shape=t)

    def _inputs(self, sent: Sent, f: torch.Tensor) -> torch.Tensor:
        """The inputs of a bundle (E, D, m), or their derivatives."""
        return f[:, sent.columns].unflatten(1, (-1, sent.bundle.channels))

    def _received(self, sent: Sent, a: int) -> torch.Tensor:
        """T (n, u, Q m), or its derivative."""
        rows = sum(len(self.pairs[i][1]) for i in sent.parts[a][2])
        return self._array("T", shape=(self.n, self.operands.width(a), rows * sent.bundle.channels))

    def _places(self, sent: Sent, a: int, T: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each part of S to which the messages contribute, and that of T."""
        at, T = 0, T.unflatten(2, (-1, sent.bundle.channels)).transpose(1, 2)
        for i in sent.parts[a][2]:
            q = len(self.pairs[i][1])
            yield from self._pieces(i, T[:, at : at + q])
            at += q

    def _views(self, groups: Groups, a: int, v: torch.Tensor, t: torch.Tensor, T: torch.Tensor):
        """What enters T = Σ_e v^T t for each group of targets."""
        return _views(groups, self.operands.values[a].shape[2], v, t.flatten(1), T)


def _slices(sizes) -> list[slice]:
    out, at = [], 0
    for n in sizes:
        out.append(slice(at, at + n))
        at += n
    return out


def _views(groups: Groups, each: int, left: torch.Tensor, right: torch.Tensor, node: torch.Tensor):
    """What enters Σ_e h_e^T A_i f_j for each group of n targets of degree k: h (n, k each, p), f (n, k each, q) and A
    (n, p, q), from h (E, each p) and f (E, each q) with ``each`` rows per edge."""
    row = edge = 0
    for n, k in groups:
        at = slice(edge, edge + n * k)
        yield left[at].view(n, k * each, -1), right[at].view(n, k * each, -1), node[row : row + n]
        row, edge = row + n, edge + n * k
