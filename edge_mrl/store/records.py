"""What a store holds, and how it is written into columns, each with a checksum.

SQLite notices damage to its own structure only: a flipped bit in a text or a code would come back as
it is. So every value that matters is covered by a checksum, compared whenever it is read.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from edge_mrl.codes import INT8, Packing
from edge_mrl.documents import Document, check_metadata, clean
from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DOCUMENT_COLUMNS",
    "KEEP_FULL",
    "Binding",
    "Counts",
    "Entry",
    "checksum",
    "decode_full",
    "decode_metadata",
    "decode_packing",
    "decode_spans",
    "document_check",
    "encode_codes",
    "encode_full",
    "encode_metadata",
    "encode_packing",
    "encode_spans",
    "full_bytes",
    "passage_check",
    "sound_document",
    "sound_passages",
    "text_hash",
]

#: What a store may keep of full vectors; None keeps nothing.
KEEP_FULL = (None, "until-synced", "fp16", "int8")
#: The columns of a document, in the order that ``sound_document`` takes.
DOCUMENT_COLUMNS = "key, id, metadata, source, hash, crc, text"
_SCALE_BYTES = 4
_SPANS_AT_ONCE = 1024
_INTEGER = struct.Struct("<Bq")
_REAL = struct.Struct("<Bd")
_LENGTH = struct.Struct("<BQ")
_NUMBERS = struct.Struct("<3q")


@dataclass(frozen=True, slots=True)
class Binding:
    """Which codes a store has. Codes of another embedding space or code are never stored.

    Attributes:
        space_id: The embedding space.
        code_id: Head, dimensions and scale.
        dim: Dimensions of a code.
        scale: The value that the code 127 stands for.
        bundle: Absolute path of the bundle that was last used.
        full_dim: Dimensions of a full vector; None if the bundle gives none.
        packing: How an int8 code is packed when it is stored.
    """

    space_id: str
    code_id: str
    dim: int
    scale: float
    bundle: str
    full_dim: int | None = None
    packing: Packing = INT8

    @property
    def code(self) -> tuple[str, str]:
        """Embedding space and code: codes can be compared if both are equal."""
        return self.space_id, self.code_id


@dataclass(frozen=True, slots=True)
class Entry:
    """A document, ready to be stored.

    Attributes:
        document: The document.
        spans: Offsets (start, end) of its n passages in its text, in characters.
        codes: int8[n, dim], one for each passage; the store packs them as it keeps them.
        full: float32[n, full_dim], the full vectors, where the store keeps them.
    """

    document: Document
    spans: Sequence[tuple[int, int]]
    codes: NDArray[np.int8]
    full: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many documents and passages a store holds."""

    documents: int
    passages: int


def text_hash(text: str) -> bytes:
    """SHA-256 of the text in UTF-8. A text with the same hash is not embedded again."""
    return hashlib.sha256(clean(text).encode("utf-8")).digest()


def checksum(*parts: bytes | str | float | None) -> int:
    """CRC-32 of values, each as a byte for its type and its bytes (FORMAT.md, "Checksums").

    1, 1.0, "1" and b"1" differ, and no value can flow into the next.
    """
    crc = 0
    for part in parts:
        crc = zlib.crc32(_encoded(part), crc)
    return crc


def _encoded(value: bytes | str | float | None) -> bytes:
    if value is None:
        return b"\x00"
    if isinstance(value, int):
        return _INTEGER.pack(1, value)
    if isinstance(value, float):
        return _REAL.pack(2, value + 0.0)  # SQLite keeps no negative zero
    if isinstance(value, str):
        # Text that is no UTF-8 is read with surrogates in place of its wrong bytes (``file``).
        data = value.encode("utf-8", "surrogateescape")
        return _LENGTH.pack(3, len(data)) + data
    return _LENGTH.pack(4, len(value)) + value


def passage_check(first_row: int, key: int, rows: int, spans: bytes, codes: bytes) -> int:
    """The checksum of a row of ``passages``: of its numbers, its spans and its codes."""
    return zlib.crc32(codes, zlib.crc32(spans, zlib.crc32(_NUMBERS.pack(first_row, key, rows))))


def document_check(
    key: int, identifier: str, metadata: str, source: str | None, digest: bytes
) -> int:
    """The checksum of a document's row; the text is covered by its hash."""
    return checksum(key, identifier, metadata, source, digest)


def sound_document(
    key: int, name: Any, metadata: Any, source: Any, digest: Any, crc: Any, text: Any
) -> bool:
    """Whether a row of ``documents`` is what was written."""
    texts = isinstance(name, str) and isinstance(metadata, str) and isinstance(text, str)
    if not texts or not isinstance(digest, bytes) or not isinstance(source, str | None):
        return False
    right: bool = document_check(key, name, metadata, source, digest) == crc
    return right and text_hash(text) == digest


