"""Parsed data sets kept in the user's cache folder, so that slow text formats are read once."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from .._progress import working
from ..errors import DataError
from .formats import read_npz

__all__ = ["cached_arrays"]

_VERSION = 1  # raise it when a parser changes what it returns


def cached_arrays(
    kind: str, files: Iterable[Path], build: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays of ``build()``, from the cache where the same files were parsed before.

    An entry is known by ``kind`` and by name, size and time of modification of the files, is written to a
    temporary file and moved into place, and is read back only if it is whole. A folder that cannot be written
    means no cache, nothing worse. The folder is ``data`` in that of the solver's store: ``$EMKERNEL_STORE``
    (``:memory:`` keeps nothing on disk), else ``$XDG_CACHE_HOME/emkernel`` or ``~/.cache/emkernel``.
    """
    digest = hashlib.sha256(f"{_VERSION} {kind}\n".encode())
    for file in files:
        try:
            stat = file.stat()
        except OSError as error:
            raise DataError(f"{file} cannot be read ({error}).") from error
        digest.update(f"{file.parent.name}/{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    key = digest.hexdigest()
    folder = _folder()
    if folder is None:
        return build()
    entry = folder / f"{key}.npz"
    with suppress(DataError, OSError):
        arrays = read_npz(entry, ("key",))
        if str(arrays.pop("key")) == key:
            return arrays
    with working(f"reading {kind}, once"):
        arrays = build()
    with suppress(OSError):
        _write(entry, {"key": np.array(key), **arrays})
    return arrays


def _folder() -> Path | None:
    where = os.environ.get("EMKERNEL_STORE")
    if where:
        return None if where == ":memory:" else Path(where) / "data"
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "emkernel" / "data"
    except RuntimeError:  # a user without a home folder
        return None


def _write(entry: Path, arrays: dict[str, np.ndarray]) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=entry.parent, prefix=entry.stem[:8], suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(name, entry)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
