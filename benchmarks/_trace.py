"""Every operation of a forward and a backward pass, put down to the stage of the code that it belongs to: its time, its
floating-point operations, and the memory that crosses the borders of the stage. Operations of the backward pass belong
to the stage whose graph nodes they differentiate."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from _measure import uncounted
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, shape_wrapper


@dataclass
class Op:
    """One operation.

    Attributes:
        name: of the operation.
        shapes: of the tensors that go in.
        stage, backward: what it belongs to.
        flops: of matrix products, two for a multiplication and an addition.
        reads, writes: (storage, first number, bytes) of the tensors that go in and out.
        seconds: the fastest of the passes.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    stage: str
    backward: bool
    flops: int
    reads: list[tuple[int, int, int]]
    writes: list[tuple[int, int, int]]
    seconds: float

    @property
    def bytes(self) -> int:
        """What goes in and comes out."""
        return sum(size for _, _, size in (*self.reads, *self.writes))


@dataclass
class Cost:
    """What one stage does in one pass."""

    seconds: float = 0.0
    flops: int = 0
    bytes: int = 0


class Trace(TorchDispatchMode):
    """Record the operations of functions whose stages were marked by :meth:`module`, :meth:`method` or :meth:`stage`.

    Args:
        synchronise: waits for the device.
        rest: the stage of whatever is in no other.
    """

    def __init__(self, synchronise: Callable[[], None], rest: str):
        super().__init__()
        self._synchronise, self._rest = synchronise, rest
        self._flops = flop_registry | {op: shape_wrapper(count) for op, count in uncounted().items()}
        self._stack: list[str] = []
        self._start()

    def _start(self) -> None:
        self._ops: list[Op] = []
        self._storages: dict[int, int] = {}  # address -> number
        self._count = 0
        self._numbers, self._stages = [-1], [self._rest]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What runs inside, and not inside another stage within, belongs to ``name``."""
        self._enter(name)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, name: str) -> None:
        self._stack.append(name)
        self._mark()

    def _leave(self) -> None:
        self._stack.pop()
        self._mark()

    def _mark(self) -> None:
        # graph nodes are numbered in the order in which they are made
        self._numbers.append(torch._C._autograd._get_sequence_nr())
        self._stages.append(self._stack[-1] if self._stack else self._rest)

    def module(self, module: torch.nn.Module, name: str) -> None:
        """Calls of a module are a stage."""
        module.register_forward_pre_hook(lambda *_: self._enter(name))
        module.register_forward_hook(lambda *_: self._leave())

    def method(self, owner: object, attribute: str, name: str) -> None:
        """Calls of the function that a module or an object holds under this name are a stage."""
        function = getattr(owner, attribute)

        def within(*args, **kwargs):
            with self.stage(name):
                return function(*args, **kwargs)

        object.__setattr__(owner, attribute, within)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._synchronise()
        before = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        self._synchronise()
        seconds = time.perf_counter() - before
        name, node = func.overloadpacket.__name__, torch._C._current_autograd_node()
        stage = self._stages[-1]
        if node is not None:
            stage = self._stages[bisect.bisect_right(self._numbers, node._sequence_nr()) - 1]
        # an array that is given to be filled is not read
        read = {k: v for k, v in (kwargs or {}).items() if k != "out"}
        given = [t for t in tree_leaves((args, read)) if isinstance(t, torch.Tensor)]
        made = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        count = self._flops.get(func.overloadpacket)
        flops = count(*args, **(kwargs or {}), out_val=out) if count else 0
        reads, writes = [], []
        if not func.is_view:
            reads = [self._place(t) for t in given]
            # what comes out and did not go in is new, wherever an older storage may have been
            there = [*given, *([kwargs["out"]] if kwargs and "out" in kwargs else [])]
            old = {t.untyped_storage().data_ptr() for t in there}
            writes = [self._place(t, new=t.untyped_storage().data_ptr() not in old) for t in made]
        shapes = tuple(tuple(t.shape) for t in given)
        self._ops.append(Op(name, shapes, stage, node is not None, flops, reads, writes, seconds))
        return out

    def _place(self, t: torch.Tensor, new: bool = False) -> tuple[int, int, int]:
        storage = t.untyped_storage()
        address = storage.data_ptr()
        if new or address not in self._storages:
            self._storages[address] = self._count = self._count + 1
        size = min(t.numel() * t.element_size(), storage.nbytes())
        return self._storages[address], t.storage_offset(), size

    def run(self, f: Callable[[], object], passes: int) -> list[Op]:
        """The operations of ``f``, each with its fastest time in several passes."""
        best: list[float] = []
        for _ in range(passes):
            self._start()
            with self:
                f()
            times = [op.seconds for op in self._ops]
            if best and len(best) != len(times):
                raise RuntimeError(f"passes differ: {len(best)} and {len(times)} operations")
            best = [min(a, b) for a, b in zip(best, times)] if best else times
        for op, seconds in zip(self._ops, best):
            op.seconds = seconds
        return self._ops


def costs(ops: list[Op]) -> dict[tuple[str, bool], Cost]:
    """(stage, backward) -> its cost. Bytes: what the stage reads that others made, and makes that others read."""
    made_by: dict[int, tuple[str, bool]] = {}
    read_by: dict[int, set[tuple[str, bool]]] = {}
    for op in ops:
        key = op.stage, op.backward
        for storage, _, _ in op.reads:
            read_by.setdefault(storage, set()).add(key)
        for storage, _, _ in op.writes:
            made_by.setdefault(storage, key)
    out: dict[tuple[str, bool], Cost] = {}
    crossing: dict[tuple[str, bool], set[tuple[int, int, int]]] = {}
    for op in ops:
        key = op.stage, op.backward
        cost = out.setdefault(key, Cost())
        cost.seconds += op.seconds
        cost.flops += op.flops
        border = crossing.setdefault(key, set())
        border |= {place for place in op.reads if made_by.get(place[0]) != key}
        # what nobody reads is a result
        border |= {place for place in op.writes if read_by.get(place[0], set()) != {key}}
    for key, border in crossing.items():
        out[key].bytes = sum(size for _, _, size in border)
    return out
