"""Crystals with their dielectric tensors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from ..errors import DataError
from .formats import read_npz
from .ragged import RaggedGraphs

__all__ = ["DIELECTRIC_TARGETS", "load_dielectric"]

DIELECTRIC_TARGETS = ("electronic", "total")
_ELEMENTS = 118
_ASYMMETRY = 0.1  # relative; what perturbation theory leaves is about 0.01


def load_dielectric(root: str | os.PathLike[str], target: str = "electronic") -> dict[str, RaggedGraphs]:
    """Crystals with their 3 × 3 dielectric tensors, split for training, validation and test.

    Read from a compact ``dielectric.npz`` that ``root`` is or holds, of plain arrays: ``ptr`` (M + 1,), crystal i owns
    the atoms ptr[i] to ptr[i + 1]; ``z`` (N,) atomic numbers; ``pos`` (N, 3) Cartesian in Å; ``cell`` (M, 3, 3) lattice
    vectors as rows, in Å; ``eps_electronic`` and ``eps_total`` (M, 3, 3) in the same Cartesian frame; ``split`` (M,) 0
    for training, 1 for validation, 2 for the test.

    Args:
        root: file or folder.
        target: "electronic", ions held fixed, or "total", with their contribution.

    Returns:
        ``{"train", "val", "test"}``, those that the file has, with positions in Å, ``x["z"]`` the atomic numbers,
        ``cell``, no edges, and ``y`` (M, 3, 3) the relative permittivity, symmetric and positive-definite.

    Raises:
        DataError: if the file is missing, truncated or garbled, or its arrays do not fit together.
        ValueError: for an unknown target.

    Example:
        >>> data = load_dielectric("data")  # doctest: +SKIP

    Source: Petousis et al., Sci. Data 4, 160134 (2017).
    """
    if target not in DIELECTRIC_TARGETS:
        raise ValueError(f"target is {target!r}, expected one of {', '.join(DIELECTRIC_TARGETS)}.")
    path = Path(root)
    path = path if path.suffix == ".npz" else path / "dielectric.npz"
    name = f"eps_{target}"
    arrays = read_npz(path, ("ptr", "z", "pos", "cell", name, "split"))
    ptr, z, pos, cell, eps, split = (arrays[key] for key in ("ptr", "z", "pos", "cell", name, "split"))

    def check(holds, complaint: str) -> None:
        """Every crystal, or the arrays as a whole."""
        if not np.all(holds):
            which = f"crystal {int(np.argmin(holds))}: " if np.ndim(holds) else ""
            raise DataError(f"{path}: {which}{complaint}: not the compact format of crystals, or garbled.")

    check(
        ptr.ndim == 1 and ptr.dtype.kind in "iu" and len(ptr) > 0 and ptr[0] == 0 and ptr[-1] == len(z),
        f"ptr does not go from 0 to {len(z)}, the number of atoms in z",
    )
    size = np.diff(ptr.astype(np.int64))
    m, n = len(size), len(z)
    check(size > 0, "ptr leaves it without atoms")
    check(pos.shape == (n, 3), f"pos has shape {pos.shape} for {n} atoms")
    for key, array in (("cell", cell), (name, eps)):
        check(array.shape == (m, 3, 3), f"{key} has shape {array.shape} for {m} crystals, expected ({m}, 3, 3)")
    check(split.shape == (m,), f"split has shape {split.shape} for {m} crystals")
    check(z.ndim == 1 and z.dtype.kind in "iu", "z is not a vector of whole numbers")
    first = ptr[:-1].astype(np.int64)
    check(np.logical_and.reduceat((z > 0) & (z <= _ELEMENTS), first), f"z goes beyond 1 .. {_ELEMENTS}")
    check(np.logical_and.reduceat(np.isfinite(pos).all(1), first), "pos is not finite")
    cell, eps = cell.astype(np.float64), eps.astype(np.float64)
    check(np.isfinite(cell).all((1, 2)) & np.isfinite(eps).all((1, 2)), f"cell or {name} is not finite")
    lengths = np.linalg.norm(cell, axis=2).prod(1)
    check(np.abs(np.linalg.det(cell)) > 1e-6 * lengths, "the lattice vectors in cell span no volume")
    skew = np.abs(eps - eps.transpose(0, 2, 1)).max((1, 2))
    check(skew <= _ASYMMETRY * np.abs(eps).max((1, 2)), f"{name} is not symmetric")
    eps = (eps + eps.transpose(0, 2, 1)) / 2
    check(np.linalg.eigvalsh(eps)[:, 0] > 0, f"{name} is not positive-definite")
    data = RaggedGraphs(
        torch.from_numpy(pos.astype(np.float32)),
        torch.from_numpy(ptr.astype(np.int64)),
        torch.from_numpy(eps.astype(np.float32)),
        x={"z": torch.from_numpy(z.astype(np.uint8))},
        cell=torch.from_numpy(cell.astype(np.float32)),
    )
    parts = {part: np.flatnonzero(split == s) for s, part in enumerate(("train", "val", "test"))}
    return {part: data.subset(torch.from_numpy(rows)) for part, rows in parts.items() if len(rows)}
