"""The images of the points of crystals that lie near a cell, so that a search among points finds those of a lattice."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._search import Points

__all__ = ["Images", "checked_cell", "near_images", "nearest"]


class Images(NamedTuple):
    """Copies x_j + n A of the points, n whole numbers: row s is point ``point[s]``, shifted by n = ``shift[s]``."""

    pos: Tensor
    point: Tensor
    shift: Tensor

    def search(self, pos: Tensor, batch: Tensor) -> Points:
        """The problem to find images that are near the points themselves."""
        return Points(self.pos, pos, batch[self.point], batch, False, False)


def near_images(pos: Tensor, cell: Tensor, batch: Tensor, r: float) -> tuple[Images, Tensor, Tensor]:
    """All images within r of any point in their cell; the points, each moved into the cell; and by which n.

    The planes that bound a cell along axis a are 1/|b_a| apart, b_a the columns of A^-1: within r of the cell the
    coordinate along a goes no further than r |b_a| beyond it, whatever the shape.

    Args:
        pos: (N, d) float64.
        cell: (C, d, d) float64, lattice vectors as rows.
        batch: (N,) the cell of each point.
        r: radius.
    """
    inverse = torch.linalg.inv(cell)
    fraction = torch.einsum("na,nab->nb", pos, inverse[batch])
    moved = fraction.floor()
    fraction = fraction - moved
    reach = r * inverse.norm(dim=1)[batch] * (1 + 1e-9) + 1e-9
    first = (-reach - fraction).ceil()
    counts = ((1 + reach - fraction).floor() - first + 1).long()
    total = counts.prod(1)
    point = torch.arange(len(pos), device=pos.device).repeat_interleave(total)
    left = torch.arange(len(point), device=pos.device) - (total.cumsum(0) - total)[point]
    digits = []
    for count in counts[point].unbind(1):
        digits.append(left % count)
        left = left // count
    shift = first[point] + torch.stack(digits, 1)
    images = torch.einsum("na,nab->nb", fraction[point] + shift, cell[batch[point]])
    return Images(images, point, shift), torch.einsum("na,nab->nb", fraction, cell[batch]), moved


def nearest(target: Tensor, squared: Tensor, k: int, slack: float) -> Tensor:
    """Mask of edges, sorted by target and distance, that are no longer than the k-th of their target."""
    degree = torch.bincount(target)
    start = degree.cumsum(0) - degree
    last = (start + degree.clamp(max=k) - 1).clamp(min=0)
    return squared <= (squared[last] * (1 + slack) ** 2)[target]


def checked_cell(cell: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
    """(C, d, d) lattice vectors that span a volume, one cell for each crystal of the batch."""
    d = pos.shape[1]
    if not isinstance(cell, Tensor) or cell.dtype != pos.dtype or cell.device != pos.device:
        kind = f"{cell.dtype} on {cell.device}" if isinstance(cell, Tensor) else type(cell).__name__
        raise ValueError(f"cell is {kind}, expected a tensor like pos, {pos.dtype} on {pos.device}.")
    cells = int(batch.max()) + 1 if len(batch) else 1
    if cell.shape == (d, d):
        cell = cell[None]
    if cell.ndim != 3 or cell.shape[1:] != (d, d) or len(cell) < cells:
        raise ValueError(
            f"cell has shape {tuple(cell.shape)}, expected ({cells}, {d}, {d}): the lattice vectors of each crystal, "
            "as rows."
        )
    size = torch.linalg.vector_norm(cell.detach().double(), dim=2).prod(1)
    flat = ~(torch.linalg.det(cell.detach().double()).abs() > 1e-9 * size)
    if bool(flat.any()):
        raise ValueError(
            f"cell[{int(flat.nonzero()[0])}] has no volume: its vectors are linearly dependent, or not finite; give a "
            "slab or a wire a long vector where it does not repeat."
        )
    return cell
