"""QM9: 134,000 small organic molecules with twelve quantum-chemical targets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..errors import DataError
from ._cache import cached_arrays
from .formats import read_npz
from .molecules import ATOMIC_NUMBERS, read_csv_table, read_index_list, read_sdf, read_xyz
from .ragged import RaggedGraphs

__all__ = ["ATOM_CLASSES", "BOND_CLASSES", "HARTREE", "QM9_TARGETS", "load_qm9"]

ATOM_CLASSES = tuple(ATOMIC_NUMBERS)
BOND_CLASSES = ("unknown", "single", "double", "triple", "aromatic")
HARTREE = 27211.386245988  # meV, CODATA 2018
_SPLIT = (110_000, 10_000, 10_831)


class Target(NamedTuple):
    """A target: its column in ``gdb9.sdf.csv``, the unit of y, and that unit over the one of the raw files; and what is
    subtracted first, the energies of the free atoms H, C, N, O, F in hartree (``atomref.txt`` of the data set).
    """

    column: str
    unit: str
    scale: float = 1.0
    atoms: tuple[float, ...] = ()


QM9_TARGETS: dict[str, Target] = {
    "mu": Target("mu", "D"),
    "alpha": Target("alpha", "bohr^3"),
    "homo": Target("homo", "meV", HARTREE),
    "lumo": Target("lumo", "meV", HARTREE),
    "gap": Target("gap", "meV", HARTREE),
    "r2": Target("r2", "bohr^2"),
    "zpve": Target("zpve", "meV", HARTREE),
    "U0": Target("u0", "meV", HARTREE, (-0.500273, -37.846772, -54.583861, -75.064579, -99.718730)),
    "U": Target("u298", "meV", HARTREE, (-0.498857, -37.845355, -54.582445, -75.063163, -99.717314)),
    "H": Target("h298", "meV", HARTREE, (-0.497912, -37.844411, -54.581501, -75.062219, -99.716370)),
    "G": Target("g298", "meV", HARTREE, (-0.510927, -37.861317, -54.598897, -75.079532, -99.733544)),
    "Cv": Target("cv", "cal/(mol K)"),
}


def load_qm9(root: str | os.PathLike[str], target: str = "mu", seed: int = 0) -> dict[str, RaggedGraphs]:
    """QM9 with one target, split for training, validation and test.

    Read from whichever of these ``root`` is or holds: a compact ``qm9_*.npz`` (targets in the units of
    ``QM9_TARGETS``); ``gdb9.sdf`` with ``gdb9.sdf.csv``; the files ``dsgdb9nsd_*.xyz``, or their archive
    ``dsgdb9nsd*.tar.bz2``. Raw files are parsed once and cached. Molecules listed in ``uncharacterized.txt``
    beside raw files are left out.

    A compact file has its own split. Raw files are split at random into 110,000 for training, 10,000 for
    validation and the rest for the test, in that proportion where there are fewer than 120,003 molecules.

    Energies are converted from hartree to meV. U0, U, H and G are those of atomisation: from the totals in raw files
    the energies of the free atoms are subtracted.

    Args:
        root: file or folder.
        target: a key of ``QM9_TARGETS``, which has the units, those of table 1 of arXiv 2212.06096: mu (D), alpha
            (bohr³), homo, lumo, gap (meV), r2 (bohr²), zpve, U0, U, H, G (meV), Cv (cal/(mol K)).
        seed: of the random split of raw files.

    Returns:
        ``{"train", "val", "test"}``, the test only where the source has one, each with positions in Å, ``x["z"]``
        the index of the element in (H, C, N, O, F), ``edge_attr["bond"]`` the index in ``BOND_CLASSES`` (all
        unknown for xyz files, where bonds are pairs closer than 1.3 times the sum of covalent radii), bonds in
        both directions, and ``y`` (M,).

    Raises:
        DataError: if nothing readable is there, a file is truncated or garbled, or the source lacks the target.
        ValueError: for an unknown target.

    Example:
        >>> data = load_qm9("qm9", "homo")  # doctest: +SKIP
        >>> data["train"][[0, 1, 2]].y  # doctest: +SKIP

    Source: Ramakrishnan, Dral, Rupp, von Lilienfeld, Sci. Data 1, 140022 (2014).
    """
    if target not in QM9_TARGETS:
        raise ValueError(f"target is {target!r}, expected one of {', '.join(QM9_TARGETS)}.")
    root = Path(root)
    compact = _compact_file(root, target)
    arrays = _read_compact(compact) if compact is not None else _read_raw(root)
    where = compact or root
    if target not in arrays:
        has = [name for name in QM9_TARGETS if name in arrays]
        raise DataError(
            f"{where} has no target {target!r}, only {', '.join(has) or 'none of the known ones'}."
        )
    classes = np.full(256, 255, np.uint8)
    classes[list(ATOMIC_NUMBERS.values())] = range(len(ATOMIC_NUMBERS))
    y = arrays[target].astype(np.float64)
    if compact is None:
        free = np.array(QM9_TARGETS[target].atoms or [0.0] * len(ATOM_CLASSES))[classes[arrays["z"]]]
        # of each molecule; none is without atoms
        y = (y - np.add.reduceat(free, arrays["ptr"][:-1])) * QM9_TARGETS[target].scale
    data = RaggedGraphs(
        torch.from_numpy(np.ascontiguousarray(arrays["pos"], dtype=np.float32)),
        torch.from_numpy(arrays["ptr"].astype(np.int64)),
        torch.from_numpy(y.astype(np.float32)),
        x={"z": torch.from_numpy(classes[arrays["z"]])},
        edges=torch.from_numpy(np.ascontiguousarray(arrays["bonds"].T)),
        edge_ptr=torch.from_numpy(arrays["bond_ptr"].astype(np.int64)),
        edge_attr={"bond": torch.from_numpy(arrays["bond_order"].astype(np.uint8))},
        undirected=True,
    )
    split = arrays["split"] if compact is not None else _random_split(len(data), seed, where)
    parts = {name: np.flatnonzero(split == s) for s, name in enumerate(("train", "val", "test"))}
    return {name: data.subset(torch.from_numpy(i)) for name, i in parts.items() if len(i)}


def _compact_file(root: Path, target: str) -> Path | None:
    if root.suffix == ".npz":
        return root
    named = root / f"qm9_{target}.npz"
    return named if named.is_file() else next(iter(sorted(root.glob("qm9*.npz"))), None)


def _read_compact(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a compact file, after checking that they fit together."""
    arrays = read_npz(path, ("ptr", "z", "pos", "bond_ptr", "bonds", "bond_order", "split"))
    ptr, z, pos, bond_ptr, bonds = (arrays[name] for name in ("ptr", "z", "pos", "bond_ptr", "bonds"))
    order, split = arrays["bond_order"], arrays["split"]
    targets = [name for name in QM9_TARGETS if name in arrays]

    def check(holds: bool, complaint: str) -> None:
        if not holds:
            raise DataError(f"{path}: {complaint}: not the compact QM9 format, or garbled.")

    for name, p, rows in (("ptr", ptr, z), ("bond_ptr", bond_ptr, bonds)):
        fits = p.ndim == 1 and p.dtype.kind in "iu" and len(p) > 0 and p[0] == 0 and p[-1] == len(rows)
        check(
            fits and bool((np.diff(p.astype(np.int64)) >= 0).all()),
            f"{name} does not ascend from 0 to {len(rows)}",
        )
    check(
        z.ndim == 1 and bool(np.isin(z, list(ATOMIC_NUMBERS.values())).all()),
        "z has an element beyond H C N O F",
    )
    check(pos.shape == (len(z), 3), f"pos has shape {pos.shape} for {len(z)} atoms")
    check(bool(np.isfinite(pos).all()), "pos is not finite")
    check(
        len(bond_ptr) == len(ptr) and bonds.shape == (len(order), 2),
        "bonds, bond_ptr and bond_order do not fit",
    )
    check(bonds.dtype.kind in "iu" and order.dtype.kind in "iu", "bonds are not integers")
    size = np.repeat(np.diff(ptr), np.diff(bond_ptr))[:, None]
    check(bool(((bonds >= 0) & (bonds < size)).all()), "a bond leaves its molecule")
    check(bool(((order >= 0) & (order < len(BOND_CLASSES))).all()), "bond_order goes beyond 0 .. 4")
    check(split.shape == (len(ptr) - 1,), f"split has shape {split.shape} for {len(ptr) - 1} molecules")
    for name in targets:
        fits = arrays[name].shape == split.shape and bool(np.isfinite(arrays[name]).all())
        check(fits, f"{name} is not one finite value for each molecule")
    return arrays


