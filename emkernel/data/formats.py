"""Readers of single files: npz archives, OFF meshes, HDF5 point clouds. Whatever is wrong is a DataError."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError

__all__ = ["is_single", "read_hdf5", "read_npz", "read_off", "read_text", "require_plausible"]

# contents are at most so many times as long as the file that holds them, and these bytes; point clouds and molecules
# compress to a half or a tenth
EXPANSION, SLACK = 200, 2**24


def is_single(x: np.ndarray) -> np.ndarray:
    """Where numbers are finite, also in single precision and after they are subtracted."""
    return np.abs(x) <= np.finfo(np.float32).max / 4


def read_text(path: Path, encoding: str = "latin-1") -> str:
    """The whole of a text file.

    Raises:
        DataError: it cannot be read, or is not text of this encoding.
    """
    try:
        return Path(path).read_text(encoding=encoding)
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}).") from error


def read_npz(path: Path, required: Sequence[str]) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file, nothing pickled.

    Args:
        path: the file.
        required: names of arrays that must be there.

    Returns:
        The arrays by name.

    Raises:
        DataError: if the file is missing, truncated, not an npz archive, lacks a required array, or announces more
            than a file of its size holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            require_plausible(path, sum(member.file_size for member in members))
            arrays = {member.filename.removesuffix(".npy"): _member(archive, member) for member in members}
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except DataError:
        raise
    except Exception as error:  # whatever a parser of foreign bytes trips over
        raise DataError(
            f"{path} cannot be read as an .npz archive ({error}): truncated download, or another format?"
        ) from error
    missing = [name for name in required if name not in arrays]
    if missing:
        raise DataError(f"{path} lacks the arrays {missing}; it has {sorted(arrays)}.")
    return arrays


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array of an archive, allocated only if its header announces as many numbers as there are."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is compressed in a way that numpy does not write")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read[version](file)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds objects, which are not loaded")
        if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise ValueError(f"{member.filename} announces {shape} of {dtype}, which is not its length")
    with archive.open(member) as file:
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        file.read()  # to the end, where the checksum is compared
    return array.astype(dtype.newbyteorder("="), copy=False)


def require_plausible(path: Path, size: int) -> None:
    """Raise DataError where a file announces much more than it can hold: it is damaged, or made to fill the memory."""
    limit = EXPANSION * path.stat().st_size + SLACK
    if size > limit:
        raise DataError(
            f"{path} announces {size} bytes of contents, more than {EXPANSION} times its length: it is damaged, or not "
            "what it claims to be."
        )


def read_off(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles of a mesh in the Object File Format.

    Comments and blank lines may stand anywhere, the counts may be joined to the header (``OFF490 518 0``), and
    a polygon v_0 .. v_m is cut into the triangles (v_0, v_i, v_{i+1}). Colours are ignored.

    Args:
        path: the file.

    Returns:
        Vertices (V, 3) float64 and triangles (F, 3) int64.

    Raises:
        DataError: if the file is missing, truncated or garbled, naming the line.
    """
    text = read_text(path)
    lines, numbers = [], []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.split("#", 1)[0].strip() if "#" in line else line.strip()
        if line:
            lines.append(line)
            numbers.append(number)
    if not lines or not lines[0].startswith("OFF"):
        given = repr(lines[0][:20]) if lines else "nothing"
        raise DataError(f"{path} begins with {given}, expected the header OFF of a mesh.")
    begin, counts = 1, lines[0][3:].split()
    if not counts and len(lines) > 1:
        begin, counts = 2, lines[1].split()
    try:
        n_vertices, n_faces = int(counts[0]), int(counts[1])
    except (IndexError, ValueError) as error:
        where = f"line {numbers[begin - 1]}"
        raise DataError(f"{path}, {where}: expected the numbers of vertices, faces and edges.") from error
    present = len(lines) - begin
    if n_vertices < 0 or n_faces < 0 or present < n_vertices + n_faces:
        raise DataError(
            f"{path} announces {n_vertices} vertices and {n_faces} faces, but has {present} lines after the header: "
            "truncated?"
        )
    middle, end = begin + n_vertices, begin + n_vertices + n_faces
    vertices = _table(path, lines[begin:middle], numbers[begin:middle], np.float64, 3, "three coordinates")
    sides = [line.split(None, 1)[0] for line in lines[middle:end]]
    triangles = []
    for side in sorted(set(sides)):
        first = middle + sides.index(side)
        if not re.fullmatch("[0-9]{1,9}", side) or int(side) < 1:
            raise DataError(
                f"{path}, line {numbers[first]}: a face begins with {side[:20]!r}, expected its number of vertices."
            )
        if len(lines[first].split()) <= int(side):
            raise DataError(f"{path}, line {numbers[first]}: fewer than {side} vertex indices.")
        which = [middle + f for f, s in enumerate(sides) if s == side]
        corners = _table(
            path,
            [lines[w] for w in which],
            [numbers[w] for w in which],
            np.int64,
            1 + int(side),
            "vertex indices",
        )[:, 1:]
        outside = ((corners < 0) | (corners >= n_vertices)).any(1)
        if outside.any():
            number = numbers[which[int(outside.argmax())]]
            raise DataError(
                f"{path}, line {number}: a face uses a vertex that is not among the {n_vertices}."
            )
        for i in range(1, int(side) - 1):
            triangles.append(corners[:, [0, i, i + 1]])
    return vertices, np.concatenate(triangles) if triangles else np.empty((0, 3), np.int64)


