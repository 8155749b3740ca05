"""A content-addressed store of solved problems: in memory, and on disk as .npz files under the user's cache folder.

The folder is ``$EMKERNEL_STORE`` (``:memory:`` keeps nothing on disk), else ``$XDG_CACHE_HOME/emkernel`` or
``~/.cache/emkernel``. Entries are written to a temporary file and renamed, so a reader sees a whole entry or none;
one that cannot be read is dropped and solved again. Whoever reads an entry verifies it: nothing is trusted blindly.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

__all__ = ["Store", "default_store", "problem_key"]

VERSION = 1
log = logging.getLogger("emkernel")


def problem_key(kind: str, *digests: str) -> str:
    """SHA-256 of the kind of problem and of the contents that define it."""
    return hashlib.sha256("|".join((f"v{VERSION}", kind, *digests)).encode()).hexdigest()


class Store:
    """Arrays by key, in memory and, with a folder, on disk.

    Args:
        folder: where entries live, or None for memory alone. A folder that cannot be written is only read.
    """

    def __init__(self, folder: str | os.PathLike | None):
        self.folder = None if folder is None else Path(folder) / f"v{VERSION}"
        self._memory: dict[str, dict[str, np.ndarray]] = {}

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays under this key, or None."""
        if key in self._memory:
            return self._memory[key]
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            with np.load(path, allow_pickle=False) as entry:
                arrays = {name: entry[name] for name in entry.files}
            if str(arrays.pop("key")) != key:
                raise ValueError("the entry answers another problem")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as e:
            log.warning("ignoring the unreadable store entry %s (%s)", path, e)
            return None
        self._memory[key] = arrays
        return arrays

    def put(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep the arrays under this key; on disk when the folder can be written."""
        self._memory[key] = arrays
        if self.folder is None:
            return
        path = self._path(key)
        temporary = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as f:
                temporary = f.name
                np.savez(f, key=np.array(key), **arrays)
            os.replace(temporary, path)
        except OSError as e:
            log.debug("store %s is not writable (%s); keeping solutions in memory", self.folder, e)
            if temporary is not None and os.path.exists(temporary):
                os.unlink(temporary)

    def discard(self, key: str) -> None:
        """Forget a key whose arrays did not pass verification."""
        self._memory.pop(key, None)


_stores: dict[str, Store] = {}


def default_store() -> Store:
    """The store named by the environment at this moment."""
    where = os.environ.get("EMKERNEL_STORE")
    if not where:
        where = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emkernel")
    if where not in _stores:
        _stores[where] = Store(None if where == ":memory:" else where)
    return _stores[where]
