"""Codes that are read from the code file where they are needed, and kept where they are needed often.

The file is read and never mapped: a mapped file that another process cuts short, or whose medium fails,
ends the process by a signal (SIGBUS). A read returns an error, and the rows are taken from SQLite.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edge_mrl.machine import facts, read_at, read_into
from edge_mrl.store.codefile.compiled import take_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CodeFileError", "Codes", "FiledCodes", "Reader"]

#: A segment's codes are read as a whole once this share of its rows was asked for. 2,048 rows one by
#: one take 3 ms, all 32,768 of them 1.5 ms: whoever asks once waits for few rows, and who asks again
#: finds all of them in memory. At 1M rows that is so from the 13th search on.
WHOLE_SHARE = 16
#: The share of this machine's memory that codes may take.
MEMORY_SHARE = 4
#: What they may take where the machine does not say how much memory it has.
UNKNOWN_BYTES = 256 << 20


class CodeFileError(Exception):
    """The code file is missing or is not the one that the store needs: it has to be made again."""


class Codes(Protocol):
    """The codes of a segment: an array, or a ``FiledCodes``."""

    def take(self, indices: NDArray[np.int64], axis: int, out: NDArray[Any]) -> NDArray[Any]:
        """Copy rows; see ``numpy.take``."""


class Reader:
    """Reads an open file into arrays.

    Attributes:
        descriptor: The file, or -1 once it is closed.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._room: int | None = None

    def read(self, data: memoryview, offset: int) -> None:
        """Fill a buffer with the file's bytes from an offset on.

        Raises:
            CodeFileError: The file ends before, or its medium fails.
        """
        try:
            while data:
                count = read_into(self.descriptor, data, offset)
                if not count:
                    raise CodeFileError("it is truncated")
                data, offset = data[count:], offset + count
        except OSError as error:
            raise CodeFileError(f"it cannot be read: {error.strerror}") from error

    def rows(self, indices: NDArray[np.int64], offset: int, stride: int) -> NDArray[np.uint8]:
        """Read rows one by one: uint8[n, stride].

        Raises:
            CodeFileError: The file ends before, or its medium fails.
        """
        descriptor, read = self.descriptor, read_at
        try:
            places = (offset + indices * stride).tolist()
            data = b"".join([read(descriptor, stride, place) for place in places])
        except OSError as error:
            raise CodeFileError(f"it cannot be read: {error.strerror}") from error
        if len(data) != len(indices) * stride:
            raise CodeFileError("it is truncated")
        return np.frombuffer(data, np.uint8).reshape(-1, stride)

    def reserve(self, size_bytes: int) -> bool:
        """Whether so many bytes more may be kept in memory."""
        if self._room is None:
            self._room = _room_bytes()
        if size_bytes > self._room:
            return False
        self._room -= size_bytes
        return True


class FiledCodes:
    """The codes of one segment in the file.

    Args:
        reader: The file.
        offset: Where they begin, in bytes.
        shape: Rows of a segment, and bytes of a row.
        filed: How many of the rows are filed: more may follow.
    """

    def __init__(self, reader: Reader, offset: int, shape: tuple[int, int], filed: int) -> None:
        self.filed = filed
        self._reader = reader
        self._offset = offset
        self._shape = shape
        self._asked = 0
        self._kept: NDArray[np.uint8] | None = None
        self._read = 0

    def take(self, indices: NDArray[np.int64], axis: int, out: NDArray[Any]) -> NDArray[Any]:
        """Copy rows; see ``numpy.take``.

        Raises:
            CodeFileError: The file ends before, or its medium fails.
        """
        rows, stride = self._shape
        whole = self._kept
        if whole is None:
            self._asked += len(indices)
            often = self._asked * WHOLE_SHARE >= self.filed
            if often and self._reader.reserve(rows * stride):
                with suppress(MemoryError):  # rows are read one by one, as before
                    whole = self._kept = np.empty(self._shape, np.uint8)
        if whole is None:
            if len(indices) * WHOLE_SHARE >= self.filed:  # a scan of all rows
                return self._fill(np.empty(self._shape, np.uint8), 0).take(indices, axis, out)
            out[:] = self._reader.rows(indices, self._offset, stride)
            return out
        if self._read < self.filed:
            self._fill(whole, self._read)
            self._read = self.filed
        return take_rows(whole, indices, out)

    def _fill(self, whole: NDArray[np.uint8], first: int) -> NDArray[np.uint8]:
        part = whole[first : self.filed].reshape(-1).data
        self._reader.read(part, self._offset + first * self._shape[1])
        return whole


def _room_bytes() -> int:
    memory = facts.memory()
    known = [size for size in (memory.total_bytes, memory.limit_bytes) if size is not None]
    return min(known) // MEMORY_SHARE if known else UNKNOWN_BYTES
