"""The formats in which graphs come, read as edges."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["as_edges"]

FORMATS = (
    "a (2, E) tensor of integers, source in row 0 and target in row 1, an EdgeIndex of torch_geometric, or a sparse "
    "adjacency (targets, sources), torch.sparse in COO, CSR or CSC or a SparseTensor of torch_sparse"
)


def as_edges(graph: Tensor, num_sources: int, num_targets: int) -> tuple[Tensor, Tensor | None]:
    """The edges of a graph in any format, and the values on them, in the order in which the format stores them.

    A sparse adjacency is transposed, as in PyTorch Geometric: its row is the target i, its column the source j, so that
    y = A x sums over neighbours. Entries are edges whatever their value, zero included, and one that is stored twice is
    two edges. Types of other packages are known by what they offer: nothing is imported.

    Args:
        graph: (2, E) integers; ``torch_geometric.EdgeIndex``; a sparse tensor (num_targets, num_sources) in COO, CSR or
            CSC, possibly with dense dimensions; ``torch_sparse.SparseTensor``.
        num_sources, num_targets: numbers of nodes.

    Returns:
        (2, E), source in row 0 and target in row 1, and the values (E, ...) of an adjacency or None.

    Raises:
        ValueError: no such format, or a size that does not fit the nodes.

    Example:
        >>> from emkernel.ops.formats import as_edges
        >>> adj = torch.tensor([[0.0, 2.0], [0.0, 0.0]]).to_sparse_csr()
        >>> edge_index, values = as_edges(adj, 2, 2)
        >>> edge_index.tolist(), values.tolist()  # source 1, target 0
        ([[1], [0]], [2.0])
    """
    if isinstance(graph, Tensor) and graph.layout != torch.strided:
        target, source, values = _entries(graph)
        size = tuple(graph.shape[:2])
    elif hasattr(graph, "coo") and hasattr(graph, "sparse_sizes"):
        target, source, values = graph.coo()
        size = tuple(graph.sparse_sizes())
    elif isinstance(graph, Tensor) and hasattr(graph, "sparse_size") and hasattr(graph, "as_tensor"):
        size = tuple(graph.sparse_size())
        if any(have not in (None, wanted) for have, wanted in zip(size, (num_sources, num_targets))):
            raise ValueError(
                f"the EdgeIndex has sparse_size {size}, expected (sources, targets) = ({num_sources}, {num_targets}), "
                f"the nodes of pos{_cause(size, (num_sources, num_targets), 'flip(0)')}"
            )
        return graph.as_tensor(), None
    elif isinstance(graph, Tensor):
        return graph, None
    else:
        raise ValueError(f"edge_index must be {FORMATS}; got {type(graph).__name__}")
    if size != (num_targets, num_sources):
        raise ValueError(
            f"the adjacency is {size[0]} x {size[1]}, expected targets x sources = {num_targets} x {num_sources}, the "
            f"nodes of pos: row i holds the sources of target i{_cause(size, (num_targets, num_sources), 't()')}"
        )
    return torch.stack([source, target]), values


def _entries(adj: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of each stored entry."""
    if adj.layout == torch.sparse_coo and adj.sparse_dim() == 2:
        if adj.is_coalesced():
            return *adj.indices(), adj.values()
        if adj.requires_grad:
            raise ValueError(
                "the adjacency is not coalesced and requires a gradient, which torch cannot give for its values: pass "
                "adj.coalesce(), where entries that are stored twice become one, or edges with edge_attr"
            )
        return *adj._indices(), adj._values()
    if adj.layout == torch.sparse_csr and adj.crow_indices().ndim == 1:
        return _rows(adj.crow_indices()), adj.col_indices(), adj.values()
    if adj.layout == torch.sparse_csc and adj.ccol_indices().ndim == 1:
        return adj.row_indices(), _rows(adj.ccol_indices()), adj.values()
    raise ValueError(
        f"edge_index must be {FORMATS}; got a sparse tensor of layout {adj.layout} and shape {tuple(adj.shape)}"
    )


def _rows(pointer: Tensor) -> Tensor:
    """The row of each entry, from the place at which each row begins."""
    rows = torch.arange(pointer.shape[0] - 1, device=pointer.device, dtype=pointer.dtype)
    return torch.repeat_interleave(rows, pointer.diff())


def _cause(size: tuple, wanted: tuple, transpose: str) -> str:
    if size == wanted[::-1]:
        return f"; it is transposed: pass its .{transpose}"
    return "; is it the graph of other nodes, or are pos and x a (source, target) pair that is not passed as one?"
