"""Solutions in one read-only file: blocks of entries that are used together, compressed, behind an index of keys."""

from __future__ import annotations

import hashlib
import logging
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ._entry import VERSION, pack, unpack

__all__ = ["Shipped", "ship"]

MAGIC = b"emkships"
HEADER = struct.Struct("<8sIII32s")  # magic, version, entries, blocks, SHA-256 of the index
KEY = 16  # bytes of a key that the index holds
ROW = np.dtype([("block", "<u4"), ("length", "<u4")])
BLOCK = np.dtype([("length", "<u4"), ("digest", "V32")])
log = logging.getLogger(__name__)


class Shipped:
    """The entries of one file, opened when first asked for.

    Args:
        path: the file; one that is missing, damaged or of another version answers nothing.
    """

    def __init__(self, path: Path):
        self.path = path
        self._index: dict[bytes, tuple[int, int, int]] | None = None  # key -> block, place in it, length
        self._compressed: list[tuple[bytes, bytes]] = []  # of each block: its bytes, and the digest of what they hold
        self._blocks: dict[int, bytes] = {}

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays under this key, or None."""
        try:
            if self._index is None:
                self._compressed, self._index = _open(self.path)
            row = self._index.get(bytes.fromhex(key)[:KEY])
            if row is None:
                return None
            block, start, length = row
            if block not in self._blocks:
                self._blocks[block] = _decompress(*self._compressed[block])
            return unpack(self._blocks[block][start : start + length])
        except FileNotFoundError as e:
            log.debug("nothing is shipped: %s", e)
        except (OSError, ValueError, zlib.error) as e:
            log.warning("ignoring the shipped solutions in %s: %s", self.path, e)
        self._index = {}
        return None


def _open(path: Path) -> tuple[list[tuple[bytes, bytes]], dict[bytes, tuple[int, int, int]]]:
    data = path.read_bytes()
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise ValueError("it holds no solutions")
    _, version, entries, blocks, digest = HEADER.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"it is of version {version}, not {VERSION}")
    lengths = HEADER.size + entries * KEY
    heads = lengths + entries * ROW.itemsize
    at = heads + blocks * BLOCK.itemsize
    if hashlib.sha256(data[HEADER.size : at]).digest() != digest:
        raise ValueError("its index is damaged")
    compressed, index, filled = [], {}, [0] * blocks
    for length, content in np.frombuffer(data, BLOCK, blocks, heads).tolist():
        compressed.append((data[at : at + length], content))
        at += length
    for i, (block, length) in enumerate(np.frombuffer(data, ROW, entries, lengths).tolist()):
        key = HEADER.size + KEY * i
        index[data[key : key + KEY]] = block, filled[block], length
        filled[block] += length
    return compressed, index


def _decompress(data: bytes, digest: bytes) -> bytes:
    block = zlib.decompress(data)
    if hashlib.sha256(block).digest() != digest:
        raise ValueError("a block of it is damaged")
    return block


def ship(path: Path, blocks: Iterable[Mapping[str, Mapping[str, np.ndarray]]]) -> None:
    """Write a file that ``Shipped`` reads: the same bytes for the same blocks of {key: arrays}."""
    index: dict[str, tuple[int, int]] = {}
    heads, data = [], []
    for number, block in enumerate(blocks):
        packed = {key: pack(block[key]) for key in sorted(block) if key not in index}
        index |= {key: (number, len(body)) for key, body in packed.items()}
        raw = b"".join(packed.values())
        data.append(zlib.compress(raw, 9))
        heads.append((len(data[-1]), hashlib.sha256(raw).digest()))
    head = b"".join(
        (
            *(bytes.fromhex(key)[:KEY] for key in index),
            np.array(list(index.values()), ROW).tobytes(),
            np.array(heads, BLOCK).tobytes(),
        )
    )
    seal = HEADER.pack(MAGIC, VERSION, len(index), len(heads), hashlib.sha256(head).digest())
    path.write_bytes(b"".join((seal, head, *data)))
