"""Edges in the order in which they are reduced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from .._arguments import whole
from .formats import FORMATS, as_edges

__all__ = ["CSR", "ROW_LIMIT", "Grouped", "Groups", "Neighbours"]

EXACT_DEGREES = 10
ROW_LIMIT = 256

Groups = tuple[tuple[int, int], ...]  # (targets, degree) of each


@dataclass(frozen=True, eq=False, kw_only=True)
class Neighbours:
    """A graph prepared once for all layers that use it; pass it wherever ``edge_index`` is expected.

    There are two forms: :class:`Grouped`, whose groups of one degree are dense arrays for matrix products, and
    :class:`CSR`, which is made without waiting for the device and read by the fused operations.

    Attributes:
        source, target: (E,) node indices of each edge, sorted.
        order: (E,) the user's edge at each place, or None when they already are in order.
        degree: (num_targets,) incoming edges.
        num_sources, num_targets: sizes of the two sides.

    Example:
        >>> graph = ek.Neighbours.of(torch.tensor([[1, 2, 0], [0, 0, 1]]), num_sources=3)
        >>> graph.degree.tolist(), graph.num_edges
        ([2, 1, 0], 3)
    """

    source: torch.Tensor
    target: torch.Tensor
    order: torch.Tensor | None
    degree: torch.Tensor
    num_sources: int
    num_targets: int

    @staticmethod
    def of(
        edge_index: torch.Tensor,
        num_sources: int,
        num_targets: int | None = None,
        *,
        check: bool | None = None,
        grouped: bool | None = None,
        ordered: bool = False,
    ) -> Neighbours:
        """Prepare ``edge_index`` (2, E), source in row 0 and target in row 1, or a graph in another format.

        Args:
            edge_index: (2, E) integer tensor, or what else :func:`emkernel.ops.formats.as_edges` reads.
            num_sources: number of source nodes.
            num_targets: number of target nodes; as many as sources by default.
            check: check that indices are in range; by default only on the CPU (on a GPU it synchronises).
            grouped: group the targets by degree, for which their numbers are read back; by default only on the CPU,
                and not inside ``torch.compile``.
            ordered: the edges are sorted by target, as :func:`emkernel.knn_graph` and :func:`emkernel.radius_graph`
                give them, so that a GPU, which does not look, need not sort them again.

        Raises:
            ValueError: wrong shape or dtype.
            IndexError: an index out of range.
        """
        num_targets = num_sources if num_targets is None else num_targets
        if not torch.compiler.is_compiling():
            num_sources, num_targets = whole(num_sources, "num_sources", 0), whole(num_targets, "num_targets", 0)
        edge_index, _ = as_edges(edge_index, num_sources, num_targets)
        host = edge_index.device.type == "cpu" and not torch.compiler.is_compiling()
        edge_index = _checked(edge_index, num_sources, num_targets, host if check is None else check)
        form = Grouped if (host if grouped is None else grouped) else CSR
        if form is Grouped and edge_index.device.type == "meta":
            raise ValueError("edge_index is on the meta device, where it has no values: its targets cannot be grouped")
        return form._of(edge_index, num_sources, num_targets, ordered)

    @property
    def num_edges(self) -> int:
        """How many edges there are, E."""
        return self.source.shape[0]

    @property
    def sorted(self) -> Neighbours:
        """The same graph for edge attributes that have been through :meth:`sort` already, once for all layers."""
        return replace(self, order=None)

    def sort(self, values: torch.Tensor) -> torch.Tensor:
        """Values (E, ...) of the user's edges, in the prepared order."""
        return values if self.order is None else values.index_select(0, self.order)


