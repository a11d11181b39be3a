"""Frames: messages of JSON and raw vectors between devices and servers (FORMAT.md, "Wire").

Both sides read them from peers that may be broken or hostile. So each length is checked before memory is
allocated, and anything wrong raises WireError and no other exception.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from edge_mrl.documents import clean, id_problem, metadata_problem, shorten, text_problem
from edge_mrl.errors import WireError
from edge_mrl.wire.clock import format_stamp, parse_stamp

__all__ = [
    "CONTENT_TYPE",
    "MAX_BODY_BYTES",
    "MAX_IDS",
    "MAX_ITEMS",
    "MAX_PASSAGES",
    "PROTOCOL",
    "STATUSES",
    "Item",
    "Message",
    "UnreadableItem",
    "check_id",
    "decode_items",
    "decode_message",
    "decode_readable_items",
    "digest",
    "encode_items",
    "encode_message",
    "matches_digest",
]

#: The value of the header Edge-MRL-Protocol.
PROTOCOL = "1"
CONTENT_TYPE = "application/vnd.edge-mrl"
#: Limits of one push: about a second of a slow uplink, and ten milliseconds of a server.
MAX_ITEMS = 512
MAX_BODY_BYTES = 1 << 20
#: Most ids in one rerank request.
MAX_IDS = 1_000
MAX_ID_BYTES = 512
MAX_PASSAGES = 65_535
#: The answers of a server for each item of a push.
STATUSES = ("applied", "stale", "clock_ahead", "invalid", "too_large", "forbidden")
_LENGTH = struct.Struct("<I")
_TYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
}
_ITEM_KEYS = frozenset({"id", "v", "n", "del", "by", "text", "meta", "spans"})


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """A frame.

    Attributes:
        header: The JSON object, without the keys that describe the vectors.
        vectors: float16, float32 or int8 [n, dim], or uint8[n, bytes] of packed codes; n may be 0.
    """

    header: Mapping[str, Any]
    vectors: NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A document in a frame.

    Attributes:
        id: The document's id.
        stamp: The stamp of its version.
        vectors: [n, dim], one vector per passage; n is 0 if it was deleted or has no passages.
        deleted: Whether this is a tombstone.
        device: The device that wrote the version; None in a push, where the token identifies it.
        text: Its text, or None if text is not sent.
        metadata: Its metadata, or None if metadata is not sent.
        spans: Start and end of each passage in the text, in characters; empty without text.
        problem: Why its text or metadata cannot be stored, in words; it then has neither. None if all is
            well.
    """

    id: str
    stamp: int
    vectors: NDArray[Any]
    deleted: bool = False
    device: str | None = None
    text: str | None = None
    metadata: Mapping[str, Any] | None = None
    spans: Sequence[tuple[int, int]] = field(default=())
    problem: str | None = None


def encode_message(header: Mapping[str, Any], vectors: NDArray[Any]) -> bytes:
    """Write a frame.

    Args:
        header: JSON values by name, without the names ``dtype`` and ``dim``.
        vectors: float16, float32 or int8 [n, dim], or uint8[n, bytes] of packed codes.
    """
    name = vectors.dtype.name
    whole = {**header, "dtype": name, "dim": int(vectors.shape[1])}
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    data = text.encode("utf-8")
    payload = np.ascontiguousarray(vectors, dtype=_TYPES[name]).tobytes()
    return b"".join((_LENGTH.pack(len(data)), data, payload))


def decode_message(data: bytes | memoryview) -> Message:
    """Read a frame.

    Raises:
        WireError: The bytes are not a frame.
    """
    if len(data) < _LENGTH.size:
        raise WireError(f"a frame of {len(data)} bytes: expected at least {_LENGTH.size}")
    (size,) = _LENGTH.unpack_from(data)
    start = _LENGTH.size + size
    if start > len(data):
        raise WireError(f"a frame's header has {size} bytes, only {len(data) - 4} are there")
    header = _parse(bytes(data[_LENGTH.size : start]))
    kind, dim = header.pop("dtype", None), header.pop("dim", None)
    if not isinstance(kind, str) or kind not in _TYPES:
        raise WireError(f"dtype {kind!r:.40}: expected one of {', '.join(_TYPES)}")
    if not _is_count(dim) or not 0 < dim <= MAX_PASSAGES:
        raise WireError(f"dim {dim!r:.40}: expected a number from 1 to {MAX_PASSAGES}")
    step = _TYPES[kind].itemsize * dim
    if (len(data) - start) % step:
        raise WireError(f"{len(data) - start} bytes of vectors: not a multiple of {step}")
    vectors = np.frombuffer(data, _TYPES[kind], offset=start).reshape(-1, dim)
    return Message(header, vectors)


