"""Reading and writing at an offset of an open file, also where there is no call for it (Windows)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

__all__ = ["BINARY", "read_at", "read_into", "write_at"]

#: The flag with which a file is opened as bytes. Without it, Windows changes line ends.
BINARY: int = getattr(os, "O_BINARY", 0)
#: One for all files: an offset belongs to a descriptor, and two threads may share one.
_LOCK = threading.Lock()


def _read_at(descriptor: int, size_bytes: int, offset: int) -> bytes:
    with _LOCK:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size_bytes)


#: At most so many bytes of a descriptor from an offset on; fewer at the end of the file.
read_at: Callable[[int, int, int], bytes] = getattr(os, "pread", _read_at)


def read_into(descriptor: int, data: memoryview, offset: int) -> int:
    """Fill the beginning of a buffer from an offset on; returns the number of bytes, 0 at the end."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [data], offset)
    part = read_at(descriptor, len(data), offset)
    data[: len(part)] = part
    return len(part)


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write bytes at an offset; returns how many were written."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    with _LOCK:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)
