"""Frames that are wrong in each way, for every runtime's tests."""

from __future__ import annotations

import json
import struct
from typing import Any

__all__ = [
    "STAMP",
    "UNSTORABLE",
    "WRONG_FRAMES",
    "WRONG_ITEMS",
    "frame",
    "frame_of",
    "unstorable_frame",
]

STAMP = "0192f3a4b5c60001"


def frame(header: Any, payload: bytes = b"") -> bytes:
    """A frame of any header and payload."""
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<I", len(data)) + data + payload


def frame_of(*rows: Any, vectors: int = 0) -> bytes:
    """A frame of rows of documents, and so many vectors of 3 zeros."""
    return frame({"dtype": "float16", "dim": 3, "items": list(rows)}, bytes(6 * vectors))


def unstorable_frame(content: str) -> bytes:
    """A frame of two documents, the first with some content as JSON."""
    rows = f'{{"id": "a", "v": "{STAMP}", "n": 1, {content}}}, {{"id": "b", "v": "{STAMP}"}}'
    return frame(f'{{"dtype": "float16", "dim": 2, "items": [{rows}]}}'.encode(), b"\0" * 4)


#: Rows of a frame with one vector, and what is said of them.
WRONG_ITEMS: list[tuple[dict[str, Any], str]] = [
    ({"v": STAMP}, "id"),
    ({"id": "", "v": STAMP}, "id"),
    ({"id": "a\0", "v": STAMP}, "id"),
    ({"id": "\ud800", "v": STAMP}, "lone surrogate"),
    ({"id": "é" * 257, "v": STAMP}, "514 bytes"),
    ({"id": "a"}, "stamp"),
    ({"id": "a", "v": "0192F3A4B5C60001"}, "stamp"),
    ({"id": "a", "v": "0" * 16}, "out of range"),
    ({"id": "a", "v": "f" * 16}, "out of range"),
    ({"id": "a", "v": STAMP, "n": -1}, "n:"),
    ({"id": "a", "v": STAMP, "n": True}, "n:"),
    ({"id": "a", "v": STAMP, "n": 2}, "2 vectors"),
    ({"id": "a", "v": STAMP, "del": True, "n": 1}, "deletion"),
    ({"id": "a", "v": STAMP, "del": 1}, "del"),
    ({"id": "a", "v": STAMP, "n": 1, "text": "x"}, "spans"),
    ({"id": "a", "v": STAMP, "n": 1, "text": "x", "spans": [0, 2]}, "spans"),
    ({"id": "a", "v": STAMP, "n": 1, "spans": [0, 0]}, "no spans without text"),
    ({"id": "a", "v": STAMP, "n": 1, "meta": []}, "meta"),
    ({"id": "a", "v": STAMP, "n": 1, "extra": 1}, "unknown key 'extra'"),
    ({"id": "a", "v": STAMP, "n": 0}, "frame 1"),
]

#: Content that JSON can express and databases cannot hold, and what is said of it.
UNSTORABLE: list[tuple[str, str]] = [
    ('"text": "\\ud800", "spans": [0, 1]', "lone surrogate"),
    ('"meta": {"x": 1e999}', "finite"),
    ('"meta": {"x": 1' + "0" * 309 + "}", "64 bits"),
    ('"meta": {"x": "a\\u0000"}', "NUL"),
    ('"meta": {"x": "\\ud800"}', "lone surrogate"),
    ('"meta": {"x": ' + "[" * 20 + "]" * 20 + "}", "16 levels"),
    ('"meta": {"' + "K" * 100_000 + '": 0}', "512 bytes"),
]

#: Bytes that are no frame, and what is said of them.
WRONG_FRAMES: list[tuple[bytes, str]] = [
    (b"\1\0", "at least 4"),
    (struct.pack("<I", 2**32 - 1) + b"{}", "only 2"),
    (frame(b"[]"), "object"),
    (frame(b"{"), "is not JSON"),
    (frame(b'{"x": NaN}'), "is not JSON"),
    (frame(b"[" * 100_000), "is not JSON"),
    (frame({"dim": 3}), "dtype"),
    (frame({"dtype": "float64", "dim": 3}), "dtype"),
    (frame({"dtype": "int8", "dim": 0}), "dim"),
    (frame({"dtype": "int8", "dim": 3.0}), "dim"),
    (frame({"dtype": "int8", "dim": 3}, b"1234"), "multiple of 3"),
]
