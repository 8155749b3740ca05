"""Edges in the order in which they are reduced: grouped by target, targets grouped by degree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

__all__ = ["Neighbours"]

EXACT_DEGREES = 10

Groups = tuple[tuple[int, int], ...]  # (targets, degree) of each


@dataclass(frozen=True, eq=False)
class Neighbours:
    """A graph prepared once for all layers that use it; pass it wherever ``edge_index`` is expected.

    Edges are sorted by target and targets by degree, so that each group of targets of one degree k is a dense
    (targets, k) array of edges. With many different degrees, groups are padded by at most a quarter.

    Attributes:
        source, target: (E,) node indices of each edge, sorted.
        order: (E,) the user's edge at each place, or None when they already are in order.
        groups: (targets, k) of each group; the edges of a group are consecutive, its targets too.
        position: (E,) the place of each edge among the padded ones, or None without padding.
        padded_source: (P,) source of each edge, padded ones repeating a neighbour of the same target.
        row: (num_targets,) place of each target among the groups; isolated ones point past the end.
        degree: (num_targets,) incoming edges.
        num_sources, num_targets: sizes of the two sides.
    """

    source: torch.Tensor
    target: torch.Tensor
    order: torch.Tensor | None
    groups: Groups
    position: torch.Tensor | None
    padded_source: torch.Tensor
    row: torch.Tensor | None
    degree: torch.Tensor
    num_sources: int
    num_targets: int

    @classmethod
    def of(
        cls,
        edge_index: torch.Tensor,
        num_sources: int,
        num_targets: int | None = None,
        *,
        check: bool | None = None,
    ) -> Neighbours:
        """Prepare ``edge_index`` (2, E), source in row 0 and target in row 1.

        Args:
            edge_index: (2, E) integer tensor.
            num_sources: number of source nodes.
            num_targets: number of target nodes; as many as sources by default.
            check: check that indices are in range; by default only on the CPU (on a GPU it synchronises).

        Raises:
            ValueError: wrong shape or dtype.
            IndexError: an index out of range.
        """
        num_targets = num_sources if num_targets is None else num_targets
        if not isinstance(edge_index, torch.Tensor) or edge_index.ndim != 2 or edge_index.shape[0] != 2:
            given = (
                tuple(edge_index.shape) if isinstance(edge_index, torch.Tensor) else type(edge_index).__name__
            )
            raise ValueError(
                f"edge_index must be a (2, E) tensor, source in row 0 and target in row 1; got {given}"
            )
        if edge_index.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"edge_index must be of an integer type, got {edge_index.dtype}")
        edge_index = edge_index.long()
        if check or (check is None and edge_index.device.type == "cpu"):
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
            source,
            target,
            order,
            tuple(groups),
            position,
            padded_source,
            row,
            degree,
            num_sources,
            num_targets,
        )

    @property
    def num_edges(self) -> int:
        return self.source.shape[0]

    @property
    def sorted(self) -> Neighbours:
        """The same graph for edge attributes that have been through :meth:`sort` already, once for all layers."""
        return replace(self, order=None)

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

    def sort(self, values: torch.Tensor) -> torch.Tensor:
        """Values (E, ...) of the user's edges, in the prepared order."""
        return values if self.order is None else values[self.order]

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
