"""Neighbour searches among checked points: a k-d tree on the CPU, dense blocks in torch on any device.

Both compute the deciding distances in float64 by the same elementary operations in the same order, so
they give the same edges, ties included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

__all__ = ["Points", "dense_knn", "dense_radius", "tree_knn", "tree_radius"]

_DENSE_PAIRS = 1 << 22  # distances held at once by the dense search: 34 MB for each temporary
_SORTED_WIDTH = 4096  # up to here a GPU sorts each row in one step, in less time than it finds the k smallest
_BALL_PAIRS = 1 << 20  # candidates held at once while ties are resolved
_SLACK = 1e-9  # relative; far above the rounding of a distance, far below any distance that matters
_Array = TypeVar("_Array", np.ndarray, Tensor)


@dataclass(frozen=True, eq=False)
class Points:
    """Sources and targets in float64 coordinates where the distance is Euclidean, with their clouds.

    ``same``: the targets are the sources; ``loop``: then a point is its own first neighbour. Neither the
    sources nor the targets may be empty.
    """

    src: Tensor
    dst: Tensor
    src_batch: Tensor
    dst_batch: Tensor
    same: bool
    loop: bool


def tree_knn(points: Points, k: int) -> Tensor:
    """Edges (2, E) from the k nearest sources to each target, by a k-d tree over all clouds at once."""
    src, dst = points.src.numpy(), points.dst.numpy()
    n, m = len(src), len(dst)
    low, high = np.minimum(src.min(0), dst.min(0)), np.maximum(src.max(0), dst.max(0))
    extent = math.hypot(*(high - low).tolist())
    if not math.isfinite(16 * extent * extent):
        raise ValueError(f"The positions span {extent:.3g}: too far for squared distances, rescale them.")
    gap = 4 * extent or 1.0
    lifted_src, lifted_dst = _lift(src, points.src_batch, gap), _lift(dst, points.dst_batch, gap)
    tree = cKDTree(lifted_src, compact_nodes=False, balanced_tree=False)
    width = min(k + 1 + (points.same and not points.loop), n)  # one more than needed shows a tie for place k
    reach, index = tree.query(lifted_dst, k=np.arange(1, width + 1), distance_upper_bound=gap / 2)
    missing = index == n
    index[missing] = 0
    squared = _squared(dst[:, None], src[index])
    _mark_self(squared, index, np.arange(m)[:, None], points)
    squared[missing] = math.inf
    order = np.lexsort((index, squared), axis=-1)[:, :k]
    index, squared = np.take_along_axis(index, order, 1), np.take_along_axis(squared, order, 1)
    unsure = np.zeros(m, bool)
    if width < n:
        unsure = np.isfinite(reach[:, -1]) & (squared[:, -1] >= reach[:, -1] ** 2 * (1 - _SLACK))
    kept = np.isfinite(squared) & ~unsure[:, None]
    target = np.broadcast_to(np.arange(m)[:, None], index.shape)
    edges = np.stack([index[kept], target[kept]])
    if unsure.any():
        tied = _resolve_ties(points, tree, lifted_dst, np.flatnonzero(unsure), squared[unsure, -1], k)
        edges = np.concatenate([edges, tied], 1)
        edges = edges[:, np.argsort(edges[1], kind="stable")]
    return torch.from_numpy(edges)


def tree_radius(points: Points, r: float) -> Tensor:
    """Edges (2, E) from all sources within r of each target, by a k-d tree over all clouds at once."""
    src, dst = points.src.numpy(), points.dst.numpy()
    tree = cKDTree(_lift(src, points.src_batch, 2 * r), compact_nodes=False, balanced_tree=False)
    other = tree
    if not points.same:
        other = cKDTree(_lift(dst, points.dst_batch, 2 * r), compact_nodes=False, balanced_tree=False)
    pairs = other.sparse_distance_matrix(tree, r * (1 + 1e-6), output_type="ndarray")
    target, source = pairs["i"].astype(np.int64), pairs["j"].astype(np.int64)
    squared = _squared(dst[target], src[source])
    _mark_self(squared, source, target, points)
    near = squared <= r * r
    source, target, squared = source[near], target[near], squared[near]
    order = np.lexsort((source, squared, target))
    return torch.from_numpy(np.stack([source[order], target[order]]))


def dense_knn(points: Points, k: int) -> Tensor:
    """The edges of ``tree_knn``, from blocks of all distances."""
    n, m, device = len(points.src), len(points.dst), points.src.device
    k = min(k, n)
    nearest = torch.zeros(m, k, dtype=torch.int64, device=device)
    found = torch.zeros(m, k, dtype=torch.bool, device=device)
    complete = 0  # targets
    for row, source, squared, least in _blocks(points):
        column = _ranked(squared, k)
        width = column.shape[1]
        nearest[row, :width] = source.gather(1, column)
        found[row, :width] = squared.gather(1, column).isfinite()
        complete += len(row) if least - (points.same and not points.loop) >= k else 0
    target = torch.arange(m, device=device)[:, None].expand(-1, k)
    if complete == m:  # then their number is known, and need not be asked for
        return torch.stack([nearest.flatten(), target.flatten()])
    return torch.stack([nearest[found], target[found]])


def dense_radius(points: Points, r: float) -> Tensor:
    """The edges of ``tree_radius``, from blocks of all distances."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for row, source, squared, _ in _blocks(points):
        i, j = (squared <= r * r).nonzero(as_tuple=True)
        found.append((source[i, j], row[i], squared[i, j]))
    if not found:
        return torch.empty(2, 0, dtype=torch.int64, device=points.src.device)
    source, target, squared = (torch.cat(part) for part in zip(*found, strict=True))
    order = squared.argsort(stable=True)  # columns ascend in source index; stable sorts keep that among ties
    order = order[target[order].argsort(stable=True)]
    return torch.stack([source[order], target[order]])


