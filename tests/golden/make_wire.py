"""Make ``wire.json`` anew: ``python -m tests.golden.make_wire`` from the repository.

It binds every runtime to FORMAT.md, "Wire": frames with what they say (``items`` null where one document
breaks the specification, all null where the bytes are no frame), stamps, digests, sums.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from edge_mrl.errors import WireError
from edge_mrl.wire import (
    Item,
    Message,
    Sums,
    UnreadableItem,
    decode_items,
    decode_message,
    decode_readable_items,
    digest,
    encode_items,
    encode_message,
    format_stamp,
    group_of,
    parse_stamp,
    seen_headers,
)
from tests.wire.cases import (
    STAMP,
    UNSTORABLE,
    WRONG_FRAMES,
    WRONG_ITEMS,
    frame,
    frame_of,
    unstorable_frame,
)

__all__ = ["WIRE", "describe_frame", "golden"]

WIRE = Path(__file__).parent / "wire.json"
#: Larger frames are left out: they are in the tests themselves.
MOST_BYTES = 2_000
_METADATA = {
    "n": [0, -1, 2**63 - 1, -(2**63), 1.0, -0.0, 0.1, 1e16, 1.5e-7, 5e-324, 1.7976931348623157e308],
    "text": 'a"\\/\b\f\n\r\t\x01\x7f é \u2028 🙂',
    "é": {"deep": [None, True, {"x": []}]},
}
_STAMPS = [
    "0000000000000001", STAMP, "7fffffffffffffff", "0" * 16, "8000000000000000", "f" * 16, "",
    "0192F3A4B5C60001", "192f3a4b5c60001", "00192f3a4b5c60001", "+192f3a4b5c60001",
    " 192f3a4b5c60001", "0_92f3a4b5c60001", "０192f3a4b5c60001",
]  # fmt: skip
_HEADERS = [
    {"Authorization": "Bearer t", "Edge-MRL-Protocol": "1", "Edge-MRL-Space": " ab ", "Host": "x"},
    {"authorization": "Bearer t\xe9", "Edge-MRL-Copy": "0a-0b"},
    {},
]
_VERSIONS = [
    ("a", 1, ""),
    ("é/🙂", 2**63 - 1, "d1"),
    ("b", 0x192F3A4B5C60001, "d2"),
    ("c", 7, "d3"),
]


def golden() -> dict[str, Any]:
    """What the file holds."""
    sums = Sums()
    for version in _VERSIONS:
        sums.add(*version)
    sums.remove(*_VERSIONS[-1])
    return {
        "frames": [
            {"name": name, "data": _text(data), "says": describe_frame(data)}
            for name, data in _frames().items()
            if len(data) <= MOST_BYTES
        ],
        "stamps": [{"text": text, "stamp": _stamp(text)} for text in _STAMPS],
        "digests": [
            {"data": _text(data), "digest": digest(data)} for data in (b"", b'{"hello": "world"}')
        ],
        "seen": [{"headers": headers, "seen": seen_headers(headers)} for headers in _HEADERS],
        "sums": {
            "versions": [[name, format_stamp(stamp), device] for name, stamp, device in _VERSIONS],
            "gone": [_VERSIONS[-1][0], format_stamp(_VERSIONS[-1][1]), _VERSIONS[-1][2]],
            "groups": [group_of(name) for name, _, _ in _VERSIONS],
            "sums": _text(bytes(sums)),
            "total": f"{sums.total:016x}",
        },
    }


def _frames() -> dict[str, bytes]:
    """Frames by name."""
    half = np.array([[1, -2, 0.5], [0, 65504, -6e-8]], np.float16)
    one, none, stamp = half[:1], half[:0], parse_stamp(STAMP)
    items = [
        Item("plain", stamp, half),
        Item("gone", stamp + 1, none, deleted=True, device="d1"),
        Item("é/🙂", stamp, one, device="d2", text="a🙂b", metadata=_METADATA, spans=[(0, 3)]),
        Item("empty", stamp, none, text="", metadata={}),
    ]
    made = {
        "a push": encode_items(
            {"cursor": 7, "push": 2, "epoch": "0a", "receipt": ""}, items, like=half
        ),
        "no documents": encode_items({}, [], like=half),
        "codes": encode_message({"items": []}, np.empty((0, 4), np.uint8)),
        "a query": encode_message({"ids": ["a", "é"]}, one.astype(np.float32)),
        "int8": encode_message({"k": 1.5}, np.array([[1, -127]], np.int8)),
        "a name twice": frame(b'{"dtype":"int8","dim":2,"dtype":"uint8","x":1,"x":2}', b"ab"),
        "a name twice in a document": frame(
            f'{{"dtype":"int8","dim":1,"items":[{{"id":"a","id":"b","v":"{STAMP}"}}]}}'.encode()
        ),
        "deep": frame(b'{"dtype":"int8","dim":1,"x":' + b"[" * 400 + b"]" * 400 + b"}"),
        "not UTF-8": frame(b'{"dtype":"int8","dim":1,"x":"\xff"}'),
        "a surrogate in UTF-8": frame(b'{"dtype":"int8","dim":1,"x":"\xed\xa0\xbd"}'),
        "surrogates in UTF-8": frame(b'{"dtype":"int8","dim":1,"x":"\xed\xa0\xbd\xed\xb8\x80"}'),
        "a mark of order": frame(b'\xef\xbb\xbf{"dtype":"int8","dim":1}'),
        "nulls": frame_of(
            {"id": "a", "v": STAMP, "by": None, "text": None, "meta": None, "n": 0, "spans": []}
        ),
        "numbers that are not whole": frame_of({"id": "a", "v": STAMP, "n": 1.0}, vectors=1),
        "null for a number": frame_of({"id": "a", "v": STAMP, "n": None}),
        "no documents at all": frame({"dtype": "int8", "dim": 1}),
        "documents as an object": frame({"dtype": "int8", "dim": 1, "items": {}}),
    }
    made |= {
        f"item {n}: {said}": frame_of(row, vectors=1) for n, (row, said) in enumerate(WRONG_ITEMS)
    }
    made |= {
        f"content {n}: {said}": unstorable_frame(text) for n, (text, said) in enumerate(UNSTORABLE)
    }
    return made | {f"frame {n}: {said}": data for n, (data, said) in enumerate(WRONG_FRAMES)}


def describe_frame(data: bytes) -> dict[str, Any] | None:
    """What a frame says; None where the bytes are none."""
    try:
        message = decode_message(data)
    except WireError:
        return None
    vectors = message.vectors
    return {
        "header": {name: value for name, value in message.header.items() if name != "items"},
        "type": vectors.dtype.name,
        "dim": vectors.shape[1],
        "vectors": _text(vectors.tobytes()),
        "items": _strictly(message),
        "readable": _leniently(message),
        "again": _again(message),
    }


def _strictly(message: Message) -> list[dict[str, Any]] | None:
    try:
        return [_item(one) for one in decode_items(message)]
    except WireError:
        return None


def _leniently(message: Message) -> list[Any] | None:
    try:
        items, unreadable = decode_readable_items(message)
    except WireError:
        return None
    return [[_item(one) for one in items], [_unreadable(one) for one in unreadable]]


def _again(message: Message) -> str | None:
    """The same frame, written again."""
    header = {name: value for name, value in message.header.items() if name != "items"}
    try:
        if "items" not in message.header:
            return _text(encode_message(header, message.vectors))
        return _text(encode_items(header, decode_items(message), like=message.vectors))
    except (WireError, ValueError):
        return None


def _item(item: Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "stamp": format_stamp(item.stamp),
        "device": item.device,
        "deleted": item.deleted,
        "text": item.text,
        "metadata": item.metadata,
        "spans": [list(span) for span in item.spans],
        "vectors": _text(item.vectors.tobytes()),
        "problem": item.problem is not None,
    }


def _unreadable(item: UnreadableItem) -> list[Any]:
    return [item.id, format_stamp(item.stamp), item.device, item.deleted]


def _stamp(text: str) -> str | None:
    try:
        return format_stamp(parse_stamp(text))
    except WireError:
        return None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


if __name__ == "__main__":
    made = golden()
    lines = ",\n".join(json.dumps(one) for one in made.pop("frames"))
    rest = json.dumps(made, indent=1)[1:]
    WIRE.write_text(f'{{\n "frames": [\n{lines}\n ],{rest}\n', encoding="utf-8")
