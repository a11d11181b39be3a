"""The code file: all codes of a store in columns (FORMAT.md, "Code file").

SQLite holds the truth. This file is a copy of it in the order that search reads, and what in it does
not agree with the checksums is read from SQLite again. Rows are only appended. Where rows get new
numbers, a new file with a new generation is written and renamed into place.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from edge_mrl.codes import INT8, PLANES, Packing, planes_of, splitmix64
from edge_mrl.machine import BINARY, read_at, sync_path, write_at
from edge_mrl.store.codefile.column import CodeFileError, Codes, FiledCodes, Reader
from edge_mrl.store.codefile.compiled import checks_of
from edge_mrl.store.engine.modes import PRIVATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "GENERATION_BYTES",
    "SEGMENT_ROWS",
    "CodeFile",
    "ForeignFileError",
    "Layout",
    "Segment",
    "code_path",
    "require_ours",
    "row_checks",
]

MAGIC = b"eMRLcode"
VERSION = 1
GENERATION_BYTES = 16
#: Rows of a segment, whose columns lie one behind the other. At 128 dimensions 5.1 MB: small enough
#: for a small store, large enough that numpy's overhead per call does not show (1M rows scan in
#: 1.4 ms with 32,768 rows, 1.25 ms with 65,536, 1.9 ms with 8,192).
SEGMENT_ROWS = 32_768
#: Segments start at multiples of the largest page size in use (64 KiB on some ARM kernels), so that
#: they can be mapped.
ALIGNMENT = 65_536
_HEADER = struct.Struct(f"<8sIII{GENERATION_BYTES}s")
_CRC = struct.Struct("<I")


class ForeignFileError(CodeFileError):
    """There is another program's file with this name: it is left as it is."""


def code_path(store: Path) -> Path:
    """The path of a store's code file, beside the store."""
    return store.with_name(f"{store.name}-codes")


@cache
def _multipliers(count: int) -> NDArray[np.uint64]:
    """uint64[count]: odd numbers, the outputs of SplitMix64 (Steele et al., 2014) from 0, | 1."""
    return np.array([number | 1 for number in islice(splitmix64(), count)], np.uint64)


