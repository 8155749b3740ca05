"""Neighbour graphs of point clouds: k nearest neighbours, fixed radius, random subsets of the points.

Edges run from a source j, a row of ``pos``, to a target i, a row of ``query``, and come sorted by target,
then by distance, then by source index. There is no cap on the number of neighbours: a cap breaks
equivariance silently.

Which graph is invariant depends on the group. Under a compact group distance is, in the metric of its positive
invariant form (``metric``). Under any other group no neighbourhood of finite extent is: what is near in one frame is
far in another, as boosts carry a point along a whole hyperbola. A nearest-neighbour or radius graph of one frame may
still be used, layers are equivariant on any given graph, but the graph itself changes with the frame. Invariant are:
all pairs of a cloud; edges that come with the data, such as bonds or the particles of one event; and pairs chosen by
the value of an invariant form, :func:`interval_graph`. A symplectic form chooses nothing, as it vanishes on x, x.
"""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from ._arguments import array_of
from ._periodic import checked_cell, near_images, nearest
from ._search import Points, dense_knn, dense_radius, tree_knn, tree_radius

__all__ = ["interval_graph", "knn_graph", "periodic_graph", "radius_graph", "random_subset"]

SMALLEST, LARGEST = 1e-150, 1e150  # lengths whose squares are in range


