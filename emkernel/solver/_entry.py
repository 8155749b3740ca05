"""Arrays as bytes and back: a sealed entry is a header, the names, types and shapes as JSON, and the raw numbers.

The header holds the version of the format, the length and the SHA-256 of key and contents: an entry that was cut,
flipped, written by another program or renamed to another problem's key does not open. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from math import prod

import numpy as np

__all__ = ["LIMIT", "VERSION", "pack", "seal", "unpack", "unseal"]

VERSION = 2
LIMIT = 2**30  # bytes; nothing longer is a solution of ours
MAGIC = b"emkernel"
HEADER = struct.Struct("<8sIQ32s")
KINDS = "biufcUS"


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays by name as bytes, the same bytes for the same contents whatever the layout in memory.

    Raises:
        TypeError: an array that is neither numbers nor text.
    """
    names, parts = [], []
    for name, given in arrays.items():
        a = np.asarray(given)
        if a.dtype.kind not in KINDS:
            raise TypeError(f"the store keeps numbers and text, {name!r} is of type {a.dtype}")
        little = a.dtype.newbyteorder("<")
        names.append([name, little.str, a.shape])
        parts.append(a.astype(little, copy=False).tobytes())
    head = json.dumps(names, separators=(",", ":")).encode()
    return b"".join((len(head).to_bytes(4, "little"), head, *parts))


def unpack(body: bytes) -> dict[str, np.ndarray]:
    """The arrays, as read-only views of the bytes.

    Raises:
        ValueError: these are not the bytes of arrays.
    """
    at = 4 + int.from_bytes(body[:4], "little")
    arrays = {}
    try:
        for name, code, shape in json.loads(body[4:at]):
            dtype = np.dtype(code)
            if dtype.kind not in KINDS:
                raise ValueError(f"{name!r} is of type {dtype}")
            arrays[name] = np.ndarray(tuple(shape), dtype, body, at)
            at += prod(shape) * dtype.itemsize
    except (TypeError, ValueError) as e:
        raise ValueError(f"it holds no arrays: {e}") from e
    if at != len(body):
        raise ValueError(f"its arrays take {at} bytes of {len(body)}")
    return arrays


def seal(key: str, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The whole entry of these arrays under this key."""
    body = pack(arrays)
    return HEADER.pack(MAGIC, VERSION, len(body), _digest(key, body)) + body


def unseal(key: str, data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an entry.

    Raises:
        ValueError: damaged, of another format or version, or the answer to another problem.
    """
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise ValueError("it is no entry of this store")
    _, version, length, digest = HEADER.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"it is of version {version}, not {VERSION}")
    body = data[HEADER.size :]
    if len(body) != length:
        raise ValueError(f"it has {len(body)} bytes of {length}")
    if _digest(key, body) != digest:
        raise ValueError("its checksum is wrong: damaged, or the answer to another problem")
    return unpack(body)


def _digest(key: str, body: bytes) -> bytes:
    h = hashlib.sha256(key.encode())
    h.update(body)
    return h.digest()