@dataclass(frozen=True, eq=False, kw_only=True)
class Grouped(Neighbours):
    """Edges sorted by target and targets by degree: each group of targets of one degree k is a dense array.

    With many different degrees, groups are padded by at most a quarter.

    Attributes:
        groups: (targets, k) of each group; the edges of a group are consecutive, its targets too.
        position: (E,) the place of each edge among the padded ones, or None without padding.
        padded_source: (P,) source of each edge, padded ones repeating a neighbour of the same target.
        row: (num_targets,) place of each target among the groups; isolated ones point past the end.
    """

    groups: Groups
    position: torch.Tensor | None
    padded_source: torch.Tensor
    row: torch.Tensor | None

    @classmethod
    def _of(cls, edge_index: torch.Tensor, num_sources: int, num_targets: int, ordered: bool) -> Grouped:
        source, target = edge_index
        device = edge_index.device
        degree = torch.bincount(target, minlength=num_targets)
        rank_degree, targets = torch.sort(degree, stable=True)
        sizes, counts = torch.unique_consecutive(rank_degree, return_counts=True)
        sizes, counts = sizes.tolist(), counts.tolist()
        isolated = counts[0] if sizes and sizes[0] == 0 else 0
        uniform = len(sizes) == 1 and not isolated
        if uniform:
            row = None
            key = target
        else:
            place = torch.empty_like(targets)
            place[targets] = torch.arange(num_targets, device=device)
            row = torch.where(degree > 0, place - isolated, num_targets - isolated)
            key = place[target]
        order = None
        if key.numel() and bool((key[1:] < key[:-1]).any()):
            order = torch.sort(key, stable=True).indices
            source, target = source[order], target[order]
        groups = [(n, k) for n, k in zip(counts, sizes) if k]
        position, padded_source = None, source
        if len(groups) > EXACT_DEGREES:
            groups, position, padded_source = _padded(groups, source)
        return cls(
            source=source,
            target=target,
            order=order,
            degree=degree,
            num_sources=num_sources,
            num_targets=num_targets,
            groups=tuple(groups),
            position=position,
            padded_source=padded_source,
            row=row,
        )

    def chunks(self, targets: int) -> Iterator[tuple[Groups, slice, slice]]:
        """(groups, padded edges, grouped targets) of so many targets at a time."""
        start, row, groups, size, count = 0, 0, [], 0, 0
        for n, k in self.groups:
            while n:
                take = min(n, targets - count)
                groups.append((take, k))
                size, count, n = size + take * k, count + take, n - take
                if count == targets:
                    yield tuple(groups), slice(start, start + size), slice(row, row + count)
                    start, row, groups, size, count = start + size, row + count, [], 0, 0
        if groups:
            yield tuple(groups), slice(start, start + size), slice(row, row + count)

    def pad(self, values: torch.Tensor) -> torch.Tensor:
        """Values (E, ...) in the prepared order, with zeros at the padded places."""
        if self.position is None:
            return values
        out = values.new_zeros(self.padded_source.shape[0], *values.shape[1:])
        return out.index_copy(0, self.position, values)

    def restore(self, values: torch.Tensor) -> torch.Tensor:
        """Values (grouped targets, ...) -> (num_targets, ...), zero at isolated targets."""
        if self.row is None:
            return values
        if values.shape[0] < self.num_targets:
            values = torch.cat([values, values.new_zeros(1, *values.shape[1:])])
        return values[self.row]


@dataclass(frozen=True, eq=False, kw_only=True)
class CSR(Neighbours):
    """Edges in compressed rows, sorted by target and by source, without ever waiting for the device.

    The edges of one target stand together, N(i) = begin_i .. end_i, and so, through ``by_source``, do those of one
    source. A row longer than ``ROW_LIMIT`` is cut: its first edges stay with the row, every further ``ROW_LIMIT``
    are a chunk, reduced on its own and added to the row in order. How many chunks there are depends on the data; that
    they are at most (E - 1) // ROW_LIMIT does not, so the table of chunks has this length, and empty places.

    Attributes:
        by_source: (E,) places sorted by source, those of one source in order.
        rows: (num_targets, 5) int64, of each target: itself, begin and end of its first edges, first and last chunk.
        row_chunks: (C, 5) the same of each chunk, for which the last two are zero; an empty one has row -1.
        columns, column_chunks: (num_sources, 5) and (C, 5), the same of the sources in the order ``by_source``.

    Example:
        >>> graph = ek.Neighbours.of(torch.tensor([[0, 1, 0], [1, 0, 0]]), 2, grouped=False)
        >>> graph.target.tolist(), graph.degree.tolist()
        ([0, 0, 1], [2, 1])
    """

    by_source: torch.Tensor
    rows: torch.Tensor
    row_chunks: torch.Tensor
    columns: torch.Tensor
    column_chunks: torch.Tensor

    @classmethod
    def _of(cls, edge_index: torch.Tensor, num_sources: int, num_targets: int, ordered: bool) -> CSR:
        source, target = edge_index
        order = None
        if not ordered:
            target, order = torch.sort(target, stable=True)
            source = source.index_select(0, order)
        sorted_source, by_source = torch.sort(source, stable=True)
        rows, row_chunks, degree = _spans(target, num_targets)
        columns, column_chunks, _ = _spans(sorted_source, num_sources)
        return cls(
            source=source,
            target=target,
            order=order,
            degree=degree,
            num_sources=num_sources,
            num_targets=num_targets,
            by_source=by_source,
            rows=rows,
            row_chunks=row_chunks,
            columns=columns,
            column_chunks=column_chunks,
        )


