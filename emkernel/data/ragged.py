"""Graphs of different sizes in flat arrays, and batches cut out of them without a loop over the graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .._arguments import array_of
from ..batch import GraphBatch

__all__ = ["PointClouds", "RaggedGraphs", "as_is"]


def as_is(batch: GraphBatch) -> GraphBatch:
    """Return the batch: the ``collate_fn`` for datasets whose ``__getitems__`` has already made one.

    Example:
        >>> data = ek.data.RaggedGraphs(torch.zeros(5, 3), torch.tensor([0, 2, 5]), torch.zeros(2))
        >>> next(iter(torch.utils.data.DataLoader(data, batch_size=2, collate_fn=ek.data.as_is)))
        GraphBatch(num_graphs=2, pos=(5, 3), y=(2,))
    """
    return batch


class RaggedGraphs(Dataset[GraphBatch]):
    """A data set of graphs of different sizes, stored end to end: graph i owns rows ptr[i]:ptr[i+1].

    Indexing by an integer, or by a list as ``DataLoader`` does, gives a ``GraphBatch``. Integers may be stored
    in a narrow dtype to save memory: batches have them as int64.

    Args:
        pos: (N, d) positions.
        ptr: (M + 1,) first row of each graph, then N.
        y: targets, (M, ...) for graphs or (N, ...) for nodes (see ``node_target``).
        x: inputs on the nodes by name, each (N, ...).
        edges: (2, E) source and target of each edge, counted from the first node of its graph; or None.
        edge_ptr: (M + 1,) first edge of each graph, then E.
        edge_attr: inputs on the edges by name, each (E, ...).
        undirected: each edge is stored once and means both directions, with the same inputs.
        node_target: the targets belong to the nodes.
        cell: (M, d, d) lattice vectors of each crystal as rows, or None.

    Attributes are the arguments, with edges in both directions, sorted by target, then by source.

    Raises:
        ValueError: if lengths do not fit together or an edge leaves its graph.

    Example:
        >>> data = ek.data.RaggedGraphs(torch.zeros(5, 3), torch.tensor([0, 2, 5]), torch.zeros(2))
        >>> data[[1, 0]]
        GraphBatch(num_graphs=2, pos=(5, 3), y=(2,))
    """

    def __init__(
        self,
        pos: Tensor,
        ptr: Tensor,
        y: Tensor,
        *,
        x: Mapping[str, Tensor] | None = None,
        edges: Tensor | None = None,
        edge_ptr: Tensor | None = None,
        edge_attr: Mapping[str, Tensor] | None = None,
        undirected: bool = False,
        node_target: bool = False,
        cell: Tensor | None = None,
    ) -> None:
        named = {f"x[{k!r}]": t for k, t in (x or {}).items()}
        named |= {f"edge_attr[{k!r}]": t for k, t in (edge_attr or {}).items()}
        _check_tensors({"pos": pos, "y": y, "edges": edges, "cell": cell} | named)
        self.pos, self.y, self.x, self.cell = pos, y, dict(x or {}), cell
        self.ptr = _checked_ptr("ptr", ptr, len(pos))
        self.node_target = node_target
        self.edges, self.edge_ptr, self.edge_attr = None, None, {}
        length = len(pos) if node_target else len(self)
        if len(y) != length:
            what = "nodes" if node_target else "graphs"
            raise ValueError(
                f"y has {len(y)} rows for {length} {what}: node_target says which of the two it is for."
            )
        if cell is not None and cell.shape != (len(self), pos.shape[1], pos.shape[1]):
            d = pos.shape[1]
            raise ValueError(f"cell has shape {tuple(cell.shape)}, expected ({len(self)}, {d}, {d}): one per graph.")
        for name, t in self.x.items():
            if len(t) != len(pos):
                raise ValueError(
                    f"x[{name!r}] has {len(t)} rows, expected one for each of the {len(pos)} nodes."
                )
        if edges is None:
            if edge_attr or edge_ptr is not None:
                raise ValueError("edge_ptr or edge_attr was given without edges.")
            return
        if edge_ptr is None or edges.ndim != 2 or len(edges) != 2:
            raise ValueError(f"edges has shape {tuple(edges.shape)}, expected (2, E) together with edge_ptr.")
        if edges.is_floating_point() or edges.is_complex() or edges.device != self.pos.device:
            raise ValueError(f"edges are {edges.dtype} on {edges.device}, expected integers on {self.pos.device}.")
        edge_ptr = _checked_ptr("edge_ptr", edge_ptr, edges.shape[1])
        if len(edge_ptr) != len(self.ptr):
            raise ValueError(f"edge_ptr is for {len(edge_ptr) - 1} graphs, ptr for {len(self)}.")
        attr = dict(edge_attr or {})
        for name, t in attr.items():
            if len(t) != edges.shape[1]:
                raise ValueError(
                    f"edge_attr[{name!r}] has {len(t)} rows, expected one for each of the {edges.shape[1]} edges."
                )
        owner = torch.arange(len(self)).repeat_interleave(edge_ptr.diff())
        both = edges.to(torch.int64)
        outside = (both < 0) | (both >= self.ptr.diff()[owner])
        if bool(outside.any()):
            e = int(outside.any(0).nonzero()[0])
            raise ValueError(
                f"edge {e - int(edge_ptr[owner[e]])} of graph {int(owner[e])} is {both[:, e].tolist()}, but the "
                f"graph has {int(self.ptr.diff()[owner[e]])} nodes: edges are counted within their graph."
            )
        if undirected:
            both, owner, edge_ptr = torch.cat([both, both.flip(0)], 1), owner.repeat(2), 2 * edge_ptr
            attr = {name: torch.cat([t, t]) for name, t in attr.items()}
        order = _by_target(both, self.ptr[owner])
        self.edges, self.edge_ptr = both[:, order].to(edges.dtype), edge_ptr
        self.edge_attr = {name: t[order] for name, t in attr.items()}

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def __getitem__(self, index: int | Sequence[int] | Tensor) -> GraphBatch:
        return self.__getitems__([index] if isinstance(index, int) else index)

    def __getitems__(self, indices: Sequence[int] | Tensor) -> GraphBatch:
        index = _checked_index(indices, len(self))
        rows, batch, ptr = _rows(self.ptr, index)
        edge_index = None
        edge_attr: dict[str, Tensor] = {}
        if self.edges is not None and self.edge_ptr is not None:
            edge_rows, graph, _ = _rows(self.edge_ptr, index)
            edge_index = self.edges[:, edge_rows] + ptr[graph]
            edge_attr = {name: _wide(t[edge_rows]) for name, t in self.edge_attr.items()}
        return GraphBatch(
            pos=self.pos[rows],
            batch=batch,
            num_graphs=len(index),
            x={name: _wide(t[rows]) for name, t in self.x.items()},
            y=_wide(self.y[rows if self.node_target else index]),
            edge_index=edge_index,
            edge_attr=edge_attr,
            cell=None if self.cell is None else self.cell[index],
        )

    def subset(self, indices: Sequence[int] | Tensor) -> RaggedGraphs:
        """The graphs of the given indices, in that order, as a data set of their own."""
        index = _checked_index(indices, len(self))
        rows, _, ptr = _rows(self.ptr, index)
        edges, edge_ptr, attr = None, None, {}
        if self.edges is not None and self.edge_ptr is not None:
            edge_rows, _, edge_ptr = _rows(self.edge_ptr, index)
            edges = self.edges[:, edge_rows]
            attr = {name: t[edge_rows] for name, t in self.edge_attr.items()}
        return RaggedGraphs(
            self.pos[rows],
            ptr,
            self.y[rows if self.node_target else index],
            x={name: t[rows] for name, t in self.x.items()},
            edges=edges,
            edge_ptr=edge_ptr,
            edge_attr=attr,
            node_target=self.node_target,
            cell=None if self.cell is None else self.cell[index],
        )

    def __repr__(self) -> str:
        edges = "" if self.edges is None else f", {self.edges.shape[1]} edges"
        return f"RaggedGraphs({len(self)} graphs, {len(self.pos)} nodes{edges})"


class PointClouds(Dataset[GraphBatch]):
    """A data set of clouds of equally many points with a class each.

    Indexing by an integer, or by a list as ``DataLoader`` does, gives a ``GraphBatch`` of N = B·n points, with
    the normals as ``x["normal"]`` where there are any, the classes as ``y``, and no edges.

    Args:
        pos: (M, n, d) positions.
        label: (M,) class of each cloud.
        classes: name of each class.
        normal: (M, n, d) unit normals, or None.

    Raises:
        ValueError: if shapes do not fit together or a label has no class.

    Example:
        >>> ek.data.PointClouds(torch.zeros(4, 8, 3), torch.zeros(4, dtype=torch.int64), ["cube"])[[0, 3]]
        GraphBatch(num_graphs=2, pos=(16, 3), y=(2,))
    """

    def __init__(
        self, pos: Tensor, label: Tensor, classes: Sequence[str], normal: Tensor | None = None
    ) -> None:
        _check_tensors({"pos": pos, "label": label, "normal": normal})
        if (
            pos.ndim != 3
            or label.shape != pos.shape[:1]
            or (normal is not None and normal.shape != pos.shape)
        ):
            shapes = [None if t is None else tuple(t.shape) for t in (pos, label, normal)]
            raise ValueError(
                f"pos, label and normal have the shapes {shapes[0]}, {shapes[1]}, {shapes[2]}, expected "
                "(M, n, d), (M,), and (M, n, d) or None."
            )
        if len(label) and not (int(label.min()) >= 0 and int(label.max()) < len(classes)):
            raise ValueError(
                f"labels run from {int(label.min())} to {int(label.max())}, but there are {len(classes)} classes."
            )
        self.pos, self.label, self.classes, self.normal = pos, label.to(torch.int64), list(classes), normal

    def __len__(self) -> int:
        return len(self.pos)

    def __getitem__(self, index: int | Sequence[int] | Tensor) -> GraphBatch:
        return self.__getitems__([index] if isinstance(index, int) else index)

    def __getitems__(self, indices: Sequence[int] | Tensor) -> GraphBatch:
        index = _checked_index(indices, len(self))
        _, n, d = self.pos.shape
        batch = torch.arange(len(index)).repeat_interleave(n)
        x = {} if self.normal is None else {"normal": self.normal[index].reshape(-1, d)}
        return GraphBatch(self.pos[index].reshape(-1, d), batch, len(index), x, self.label[index])

    def subset(self, indices: Sequence[int] | Tensor) -> PointClouds:
        """The clouds of the given indices, in that order, as a data set of their own."""
        index = _checked_index(indices, len(self))
        normal = None if self.normal is None else self.normal[index]
        return PointClouds(self.pos[index], self.label[index], self.classes, normal)

    def __repr__(self) -> str:
        _, n, d = self.pos.shape
        return f"PointClouds({len(self)} clouds of {n} points, d={d}, {len(self.classes)} classes)"


def _check_tensors(given: Mapping[str, Tensor | None]) -> None:
    for name, t in given.items():
        if t is None and name in ("edges", "normal", "cell"):
            continue
        if not isinstance(t, Tensor) or not t.ndim or t.layout != torch.strided:
            raise ValueError(f"{name} must be a dense tensor, got {t!r:.80}")


def _checked_ptr(name: str, ptr: Tensor, rows: int) -> Tensor:
    ptr = torch.from_numpy(array_of(ptr, name).astype(np.int64))
    if (
        ptr.ndim != 1
        or len(ptr) < 1
        or int(ptr[0]) != 0
        or int(ptr[-1]) != rows
        or bool((ptr.diff() < 0).any())
    ):
        raise ValueError(
            f"{name} is not an ascending vector from 0 to {rows}: rows {name}[i]:{name}[i+1] belong to graph i."
        )
    return ptr


def _checked_index(indices: Sequence[int] | Tensor, length: int) -> Tensor:
    index = array_of(indices, "indices")
    if index.dtype.kind not in "iu" and index.size:
        raise ValueError(f"indices are {index.dtype}, expected whole numbers")
    index = torch.from_numpy(index.astype(np.int64)).reshape(-1)
    if len(index) and not (int(index.min()) >= -length and int(index.max()) < length):
        raise IndexError(
            f"indices run from {int(index.min())} to {int(index.max())} in a data set of {length}."
        )
    return torch.where(index < 0, index + length, index)


def _rows(ptr: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the graphs ``index``, end to end; the graph of each row, counted anew; and the new ptr."""
    first = ptr[index]
    length = ptr[index + 1] - first
    new = torch.cat([length.new_zeros(1), length.cumsum(0)])
    graph = torch.arange(len(index)).repeat_interleave(length)
    return torch.arange(len(graph)) + (first - new[:-1])[graph], graph, new


def _by_target(edges: Tensor, offset: Tensor) -> Tensor:
    """Order of the edges by target, then by source, over all graphs."""
    order = (edges[0] + offset).argsort(stable=True)
    return order[(edges[1] + offset)[order].argsort(stable=True)]


def _wide(t: Tensor) -> Tensor:
    return t if t.is_floating_point() else t.to(torch.int64)
