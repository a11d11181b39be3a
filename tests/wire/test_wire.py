"""Frames and versions: round trips, and whatever else comes in is a WireError."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mrl.errors import WireError
from edge_mrl.wire.clock import MAX_STAMP, Version, format_stamp, next_stamp, parse_stamp
from edge_mrl.wire.frames import (
    Item,
    decode_items,
    decode_message,
    decode_readable_items,
    digest,
    encode_items,
    encode_message,
    matches_digest,
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

NONE = np.empty((0, 3), np.float16)


def items(*rows: dict[str, Any], vectors: int = 0) -> list[Item]:
    return decode_items(decode_message(frame_of(*rows, vectors=vectors)))


def test_frame_bytes_are_as_specified() -> None:
    vectors = np.array([[1, -2, 0.5]], np.float16)
    item = Item("a", parse_stamp(STAMP), vectors)
    header = b'{"items":[{"id":"a","v":"0192f3a4b5c60001","n":1}],"dtype":"float16","dim":3}'
    expected = struct.pack("<I", len(header)) + header + bytes.fromhex("003c00c00038")
    assert encode_items({}, [item], like=NONE) == expected


ids = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60
)
stamps = st.integers(1, MAX_STAMP)


@st.composite
def documents(draw: st.DrawFn) -> Item:
    name, stamp = draw(ids), draw(stamps)
    device = draw(st.none() | ids)
    if draw(st.booleans()):
        return Item(name, stamp, NONE, deleted=True, device=device)
    count = draw(st.integers(0, 3))
    vectors = np.arange(count * 3, dtype=np.float16).reshape(count, 3) + draw(st.integers(0, 9))
    text = draw(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
    spans = [(0, len(text))] * count if text is not None else []
    numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    values = st.none() | st.booleans() | numbers
    metadata = draw(st.none() | st.dictionaries(ids, values, max_size=3))
    return Item(name, stamp, vectors, False, device, text, metadata, spans)


@pytest.mark.test
@given(st.lists(documents(), max_size=6))
def test_items_come_back_as_they_were(sent: list[Item]) -> None:
    message = decode_message(encode_items({"cursor": 7}, sent, like=NONE))
    received = decode_items(message)
    assert message.header["cursor"] == 7
    for one, other in zip(sent, received, strict=True):
        assert [(getattr(i, n)) for i in (one, other) for n in ("id", "stamp", "deleted")] == [
            one.id, one.stamp, one.deleted, one.id, one.stamp, one.deleted,
        ]  # fmt: skip
        assert (one.device, one.text, one.metadata, list(one.spans)) == (
            other.device, other.text, other.metadata, list(other.spans),
        )  # fmt: skip
        assert one.vectors.tolist() == other.vectors.tolist()


@given(st.binary(max_size=200))
def test_random_bytes_are_a_frame_or_an_error(data: bytes) -> None:
    try:
        decode_items(decode_message(data))
    except WireError:
        return


@given(st.lists(documents(), min_size=1, max_size=3), st.data())
def test_damaged_frames_are_a_frame_or_an_error(sent: list[Item], data: st.DataObject) -> None:
    frame = bytearray(encode_items({}, sent, like=NONE))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(frame)))
    try:
        decode_items(decode_message(bytes(frame[:cut])))
    except WireError:
        return


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=12))  # fmt: skip
def test_any_json_is_items_or_an_error(value: Any) -> None:
    row = {"id": "a", "v": STAMP}
    for header in (value, {"items": value}, {"items": [value]}, {"items": [row | {"meta": value}]}):
        whole = {"dtype": "float16", "dim": 3} | header if isinstance(header, dict) else header
        try:
            decode_items(decode_message(frame(whole)))
        except WireError:
            continue


@pytest.mark.parametrize(("row", "said"), WRONG_ITEMS)
def test_wrong_item_says_what(row: dict[str, Any], said: str) -> None:
    with pytest.raises(WireError, match=said):
        items(row, vectors=1)


@pytest.mark.parametrize(("content", "said"), UNSTORABLE)
def test_what_cannot_be_stored_is_named_in_its_item_and_the_others_are_read(
    content: str, said: str
) -> None:
    wrong, right = decode_items(decode_message(unstorable_frame(content)))
    assert (wrong.id, right.id, len(wrong.vectors)) == ("a", "b", 1)
    assert (wrong.text, wrong.metadata, list(wrong.spans)) == (None, None, [])
    assert said in str(wrong.problem)
    assert right.problem is None


@pytest.mark.parametrize(("data", "said"), WRONG_FRAMES)
def test_wrong_frame_says_what(data: bytes, said: str) -> None:
    with pytest.raises(WireError, match=said):
        decode_message(data)


def test_too_many_items_are_refused() -> None:
    row = {"id": "a", "v": STAMP}
    message = decode_message(frame({"dtype": "int8", "dim": 3, "items": [row] * 4}))
    assert len(decode_items(message, most=4)) == 4
    with pytest.raises(WireError, match="at most 3"):
        decode_items(message, most=3)


def test_digest_is_that_of_the_rfc() -> None:
    body = b'{"hello": "world"}'  # the example of RFC 9530, appendix B
    value = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
    assert digest(body) == value
    assert matches_digest(body, value)
    assert matches_digest(body, f"sha-512=:abc=:, {value}")
    for other in (None, "", "sha-256=::", "sha-256=:!:", "sha-512=:abc=:", digest(b"")):
        assert not matches_digest(body, other)


def test_vectors_of_each_type_come_back() -> None:
    for kind in (np.float16, np.float32, np.int8):
        vectors = np.array([[1, 2], [-3, 4]], kind)
        message = decode_message(encode_message({"k": 1}, vectors))
        assert message.vectors.dtype == kind
        assert message.vectors.tolist() == vectors.tolist()
        assert message.header == {"k": 1}


@given(stamps)
def test_stamps_sort_as_their_text(stamp: int) -> None:
    assert parse_stamp(format_stamp(stamp)) == stamp
    if stamp < MAX_STAMP:
        assert format_stamp(stamp) < format_stamp(stamp + 1)


@given(stamps.filter(lambda s: s < MAX_STAMP), st.integers(0, 2**45), st.integers(-(2**40), 2**40))
def test_next_stamp_is_later_than_all_seen(last: int, clock: int, offset: int) -> None:
    stamp = next_stamp(last, offset_ms=offset, wall=lambda: clock)
    assert stamp > last
    assert stamp in (last + 1, (clock + offset) << 16)


def test_versions_order_by_stamp_then_device() -> None:
    assert Version(1, "b") < Version(2, "a") < Version(2, "b")


def test_document_that_cannot_be_read_costs_no_other_of_its_frame() -> None:
    good = [{"id": name, "v": format_stamp(5), "n": 1} for name in "abc"]
    bad = [
        {"id": "deep", "v": format_stamp(6), "by": "x", "n": 1, "meta": {"n": 10**309}},
        {"id": "spans", "v": format_stamp(7), "n": 1, "text": "t", "spans": [1]},
        {"id": "key", "v": format_stamp(8), "n": 0, "what": 1},
    ]
    rows = [good[0], bad[0], good[1], bad[1], bad[2], good[2]]
    data = encode_message({"items": rows}, np.arange(10, dtype=np.float16).reshape(5, 2))
    items, unreadable = decode_readable_items(decode_message(data))
    # The vectors behind an unreadable document are still their own documents'.
    assert [(item.id, item.vectors[0, 0]) for item in items] == [("a", 0), ("b", 4), ("c", 8)]
    assert [(one.id, one.stamp, one.device) for one in unreadable] == [
        ("deep", 6, "x"), ("spans", 7, None), ("key", 8, None),
    ]  # fmt: skip
    assert all(one.problem for one in unreadable)
    for wrong in ({"id": "a", "v": "no"}, {"id": "a", "v": format_stamp(1), "n": -1}, 7):
        with pytest.raises(WireError):  # whose vectors follow is not known
            decode_readable_items(
                decode_message(encode_message({"items": [wrong]}, np.zeros((0, 2), np.float16)))
            )