def _read_raw(root: Path) -> dict[str, np.ndarray]:
    """All molecules and targets of raw files, in the units of the files, without the uncharacterised ones."""
    sdf, table = root / "gdb9.sdf", root / "gdb9.sdf.csv"
    is_archive = root.name.endswith((".tar.bz2", ".tar", ".tar.gz", ".tgz"))
    folder = root.parent if is_archive else root
    archive = root if is_archive else next(iter(sorted(root.glob("dsgdb9nsd*.tar*"))), None)
    if not root.exists():
        raise DataError(f"{root} does not exist.")
    if root.is_dir() and sdf.exists():
        arrays = cached_arrays("qm9-sdf", _existing(sdf, table), lambda: _sdf_arrays(sdf, table))
    elif xyz := sorted(root.glob("dsgdb9nsd_*.xyz")):
        arrays = cached_arrays("qm9-xyz", xyz, lambda: _xyz_arrays(xyz))
    elif archive is not None:
        arrays = cached_arrays("qm9-xyz", [archive], lambda: _xyz_arrays(archive))
    else:
        raise DataError(
            f"{root} holds no QM9: expected a compact qm9_*.npz, gdb9.sdf with gdb9.sdf.csv, dsgdb9nsd_*.xyz "
            "or dsgdb9nsd*.tar.bz2."
        )
    listed = folder / "uncharacterized.txt"
    return _without(arrays, read_index_list(listed)) if listed.exists() else arrays


