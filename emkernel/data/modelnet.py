"""ModelNet10, ModelNet40 and the like: clouds of points on the surface of shapes, to be classified."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .._arguments import array_of, whole
from ..errors import DataError
from ._cache import cached_arrays
from .formats import is_single, read_hdf5, read_npz, read_off, read_text
from .ragged import PointClouds

__all__ = ["load_modelnet", "sample_mesh"]

_PARTS = ("train", "val", "test")
_VAL_FRACTION = 0.2
MOST_CLASSES = 2**16  # where labels have no names


def load_modelnet(
    root: str | os.PathLike[str], n_points: int = 1024, seed: int = 0, classes: Sequence[str] | None = None
) -> dict[str, PointClouds]:
    """Point clouds with classes, split for training, validation and test.

    Read from whichever of these ``root`` is or holds: a compact ``shapes.npz``; meshes ``class/train/*.off`` and
    ``class/test/*.off``; or the sampled clouds ``ply_data_{train,test}*.h5`` (these need h5py).

    Points are drawn from meshes uniformly by area, by a generator seeded with the name of the file and ``seed``,
    and cached. Sampled clouds give the same ``n_points`` of their points in every cloud. All clouds are then
    centred on the mean of their points and scaled to a largest radius of one. Where the source has no
    validation part, 20 % of each class of the training part become one.

    Args:
        root: file or folder.
        n_points: points in each cloud.
        seed: of the points and of the validation part.
        classes: names of the classes to keep, in the order of their labels; None for all.

    Returns:
        ``{"train", "val", "test"}``, the test only where the source has one. Normals are there where the source
        has them; those of a mesh follow its faces, so their sign is only as good as the mesh.

    Raises:
        DataError: if nothing readable is there, or a file is truncated or garbled.
        ImportError: if HDF5 files are found but h5py is not.
        ValueError: for n_points < 1 or a class that is not there.

    Example:
        >>> data = ek.data.load_modelnet("ModelNet10", n_points=512)  # doctest: +SKIP

    Source: Wu et al., 3D ShapeNets, CVPR 2015; used in section 5.2 of arXiv 2212.06096.
    """
    if n_points < 1:
        raise ValueError(f"n_points is {n_points}, expected at least 1.")
    root = Path(root)
    compact = root if root.suffix == ".npz" else root / "shapes.npz"
    if compact.is_file() or root.suffix == ".npz":
        arrays, names = _read_compact(compact, n_points, seed)
    elif sampled := [*_sampled_files(root, "train"), *_sampled_files(root, "test")]:
        arrays, names = _read_sampled(root, sampled, n_points, seed)
    elif meshes := sorted([*root.glob("*/train/*.off"), *root.glob("*/test/*.off")]):
        arrays, names = _read_meshes(meshes, n_points, seed)
    else:
        raise DataError(
            f"{root} holds no ModelNet: expected a compact shapes.npz, folders class/train/*.off and class/test/*.off, "
            "or ply_data_train*.h5."
        )
    label, split = arrays["label"].astype(np.int64), arrays["split"]
    keep = np.ones(len(label), bool)
    if classes is not None:
        unknown = [name for name in classes if name not in names]
        if unknown or len(set(classes)) != len(classes):
            raise ValueError(f"classes has {unknown or 'repeated names'}; {root} has {', '.join(names)}.")
        new = np.full(len(names), -1)
        new[[names.index(name) for name in classes]] = range(len(classes))
        label, names = new[label], list(classes)
        keep = label >= 0
    if not (split == 1).any():
        split = _with_validation(label, split, seed)
    parts = {}
    for s, name in enumerate(_PARTS):
        rows = np.flatnonzero(keep & (split == s))
        if len(rows):
            normal = torch.from_numpy(arrays["normal"][rows]) if "normal" in arrays else None
            parts[name] = PointClouds(
                torch.from_numpy(arrays["pos"][rows]), torch.from_numpy(label[rows]), names, normal
            )
    return parts


def sample_mesh(
    vertices: np.ndarray, triangles: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points drawn uniformly by area from the surface of a mesh, with the normals of their triangles.

    x = a + (1 - √s)(b - a) + t√s (c - a) for a triangle abc chosen with odds |(b - a) × (c - a)|, s, t uniform.

    Args:
        vertices: (V, 3) positions.
        triangles: (F, 3) indices of vertices.
        n: number of points.
        rng: source of randomness.

    Returns:
        Points (n, 3) and unit normals (n, 3), float64.

    Raises:
        ValueError: if the mesh has no area, or a triangle a vertex that is not there.
        TypeError: ``rng`` is no numpy Generator.

    Example:
        >>> ek.data.sample_mesh(np.eye(3), np.array([[0, 1, 2]]), 5, np.random.default_rng(0))[0].sum(1)
        array([1., 1., 1., 1., 1.])

    Source: Osada et al., Shape Distributions, ACM Trans. Graph. 21, 807 (2002), section 4.2.
    """
    vertices, triangles = array_of(vertices, "vertices"), array_of(triangles, "triangles")
    if vertices.ndim != 2 or vertices.shape[1] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise ValueError(f"vertices {vertices.shape} and triangles {triangles.shape}, expected (V, 3) and (F, 3).")
    if triangles.dtype.kind not in "iu" or ((triangles < 0) | (triangles >= len(vertices))).any():
        raise ValueError(f"triangles of {triangles.dtype} are not all indices of the {len(vertices)} vertices.")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is {type(rng).__name__}, expected a numpy Generator.")
    n = whole(n, "n", 0)
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    with np.errstate(over="ignore", invalid="ignore"):  # an area out of range is refused below
        cross = np.cross(b - a, c - a)
        double_area = np.linalg.norm(cross, axis=1)
        cumulative = np.cumsum(double_area)
    if not len(cumulative) or not 0 < cumulative[-1] < np.inf:
        raise ValueError(f"the {len(triangles)} triangles of the mesh have no area to sample.")
    # a draw in [F_{i-1}, F_i) falls on triangle i, so that one without area is never chosen
    face = np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right")
    face = np.minimum(face, np.flatnonzero(double_area)[-1])
    root, t = np.sqrt(rng.random((n, 1))), rng.random((n, 1))
    points = (1 - root) * a[face] + root * (1 - t) * b[face] + root * t * c[face]
    return points, cross[face] / double_area[face, None]


def _read_compact(path: Path, n_points: int, seed: int) -> tuple[dict[str, np.ndarray], list[str]]:
    arrays = read_npz(path, ("pos", "label", "classes", "split"))
    pos, label, names = arrays["pos"], arrays["label"], [str(name) for name in arrays["classes"].reshape(-1)]
    normal = arrays.get("normal")
    _check_clouds(path, pos, normal, label, names)
    if arrays["split"].shape != label.shape or not np.isin(arrays["split"], (0, 1, 2)).all():
        raise DataError(f"{path}: split is not 0, 1 or 2 for each of the {len(label)} clouds.")
    found = _normalised(path, pos, normal, n_points, seed)
    return found | {"label": label, "split": arrays["split"]}, names


def _sampled_files(root: Path, part: str) -> list[Path]:
    """The HDF5 files of one part, all that its list names where there is a list."""
    listed = root / f"{part}_files.txt"
    if not listed.is_file():
        return sorted(root.glob(f"ply_data_{part}*.h5"))
    present = {file.name: file for file in root.glob("*.h5")}
    names = [Path(line).name for line in read_text(listed, "utf-8").split()]
    missing = [name for name in names if name not in present]
    if missing:
        raise DataError(
            f"{listed} names {', '.join(missing)[:200]}, which {root} does not have: incomplete download?"
        )
    return [present[name] for name in names]


def _read_sampled(
    root: Path, files: list[Path], n_points: int, seed: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    parts = [read_hdf5(file, ("data", "label"), ("normal",)) for file in files]
    listed = root / "shape_names.txt"
    names = read_text(listed, "utf-8").split() if listed.is_file() else None
    for file, part in zip(files, parts, strict=True):
        part["label"] = part["label"].reshape(-1)
        _check_clouds(file, part["data"], part.get("normal"), part["label"], names)
    if len({part["data"].shape[1] for part in parts}) > 1 or len({"normal" in part for part in parts}) > 1:
        raise DataError(
            f"the files ply_data_*.h5 of {root} differ in their numbers of points or in having normals."
        )
    pos, label = (np.concatenate([part[key] for part in parts]) for key in ("data", "label"))
    normal = np.concatenate([part["normal"] for part in parts]) if "normal" in parts[0] else None
    if names is None:
        names = [str(i) for i in range(int(label.max(initial=-1)) + 1)]
    split = np.concatenate(
        [
            np.full(len(part["label"]), 2 if "test" in file.name else 0)
            for file, part in zip(files, parts, strict=True)
        ]
    )
    return _normalised(root, pos, normal, n_points, seed) | {"label": label, "split": split}, names


def _read_meshes(files: list[Path], n_points: int, seed: int) -> tuple[dict[str, np.ndarray], list[str]]:
    names = sorted({file.parent.parent.name for file in files})
    labels = {name: i for i, name in enumerate(names)}

    def build() -> dict[str, np.ndarray]:
        pos = np.empty((len(files), n_points, 3), np.float32)
        normal = np.empty_like(pos)
        for i, file in enumerate(files):
            vertices, triangles = read_off(file)
            name = int.from_bytes(hashlib.sha256(file.name.encode()).digest()[:8], "little")
            try:
                points, normal[i] = sample_mesh(
                    vertices, triangles, n_points, np.random.default_rng([seed, name])
                )
            except ValueError as error:
                raise DataError(f"{file}: {error}") from error
            pos[i] = _unit_ball(points[None])[0]
        return {"pos": pos, "normal": normal}

    arrays = cached_arrays(f"modelnet-off {n_points} {seed}", files, build)
    label = np.array([labels[file.parent.parent.name] for file in files])
    split = np.array([2 if file.parent.name == "test" else 0 for file in files])
    return arrays | {"label": label, "split": split}, names


def _check_clouds(
    path: Path, pos: np.ndarray, normal: np.ndarray | None, label: np.ndarray, names: list[str] | None
) -> None:
    if pos.ndim != 3 or pos.shape[2] != 3 or label.shape != pos.shape[:1] or label.dtype.kind not in "iu":
        raise DataError(
            f"{path}: points {pos.shape} and labels {label.shape} of {label.dtype}, expected (M, n, 3) and M integers."
        )
    for what, a in (("points", pos), ("normals", pos if normal is None else normal)):
        if a.shape != pos.shape or a.dtype.kind not in "iuf":
            raise DataError(f"{path}: {what} {a.shape} of {a.dtype} for points {pos.shape}, expected as many numbers.")
        if not (finite := is_single(a).all((1, 2))).all():
            raise DataError(f"{path}: one of the {what} of cloud {int(finite.argmin())} is not finite.")
    most = MOST_CLASSES if names is None else len(names)
    if len(label) and not 0 <= int(label.min()) <= int(label.max()) < most:
        raise DataError(f"{path}: labels run from {label.min()} to {label.max()}, but there are {most} classes.")


def _normalised(
    path: Path, pos: np.ndarray, normal: np.ndarray | None, n_points: int, seed: int
) -> dict[str, np.ndarray]:
    """The same random points of every cloud, in the unit ball, with unit normals."""
    stored = pos.shape[1]
    if n_points > stored:
        raise DataError(f"{path} has {stored} points in each cloud, fewer than n_points = {n_points}.")
    if n_points < stored:
        chosen = np.sort(np.random.default_rng(seed).permutation(stored)[:n_points])
        pos, normal = pos[:, chosen], None if normal is None else normal[:, chosen]
    found = {"pos": _unit_ball(pos)}
    if normal is not None:
        unit = normal.astype(np.float32)
        unit = np.ldexp(unit, -np.frexp(np.abs(unit).max(2, keepdims=True))[1])
        length = np.linalg.norm(unit, axis=2, keepdims=True)
        found["normal"] = np.divide(unit, length, out=unit, where=length > 0)
    return found


def _unit_ball(pos: np.ndarray) -> np.ndarray:
    """Clouds (M, n, 3) centred on the mean of their points, the farthest point at distance one; float32."""
    pos = pos.astype(pos.dtype if pos.dtype.kind == "f" and pos.dtype.itemsize >= 4 else np.float64, copy=False)
    centred = pos - pos.mean(1, keepdims=True, dtype=np.float64).astype(pos.dtype)
    # by a power of two, which rounds nothing, so that squares of coordinates of any size are in range
    centred = np.ldexp(centred, -np.frexp(np.abs(centred).max((1, 2), keepdims=True))[1])
    radius = np.sqrt((centred**2).sum(2).max(1))[:, None, None]
    return (centred / np.where(radius > 0, radius, 1)).astype(np.float32)


def _with_validation(label: np.ndarray, split: np.ndarray, seed: int) -> np.ndarray:
    """``split`` with the nearest number to a fifth of the training part of each class moved to validation."""
    split = split.copy()
    rng = np.random.default_rng(seed)
    train = rng.permutation(np.flatnonzero(split == 0))
    train = train[np.argsort(label[train], kind="stable")]
    _, start, count = np.unique(label[train], return_index=True, return_counts=True)
    rank = np.arange(len(train)) - np.repeat(start, count)
    split[train[rank < np.repeat(np.rint(_VAL_FRACTION * count), count)]] = 1
    return split
