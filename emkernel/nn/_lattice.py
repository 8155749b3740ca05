"""The taps of a convolution on a lattice: where they are, and how far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..matrix_group import MatrixGroup

__all__ = ["kept", "lattice_basis", "per_axis", "reach", "squares", "taps"]

LISTED = 1000  # largest group whose elements are tried on a lattice


def per_axis(name: str, value: int | Sequence[int], d: int, least: int = 1) -> tuple[int, ...]:
    """An integer for each axis, from one or from all."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * d
    if len(values) != d or not all(isinstance(v, int) and v >= least for v in values):
        raise ValueError(f"{name} must be an integer of at least {least}, or {d} of them, one per axis; got {value!r}")
    return values


def lattice_basis(spacing, d: int) -> np.ndarray:
    """(d, d), the step along array axis a as column a, from a number, one per axis, or the steps as rows."""
    given = spacing.detach().cpu().numpy() if isinstance(spacing, torch.Tensor) else spacing
    B = np.asarray(given, float)
    if B.ndim < 2 and B.size in (1, d):
        B = np.diag(np.broadcast_to(B.reshape(-1), d))
    if B.shape != (d, d) or not np.isfinite(B).all() or np.linalg.cond(B) > 1e8:
        raise ValueError(
            f"spacing must be a length, {d} of them, or an invertible ({d}, {d}) with the step along array axis a as "
            f"row a; got {spacing!r}"
        )
    return B.T if np.ndim(given) == 2 else B


def kept(group: MatrixGroup, B: np.ndarray) -> int | None:
    """How many elements of a finite group, that is not too large, map the lattice of the columns of B to itself."""
    if (group.order or np.inf) > LISTED:
        return None
    turns = np.linalg.solve(B, group.elements().matrix @ B)
    return int((np.abs(turns - np.round(turns)).max((1, 2)) < 1e-9).sum())


def taps(size: tuple[int, ...], dilation: tuple[int, ...]) -> np.ndarray:
    """(K, d) taps in steps of the lattice from the centre of the kernel, in the order of a weight's entries."""
    along = [step * (np.arange(k) - (k - 1) / 2) for k, step in zip(size, dilation)]
    return np.stack(np.meshgrid(*along, indexing="ij"), -1).reshape(-1, len(size))


def reach(group: MatrixGroup, basis: np.ndarray, size: tuple[int, ...], dilation: tuple[int, ...]) -> float:
    """The radius of the largest open ball, of the invariant form, all of whose points of the lattice are taps.

    It ends where the first taps that are left out begin, one step beyond the last along an axis. Axes with one tap do
    not count. For a group that is not compact, which has no balls, the longest of these distances.
    """
    wide = [a for a, k in enumerate(size) if k > 1]
    half = np.array([dilation[a] * (size[a] + 1) / 2 for a in wide])
    B = basis[:, wide]
    if not group.is_compact:
        return float((half * np.linalg.norm(B, axis=0)).max())
    gram = B.T @ group.invariant_form @ B
    # the plane on which coordinate a is half lies at the distance half / |dual vector a|
    return float((half / np.sqrt(np.diag(np.linalg.inv(gram)))).min())


def squares(group: MatrixGroup, offsets: np.ndarray) -> np.ndarray:
    """(K,) squared lengths of offsets (K, d) under a compact group."""
    return np.einsum("ki,ij,kj->k", offsets, group.invariant_form, offsets)