def _existing(*files: Path) -> tuple[Path, ...]:
    for file in files:
        if not file.is_file():
            raise DataError(f"{file} does not exist, but belongs to its neighbours in {file.parent}.")
    return files


def _sdf_arrays(sdf: Path, table: Path) -> dict[str, np.ndarray]:
    arrays = read_sdf(sdf)
    names, columns = read_csv_table(table)
    if len(names) != len(arrays["index"]):
        raise DataError(
            f"{sdf} has {len(arrays['index'])} molecules, {table.name} has {len(names)} rows: one is truncated."
        )
    for i, (name, index) in enumerate(zip(names, arrays["index"], strict=True)):
        if name.startswith("gdb_") and name != f"gdb_{index}":
            raise DataError(
                f"{table}, row {i + 1} is for {name!r}, the molecule in {sdf.name} is gdb_{index}."
            )
    return arrays | {name: columns[t.column] for name, t in QM9_TARGETS.items() if t.column in columns}


def _xyz_arrays(source: Path | list[Path]) -> dict[str, np.ndarray]:
    arrays, properties = read_xyz(source)
    return arrays | {name: column for name, column in properties.items() if name in QM9_TARGETS}


def _without(arrays: dict[str, np.ndarray], dropped: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of raw files without the molecules of the given indices."""
    keep = ~np.isin(arrays["index"], dropped)
    kept = dict(arrays)
    for ptr, rows in (("ptr", ("z", "pos")), ("bond_ptr", ("bonds", "bond_order"))):
        length = np.diff(arrays[ptr])
        mask = np.repeat(keep, length)
        kept[ptr] = np.concatenate([[0], np.cumsum(length[keep])])
        kept |= {name: arrays[name][mask] for name in rows}
    return kept | {name: a[keep] for name, a in arrays.items() if name == "index" or name in QM9_TARGETS}


def _random_split(n: int, seed: int, where: Path) -> np.ndarray:
    """0, 1, 2 for training, validation and test."""
    if n < 3:
        raise DataError(f"{where} has {n} molecules, expected at least 3 to split into three parts.")
    train, val, _ = _SPLIT
    if n < train + val + 3:
        val, test = (max(1, n * part // sum(_SPLIT)) for part in _SPLIT[1:])
        train = n - val - test
    split = np.full(n, 2, np.uint8)
    order = np.random.default_rng(seed).permutation(n)
    split[order[:train]], split[order[train : train + val]] = 0, 1
    return split