def encode_items(header: Mapping[str, Any], items: Sequence[Item], *, like: NDArray[Any]) -> bytes:
    """Write a frame of documents.

    Args:
        header: Other JSON values by name.
        items: The documents.
        like: An array with the type and dimensions of the vectors, for frames without vectors.
    """
    rows = [item.vectors for item in items if len(item.vectors)]
    vectors = np.concatenate(rows) if rows else like[:0]
    return encode_message({**header, "items": [_describe(item) for item in items]}, vectors)


def decode_items(message: Message, *, most: int = MAX_ITEMS) -> list[Item]:
    """The documents of a frame.

    Raises:
        WireError: An item breaks the specification, or there are more than ``most``.
    """
    items, at = [], 0
    for place, row in enumerate(_item_rows(message, most)):
        try:
            item = _item(row, message.vectors, at)
        except WireError as error:
            raise WireError(f"item {place}: {error}") from error
        at += len(item.vectors)
        items.append(item)
    _check_all_used(message, at)
    return items


def _item_rows(message: Message, most: int) -> list[Any]:
    rows = message.header.get("items")
    if not isinstance(rows, list):
        raise WireError("items: expected a list")
    if len(rows) > most:
        raise WireError(f"{len(rows)} items, expected at most {most}")
    return rows


def _check_all_used(message: Message, count: int) -> None:
    if count != len(message.vectors):
        raise WireError(f"the items have {count} vectors, the frame {len(message.vectors)}")


@dataclass(frozen=True, slots=True)
class UnreadableItem:
    """A document in a frame that cannot be read, while the others of the frame can.

    Attributes:
        id: The document's id.
        stamp: The stamp of its version.
        device: The device that wrote the version; None if the frame does not say.
        deleted: Whether the version is a deletion.
        problem: What is wrong with it.
    """

    id: str
    stamp: int
    device: str | None
    deleted: bool
    problem: str


def decode_readable_items(
    message: Message, *, most: int = MAX_ITEMS
) -> tuple[list[Item], list[UnreadableItem]]:
    """The documents of a frame that can be read, and the others by id, version and reason.

    Raises:
        WireError: The list of documents is not one, or of an item not even id, version and number of
            vectors can be read, so that the vectors behind it belong to nobody.
    """
    items: list[Item] = []
    unreadable: list[UnreadableItem] = []
    at = 0
    for place, row in enumerate(_item_rows(message, most)):
        try:
            item = _item(row, message.vectors, at)
        except WireError as error:
            named, count = _outline(row, place, str(error))
            unreadable.append(named)
            at += count
            continue
        at += len(item.vectors)
        if item.problem is None:
            items.append(item)
        else:
            unreadable.append(
                UnreadableItem(item.id, item.stamp, item.device, item.deleted, item.problem)
            )
    _check_all_used(message, at)
    return items, unreadable


def _outline(row: object, place: int, problem: str) -> tuple[UnreadableItem, int]:
    """Which document a row is about and how many vectors it has, where the rest cannot be read."""
    if not isinstance(row, dict):
        raise WireError(f"item {place}: {problem}")
    count, device = row.get("n", 0), row.get("by")
    if not _is_count(count) or count > MAX_PASSAGES:
        raise WireError(f"item {place}: {problem}")
    try:
        name, stamp = check_id(row.get("id")), parse_stamp(row.get("v"))
    except WireError as error:
        raise WireError(f"item {place}: {error}") from error
    writer = device if _is_device(device) else None
    return UnreadableItem(name, stamp, writer, row.get("del") is True, problem), count