def knn_graph(
    pos: Tensor,
    k: int,
    batch: Tensor | None = None,
    *,
    query: Tensor | None = None,
    query_batch: Tensor | None = None,
    loop: bool = False,
    metric: Tensor | None = None,
) -> Tensor:
    """Edges from the k nearest points of the same cloud to each target.

    N(i) = the k points j of smallest |x_i - x_j|², with |x|² = xᵀ S x, ties decided by the smaller index j.
    A cloud with fewer than k candidates gives all it has, without a warning, as in PyTorch Geometric. On a lattice
    many distances are equal, and a choice among equals cannot be equivariant: use ``radius_graph`` there.

    Args:
        pos: (N, d) positions of the sources, any d >= 1.
        k: neighbours of each target, the target itself not counted unless ``loop``.
        batch: (N,) index of the cloud of each source, in any order; None for one cloud.
        query: (M, d) positions of the targets; None for ``pos`` itself.
        query_batch: (M,) index of the cloud of each target, given together with ``batch``.
        loop: whether each point is its own first neighbour, counted in k; only without ``query``.
        metric: (d, d) positive-definite matrix S; None for the identity, under which the graph is invariant only where
            the group consists of orthogonal matrices: for any other compact group pass an invariant form, as
            ``torch.as_tensor(G.invariant_form)``. Nothing warns here, as a graph is made without a group.

    Returns:
        ``edge_index`` (2, E) int64 on the device of ``pos``: row 0 the source j, row 1 the target i;
        sorted by target, then by distance, then by source.

    Raises:
        ValueError: for wrong shapes, positions that are not finite, k < 1, or a bad metric.

    Example:
        >>> ek.knn_graph(torch.tensor([[0.0], [1.0], [3.0]]), 1)
        tensor([[1, 0, 1],
                [0, 1, 2]])

    Source: the neighbourhoods of the ModelNet-40 experiments, section 5.2 of arXiv 2212.06096.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k is {k!r}, expected an integer >= 1: the number of neighbours of each target.")
    points = _checked_points(pos, batch, query, query_batch, loop, metric)
    if points is None:
        return torch.empty(2, 0, dtype=torch.int64, device=pos.device)
    found = dense_knn(points, k) if points.src.is_cuda else tree_knn(points, k)
    return found.to(pos.device)


def radius_graph(
    pos: Tensor,
    r: float,
    batch: Tensor | None = None,
    *,
    query: Tensor | None = None,
    query_batch: Tensor | None = None,
    loop: bool = False,
    metric: Tensor | None = None,
) -> Tensor:
    """Edges from all points of the same cloud within a distance r of each target.

    N(i) = {j : |x_i - x_j|² <= r²} with |x|² = xᵀ S x, however many they are.

    Args:
        pos: (N, d) positions of the sources, any d >= 1.
        r: radius in the units of ``pos`` (of the metric where one is given), inclusive: a point at r to within
            rounding, as on a lattice, is a neighbour.
        batch: (N,) index of the cloud of each source, in any order; None for one cloud.
        query: (M, d) positions of the targets; None for ``pos`` itself.
        query_batch: (M,) index of the cloud of each target, given together with ``batch``.
        loop: whether each point is its own first neighbour; only without ``query``.
        metric: (d, d) positive-definite matrix S; None for the identity, under which the graph is invariant only where
            the group consists of orthogonal matrices: for any other compact group pass an invariant form, as
            ``torch.as_tensor(G.invariant_form)``. Nothing warns here, as a graph is made without a group.

    Returns:
        ``edge_index`` (2, E) int64 on the device of ``pos``: row 0 the source j, row 1 the target i;
        sorted by target, then by distance, then by source.

    Raises:
        ValueError: for wrong shapes, positions that are not finite, r <= 0, or a bad metric.

    Example:
        >>> ek.radius_graph(torch.tensor([[0.0], [1.0], [3.0]]), 1.5)
        tensor([[1, 0],
                [0, 1]])

    Source: the neighbourhoods of the point convolution, eq. 13 of arXiv 2212.06096.
    """
    r = _checked_radius(r)
    points = _checked_points(pos, batch, query, query_batch, loop, metric)
    if points is None:
        return torch.empty(2, 0, dtype=torch.int64, device=pos.device)
    r *= 1 + (1e-6 if pos.dtype != torch.float64 else 1e-12)
    found = dense_radius(points, r) if points.src.is_cuda else tree_radius(points, r)
    return found.to(pos.device)


def periodic_graph(
    pos: Tensor,
    cell: Tensor,
    r: float,
    batch: Tensor | None = None,
    *,
    k: int | None = None,
    loop: bool = False,
    metric: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Edges of crystals: from all images of all points within a distance r of each target, with their vectors.

    N(i) = {(j, n) : |x_i - x_j - n A|² <= r²}, n whole numbers, the rows of A the lattice vectors, however many there
    are: also images of i itself, and several of one j where r is more than the cell. The graph, as vectors around each
    point, depends on the crystal alone, not on the cell that describes it.

    Args:
        pos: (N, d) positions, in the cell or not.
        cell: (C, d, d) lattice vectors of each crystal as rows, or (d, d) of a single one; of any shape.
        r: radius in the units of ``pos`` (of the metric where one is given), inclusive to within rounding.
        batch: (N,) index of the crystal of each point, in any order; None for one crystal.
        k: keep only the k nearest of each target, and all that are as far as the k-th to within rounding, as the
            choice among equals would break the symmetry of a lattice; None for all.
        loop: whether each point is its own neighbour, at n = 0.
        metric: (d, d) positive-definite matrix S of |x|² = xᵀ S x; None for the identity.

    Returns:
        ``edge_index`` (2, E) int64, row 0 the source j, row 1 the target i, sorted by target, then by distance; and
        ``edge_vec`` (E, d), x_i - x_j - n A, in the dtype of ``pos`` and differentiable, for
        ``PointConv(...)(x, pos, edge_index, edge_vec=edge_vec)``.

    Raises:
        ValueError: for wrong shapes, positions that are not finite, a cell without volume, r <= 0, k < 1, or a bad
            metric.

    Example:
        >>> index, vec = ek.periodic_graph(torch.zeros(1, 2), torch.eye(2), 1.0)  # a square lattice
        >>> len(vec), index.unique().tolist()
        (4, [0])

    Source: the neighbourhoods of the point convolution, eq. 13 of arXiv 2212.06096, on a torus.
    """
    r = float(r)
    if not (math.isfinite(r) and r > 0):
        raise ValueError(f"r is {r}, expected a finite radius > 0 in the units of pos.")
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
        raise ValueError(f"k is {k!r}, expected an integer >= 1, or None for all within r.")
    _check_positions("pos", pos, None)
    batch = _checked_batch("batch", batch, len(pos), pos.device)
    cell = checked_cell(cell, pos, batch)
    factor = None if metric is None else _metric_factor(metric, pos.shape[1])
    if not len(pos):
        return torch.empty(2, 0, dtype=torch.int64, device=pos.device), pos.new_empty(0, pos.shape[1])
    rows = _euclidean(cell.detach().reshape(-1, pos.shape[1]), factor).reshape(cell.shape)
    # the tolerances of a lattice: its equal distances differ by rounding of the positions and of the cell
    slack = 1e-9 if pos.dtype == torch.float64 else 1e-5
    r *= 1 + slack
    images, inside, moved = near_images(_euclidean(pos.detach(), factor), rows, batch, r)
    points = images.search(inside, batch)
    found, target = dense_radius(points, r) if pos.is_cuda else tree_radius(points, r)
    source = images.point[found]
    apart = loop | (source != target) | images.shift[found].any(1)
    found, source, target = found[apart], source[apart], target[apart]
    if k is not None and len(target):
        near = nearest(target, (inside[target] - images.pos[found]).square().sum(1), k + loop, slack)
        found, source, target = found[near], source[near], target[near]
    shift = (images.shift[found] + moved[target] - moved[source]).to(cell.dtype)
    # no matrix product, which autocast would round to half precision
    vec = pos[target] - pos[source] - (shift[:, :, None] * cell[batch[target]]).sum(1)
    return torch.stack([source, target]), vec