def _checked(edge_index: torch.Tensor, num_sources: int, num_targets: int, check: bool) -> torch.Tensor:
    """The edges as int64; wrong shapes and types raise, and with ``check`` indices out of range."""
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"edge_index must be {FORMATS}; got shape {tuple(edge_index.shape)}")
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"edge_index must be of the integer type int64 or int32, got {edge_index.dtype}: pass edge_index.long()"
        )
    edge_index = edge_index.long()
    if check:
        for row, size, what in ((0, num_sources, "source"), (1, num_targets, "target")):
            if (
                edge_index.shape[1]
                and not 0
                <= (low := int(edge_index[row].min()))
                <= (high := int(edge_index[row].max()))
                < size
            ):
                raise IndexError(
                    f"edge_index[{row}] ({what}) holds {low if low < 0 else high}, but there are {size} "
                    f"{what} nodes, 0..{size - 1}; are the rows swapped, or nodes missing from pos?"
                )
    return edge_index


def _spans(index: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The tables of the rows and of the chunks of a sorted index, and the lengths of its rows."""
    nodes = torch.arange(size + 1, device=index.device)
    # counting by bincount or unique would wait for the device
    start = torch.searchsorted(index, nodes)
    begin, end = start[:-1], start[1:]
    further = (end - begin - 1).clamp(min=0) // ROW_LIMIT
    last = further.cumsum(0)
    first = last - further
    rows = torch.stack([nodes[:-1], begin, torch.minimum(end, begin + ROW_LIMIT), first, last], 1)

    # neither 0 nor 1 where it is compiled: for these another program would be made
    spare = 2 if torch.compiler.is_compiling() else 0
    chunk = torch.arange(max(index.shape[0] - 1, 0) // ROW_LIMIT + spare, device=index.device)
    if size == 0:
        return rows, rows.new_zeros(chunk.shape[0], 5), end - begin
    row = torch.searchsorted(last, chunk, right=True)
    used = row < size
    row = row.clamp(max=size - 1)
    at = begin[row] + ROW_LIMIT * (chunk - first[row] + 1)
    until = torch.minimum(at + ROW_LIMIT, end[row])
    none = torch.zeros_like(row)
    chunks = [torch.where(used, row, -1), torch.where(used, at, 0), torch.where(used, until, 0), none, none]
    return rows, torch.stack(chunks, 1), end - begin


def _padded(groups: list[tuple[int, int]], source: torch.Tensor):
    """Merge groups of neighbouring degrees, padding to the largest of each merge."""
    merged: list[list[tuple[int, int]]] = []
    for n, k in groups:
        if merged and k <= max(merged[-1][0][1] + 1, 1.25 * merged[-1][0][1]):
            merged[-1].append((n, k))
        else:
            merged.append([(n, k)])
    device = source.device
    ends, position, out, start, at = [], [], [], 0, 0
    for bucket in merged:
        width = bucket[-1][1]
        total = 0
        for n, k in bucket:
            rows = torch.arange(n, device=device)[:, None] * width + torch.arange(k, device=device)
            position.append(rows.reshape(-1) + at)
            edges = torch.arange(n, device=device)[:, None] * k + torch.arange(width, device=device).clamp(
                max=k - 1
            )
            ends.append(edges.reshape(-1) + start)
            start += n * k
            at += n * width
            total += n
        out.append((total, width))
    return out, torch.cat(position), source[torch.cat(ends)]
