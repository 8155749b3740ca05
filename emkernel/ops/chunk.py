"""The contraction on one chunk of targets, and its derivatives by hand, written down as calls on fixed arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial

import torch

from .neighbours import Grouped, Groups

__all__ = ["Chunk", "Operands"]


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


class Chunk:
    """The contraction on one chunk after another.

    Fields h that are summed stand side by side in H (E, P), all features in f (E, R), and A = Σ_e h ⊗ f (n, P, R). Its
    part of a pair (a, b) is permuted to B (n, d_a d_b, u m) and coupled to S (n, d_c, r u m) for each c. Where fields
    are sent as messages instead, there are the coupled fields M (E, d_b, s Q), the messages t = M^T f (E, s Q, m) and
    v = g w (E, s u), which make T (n, u, Q, m), and this the same S.

    What is done to these arrays is the same for all chunks of one shape: it is written down once, as a list of calls.
    """

    def __init__(self, pairs, operands: Operands, graph: Grouped, sizes, total: Operands | None = None):
        self.pairs, self.operands, self.sizes, self.source = pairs, operands, sizes, graph.padded_source
        self.total = total
        self._x = torch.cat([x.flatten(1) for x in operands.features], 1)
        self._dx = None if total is None else torch.zeros_like(self._x)
        self._needs_x = total is not None and any(x is not None for x in total.features)
        self._arrays: dict[tuple, torch.Tensor] = {}
        self._written: dict[Groups, list[Callable]] = {}
        messages = {p.a for p, *_, order in pairs if order == "message"}
        self._messages, self._sums = sorted(messages), [a for a in range(len(operands.values)) if a not in messages]
        self._in_h = _slices(operands.values[a].shape[1] * operands.width(a) for a in self._sums)
        self._in_h = dict(zip(self._sums, self._in_h))
        self._in_f = _slices(x[0].numel() for x in operands.features)
        # the rows of the weights that belong to each pair and output
        self._rows: list[list[slice]] = []
        start = [0] * len(sizes)
        for p, *_ in pairs:
            self._rows.append([])
            for c, r in p.parts:
                end = start[c] + r * operands.width(p.a) * operands.features[p.b].shape[2]
                self._rows[-1].append(slice(start[c], end))
                start[c] = end

    def forward(self, groups: Groups, edges: slice, out: list[torch.Tensor]) -> None:
        """Fill the rows of a chunk."""
        self._shape(groups)
        if groups not in self._written:
            self._calls, self._begun = [], set()
            self._couple(groups)
            for i, (p, *_) in enumerate(self.pairs):
                for (c, _), rows, S in zip(p.parts, self._rows[i], self._coupled("S", i)):
                    self._add(torch.addmm, S, self.operands.weights[c][rows], to=self._outputs(c))
            self._written[groups] = self._calls
        self._load(edges)
        for call in self._written[groups]:
            call()
        made = {c for p, *_ in self.pairs for c, _ in p.parts}
        for c, y in enumerate(out):
            y.flatten(0, 1).copy_(self._outputs(c)) if c in made else y.zero_()

    def backward(self, groups: Groups, edges: slice, grads: list[torch.Tensor]) -> None:
        """Add the derivatives of a chunk to the total."""
        self._shape(groups)
        if groups not in self._written:
            self._calls, self._begun = [], set()
            self._couple(groups)
            self._uncouple(groups)
            self._factors()
            self._written[groups] = self._calls
        self._load(edges)
        for c, g in enumerate(grads):
            self._outputs(c).copy_(g.flatten(0, 1))
        for call in self._written[groups]:
            call()
        if self._needs_x:
            self._dx.index_add_(0, self.source[edges], self._array("df", shape=(self.e, self._x.shape[1])))
        for name, whole in (("dY", self.total.values), ("dg", self.total.gates)):
            for a, x in enumerate(whole):
                if x is not None:
                    x[edges] = self._array(name, a, shape=(self.e, *x.shape[1:]))

    def finish(self) -> None:
        """Hand over the derivatives of the features."""
        for x, at in zip(self.total.features, self._in_f):
            if x is not None:
                x.flatten(1).copy_(self._dx[:, at])

    # ---- arrays and calls -----------------------------------------------------------------------------------

    def _shape(self, groups: Groups) -> None:
        self.n, self.e = sum(n for n, _ in groups), sum(n * k for n, k in groups)

    def _array(self, *name, shape: tuple[int, ...]) -> torch.Tensor:
        """The array of this name, at the beginning of the memory that it has for all chunks."""
        size = 1
        for n in shape:
            size *= n
        if name not in self._arrays or len(self._arrays[name]) < size:
            self._arrays[name] = self._x.new_empty(size)
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
        f = self._array("f", shape=(self.e, self._x.shape[1]))
        torch.index_select(self._x, 0, self.source[edges], out=f)
        for name, whole in (("Y", self.operands.values), ("g", self.operands.gates)):
            for a, x in enumerate(whole):
                if x is not None:
                    self._array(name, a, shape=(self.e, *x.shape[1:])).copy_(x[edges])

    def _factor(self, name: str, a: int) -> torch.Tensor:
        """Y (E, d_a, s) or g (E, u), or its derivative."""
        whole = (self.operands.values if name.endswith("Y") else self.operands.gates)[a]
        return self._array(name, a, shape=(self.e, *whole.shape[1:]))

    def _fields(self, name: str) -> torch.Tensor:
        """H (E, P), or its derivative."""
        return self._array(name, shape=(self.e, sum(at.stop - at.start for at in self._in_h.values())))

    def _field(self, name: str, a: int) -> torch.Tensor:
        """The part of one field (E, d_a, u)."""
        return self._fields(name)[:, self._in_h[a]].unflatten(1, (-1, self.operands.width(a)))

    def _gates(self, name: str, a: int) -> torch.Tensor:
        """v (E, s u), or its derivative."""
        return self._array(name, a, shape=(self.e, self.operands.mix[a].numel()))

    def _outputs(self, c: int) -> torch.Tensor:
        """The output, or its derivative (n d_c, m_c)."""
        d, m = self.sizes[c]
        return self._array("y", c, shape=(self.n * d, m))

    def _coupled(self, name: str, i: int) -> list[torch.Tensor]:
        """S (n d_c, r u m) for each output of a pair, or its derivative."""
        return [
            self._array(name, i, c, shape=(self.n * self.sizes[c][0], rows.stop - rows.start))
            for (c, _), rows in zip(self.pairs[i][0].parts, self._rows[i])
        ]

    def _pieces(self, name: str, i: int, T: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each S (n, d_c, r, u, m) of a pair, or its derivative, and its part of T (n, Q, u, m)."""
        at = 0
        for (c, r), S in zip(self.pairs[i][0].parts, self._coupled(name, i)):
            d = self.sizes[c][0]
            yield S.view(self.n, d, r, *T.shape[2:]), T[:, at : at + d * r].unflatten(1, (d, r))
            at += d * r

    def _coupling(self, i: int) -> Iterator[torch.Tensor]:
        """C (n, d_c r, d_a d_b) for each output of a pair."""
        p, C, *_ = self.pairs[i]
        for part in C.flatten(1).split([self.sizes[c][0] * r for c, r in p.parts]):
            yield part.expand(self.n, -1, -1)

    def _dimensions(self, i: int) -> tuple[int, ...]:
        """Q, d_a, d_b, s, u, m of a pair."""
        p, C, *_ = self.pairs[i]
        ops = self.operands
        return *C.shape, ops.values[p.a].shape[2], ops.width(p.a), ops.features[p.b].shape[2]

    # ---- what is done to a chunk ----------------------------------------------------------------------------

    def _couple(self, groups: Groups) -> None:
        """From Y, g and f to S."""
        for a in self._sums:
            Y, w = self._factor("Y", a), self.operands.mix[a]
            if w is None:
                self._do(self._field("H", a).copy_, Y)
                continue
            z = self._array("z", a, shape=(*Y.shape[:2], w.shape[1]))
            self._do(torch.mm, Y.flatten(0, 1), w, out=z.flatten(0, 1))
            self._do(torch.mul, z, self._factor("g", a)[:, None], out=self._field("H", a))
        for a in self._messages:
            w = self.operands.mix[a]
            self._do(torch.mul, self._factor("g", a)[:, None], w, out=self._gates("v", a).view(-1, *w.shape))
        f, H = self._array("f", shape=(self.e, self._x.shape[1])), self._fields("H")
        A = self._array("A", shape=(self.n, H.shape[1], f.shape[1]))
        if self._sums:
            for H_, f_, A_ in _views(groups, 1, H, f, A):
                self._do(torch.bmm, H_.mT, f_, out=A_)
        for i, (p, _, F, order) in enumerate(self.pairs):
            q, da, db, s, u, m = self._dimensions(i)
            if order == "message":
                M = self._array("M", i, shape=(self.e, db, s * q))
                self._do(torch.mm, self._factor("Y", p.a).flatten(1), F, out=M.flatten(1))
                t = self._array("t", i, shape=(self.e, s * q, m))
                self._do(torch.bmm, M.mT, f[:, self._in_f[p.b]].unflatten(1, (db, m)), out=t)
                T = self._array("T", shape=(self.n, u, q * m))
                for v_, t_, T_ in _views(groups, s, self._gates("v", p.a), t.flatten(1), T):
                    self._do(torch.bmm, v_.mT, t_, out=T_)
                for S, piece in self._pieces("S", i, T.view(self.n, u, q, m).transpose(1, 2)):
                    self._do(S.copy_, piece)
                continue
            part = self._part(A, p).transpose(2, 3)
            if p.is_identity:
                for S, piece in self._pieces("S", i, part[:, 0]):
                    self._do(S.copy_, piece)
                continue
            B = self._array("B", shape=(self.n, da, db, u, m))
            self._do(B.copy_, part)
            for C, S in zip(self._coupling(i), self._coupled("S", i)):
                self._do(torch.bmm, C, B.view(self.n, da * db, u * m), out=S.view(*C.shape[:2], u * m))

    def _part(self, A: torch.Tensor, p) -> torch.Tensor:
        """The part of A of a pair (n, d_a, u, d_b, m)."""
        part = A[:, self._in_h[p.a], self._in_f[p.b]].unflatten(1, (-1, self.operands.width(p.a)))
        return part.unflatten(3, self.operands.features[p.b].shape[1:])

    def _uncouple(self, groups: Groups) -> None:
        """From the derivatives of the output to those of H, v, Y and f."""
        for i, (p, *_) in enumerate(self.pairs):
            for (c, _), rows, S, dS in zip(p.parts, self._rows[i], self._coupled("S", i), self._coupled("dS", i)):
                g = self._outputs(c)
                self._do(torch.mm, g, self.operands.weights[c][rows].T, out=dS)
                if (dW := self.total.weights[c]) is not None:
                    self._do(dW[rows].addmm_, S.T, g)
        H, dH = self._fields("H"), self._fields("dH")
        f, df = (self._array(name, shape=(self.e, self._x.shape[1])) for name in ("f", "df"))
        A = self._array("A", shape=(self.n, H.shape[1], f.shape[1]))
        coupled = {(p.a, p.b) for p, *_ in self.pairs}
        if any((a, b) not in coupled for a in self._sums for b in range(len(self._in_f))):
            self._do(A.zero_)
        for i, (p, *_, order) in enumerate(self.pairs):
            if order == "message":
                continue
            _, da, db, _, u, m = self._dimensions(i)
            part = self._part(A, p)
            if p.is_identity:
                for dS, piece in self._pieces("dS", i, part[:, 0].transpose(1, 2)):
                    self._do(piece.copy_, dS)
                continue
            B = self._array("B", shape=(self.n, da * db, u * m))
            for k, (C, dS) in enumerate(zip(self._coupling(i), self._coupled("dS", i))):
                self._do(torch.baddbmm, B, C.mT, dS.view(*C.shape[:2], u * m), beta=float(k > 0), out=B)
            self._do(part.copy_, B.view(self.n, da, db, u, m).transpose(2, 3))
        if self._sums:
            for dH_, f_, A_ in _views(groups, 1, dH, f, A):
                self._do(torch.bmm, f_, A_.mT, out=dH_)
        if self._needs_x:
            if not self._sums:
                self._do(df.zero_)
            else:
                for H_, df_, A_ in _views(groups, 1, H, df, A):
                    self._do(torch.bmm, H_, A_, out=df_)
        for i, (*_, order) in enumerate(self.pairs):
            if order == "message":
                self._unsend(groups, i, f, df)

    def _unsend(self, groups: Groups, i: int, f: torch.Tensor, df: torch.Tensor) -> None:
        """The derivatives of the messages of a pair."""
        p, _, F, _ = self.pairs[i]
        q, da, db, s, u, m = self._dimensions(i)
        needs_y = self.total.values[p.a] is not None
        dT = self._array("dT", shape=(self.n, u, q * m))
        for dS, piece in self._pieces("dS", i, dT.view(self.n, u, q, m).transpose(1, 2)):
            self._do(piece.copy_, dS)
        v, dv = self._gates("v", p.a), self._gates("dv", p.a)
        t, dt = (self._array(*name, shape=(self.e, s * q, m)) for name in (("t", i), ("dt",)))
        for dv_, t_, dT_ in _views(groups, s, dv, t.flatten(1), dT):
            self._add(torch.baddbmm, t_, dT_.mT, to=dv_)
        if not (self._needs_x or needs_y):
            return
        for v_, dt_, dT_ in _views(groups, s, v, dt.flatten(1), dT):
            self._do(torch.bmm, v_, dT_, out=dt_)
        at = self._in_f[p.b]
        if needs_y:
            dM = self._array("dM", shape=(self.e, db, s * q))
            self._do(torch.bmm, f[:, at].unflatten(1, (db, m)), dt.mT, out=dM)
            self._add(torch.addmm, dM.flatten(1), F.T, to=self._factor("dY", p.a).flatten(1))
        if self._needs_x:
            more = self._array("more", shape=(self.e, db, m))
            self._do(torch.bmm, self._array("M", i, shape=(self.e, db, s * q)), dt, out=more)
            self._do(df[:, at].add_, more.flatten(1))

    def _factors(self) -> None:
        """From the derivatives of H and v to those of Y, g and w."""
        total = self.total
        for a in self._sums:
            Y, w, dh = self._factor("Y", a), self.operands.mix[a], self._field("dH", a)
            if w is None:
                self._do(self._factor("dY", a).copy_, dh)
                continue
            z, dz = (self._array(name, a, shape=(*Y.shape[:2], w.shape[1])) for name in ("z", "dz"))
            if total.gates[a] is not None:
                self._do(z.mul_, dh)
                self._do(torch.sum, z, 1, out=self._factor("dg", a))
            self._do(torch.mul, dh, self._factor("g", a)[:, None], out=dz)
            if total.values[a] is not None:
                self._do(torch.mm, dz.flatten(0, 1), w.T, out=self._factor("dY", a).flatten(0, 1))
            if total.mix[a] is not None:
                self._do(total.mix[a].addmm_, Y.flatten(0, 1).T, dz.flatten(0, 1))
        for a in self._messages:
            w = self.operands.mix[a]
            dv = self._gates("dv", a).view(-1, *w.shape)
            if total.gates[a] is not None:
                both = self._array("dvw", a, shape=dv.shape)
                self._do(torch.mul, dv, w, out=both)
                self._do(torch.sum, both, 1, out=self._factor("dg", a))
            if total.mix[a] is not None:
                self._do(dv.mul_, self._factor("g", a)[:, None])
                self._do(_add_sum, total.mix[a], dv)


def _slices(sizes) -> list[slice]:
    out, at = [], 0
    for n in sizes:
        out.append(slice(at, at + n))
        at += n
    return out


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