def sound_passages(first_row: Any, key: Any, rows: Any, spans: Any, codes: Any, crc: Any) -> bool:
    """Whether a row of ``passages`` is what was written."""
    numbers = isinstance(first_row, int) and isinstance(key, int) and isinstance(rows, int)
    if not numbers or not isinstance(spans, bytes) or not isinstance(codes, bytes):
        return False
    right: bool = passage_check(first_row, key, rows, spans, codes) == crc
    return right and len(spans) == 8 * rows


def encode_metadata(document: Document) -> str:
    """Metadata as JSON with sorted keys.

    Raises:
        UsageError: A store cannot keep the metadata, see ``edge_mrl.documents.check_metadata``.
    """
    if not document.metadata:
        return "{}"
    check_metadata(document.metadata, f"document {document.id!r}")
    return json.dumps(dict(document.metadata), ensure_ascii=False, sort_keys=True)


def encode_spans(spans: Sequence[tuple[int, int]]) -> bytes:
    """Offsets as uint32[n, 2]."""
    return np.array(spans, "<u4").tobytes()


class Spans(Sequence[tuple[int, int]]):
    """Offsets (start, end) of passages, made as they are asked for: a document may have 200,000."""

    __slots__ = ("_pairs",)

    def __init__(self, data: bytes) -> None:
        self._pairs = np.frombuffer(data, "<u4").reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._pairs)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        if isinstance(index, slice):
            return [(start, end) for start, end in self._pairs[index].tolist()]
        start, end = self._pairs[index]
        return int(start), int(end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for first in range(0, len(self), _SPANS_AT_ONCE):
            yield from self[first : first + _SPANS_AT_ONCE]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(list(self))


def decode_spans(data: bytes) -> Spans:
    """Offsets (start, end) of each passage."""
    return Spans(data)


def encode_codes(entry: Entry, binding: Binding) -> bytes:
    """The codes of a document's passages, as a store keeps them.

    Raises:
        UsageError: Codes of the wrong type or shape.
    """
    shape = (len(entry.spans), binding.dim)
    if entry.codes.dtype != np.int8 or entry.codes.shape != shape:
        raise UsageError(
            f"codes of document {entry.document.id!r} are "
            f"{entry.codes.dtype}{list(entry.codes.shape)}, expected int8{list(shape)}"
        )
    return binding.packing.pack(entry.codes).tobytes()


def encode_packing(packing: Packing) -> tuple[str, float | None, bytes | None]:
    """A packing as the binding's columns ``stored``, ``step`` and ``centre`` (int8 values)."""
    step = None if packing.step is None else float(packing.step)
    centre = None if packing.centre is None else np.array(packing.centre, np.int8).tobytes()
    return packing.kind, step, centre


def decode_packing(kind: str, step: float | None, centre: bytes | None) -> Packing:
    """The packing that ``encode_packing`` wrote."""
    middle = None if centre is None else tuple(np.frombuffer(centre, np.int8).tolist())
    return Packing(kind, step, middle)


def encode_full(vectors: NDArray[np.float32], keep: str) -> bytes:
    """Full vectors in fewer bytes: float16, or int8 with a float32 scale before each vector."""
    if keep != "int8":
        return vectors.astype("<f2").tobytes()
    scales = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12).astype("<f4")
    codes = np.rint(vectors / scales * 127).astype(np.int8)
    return np.concatenate([scales.view(np.uint8), codes.view(np.uint8)], axis=1).tobytes()


def decode_full(data: bytes, dim: int, keep: str) -> NDArray[np.float32]:
    """float32[n, dim]: the vectors that ``encode_full`` wrote, with its rounding."""
    if keep != "int8":
        return np.frombuffer(data, "<f2").reshape(-1, dim).astype(np.float32)
    rows = np.frombuffer(data, np.uint8).reshape(-1, _SCALE_BYTES + dim)
    scales = np.ascontiguousarray(rows[:, :_SCALE_BYTES]).view("<f4")
    codes = rows[:, _SCALE_BYTES:].view(np.int8).astype(np.float32)
    return codes * (scales.astype(np.float32) / np.float32(127))


def full_bytes(dim: int, keep: str) -> int:
    """Bytes of one full vector, as ``encode_full`` writes it."""
    return _SCALE_BYTES + dim if keep == "int8" else 2 * dim


def decode_metadata(data: str) -> dict[str, Any]:
    """Metadata as it was put."""
    values: dict[str, Any] = json.loads(data)
    return values
