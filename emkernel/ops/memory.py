"""The memory of intermediate results, which all layers use in turn, and what a layer keeps of its calls on it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

__all__ = ["Kept", "Memory", "Recorder", "borrowed"]

CPU = torch.device("cpu")
LIMIT = 2**26  # bytes that are kept between calls
LISTS = 32  # of calls, of one kind of work
KINDS = 8  # of work that a layer keeps


class Memory:
    """Arrays by name, each as large as was ever asked for; their values do not outlive a call.

    Attributes:
        generation: changes when an array is given up for a larger one, and what refers to it is to be made anew.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device = CPU):
        self.dtype, self.device, self.generation, self.lock = dtype, device, 0, threading.Lock()
        self._arrays: dict[Hashable, torch.Tensor] = {}

    def own(self, shape: tuple[int, ...]) -> torch.Tensor:
        """A new array that is not shared."""
        with torch.inference_mode(False):  # it may be written to outside
            return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def array(self, name: Hashable, size: int) -> torch.Tensor:
        """The first numbers of the array of a name."""
        found = self._arrays.get(name)
        if found is None or len(found) < size:
            self.generation += found is not None
            with torch.inference_mode(False):
                found = self._arrays[name] = torch.empty(size, dtype=self.dtype, device=self.device)
        return found[:size]

    def tidy(self) -> None:
        """Give up what is too large to be kept."""
        if sum(x.nbytes for x in self._arrays.values()) > LIMIT:
            self._arrays.clear()
            self.generation += 1


_shared: dict[tuple[torch.dtype, torch.device], Memory] = {}


@contextmanager
def borrowed(dtype: torch.dtype, device: torch.device = CPU) -> Iterator[Memory]:
    """The shared memory; one of its own where another thread has that, or where tensors are not what they seem."""
    memory = _shared.setdefault((dtype, device), Memory(dtype, device))
    if torch._C._len_torch_dispatch_stack() or not memory.lock.acquire(blocking=False):
        yield Memory(dtype, device)
        return
    try:
        yield memory
    finally:
        memory.tidy()
        memory.lock.release()


class Recorder:
    """Writes down calls on arrays of a memory: one list for all that is of one shape.

    Args:
        memory: of the arrays.
    """

    def __init__(self, memory: Memory):
        self.memory, self._seen = memory, memory.generation
        self._lists: dict[Hashable, list[Callable]] = {}

    def _forget(self) -> None:
        """Drop the lists where arrays that they may refer to were given up."""
        if self._seen != self.memory.generation:
            self._lists.clear()
            self._seen = self.memory.generation

    def _array(self, *name, shape: tuple[int, ...]) -> torch.Tensor:
        """The array of a name."""
        array = self.memory.array(name, math.prod(shape))
        self._forget()
        return array.view(shape)

    def _written(self, key: Hashable, what: Callable[[], None]) -> list[Callable]:
        """The calls that ``what`` makes by :meth:`_do` and :meth:`_add`, from the second time on without asking it."""
        self._forget()
        if (found := self._lists.get(key)) is None:
            self._calls = found = []
            self._begun: set[int] = set()  # addresses
            what()
            if len(self._lists) == LISTS:
                del self._lists[next(iter(self._lists))]
            self._lists[key] = found
        return found

    def _do(self, f: Callable, *args, **kwargs) -> None:
        self._calls.append(partial(f, *args, **kwargs))

    def _add(self, f: Callable, left: torch.Tensor, right: torch.Tensor, to: torch.Tensor) -> None:
        """to += left @ right by addmm or baddbmm, the first time to an array without adding."""
        beta = float(to.data_ptr() in self._begun)
        self._begun.add(to.data_ptr())
        self._do(f, to, left, right, beta=beta, out=to)


class Kept:
    """What a layer keeps for its next call, by kind; a copy of the layer begins with nothing."""

    def __init__(self):
        self._found: dict[Hashable, tuple[list, Any]] = {}

    def __call__(
        self, kind: Hashable, constants: list[torch.Tensor], memory: Memory, make: Callable[[], Any]
    ) -> Any:
        """What was made of this kind, from the same constants, on the memory that is shared; else what is made now."""
        if _shared.get((memory.dtype, memory.device)) is not memory:
            return make()
        now = [memory, *constants]
        of, found = self._found.pop(kind, ([], None))
        if len(of) != len(now) or any(x is not y for x, y in zip(of, now)):
            found = make()
        if len(self._found) == KINDS:
            self._found.clear()
        self._found[kind] = now, found
        return found

    def __deepcopy__(self, memo) -> Kept:
        return Kept()

    def __reduce__(self):
        return Kept, ()
