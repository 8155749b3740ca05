"""Several graphs or point clouds as one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

__all__ = ["GraphBatch"]


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Some graphs or point clouds as one: the disjoint union, with the graph of each node in ``batch``.

    Args:
        pos: (N, d) positions.
        batch: (N,) int64 graph of each node, ascending.
        num_graphs: number of graphs, those without nodes included.
        x: inputs on the nodes by name, each (N, ...): classes as int64, vectors as floats.
        y: targets, (num_graphs, ...) or (N, ...).
        edge_index: (2, E) int64, row 0 the source, row 1 the target, sorted by target; or None.
        edge_attr: inputs on the edges by name, each (E, ...).
        cell: (num_graphs, d, d) lattice vectors of each crystal as rows; None where nothing is periodic.

    Raises:
        TypeError: something that is no tensor.
        ValueError: positions and graphs that do not fit together.

    Example:
        >>> ek.GraphBatch(torch.zeros(3, 3), torch.tensor([0, 0, 1]), 2)
        GraphBatch(num_graphs=2, pos=(3, 3))
    """

    pos: Tensor
    batch: Tensor
    num_graphs: int
    x: dict[str, Tensor] = field(default_factory=dict)
    y: Tensor | None = None
    edge_index: Tensor | None = None
    edge_attr: dict[str, Tensor] = field(default_factory=dict)
    cell: Tensor | None = None

    def __post_init__(self):
        edges = {"edge_index": self.edge_index, **{f"edge_attr[{k!r}]": t for k, t in self.edge_attr.items()}}
        nodes = {"pos": self.pos, "batch": self.batch, **{f"x[{k!r}]": t for k, t in self.x.items()}}
        for name, t in {**nodes, **edges, "y": self.y}.items():
            if not isinstance(t, Tensor) and not (t is None and name in ("edge_index", "y")):
                raise TypeError(f"{name} must be a tensor, got {type(t).__name__}")
        if self.pos.ndim != 2 or self.batch.shape != self.pos.shape[:1]:
            shapes = tuple(self.pos.shape), tuple(self.batch.shape)
            raise ValueError(f"pos and batch have the shapes {shapes[0]} and {shapes[1]}, expected (N, d) and (N,)")

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        non_blocking: bool = False,
    ) -> GraphBatch:
        """The same batch on another device, and with its floating-point tensors in another dtype.

        Args:
            device: where to; None to stay.
            dtype: floating-point dtype of positions, inputs and targets; integers keep theirs. None to keep.
            non_blocking: copy asynchronously from pinned memory.

        Raises:
            ValueError: if ``dtype`` is not a floating-point dtype.
        """
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ValueError(
                f"dtype is {dtype}, expected a floating-point dtype: classes and indices keep theirs."
            )

        def move(t: Tensor) -> Tensor:
            return t.to(device, dtype if t.is_floating_point() else None, non_blocking=non_blocking)

        return self._map(move)

    def pin_memory(self) -> GraphBatch:
        """The same batch in page-locked memory, from where copies to a GPU can be asynchronous."""
        return self._map(Tensor.pin_memory)

    def _map(self, f) -> GraphBatch:
        return replace(
            self,
            pos=f(self.pos),
            batch=f(self.batch),
            x={name: f(t) for name, t in self.x.items()},
            y=None if self.y is None else f(self.y),
            edge_index=None if self.edge_index is None else f(self.edge_index),
            edge_attr={name: f(t) for name, t in self.edge_attr.items()},
            cell=None if self.cell is None else f(self.cell),
        )

    def __repr__(self) -> str:
        shapes = {"pos": self.pos, "cell": self.cell, **self.x, "edge_index": self.edge_index, **self.edge_attr}
        shapes["y"] = self.y
        text = ", ".join(f"{name}={tuple(t.shape)}" for name, t in shapes.items() if t is not None)
        return f"GraphBatch(num_graphs={self.num_graphs}, {text})"
