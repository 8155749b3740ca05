"""A content-addressed store of solved problems: in memory, on disk in the user's cache folder, and as shipped.

The folder is ``$EMKERNEL_STORE`` (``:memory:`` keeps nothing on disk), else ``$XDG_CACHE_HOME/emkernel`` or
``~/.cache/emkernel``. Each entry is one small file, written under a name of its own and renamed, which is atomic on
every file system, shared ones included: any number of processes may read, write and delete at once, and be killed.
What is in no folder is looked up in the read-only file of solutions that comes with the package, unless
``$EMKERNEL_SHIPPED`` is 0.

A cache that cannot be read or written costs time and nothing else: it is reported once, through logging. An entry
opens only if its checksum is right, and whoever reads one verifies the mathematics: nothing is trusted blindly.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from ._entry import LIMIT, VERSION, seal, unseal
from ._shipped import Shipped

__all__ = ["SHIPPED", "Store", "default_store", "problem_key"]

SHIPPED = Path(__file__).with_name("solutions.bin")
ABANDONED = 3600.0  # seconds after which nobody is still writing a temporary file
READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
# what passes: somebody deletes folders at this moment, or on Windows reads the very file
PASSING = (FileNotFoundError, PermissionError) if os.name == "nt" else (FileNotFoundError,)
log = logging.getLogger(__name__)


def problem_key(kind: str, *digests: str) -> str:
    """SHA-256 of the kind of problem and of the contents that define it."""
    return hashlib.sha256("|".join((f"v{VERSION}", kind, *digests)).encode()).hexdigest()


class Store:
    """Arrays by key: in memory, with a folder on disk, and with a shipped file from there.

    Args:
        folder: where entries live, or None for memory alone. A folder that cannot be written is only read.
        shipped: a file of solutions that is asked last and never written.
    """

    def __init__(self, folder: str | os.PathLike | None, shipped: str | os.PathLike | None = None):
        self.folder = None if folder is None else Path(folder).absolute() / f"v{VERSION}"
        self._shipped = None if shipped is None else Shipped(Path(shipped))
        self._memory: dict[str, dict[str, np.ndarray]] = {}
        self._reported: set[str] = set()
        self._swept = False

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays under this key, the caller's own, or None."""
        arrays = self._memory.get(key)
        if arrays is None and self.folder is not None:
            arrays = self._read(key)
        if arrays is None and self._shipped is not None:
            arrays = self._shipped.get(key)
        if arrays is None:
            return None
        self._memory[key] = arrays
        return {name: _own(a) for name, a in arrays.items()}

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Keep a copy of the arrays under this key; on disk when the folder can be written.

        Returns:
            What ``get`` gives from now on. The layout in memory decides the last bits of what is computed from an
            array: whoever goes on with these arrays gets the same bits as whoever reads them later.

        Raises:
            TypeError: an array that is neither numbers nor text.
        """
        data = seal(key, arrays)
        self._memory[key] = {name: _own(np.asarray(a)) for name, a in arrays.items()}
        if self.folder is not None and len(data) <= LIMIT:
            self._write(key, data)
        return {name: _own(a) for name, a in self._memory[key].items()}

    def discard(self, key: str) -> None:
        """Forget a key whose arrays did not pass verification; on disk the next ``put`` replaces them."""
        self._memory.pop(key, None)

    def items(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """The keys met so far and their arrays, in order."""
        for key in sorted(self._memory):
            yield key, {name: _own(a) for name, a in self._memory[key].items()}

    # ---- disk -----------------------------------------------------------------------------------------------

    def _path(self, key: str) -> str:
        return f"{self.folder}{os.sep}{key[:2]}{os.sep}{key}.entry"

    def _read(self, key: str) -> dict[str, np.ndarray] | None:
        path = self._path(key)
        try:
            file = os.open(path, READ)
            try:
                status = os.fstat(file)
                if not stat.S_ISREG(status.st_mode) or status.st_size > LIMIT:
                    raise ValueError(f"it is not a file of at most {LIMIT} bytes")
                with open(file, "rb", buffering=0, closefd=False) as f:
                    data = f.read()
            finally:
                os.close(file)
            return unseal(key, data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as e:
            self._report("reading", f"ignoring the unreadable store entry {path}: {e}")
            return None

    def _write(self, key: str, data: bytes) -> None:
        path = self._path(key)
        temporary = f"{self.folder}{os.sep}tmp{os.sep}{key[:16]}-{secrets.token_hex(8)}.tmp"
        for tries_left in (2, 1, 0):
            try:
                os.makedirs(os.path.dirname(temporary), exist_ok=True)
                self._sweep(os.path.dirname(temporary))
                with open(os.open(temporary, WRITE, 0o666), "wb") as f:
                    f.write(data)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.replace(temporary, path)
                return
            except OSError as e:
                _remove(temporary)
                if tries_left and (isinstance(e, PASSING) or _remove_folder(path)):
                    continue
                self._report("writing", f"the store {self.folder} cannot be written ({e}): solving goes on without")
                return
            except BaseException:
                _remove(temporary)
                raise

    def _sweep(self, folder: str) -> None:
        """Once per store: remove what killed writers left behind."""
        if self._swept:
            return
        self._swept = True
        with suppress(OSError), os.scandir(folder) as files:
            for file in files:
                with suppress(OSError):
                    if time.time() - file.stat(follow_symlinks=False).st_mtime > ABANDONED:
                        os.unlink(file.path)

    def _report(self, what: str, message: str) -> None:
        log.log(logging.DEBUG if what in self._reported else logging.WARNING, message)
        self._reported.add(what)


def _own(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=True)


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _remove_folder(path: str) -> bool:
    """Whether an empty folder was in the way of an entry."""
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


_stores: dict[tuple[str | None, ...], Store] = {}


def default_store() -> Store:
    """The store named by the environment at this moment."""
    where, shipped = os.environ.get("EMKERNEL_STORE"), os.environ.get("EMKERNEL_SHIPPED")
    named: tuple[str | None, ...] = (where, shipped)
    if not where:
        named += tuple(map(os.environ.get, ("XDG_CACHE_HOME", "HOME", "USERPROFILE")))
    if named not in _stores:
        _stores[named] = Store(_folder(where), None if shipped == "0" else SHIPPED)
    return _stores[named]


def _folder(where: str | None) -> Path | None:
    if where == ":memory:":
        return None
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(where).expanduser() if where else (Path(cache) if cache else Path.home() / ".cache") / "emkernel"
    except RuntimeError as e:
        log.warning("there is no folder for the store (%s): solutions stay in memory; $EMKERNEL_STORE names one", e)
        return None