def row_checks(
    codes: NDArray[np.uint8] | NDArray[np.uint64],
    keys: NDArray[np.uint32],
    rows: NDArray[np.int64],
) -> NDArray[np.uint32]:
    """Check values of rows: a multiply-add hash of code, key and row number, its upper half.

    The multipliers are odd, so that any single flipped bit changes the hash.

    Args:
        codes: uint8[n, a multiple of 8], the rows' codes with zeros behind them; or uint64[words, n],
            the words of codes that are kept as planes.
        keys: uint32[n].
        rows: int64[n], the rows' numbers in the store.

    Returns:
        uint32[n].
    """
    words = codes.T if codes.dtype == np.uint64 else np.ascontiguousarray(codes).view(np.uint64)
    factors = _multipliers(words.shape[1] + 2)
    if (found := checks_of(words, keys, rows, factors)) is not None:
        return found
    hashes: NDArray[np.uint64] = words @ factors[2:]
    hashes += keys.astype(np.uint64) * factors[0]
    hashes += (rows.astype(np.uint64) + np.uint64(1)) * factors[1]
    checks: NDArray[np.uint32] = (hashes >> np.uint64(32)).astype(np.uint32)
    return checks


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the columns of a segment lie, for codes of one size.

    Attributes:
        dim: Dimensions.
        rows: Rows of a segment, a multiple of 64.
        packing: What the codes are. Those that are kept as planes lie in the columns of bits alone.
    """

    dim: int
    rows: int = SEGMENT_ROWS
    packing: Packing = INT8

    @property
    def words(self) -> int:
        """64-bit words of a row's 1-bit code."""
        return -(-self.dim // 64)

    @property
    def planes(self) -> int:
        """Planes of bits: 1, or as many as the code has where it is kept as planes."""
        return PLANES.get(self.packing.kind, 1)

    @property
    def code_bytes(self) -> int:
        """Bytes of a row's code, as the database holds it."""
        return self.packing.bytes(self.dim)

    @property
    def stride(self) -> int:
        """Bytes of a row's code in the column of codes, zeros up to a multiple of 8."""
        return 0 if self.packing.kind in PLANES else -(-self.code_bytes // 8) * 8

    @property
    def columns(self) -> int:
        """Columns with a checksum: the words of all planes, then the checks, then the keys."""
        return self.planes * self.words + 2

    @property
    def segment_bytes(self) -> int:
        """Bytes from one segment's start to the next's."""
        used = self.rows * (8 * self.planes * self.words + 4 + 4 + self.stride)
        return -(-used // ALIGNMENT) * ALIGNMENT

    def file_bytes(self, rows: int) -> int:
        """Bytes of a file with this many rows, in whole segments."""
        return ALIGNMENT + -(-rows // self.rows) * self.segment_bytes

    def pack(
        self, codes: NDArray[np.uint8] | NDArray[np.int8], keys: NDArray[np.uint32], first_row: int
    ) -> Segment:
        """The columns of some rows, in memory.

        Args:
            codes: uint8[n, code_bytes], or int8 codes where these are kept.
            keys: uint32[n], the keys of their documents.
            first_row: The first one's number in the store.
        """
        stored = codes.view(np.uint8)
        rows = np.arange(first_row, first_row + len(stored), dtype=np.int64)
        padded = np.zeros((len(stored), self.stride), np.uint8)
        if not self.stride:
            words = planes_of(stored, self.dim, self.planes)
            return Segment(words, row_checks(words, keys, rows), keys, padded)
        padded[:, : self.code_bytes] = stored
        words = self.bit_words(self.packing.unpack(stored, self.dim))
        return Segment(words, row_checks(padded, keys, rows), keys, padded)

    def stored(self, codes: NDArray[np.uint8] | NDArray[np.uint64]) -> NDArray[np.uint8]:
        """The codes of rows as the database holds them.

        Args:
            codes: uint8[n, stride], or uint64[planes * words, n] of codes that are kept as planes.

        Returns:
            uint8[n, code_bytes].
        """
        if codes.dtype != np.uint64:
            return codes.view(np.uint8)[:, : self.code_bytes]
        size = -(-self.dim // 8)
        rows = np.ascontiguousarray(codes.T, "<u8").view(np.uint8)
        planes = rows.reshape(len(rows), self.planes, 8 * self.words)[:, :, :size]
        return planes.reshape(len(rows), self.code_bytes)

    def bit_words(self, codes: NDArray[np.int8]) -> NDArray[np.uint64]:
        """The 1-bit codes of int8[n, dim] as words, uint64[words, n], zeros behind them."""
        return planes_of(self.packing.bits(codes), self.dim, 1)


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows in columns.

    Attributes:
        bits: uint64[words, n], the 1-bit codes, a word of every row after the other; of codes that are
            kept as planes, the other planes in the same way behind them.
        checks: uint32[n], see ``row_checks``.
        keys: uint32[n], the rows' documents.
        codes: uint8[n, stride], the int8 or int4 codes with zeros behind them; no bytes for planes.
            Those of a file are read where they are taken.
    """

    bits: NDArray[np.uint64]
    checks: NDArray[np.uint32]
    keys: NDArray[np.uint32]
    codes: Codes

    def first(self, count: int) -> Segment:
        """Its first rows, not copied; the codes of those behind them are there, too."""
        some = slice(count)
        return Segment(self.bits[:, some], self.checks[some], self.keys[some], self.codes)

    def all_codes(self, width: int) -> NDArray[np.uint8]:
        """uint8[n, width]: the codes of all rows.

        Raises:
            CodeFileError: They cannot be read from the file.
        """
        rows = np.arange(len(self.keys))
        return self.codes.take(rows, 0, np.empty((len(rows), width), np.uint8))

    def checksums(self, start: int, stop: int, before: tuple[int, ...]) -> tuple[int, ...]:
        """CRC-32 of each column but the codes, which their checks cover; goes on from ``before``."""
        columns = (*self.bits, self.checks, self.keys)
        return tuple(
            zlib.crc32(column[start:stop], crc) for column, crc in zip(columns, before, strict=True)
        )


class CodeFile:
    """An open code file. Its rows are bytes until their checksums are compared.

    Attributes:
        layout: Where the columns lie.
        generation: 16 bytes that are also in the store's state.
    """

    def __init__(self, descriptor: int, layout: Layout, generation: bytes, path: Path) -> None:
        self.layout = layout
        self.generation = generation
        self._reader = Reader(descriptor)
        self._path = path
        self._read: dict[int, tuple[Segment, FiledCodes]] = {}

    @classmethod
    def open(cls, path: Path, layout: Layout, generation: bytes, *, write: bool = False) -> Self:
        """Open the file of one generation.

        Raises:
            CodeFileError: The file is missing, or has another generation or shape.
            ForeignFileError: The file is not a code file.
        """
        flags = (os.O_RDWR if write else os.O_RDONLY) | BINARY
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError as error:
            raise CodeFileError("it is missing") from error
        except OSError as error:
            raise CodeFileError(f"it cannot be opened: {error.strerror}") from error
        file = cls(descriptor, layout, generation, path)
        try:
            file._check_header()
        except BaseException:
            file.close()
            raise
        return file

    @classmethod
    def create(cls, path: Path, layout: Layout, generation: bytes) -> Self:
        """Start a new file under a temporary name beside ``path``; ``install`` renames it to ``path``.

        Raises:
            ForeignFileError: There is another program's file at ``path``.
            OSError: The file cannot be written.
        """
        require_ours(path)
        temporary = path.with_name(f"{path.name}-new")
        require_ours(temporary)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | BINARY
        descriptor = os.open(temporary, flags, PRIVATE)
        file = cls(descriptor, layout, generation, temporary)
        head = _HEADER.pack(MAGIC, VERSION, layout.dim, layout.rows, generation)
        try:
            _write(descriptor, head + _CRC.pack(zlib.crc32(head)), 0)
        except BaseException:
            file.discard()
            raise
        return file

    def install(self, path: Path) -> None:
        """Sync a created file, close it and rename it to ``path``; who has an older one open can read it.

        Windows renames only what is closed. If somebody has the older one open there, it is an OSError.
        """
        self.sync()
        self.close()
        self._path = self._path.replace(path)
        sync_path(path.absolute().parent)

    def append(self, rows: Segment, first_row: int) -> None:
        """Write rows at their place. They are used once the store's state includes them.

        Raises:
            OSError: The rows could not be written, for example because the disk is full.
        """
        self._grow(first_row + len(rows.keys))
        codes = rows.all_codes(self.layout.stride)
        for segment, start, stop in self._parts(first_row, first_row + len(rows.keys)):
            origin = ALIGNMENT + segment * self.layout.segment_bytes
            first = segment * self.layout.rows + start - first_row
            some = slice(first, first + stop - start)
            at = origin
            for column in (*rows.bits, rows.checks, rows.keys):
                self._write(column[some], at + start * column.itemsize)
                at += self.layout.rows * column.itemsize
            self._write(codes[some], at + start * self.layout.stride)

    def sync(self) -> None:
        """Wait until what was written is on disk: one fdatasync."""
        getattr(os, "fdatasync", os.fsync)(self._reader.descriptor)

    def segment(self, number: int, filed: int) -> Segment:
        """The filed rows of a segment, in memory but for the codes. What was read is not read again.

        Args:
            number: The segment's.
            filed: How many of its rows are filed.

        Raises:
            CodeFileError: The file is too short, or its medium fails.
            MemoryError: There is no memory left to read it. The file itself may be intact.
        """
        segment, codes = self._read.get(number) or self._empty(number)
        start, at = codes.filed, ALIGNMENT + number * self.layout.segment_bytes
        if start >= filed:
            return segment.first(filed)
        for column in (*segment.bits, segment.checks, segment.keys):
            part = column[start:filed].view(np.uint8).data
            self._reader.read(part, at + start * column.itemsize)
            at += self.layout.rows * column.itemsize
        if self.layout.stride:  # codes that are missing are noticed now
            self._reader.rows(np.array([filed - 1]), at, self.layout.stride)
        codes.filed = filed
        self._read[number] = segment, codes
        return segment.first(filed)

    def forget(self, number: int) -> None:
        """Read a segment again when it is needed next."""
        self._read.pop(number, None)

    def close(self) -> None:
        """Close the file; codes that were not read yet are read from SQLite then."""
        self._read.clear()
        descriptor, self._reader.descriptor = self._reader.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def discard(self) -> None:
        """Close and remove a created file that was not installed."""
        self.close()
        self._path.unlink(missing_ok=True)

    def _empty(self, number: int) -> tuple[Segment, FiledCodes]:
        layout = self.layout
        rows, words = layout.rows, layout.columns - 2
        at = ALIGNMENT + number * layout.segment_bytes + rows * (8 * words + 8)
        codes = FiledCodes(self._reader, at, (rows, layout.stride), 0)
        bits = np.empty((words, rows), np.uint64)
        checks, keys = np.empty(rows, np.uint32), np.empty(rows, np.uint32)
        return Segment(bits, checks, keys, codes), codes

    def _write(self, rows: NDArray[Any], offset: int) -> None:
        _write(self._reader.descriptor, rows.tobytes(), offset)

    def _parts(self, first_row: int, after: int) -> Iterator[tuple[int, int, int]]:
        """Segments that a range of rows touches: number, and the rows [start, stop) within it."""
        size = self.layout.rows
        for segment in range(first_row // size, -(-after // size)):
            start = max(first_row - segment * size, 0)
            yield segment, start, min(after - segment * size, size)

    def _grow(self, rows: int) -> None:
        size = self.layout.file_bytes(rows)
        if os.fstat(self._reader.descriptor).st_size < size:
            os.ftruncate(self._reader.descriptor, size)

    def _check_header(self) -> None:
        try:
            data = read_at(self._reader.descriptor, _HEADER.size + _CRC.size, 0)
        except OSError as error:
            raise CodeFileError(f"it cannot be read: {error.strerror}") from error
        if not data.startswith(MAGIC):
            if data.strip(b"\0"):
                raise ForeignFileError("it is not a code file")
            raise CodeFileError("it has no header")
        if len(data) < _HEADER.size + _CRC.size:
            raise CodeFileError("it is truncated")
        if _CRC.unpack_from(data, _HEADER.size)[0] != zlib.crc32(data[: _HEADER.size]):
            raise CodeFileError("its header is damaged")
        _, version, dim, rows, generation = _HEADER.unpack_from(data)
        if version != VERSION:
            raise CodeFileError(f"it has version {version}")
        if (dim, rows, generation) != (self.layout.dim, self.layout.rows, self.generation):
            raise CodeFileError("it belongs to another state of the store")


def require_ours(path: Path) -> None:
    """Raise ForeignFileError if there is a file at this path that no store made."""
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise ForeignFileError(f"it cannot be read: {error.strerror}") from error
    if head.strip(b"\0") and head != MAGIC:
        raise ForeignFileError("it is not a code file")


def _write(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = write_at(descriptor, view, offset)
        view, offset = view[written:], offset + written
