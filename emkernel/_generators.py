"""What a user gives as generators, as real matrices, or a GroupError that says what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from . import _compact
from .errors import GroupError


def stacked(matrices: Sequence, what: str, name: str) -> np.ndarray:
    items = []
    for i, m in enumerate(matrices):
        try:
            m = np.asarray(m.detach().cpu() if isinstance(m, torch.Tensor) else m)
            m = m.astype(np.complex128 if np.iscomplexobj(m) else np.float64)
        except (TypeError, ValueError, RuntimeError) as e:
            raise GroupError(f"{name}: {what}[{i}] is not a matrix of numbers: {e}") from None
        if m.ndim != 2 or m.shape[0] != m.shape[1]:
            raise GroupError(
                f"{name}: {what}[{i}] has shape {m.shape}, expected a square matrix (d, d)"
                + ("; pass a list of matrices, not one matrix" if m.ndim < 2 else "")
            )
        if not np.isfinite(m).all():
            raise GroupError(f"{name}: {what}[{i}] has entries that are not finite numbers")
        items.append(m)
    if len({len(m) for m in items}) > 1:
        raise GroupError(f"{name}: {what} have different sizes {[len(m) for m in items]}; all must be (d, d)")
    return np.stack(items) if items else np.zeros((0, 0, 0))


def realified(m: np.ndarray) -> np.ndarray:
    x, y = m.real, m.imag
    return np.concatenate([np.concatenate([x, -y], 2), np.concatenate([y, x], 2)], 1)


def frozen(m: np.ndarray) -> np.ndarray:
    m = np.ascontiguousarray(m, dtype=np.float64)
    m.setflags(write=False)
    return m


def check_invertible(h: np.ndarray, i: int, name: str) -> None:
    units = _compact.units(h[None], h[:0])
    s = np.linalg.svd(h * units[:, None] / units, compute_uv=False)
    if s[-1] <= 1e-14 * s[0]:
        raise GroupError(
            f"{name}: discrete_generators[{i}] is not invertible (singular values from {s[0]:.2e} down to "
            f"{s[-1]:.2e}); a group element must be. Is it a Lie algebra generator put in the wrong list, or are the "
            "units of the coordinates very different?"
        )