def interval_graph(
    pos: Tensor, r: float, form: Tensor, batch: Tensor | None = None, *, loop: bool = False
) -> Tensor:
    """Edges between all points of the same cloud whose interval is at most r², in any invariant form.

    N(i) = {j : |q(x_i - x_j)| <= r²} with q(x) = xᵀ B x, for B that need not be positive: the Minkowski form joins
    points near each other's light cone, however far along it; the square of an absolute time those within a time r.
    Invariant under every group that keeps B, up to rounding at the boundary; neighbourhoods are as large as the cloud
    makes them. Every pair is looked at: for clouds of up to some thousands of points.

    Args:
        pos: (N, d) positions, any d >= 1.
        r: square root of the largest interval, in the units of ``pos``, inclusive.
        form: (d, d) symmetric matrix B, such as ``invariant_forms(V(G)).symmetric[0]``, whose scale is that of r².
        batch: (N,) index of the cloud of each point, in any order; None for one cloud.
        loop: whether each point is its own neighbour.

    Returns:
        ``edge_index`` (2, E) int64 on the device of ``pos``: row 0 the source j, row 1 the target i;
        sorted by target, then by interval, then by source.

    Raises:
        ValueError: for wrong shapes, positions that are not finite, r <= 0, or a form that is not symmetric.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [5.0, 5.0], [3.0, 0.0]])
        >>> ek.interval_graph(x, 1.0, torch.diag(torch.tensor([1.0, -1.0])))
        tensor([[1, 0],
                [0, 1]])

    Source: the neighbourhoods of the point convolution, eq. 13 of arXiv 2212.06096, for an indefinite form.
    """
    r = _checked_radius(r)
    _check_positions("pos", pos, None)
    batch = _checked_batch("batch", batch, len(pos), pos.device)
    form = _symmetric("form", form, pos.shape[1]).to(pos.device)
    limit = (r * (1 + (1e-6 if pos.dtype != torch.float64 else 1e-12))) ** 2
    x, found = pos.detach().to(torch.float64), [torch.empty(2, 0, dtype=torch.int64, device=pos.device)]
    for cloud in batch.argsort(stable=True).split(torch.bincount(batch).tolist()):
        for rows in cloud.split(max(1, 4_000_000 // (len(cloud) * x.shape[1] + 1))):
            v = x[rows, None] - x[cloud]
            q = ((v @ form) * v).sum(2).abs()
            near = (q <= limit) & ((rows[:, None] != cloud) | bool(loop))
            order = q.masked_fill(~near, math.inf).argsort(dim=1, stable=True)
            row, rank = near.gather(1, order).nonzero(as_tuple=True)
            found.append(torch.stack([cloud[order[row, rank]], rows[row]]))
    edges = torch.cat(found, 1)
    return edges[:, edges[1].argsort(stable=True)]


def random_subset(batch: Tensor, n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Indices of n points drawn uniformly without replacement from each cloud, all where there are fewer.

    Args:
        batch: (N,) index of the cloud of each point, in any order.
        n: points to keep of each cloud, n >= 0.
        generator: source of randomness, on any device; the same state gives the same subset.

    Returns:
        (M,) int64 indices on the device of ``batch``, sorted by cloud, then by index.

    Raises:
        ValueError: if ``batch`` is not a vector of integers >= 0, or n is not an integer >= 0.
        TypeError: ``generator`` is none.

    Example:
        >>> from emkernel.graph import random_subset
        >>> random_subset(torch.tensor([0, 0, 0, 1]), 2).shape
        torch.Size([3])

    Source: the random downsampling between layers, section 5.2 of arXiv 2212.06096.
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 2**63:
        raise ValueError(f"n is {n!r}, expected an integer >= 0: the points to keep of each cloud.")
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(f"generator is {type(generator).__name__}, expected a torch.Generator or None.")
    batch = _checked_batch("batch", batch, None, None)
    device = batch.device if generator is None else generator.device
    key = torch.rand(len(batch), dtype=torch.float64, generator=generator, device=device).to(batch.device)
    shuffled = key.argsort(stable=True)
    shuffled = shuffled[batch[shuffled].argsort(stable=True)]
    counts = torch.bincount(batch)
    start = counts.cumsum(0) - counts
    rank = torch.arange(len(batch), device=batch.device) - start[batch[shuffled]]
    chosen = shuffled[rank < n].sort().values
    return chosen[batch[chosen].argsort(stable=True)]


def _checked_points(
    pos: Tensor,
    batch: Tensor | None,
    query: Tensor | None,
    query_batch: Tensor | None,
    loop: bool,
    metric: Tensor | None,
) -> Points | None:
    """The search problem, on the CPU or a CUDA device; None where there is nothing to connect."""
    _check_positions("pos", pos, None)
    src_batch = _checked_batch("batch", batch, len(pos), pos.device)
    if query is None:
        if query_batch is not None:
            raise ValueError("query_batch was given without query: pass the positions of the targets too.")
        target, dst_batch = pos, src_batch
    else:
        _check_positions("query", query, pos)
        if loop:
            raise ValueError("loop=True with query: a target that is no point of pos has no loop.")
        if (batch is None) != (query_batch is None):
            given, missing = ("batch", "query_batch") if query_batch is None else ("query_batch", "batch")
            raise ValueError(f"{given} was given without {missing}: sources and targets both need a cloud.")
        target, dst_batch = query, _checked_batch("query_batch", query_batch, len(query), pos.device)
    factor = None if metric is None else _metric_factor(metric, pos.shape[1])
    if len(pos) == 0 or len(target) == 0:
        return None
    work = pos.device if pos.is_cuda else torch.device("cpu")
    src = _euclidean(pos.detach().to(work), factor)
    dst = src if query is None else _euclidean(target.detach().to(work), factor)
    return Points(src, dst, src_batch.to(work), dst_batch.to(work), query is None, bool(loop))


def _check_positions(name: str, pos: Tensor, like: Tensor | None) -> None:
    if not isinstance(pos, Tensor) or not pos.is_floating_point():
        kind = f"a tensor of {pos.dtype}" if isinstance(pos, Tensor) else type(pos).__name__
        raise ValueError(f"{name} is {kind}, expected a floating-point tensor of positions.")
    if pos.layout != torch.strided or pos.device.type == "meta":
        raise ValueError(f"{name} is {pos.layout} on {pos.device}, expected a dense tensor that has values.")
    if pos.ndim != 2 or pos.shape[1] < 1:
        raise ValueError(
            f"{name} has shape {tuple(pos.shape)}, expected (N, d) with d >= 1: concatenate the clouds and "
            "tell them apart by a batch vector."
        )
    if like is not None and (pos.shape[1] != like.shape[1] or pos.device != like.device):
        raise ValueError(
            f"{name} has d = {pos.shape[1]} on {pos.device}, pos has d = {like.shape[1]} on {like.device}: "
            "targets and sources must live in one space and on one device."
        )
    if len(pos):
        # read back at once
        low, high = torch.stack([pos.detach().amin(0), pos.detach().amax(0)]).tolist()
        span, far = max(b - a for a, b in zip(low, high)), max(map(abs, low + high))
        if not all(map(math.isfinite, low + high)):
            row = int((~torch.isfinite(pos).all(1)).nonzero()[0])
            raise ValueError(f"{name}[{row}] is not finite: NaN or infinite positions have no neighbours.")
        if far > LARGEST or 0 < span < SMALLEST:
            raise ValueError(
                f"{name} spans {span:.3g} as far as {far:.3g} from the origin: squares of such distances are out of "
                "range, rescale the points."
            )


def _checked_radius(r: float) -> float:
    if not (isinstance(r, Real) and SMALLEST < r < LARGEST):
        raise ValueError(f"r is {r!r}, expected a finite radius > 0 in the units of pos, whose square is in range.")
    return float(r)


def _checked_batch(
    name: str, batch: Tensor | None, length: int | None, device: torch.device | None
) -> Tensor:
    if batch is None:
        return torch.zeros(length or 0, dtype=torch.int64, device=device)
    integers = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    if not isinstance(batch, Tensor) or batch.dtype not in integers:
        kind = f"a tensor of {batch.dtype}" if isinstance(batch, Tensor) else type(batch).__name__
        raise ValueError(f"{name} is {kind}, expected a tensor of integers: the cloud of each point.")
    if batch.ndim != 1 or (length is not None and len(batch) != length):
        wanted = "(N,)" if length is None else f"({length},)"
        raise ValueError(f"{name} has shape {tuple(batch.shape)}, expected {wanted}: a cloud for each point.")
    if device is not None and batch.device != device:
        raise ValueError(f"{name} is on {batch.device}, the positions on {device}: move one of them.")
    if len(batch) and (least := int(batch.min())) < 0:
        raise ValueError(f"{name} holds the index {least}, expected cloud indices >= 0.")
    return batch.to(torch.int64)


def _symmetric(name: str, matrix: Tensor, d: int) -> Tensor:
    """The (d, d) matrix of a quadratic form, in float64 on the CPU, exactly symmetric."""
    s = torch.from_numpy(array_of(matrix, name).astype(float))
    if s.shape != (d, d):
        raise ValueError(f"{name} has shape {tuple(s.shape)}, expected ({d}, {d}) to go with pos.")
    scale = float(s.abs().max())
    if not math.isfinite(scale) or float((s - s.T).abs().max()) > 1e-6 * scale:
        raise ValueError(f"{name} is not finite and symmetric, expected the matrix S of the form xᵀ S x.")
    return (s + s.T) / 2


def _metric_factor(metric: Tensor, d: int) -> list[list[float]]:
    """L with S = L Lᵀ, so that xᵀ S x = |Lᵀ x|²."""
    s = _symmetric("metric", metric, d)
    scale = float(s.abs().max())
    low = float(torch.linalg.eigvalsh(s)[0])
    if not low > 1e-14 * scale:
        raise ValueError(
            f"metric has the eigenvalue {low:.3g}, expected a positive-definite matrix: an indefinite form "
            "(Lorentz) has no nearest neighbours; interval_graph takes it."
        )
    return torch.linalg.cholesky(s).tolist()


def _euclidean(pos: Tensor, factor: list[list[float]] | None) -> Tensor:
    """Lᵀ x in float64, as separate sums: a matrix product rounds differently on each device."""
    x = pos.to(torch.float64)
    if factor is None:
        return x
    columns = []
    for c in range(x.shape[1]):
        column = x[:, c] * factor[c][c]
        for a in range(c + 1, x.shape[1]):
            column = column + x[:, a] * factor[a][c]
        columns.append(column)
    return torch.stack(columns, 1)