def _blocks(points: Points) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Some targets at a time, (M,), the sources of their clouds (M, width) in ascending order, the squared distances,
    infinite where there is no source, and the size of the smallest of the clouds."""
    src, dst, device = points.src, points.dst, points.src.device
    clouds = 1 + int(torch.maximum(points.src_batch.max(), points.dst_batch.max()))
    by_cloud = points.src_batch.argsort(stable=True)
    counts = torch.bincount(points.src_batch, minlength=clouds)
    start, size = (counts.cumsum(0) - counts)[points.dst_batch], counts[points.dst_batch]
    rows = size.argsort(descending=True, stable=True)
    widths = size[rows].cpu()
    begin = 0
    while begin < len(rows) and int(widths[begin]):
        width = int(widths[begin])
        row = rows[begin : begin + max(1, _DENSE_PAIRS // width)]
        begin += len(row)
        column = torch.arange(width, device=device)
        source = by_cloud[(start[row][:, None] + column).clamp_(max=len(src) - 1)]
        squared = _squared(dst[row][:, None], src[source])
        _mark_self(squared, source, row[:, None], points)
        least = int(widths[begin - 1])
        if least < width:
            squared.masked_fill_(column >= size[row][:, None], math.inf)
        yield row, source, squared, least


def _ranked(squared: Tensor, k: int) -> Tensor:
    """The places (M, k) of the smallest entries of each row, smallest first, ties by place."""
    k = min(k, squared.shape[1])
    if squared.shape[1] <= _SORTED_WIDTH:
        return squared.sort(dim=1, stable=True).indices[:, :k]
    kth = squared.topk(k, dim=1, largest=False).values[:, -1:]
    below, tied = squared < kth, squared == kth
    room = k - below.sum(1, keepdim=True)
    column = (below | (tied & (tied.cumsum(1) <= room))).nonzero()[:, 1].view(-1, k)
    return column.gather(1, squared.gather(1, column).sort(dim=1, stable=True).indices)


def _squared(a: _Array, b: _Array) -> _Array:
    """|a - b|² over the last axis, as separate products and sums: no fused operation, no library sum."""
    total = (a[..., 0] - b[..., 0]) * (a[..., 0] - b[..., 0])
    for c in range(1, a.shape[-1]):
        delta = a[..., c] - b[..., c]
        total = total + delta * delta
    return total


def _mark_self(squared: _Array, source: _Array, target: _Array, points: Points) -> None:
    """Put a point before all its neighbours, or out of reach, according to ``loop``."""
    if points.same:
        squared[source == target] = -1.0 if points.loop else math.inf


def _lift(x: np.ndarray, batch: Tensor, gap: float) -> np.ndarray:
    """Coordinates with the cloud as one more dimension: different clouds lie at least ``gap`` apart."""
    return np.column_stack([x, batch.numpy() * gap])


def _resolve_ties(
    points: Points, tree: cKDTree, lifted: np.ndarray, rows: np.ndarray, bound: np.ndarray, k: int
) -> np.ndarray:
    """The k nearest of targets whose place k is tied: of all points up to there, the smallest indices."""
    src, dst = points.src.numpy(), points.dst.numpy()
    radius = np.nextafter(np.sqrt(bound) * (1 + _SLACK), math.inf)
    counts = tree.query_ball_point(lifted[rows], radius, return_length=True)
    block = np.cumsum(counts) // _BALL_PAIRS
    found = []
    for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(block)) + 1):
        balls = tree.query_ball_point(lifted[rows[part]], radius[part], return_sorted=False)
        source = np.concatenate([np.asarray(ball, dtype=np.int64) for ball in balls])
        length = counts[part]
        target = np.repeat(rows[part], length)
        squared = _squared(dst[target], src[source])
        _mark_self(squared, source, target, points)
        order = np.lexsort((source, squared, target))
        rank = np.arange(len(order)) - np.repeat(np.cumsum(length) - length, length)
        order = order[(rank < k) & np.isfinite(squared[order])]
        found.append(np.stack([source[order], target[order]]))
    return np.concatenate(found, 1)