def _table(
    path: Path, lines: list[str], numbers: list[int], dtype: type, columns: int, what: str
) -> np.ndarray:
    """The first columns of some lines as an array; on failure, the first line at fault is looked up."""
    if not lines:
        return np.empty((0, columns), dtype)
    try:
        table: np.ndarray = np.loadtxt(lines, dtype=dtype, usecols=range(columns), ndmin=2, comments=None)
        if np.isfinite(table).all():
            return table
    except (ValueError, OverflowError):
        pass
    for number, line in zip(numbers, lines, strict=True):
        try:
            values: np.ndarray = np.array(line.split()[:columns], dtype=dtype)
        except (ValueError, OverflowError):
            values = np.empty(0)
        if len(values) < columns or not np.isfinite(values).all():
            raise DataError(f"{path}, line {number}: {line[:60]!r}, expected {what}, all finite.")
    raise DataError(f"{path}: lines {numbers[0]} to {numbers[-1]} cannot be read as {what}.")


def read_hdf5(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Some arrays of an HDF5 file.

    Args:
        path: the file.
        required: names of arrays that must be there.
        optional: names of arrays to read where they are there.

    Returns:
        The arrays by name.

    Raises:
        DataError: if the file is missing, truncated, or lacks a required array.
        ImportError: if the package h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"Reading {Path(path).name} needs the package h5py: pip install h5py.") from error
    try:
        with h5py.File(path, "r") as file:
            missing = [name for name in required if name not in file]
            if missing:
                raise DataError(f"{path} lacks the arrays {missing}; it has {sorted(file)}.")
            found = {name: file[name] for name in (*required, *optional) if name in file}
            for name, data in found.items():
                if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "iuf":
                    raise DataError(f"{path}: {name} is no array of numbers.")
            # a chunk is read whole, and may be longer than the array
            lengths = [max(data.size, math.prod(data.chunks or ())) * data.dtype.itemsize for data in found.values()]
            require_plausible(path, sum(lengths))
            return {name: data[()].astype(data.dtype.newbyteorder("="), copy=False) for name, data in found.items()}
    except DataError:
        raise
    except Exception as error:  # whatever the library trips over
        raise DataError(f"{path} cannot be read as HDF5 ({error}): missing or truncated?") from error
