"""Parsers of the molecule files in which QM9 is distributed: SDF with a CSV table, and extended XYZ.

All return flat arrays: ``ptr`` (M + 1,), ``z`` (N,) uint8 atomic numbers, ``pos`` (N, 3) float32 in Å, ``bond_ptr``
(M + 1,), ``bonds`` (E, 2) uint8 atoms counted from the first of the molecule, ``bond_order`` (E,) uint8, and
``index`` (M,) int64 the number of the molecule in the database, from 1.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
import tarfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import DataError
from .formats import is_single, read_text, require_plausible

__all__ = [
    "ATOMIC_NUMBERS",
    "bonds_from_distances",
    "read_csv_table",
    "read_index_list",
    "read_sdf",
    "read_xyz",
]

ATOMIC_NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
XYZ_PROPERTIES = (
    "A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv"
)  # fmt: skip
_COVALENT_RADII = np.zeros(10)  # Å; Cordero et al., Dalton Trans. 2832 (2008)
_COVALENT_RADII[[1, 6, 7, 8, 9]] = 0.31, 0.76, 0.71, 0.66, 0.57
_MOST_ATOMS = 255
_COMPRESSED = {b"BZh": bz2.open, b"\x1f\x8b": gzip.open, b"\xfd7zXZ\0": lzma.open}


def read_sdf(path: Path) -> dict[str, np.ndarray]:
    """Atoms, coordinates and bonds of all records of an SDF file in the V2000 format.

    Args:
        path: the file. A record whose title is ``gdb_i`` is molecule i of the database, else they are counted.

    Returns:
        The arrays named at the top of this module; bond orders are 1 to 3, and 4 for aromatic.

    Raises:
        DataError: for a missing, truncated or garbled file, naming the molecule and the line.
    """
    atoms, coordinates, bonds = array("B"), array("d"), array("B")
    n_atoms, n_bonds, index = array("q"), array("q"), array("q")
    record: list[str] = []
    first = 1
    try:
        with open(path, encoding="latin-1") as file:
            for number, line in enumerate(file, 1):
                if not line.startswith("$$$$"):
                    record.append(line)
                    continue
                where = f"{path}, molecule {len(index) + 1}"
                _sdf_record(where, first, record, atoms, coordinates, bonds, n_atoms, n_bonds)
                title = re.fullmatch(r"gdb_([0-9]{1,18})", record[0].strip())
                index.append(int(title[1]) if title else len(index) + 1)
                record, first = [], number + 1
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}).") from error
    if any(line.strip() for line in record) or not len(index):
        raise DataError(
            f"{path} ends in molecule {len(index) + 1}, begun in line {first}, without the mark $$$$: truncated?"
        )
    flat = np.frombuffer(bonds, np.uint8).reshape(-1, 3)
    return _flat(
        str(path),
        atoms,
        coordinates,
        n_atoms,
        index,
        np.array(n_bonds),
        flat[:, :2].copy(),
        flat[:, 2].copy(),
    )


def _sdf_record(
    where: str, first: int, record: list[str], atoms: array, coordinates: array, bonds: array, n_atoms: array,
    n_bonds: array,
) -> None:  # fmt: skip
    line = 3
    try:
        if "V2000" not in record[3]:
            raise ValueError("no V2000 in the line of counts")
        na, nb = int(record[3][:3]), int(record[3][3:6])
        if not 0 < na <= _MOST_ATOMS or nb < 0:
            raise ValueError(f"{na} atoms and {nb} bonds")
        for line in range(4, 4 + na):
            text = record[line]
            coordinates.extend((float(text[:10]), float(text[10:20]), float(text[20:30])))
            atoms.append(ATOMIC_NUMBERS[text[31:34].strip()])
        for line in range(4 + na, 4 + na + nb):
            text = record[line]
            a, b, order = int(text[:3]), int(text[3:6]), int(text[6:9])
            if not (1 <= a <= na and 1 <= b <= na and a != b and 1 <= order <= 4):
                raise ValueError(f"atoms {a} and {b} of {na}, bond type {order}")
            bonds.extend((min(a, b) - 1, max(a, b) - 1, order))
    except IndexError as error:
        raise DataError(
            f"{where}: the record ends in line {first + len(record)}, too early: truncated?"
        ) from error
    except KeyError as error:
        raise DataError(
            f"{where}, line {first + line}: element {error}, expected H, C, N, O or F."
        ) from error
    except ValueError as error:
        what = "counts" if line == 3 else "an atom" if line < 4 + na else "a bond"
        raise DataError(f"{where}, line {first + line}: not {what} of the V2000 format ({error}).") from error
    rest = record[4 + na + nb :]
    if not rest[:1] or not rest[0][:1].isalpha() or not any(text.startswith("M  END") for text in rest):
        line = first + 4 + na + nb
        raise DataError(
            f"{where}, line {line}: no M  END after {na} atoms and {nb} bonds: do the counts fit?"
        )
    n_atoms.append(na)
    n_bonds.append(nb)


def read_csv_table(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """The first column of a CSV table as text, the others as numbers by name.

    Args:
        path: the file, with a header.

    Returns:
        The M names, and the columns (M,) float64.

    Raises:
        DataError: for a missing file, a row of another length than the header, or a value that is no number.
    """
    names, values = [], array("d")
    try:
        with open(path, encoding="latin-1", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if not header:
                raise DataError(f"{path}, line 1: nothing, expected the names of the columns.")
            for row in reader:
                if len(row) != len(header):
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(row)} values, expected {len(header)} as in the header."
                    )
                names.append(row[0])
                values.extend(map(float, row[1:]))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}).") from error
    except (ValueError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from error
    table = np.array(values).reshape(len(names), max(len(header) - 1, 0))
    finite = np.isfinite(table).all(1)
    if not finite.all():
        raise DataError(f"{path}: the row of {names[int(finite.argmin())]} has a value that is not finite.")
    return names, {name: table[:, c] for c, name in enumerate(header[1:])}


def read_xyz(source: Path | list[Path]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Molecules and properties from the extended XYZ files of QM9, in the order of the database.

    A file has the number of atoms; ``gdb``, the index and 15 properties; an element, three coordinates and a
    charge for each atom; and more, which is left alone. Exponents may be written ``*^``. There are no bonds:
    they are taken from the distances (``bonds_from_distances``).

    Args:
        source: an archive of such files (``.tar.bz2`` and the like), or a list of them.

    Returns:
        The arrays named at the top of this module, with bond order 0; and the properties (M,) float64 by the
        names of ``XYZ_PROPERTIES``, in the units of the files.

    Raises:
        DataError: for missing, truncated or garbled files, naming file and line.
    """
    molecules = []
    for name, text in _archived(source) if isinstance(source, Path) else _listed(source):
        molecules.append(_xyz_molecule(name, text))
    if not molecules:
        raise DataError(f"{source} holds no .xyz file.")
    molecules.sort(key=lambda molecule: molecule[0])
    index, properties, symbols, positions = zip(*molecules, strict=True)
    count = [len(s) for s in symbols]
    atoms = [z for s in symbols for z in s]
    repeated = np.flatnonzero(np.diff(index) == 0)
    if len(repeated):
        raise DataError(
            f"molecule {index[repeated[0]]} is there twice: two copies of the files in one folder?"
        )
    pos = np.concatenate(positions)
    bond_ptr, bonds = bonds_from_distances(np.concatenate([[0], np.cumsum(count)]), np.array(atoms), pos)
    arrays = _flat(
        "", atoms, pos.ravel(), count, index, np.diff(bond_ptr), bonds, np.zeros(len(bonds), np.uint8)
    )
    table = np.array(properties)
    return arrays, {name: table[:, c] for c, name in enumerate(XYZ_PROPERTIES)}


