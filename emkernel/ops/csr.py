"""Edges in compressed rows, sorted by target and by source: the form of a graph that the fused operations read."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .neighbours import checked

__all__ = ["CSR", "ROW_LIMIT"]

ROW_LIMIT = 256


@dataclass(frozen=True, eq=False)
class CSR:
    """A graph prepared once for all layers that use it, without ever waiting for the device.

    The edges of one target stand together, N(i) = begin_i .. end_i, and so, through ``by_source``, do those of one
    source. A row longer than ``ROW_LIMIT`` is cut: its first edges stay with the row, every further ``ROW_LIMIT``
    are a chunk, reduced on its own and added to the row in order. How many chunks there are depends on the data; that
    they are at most (E - 1) // ROW_LIMIT does not, so the table of chunks has this length, and empty places.

    Attributes:
        source, target: (E,) node indices of each edge, sorted by target, edges of one target as they were given.
        order: (E,) the user's edge at each place.
        by_source: (E,) places sorted by source, those of one source in order.
        rows: (num_targets, 5) int64, of each target: itself, begin and end of its first edges, first and last chunk.
        row_chunks: (C, 5) the same of each chunk, for which the last two are zero; an empty one has row -1.
        columns, column_chunks: (num_sources, 5) and (C, 5), the same of the sources in the order ``by_source``.

    Example:
        >>> graph = CSR.of(torch.tensor([[0, 1, 0], [1, 0, 0]]), 2)
        >>> graph.target.tolist(), graph.degree.tolist()
        ([0, 0, 1], [2, 1])
    """

    source: torch.Tensor
    target: torch.Tensor
    order: torch.Tensor
    by_source: torch.Tensor
    rows: torch.Tensor
    row_chunks: torch.Tensor
    columns: torch.Tensor
    column_chunks: torch.Tensor
    degree: torch.Tensor

    @classmethod
    def of(
        cls,
        edge_index: torch.Tensor,
        num_sources: int,
        num_targets: int | None = None,
        *,
        check: bool | None = None,
    ) -> CSR:
        """Prepare ``edge_index`` (2, E), source in row 0 and target in row 1; arguments and errors of Neighbours.of."""
        num_targets = num_sources if num_targets is None else num_targets
        source, target = checked(edge_index, num_sources, num_targets, check)
        target, order = torch.sort(target, stable=True)
        source = source.index_select(0, order)
        sorted_source, by_source = torch.sort(source, stable=True)
        rows, row_chunks, degree = _spans(target, num_targets)
        columns, column_chunks, _ = _spans(sorted_source, num_sources)
        return cls(source, target, order, by_source, rows, row_chunks, columns, column_chunks, degree)

    @property
    def num_edges(self) -> int:
        return self.source.shape[0]

    @property
    def num_sources(self) -> int:
        return self.columns.shape[0]

    @property
    def num_targets(self) -> int:
        return self.rows.shape[0]

    def sort(self, values: torch.Tensor) -> torch.Tensor:
        """Values (E, ...) of the user's edges, in the prepared order."""
        return values.index_select(0, self.order)


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

    chunk = torch.arange(max(index.shape[0] - 1, 0) // ROW_LIMIT, device=index.device)
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
