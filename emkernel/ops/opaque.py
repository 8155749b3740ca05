"""The contraction on a CPU as one operation that a compiler does not look into.

A compiler sees no degrees, by which targets are grouped, and for every order would write out sums that take several
times as long as the blocked ones. This operation takes the edges as they come, groups them when it runs, and chooses
its orders then. It knows the pairs and bundles from a list of numbers: a program that is exported needs nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .blocked import backward, forward, targets_at_a_time
from .bundle import Bundle
from .memory import Kept
from .neighbours import Grouped, Neighbours
from .operands import Operands
from .orders import ORDERS, ordered
from .plain import Pair, contract

__all__ = ["opaque"]

CHOICES = ("auto", *ORDERS)
LAYERS = 64  # that keep something between calls
GIVEN = "Tensor[] given, Tensor[] constants, Tensor source, Tensor target, SymInt num_targets, int[] numbers"


def opaque(
    operands: Operands, pairs, bundles: list[Bundle], sizes, graph: Neighbours, contraction: str, chunk: int | None
) -> list[Tensor]:
    """(num_targets, d_c, m_c) per output irreducible.

    Args:
        operands: edges in the order of ``graph``.
        pairs, bundles, sizes, graph, contraction, chunk: as :func:`emkernel.ops.contract.node_order` takes them.
    """
    flat = operands.flat()
    numbers = [CHOICES.index(contraction), 0 if chunk is None else chunk]
    numbers += [len(operands.values), len(operands.features), len(sizes), *(int(x is not None) for x in flat)]
    numbers += [n for size in sizes for n in size]
    numbers.append(len(pairs))
    for pair, _ in pairs:
        numbers += [pair.a, pair.b, int(pair.is_identity), len(pair.parts), *(n for part in pair.parts for n in part)]
    numbers.append(len(bundles))
    for x in bundles:
        numbers += [x.inputs.start, x.inputs.stop, x.size, x.channels, len(x.folds), *x.folds]
    constants = [C for _, C in pairs] + [F for x in bundles for F in x.folds.values()]
    given = [x for x in flat if x is not None]
    out = _opaque(given, constants, graph.source, graph.target, graph.num_targets, numbers)
    out = out.split([graph.num_targets * d * m for d, m in sizes])
    return [y.reshape(graph.num_targets, d, m) for y, (d, m) in zip(out, sizes)]


_kept: dict[tuple, Kept] = {}


def _kept_for(constants: list[Tensor], numbers: list[int]) -> Kept:
    """What a layer keeps, known by its constants; a Kept looks whether they are the same, not only at ids."""
    key = (*map(id, constants), *numbers)
    if len(_kept) == LAYERS and key not in _kept:
        _kept.clear()
    return _kept.setdefault(key, Kept())


class _Call:
    """What the numbers say: pairs with their orders, bundles and sizes, the grouped edges, and the operands on them.

    Attributes:
        what: pairs, bundles and sizes.
        graph: the edges, grouped.
        operands: those on the edges in the order of the graph.
        chunk: targets at a time.
        kept: between calls of one layer.
    """

    def __init__(self, given, constants, source: Tensor, target: Tensor, num_targets: int, numbers: list[int]):
        self.kept = _kept_for(constants, numbers)
        n, constants = iter(numbers), iter(constants)
        contraction, chunk, hidden, inputs, outputs = (next(n) for _ in range(5))
        self.present = [bool(next(n)) for _ in range(3 * hidden + inputs + outputs)]
        self._places = Operands(*([None] * many for many in (hidden, hidden, hidden, inputs, outputs)))
        sizes = [(next(n), next(n)) for _ in range(outputs)]
        pairs = []
        for _ in range(next(n)):
            a, b, is_identity, parts = (next(n) for _ in range(4))
            pair = Pair(a, b, tuple((next(n), next(n)) for _ in range(parts)), bool(is_identity))
            pairs.append((pair, next(constants)))
        bundles = []
        for _ in range(next(n)):
            start, stop, size, channels, folds = (next(n) for _ in range(5))
            bundles.append(Bundle(range(start, stop), size, channels, {next(n): next(constants) for _ in range(folds)}))
        operands = self.like(given)
        num_sources = operands.features[0].shape[0]
        self.graph = Grouped._of(torch.stack((source, target)), num_sources, num_targets, True)
        operands.values = [self.graph.pad(self.graph.sort(x)) for x in operands.values]
        operands.gates = [None if x is None else self.graph.pad(self.graph.sort(x)) for x in operands.gates]
        self.operands = operands
        self.what = ordered(pairs, bundles, operands, self.graph, CHOICES[contraction]), bundles, sizes
        self.chunk = chunk or targets_at_a_time(*self.what[:2], operands, self.graph)

    def like(self, given) -> Operands:
        """Tensors, or flags, in the places of those that are given."""
        given = iter(given)
        return self._places.like([next(given) if there else None for there in self.present])

    def joined(self, out: list[Tensor]) -> Tensor:
        """What comes out for all targets, one output irreducible after another."""
        return torch.cat([self.graph.restore(y.flatten(1)).flatten() for y in out])

    def parted(self, grad: Tensor) -> list[Tensor]:
        """The derivatives by what comes out, of the grouped targets."""
        graph, (*_, sizes), out = self.graph, self.what, []
        pieces = grad.split([graph.num_targets * d * m for d, m in sizes])
        for y, (d, m) in zip(pieces, sizes):
            y = y.view(graph.num_targets, d, m)
            if graph.row is not None:
                reached = graph.degree > 0
                found = y.new_empty(sum(n for n, _ in graph.groups), d, m)
                found[graph.row[reached]] = y[reached]
                y = found
            out.append(y)
        return out

    def unsorted(self, grad: Tensor) -> Tensor:
        """A derivative by values of the edges, in the order in which these were given."""
        if self.graph.position is not None:
            grad = grad[self.graph.position]
        if self.graph.order is None:
            return grad
        return torch.empty_like(grad).index_copy_(0, self.graph.order, grad)


@torch.library.custom_op("emkernel::opaque", mutates_args=(), schema=f"({GIVEN}) -> Tensor")
def _opaque(
    given: list[Tensor], constants: list[Tensor], source: Tensor, target: Tensor, num_targets: int, numbers: list[int]
) -> Tensor:
    """What comes out for all targets, one output irreducible after another."""
    call = _Call(given, constants, source, target, num_targets, numbers)
    return call.joined(forward(call.what, call.kept, call.graph, call.chunk, call.operands))


@torch.library.custom_op(
    "emkernel::opaque_grad", mutates_args=(), schema=f"(Tensor grad, int[] needed, {GIVEN}) -> Tensor"
)
def _opaque_grad(grad: Tensor, needed: list[int], given: list[Tensor], *rest) -> Tensor:
    """What its derivative passes back to those operands that are needed, one after another."""
    call = _Call(given, *rest)
    places = call.operands, call.like(needed), call.parted(grad.contiguous())
    total = backward(call.what, call.kept, call.graph, call.chunk, *places)
    for name in ("values", "gates"):
        setattr(total, name, [None if x is None else call.unsorted(x) for x in getattr(total, name)])
    return torch.cat([x.flatten() for x in total.flat() if x is not None])


def _outputs(numbers: list[int]) -> int:
    """Numbers that come out for a target."""
    hidden, inputs, outputs = numbers[2:5]
    at = 5 + 3 * hidden + inputs + outputs
    return sum(d * m for d, m in zip(numbers[at : at + 2 * outputs : 2], numbers[at + 1 : at + 2 * outputs : 2]))


@_opaque.register_fake
def _(given, constants, source, target, num_targets, numbers):
    return given[0].new_empty(num_targets * _outputs(numbers))


@_opaque_grad.register_fake
def _(grad, needed, given, *rest):
    return grad.new_empty(sum(x.numel() for x, need in zip(given, needed) if need))


def _remember(ctx, inputs, output):
    given, constants, source, target, *ctx.others = inputs
    ctx.given = len(given)
    ctx.save_for_backward(*given, *constants, source, target)


def _pass_back(ctx, grad):
    given, rest = ctx.saved_tensors[: ctx.given], ctx.saved_tensors[ctx.given :]
    rest, needed = [list(rest[:-2]), *rest[-2:], *ctx.others], ctx.needs_input_grad[0]
    if torch.is_grad_enabled():  # of higher order
        given = [x.view_as(x) for x in given]
        call = _Call(given, *rest)
        out = call.joined(contract(call.operands, *call.what, call.graph))
        wanted = [x for x, need in zip(given, needed) if need]
        found = torch.autograd.grad(out, wanted, grad, create_graph=True, materialize_grads=True)
    else:
        flat = _opaque_grad(grad, [int(need) for need in needed], list(given), *rest)
        wanted = [x for x, need in zip(given, needed) if need]
        # not numel of the shape, which would fix the sizes of a compiled program
        found = [y.view(x.shape) for y, x in zip(flat.split([x.numel() for x in wanted]), wanted)]
    found = iter(found)
    return [next(found) if need else None for need in needed], [None] * len(rest[0]), None, None, None, None


_opaque.register_autograd(_pass_back, setup_context=_remember)


def _pick(x, place, i: int):
    """One of a batch, of what has a batch at a place, in lists too."""
    if isinstance(place, list | tuple):
        return [_pick(each, at, i) for each, at in zip(x, place)]
    return x if place is None else x.select(place, i)


def _one_by_one(op):
    """The rule of :func:`torch.func.vmap` for an operation."""

    def rule(info, in_dims, *args):
        return torch.stack([op(*_pick(args, in_dims, i)) for i in range(info.batch_size)]), 0

    op.register_vmap(rule)


_one_by_one(_opaque)
_one_by_one(_opaque_grad)