def digest(data: bytes) -> str:
    """The value of a Content-Digest or Repr-Digest header (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def matches_digest(data: bytes | bytearray, value: str | None) -> bool:
    """Whether a digest header belongs to these bytes; digests of other algorithms are ignored."""
    for part in (value or "").split(","):
        name, _, rest = part.strip().partition("=")
        if name == "sha-256" and rest.startswith(":") and rest.endswith(":"):
            try:
                given = base64.b64decode(rest[1:-1], validate=True)
            except (binascii.Error, ValueError):
                return False
            return given == hashlib.sha256(data).digest()
    return False


def check_id(value: object) -> str:
    """Check that a value is a document's id that can be sent, and return it.

    Raises:
        WireError: The value is not such an id.
    """
    if not isinstance(value, str) or id_problem(value) is not None:
        raise WireError(f"id {shorten(value)}: {id_problem(value)}")
    size = len(value.encode("utf-8"))
    if size > MAX_ID_BYTES:
        raise WireError(f"an id of {size} bytes, expected at most {MAX_ID_BYTES}")
    return value


def _describe(item: Item) -> dict[str, Any]:
    row: dict[str, Any] = {"id": item.id, "v": format_stamp(item.stamp)}
    if item.device is not None:
        row["by"] = item.device
    if item.deleted:
        return row | {"del": True}
    row["n"] = len(item.vectors)
    if item.text is not None:
        row["text"] = item.text
        row["spans"] = [n for span in item.spans for n in span]
    if item.metadata is not None:
        row["meta"] = dict(item.metadata)
    return row


def _item(row: object, vectors: NDArray[Any], at: int) -> Item:
    if not isinstance(row, dict):
        raise WireError("expected an object")
    if unknown := row.keys() - _ITEM_KEYS:
        raise WireError(f"unknown key {min(unknown)!r:.40}")
    name, stamp = check_id(row.get("id")), parse_stamp(row.get("v"))
    device, deleted = row.get("by"), row.get("del", False)
    if device is not None and not _is_device(device):
        raise WireError("by: expected text")
    if not isinstance(deleted, bool):
        raise WireError("del: expected true or false")
    count = row.get("n", 0)
    if not _is_count(count) or count > MAX_PASSAGES or (deleted and row.keys() & _CONTENT):
        raise WireError("n: expected the number of vectors, and no n in a deletion")
    if at + count > len(vectors):
        raise WireError(f"{count} vectors, only {len(vectors) - at} are left")
    text, metadata, spans = _content(row, count)
    some = vectors[at : at + count]
    if (problem := _problem(text, metadata)) is not None:
        return Item(name, stamp, some, deleted, device, problem=problem)
    return Item(name, stamp, some, deleted, device, text, metadata, spans)


_CONTENT = frozenset({"n", "text", "meta", "spans"})


def _content(
    row: dict[str, Any], count: int
) -> tuple[str | None, dict[str, Any] | None, list[tuple[int, int]]]:
    text, metadata, flat = row.get("text"), row.get("meta"), row.get("spans", [])
    if text is not None and not isinstance(text, str):
        raise WireError("text: expected text")
    if metadata is not None and not isinstance(metadata, dict):
        raise WireError("meta: expected an object")
    if not isinstance(flat, list) or not all(_is_count(n) for n in flat):
        raise WireError("spans: expected a list of offsets")
    if text is None and flat:
        raise WireError("spans: expected no spans without text")
    spans = list(zip(flat[::2], flat[1::2], strict=False))
    if text is not None:
        inside = all(start <= end <= len(text) for start, end in spans)
        if len(flat) != 2 * count or not inside:
            raise WireError("spans: expected start and end, in the text, of each passage")
    return text, metadata, spans


def _problem(text: str | None, metadata: dict[str, Any] | None) -> str | None:
    """Why text or metadata cannot be stored: JSON can express more than databases can hold."""
    if text is not None and clean(text) != text:
        return "the text has a lone surrogate, expected Unicode text"
    return None if metadata is None else metadata_problem(metadata)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        header = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a frame's header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise WireError("a frame's header: expected an object")
    return header


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _is_device(value: object) -> TypeGuard[str]:
    """Whether a value can be a device's name in any database."""
    return isinstance(value, str) and len(value) <= MAX_ID_BYTES and text_problem(value) is None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32