def _listed(files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for file in files:
        yield str(file), read_text(file)


class _Decompressed(io.RawIOBase):
    """The contents of an archive, no more than a file of its size may hold."""

    def __init__(self, path: Path, file: IO[bytes]):
        self.path, self.file, self.total = path, file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self.file.read(len(buffer))
        self.total += len(data)
        require_plausible(self.path, self.total)
        buffer[: len(data)] = data
        return len(data)


def _archived(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with open(path, "rb") as raw:
            magic = raw.read(6)
        opened = next((opens for begin, opens in _COMPRESSED.items() if magic.startswith(begin)), open)
        with (
            opened(path, "rb") as file,
            tarfile.open(fileobj=_Decompressed(path, file), mode="r|") as archive,
        ):
            for member in archive:
                if not member.name.endswith(".xyz"):
                    continue
                require_plausible(path, member.size)  # of which a sparse member has little in the file
                if (content := archive.extractfile(member)) is not None:
                    yield f"{path}, {member.name}", content.read().decode("latin-1")
    except DataError:
        raise
    except Exception as error:  # whatever a parser of foreign bytes trips over
        raise DataError(f"{path} cannot be read as an archive ({error}): missing or truncated?") from error


def _xyz_molecule(name: str, text: str) -> tuple[int, list[float], list[int], np.ndarray]:
    lines = text.replace("*^", "e").split("\n")
    line = 0
    try:
        n = int(lines[0])
        if not 0 < n <= _MOST_ATOMS:
            raise ValueError(f"{n} atoms")
        line = 1
        fields = lines[1].split()
        if len(fields) != 2 + len(XYZ_PROPERTIES):
            raise ValueError(f"{len(fields)} fields, expected gdb, an index and 15 properties")
        index, properties = int(fields[1]), [float(f) for f in fields[2:]]
        if not 0 <= index < 10**18:
            raise ValueError(f"an index of {len(fields[1])} characters")
        symbols, pos = [], np.empty((n, 3))
        for line in range(2, 2 + n):
            symbol, x, y, z, _ = lines[line].split()[:5]  # the charge shows that z is whole
            symbols.append(ATOMIC_NUMBERS[symbol])
            pos[line - 2] = float(x), float(y), float(z)
    except IndexError as error:
        raise DataError(f"{name}: {len(lines)} lines for {n} atoms: truncated?") from error
    except KeyError as error:
        raise DataError(f"{name}, line {line + 1}: element {error}, expected H, C, N, O or F.") from error
    except ValueError as error:
        raise DataError(f"{name}, line {line + 1}: {lines[line][:60]!r} cannot be read ({error}).") from error
    if not (is_single(pos).all() and np.isfinite(properties).all()):
        raise DataError(f"{name}: a coordinate or a property is not finite.")
    return index, properties, symbols, pos


def bonds_from_distances(ptr: np.ndarray, z: np.ndarray, pos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of atoms of one molecule with |x_a - x_b| < 1.3 (r_a + r_b), r the covalent radii.

    Args:
        ptr: (M + 1,) first atom of each molecule.
        z: (N,) atomic numbers, of H, C, N, O, F.
        pos: (N, 3) in Å.

    Returns:
        ``bond_ptr`` (M + 1,), and ``bonds`` (E, 2) uint8 with a < b, counted from the first atom of the molecule.

    Example:
        >>> from emkernel.data.molecules import bonds_from_distances
        >>> bonds_from_distances(np.array([0, 2]), np.array([1, 1]), np.array([[0.0, 0, 0], [0.74, 0, 0]]))[1]
        array([[0, 1]], dtype=uint8)
    """
    size = np.diff(ptr)
    found, counts = [], []
    for begin in range(0, len(size), 2048):
        part = size[begin : begin + 2048]
        slot = np.arange(part.max(initial=1))
        valid = slot < part[:, None]
        x, radius = np.zeros((*valid.shape, 3)), np.full(valid.shape, -np.inf)
        rows = slice(ptr[begin], ptr[begin + len(part)])
        x[valid], radius[valid] = pos[rows], _COVALENT_RADII[z[rows]]
        reach = np.maximum(1.3 * (radius[:, :, None] + radius[:, None]), 0.0)
        near = ((x[:, :, None] - x[:, None]) ** 2).sum(-1) < reach**2
        near &= slot[:, None] < slot
        owner, a, b = near.nonzero()
        found.append(np.stack([a, b], 1).astype(np.uint8))
        counts.append(np.bincount(owner, minlength=len(part)))
    bond_ptr = np.concatenate([[0], *counts]).cumsum()
    return bond_ptr, np.concatenate(found) if found else np.empty((0, 2), np.uint8)


def read_index_list(path: Path) -> np.ndarray:
    """The indices that begin the lines of a table, such as the uncharacterised molecules of QM9.

    Args:
        path: the file; lines that do not begin with an integer and something more are headers.

    Returns:
        (K,) int64.

    Raises:
        DataError: if the file is missing or lists nothing.
    """
    found = re.findall(r"^\s*([0-9]{1,18})\s+\S", read_text(path), re.MULTILINE)
    index = np.array([int(number) for number in found], np.int64)
    if not len(index):
        raise DataError(f"{path} lists no molecule: truncated? Remove it to keep all molecules.")
    return index


def _flat(
    where: str, atoms, coordinates, n_atoms, index, n_bonds: np.ndarray, bonds: np.ndarray, order: np.ndarray
) -> dict[str, np.ndarray]:  # fmt: skip
    pos = np.array(coordinates, np.float64).reshape(-1, 3)
    ptr = np.concatenate([[0], np.cumsum(np.array(n_atoms, np.int64))])
    finite = is_single(pos).all(1)
    if not finite.all():
        molecule = int(np.searchsorted(ptr, int(finite.argmin()), "right"))
        raise DataError(f"{where}: a coordinate of molecule {molecule} is not finite.")
    return {
        "ptr": ptr,
        "z": np.array(atoms, np.uint8),
        "pos": pos.astype(np.float32),
        "bond_ptr": np.concatenate([[0], np.cumsum(n_bonds)]).astype(np.int64),
        "bonds": bonds,
        "bond_order": order,
        "index": np.array(index, np.int64),
    }
