"""Values in columns: what is written comes back, and what differs has another checksum."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mrl.documents import Document
from edge_mrl.errors import UsageError
from edge_mrl.store.records import (
    Entry,
    checksum,
    decode_full,
    decode_metadata,
    decode_packing,
    decode_spans,
    document_check,
    encode_codes,
    encode_full,
    encode_metadata,
    encode_packing,
    encode_spans,
    text_hash,
)
from tests.support.stores import BINDING, DIM, PACKINGS, packing

#: float16 has 11 significant bits: half a step of rounding for values up to 1.
HALF_STEP = 2.0**-12
#: int8 with a scale: half of one 127th of the largest value.
HALF_OF_A_127TH = 0.5 / 127

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(),
    st.binary(),
    st.floats(allow_nan=False).filter(lambda x: x != 0),
)


@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4))
def test_checksum_tells_values_apart(one: list[int | str], other: list[int | str]) -> None:
    same = [repr(value) for value in one] == [repr(value) for value in other]
    assert (checksum(*one) == checksum(*other)) == same


def test_checksum_is_the_one_that_stores_have() -> None:
    # The test vectors of FORMAT.md, so that stores of earlier versions stay readable.
    assert checksum() == 0
    assert checksum(None) == 3_523_407_757
    assert checksum(1) == checksum(True) == 1_037_566_067
    assert checksum(-2) == 2_042_494_982
    assert checksum(1.0) == 1_780_871_336
    assert checksum("1") == 1_310_246_668
    assert checksum(b"1") == 2_898_582_645
    assert checksum("\u00e9") == 3_108_870_161
    assert checksum("mood \U0001fae8") == 2_185_345_984
    assert checksum("ab", "c") == 1_668_063_704
    assert checksum("a", "bc") == 4_075_672_498
    assert checksum(1, "a", "{}", None, b"\x00\xff") == 3_350_708_542


def test_checksum_is_the_crc_of_the_bytes_that_the_format_shows() -> None:
    page = Path("FORMAT.md").read_text("utf-8")
    rows = re.findall(r"^\| .* \| (?:`([0-9a-f]*)`)? \| (\d+) \|$", page, re.MULTILINE)
    assert len(rows) == 12
    for data, crc in rows:
        assert zlib.crc32(bytes.fromhex(data)) == int(crc)


def test_checksum_does_not_let_values_flow_together() -> None:
    assert checksum("ab", "c") != checksum("a", "bc")
    assert checksum(b"ab") != checksum(b"a", b"b")
    assert checksum(None) != checksum("None")
    assert checksum(1) != checksum(1.0)


def test_document_check_covers_each_column() -> None:
    row = (1, "a", "{}", None, text_hash("x"))
    crc = document_check(*row)
    for changed in (
        (2, "a", "{}", None, text_hash("x")),
        (1, "b", "{}", None, text_hash("x")),
        (1, "a", '{"k": 1}', None, text_hash("x")),
        (1, "a", "{}", "file", text_hash("x")),
        (1, "a", "{}", None, text_hash("y")),
    ):
        assert document_check(*changed) != crc


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))))
def test_spans_come_back(spans: list[tuple[int, int]]) -> None:
    assert decode_spans(encode_spans(spans)) == spans


def test_metadata_come_back_with_sorted_keys() -> None:
    values = {"b": [1, None, {"x": "\u00e9"}], "a": 2.5}
    text = encode_metadata(Document("d", "", values))
    assert text == '{"a": 2.5, "b": [1, null, {"x": "\u00e9"}]}'
    assert decode_metadata(text) == values
    assert encode_metadata(Document("d", "")) == "{}"


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes"])
def test_metadata_that_json_cannot_carry_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match="document 'd': metadata 'k' is"):
        encode_metadata(Document("d", "", {"k": value}))


@pytest.mark.parametrize("name", PACKINGS)
def test_packing_comes_back(name: str) -> None:
    kept = packing(name, 16)
    assert decode_packing(*encode_packing(kept)) == kept


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((2, DIM), np.int8),  # a row too many
        np.zeros((1, DIM + 1), np.int8),
        np.zeros((1, DIM), np.int16),
    ],
)
def test_codes_of_another_shape_or_type_are_refused(codes: np.ndarray) -> None:
    with pytest.raises(UsageError, match=rf"codes of document 'd' .* expected int8\[1, {DIM}\]"):
        encode_codes(Entry(Document("d", "text"), [(0, 4)], codes), BINDING)


def test_full_vectors_come_back_as_near_as_they_are_kept() -> None:
    vectors = np.random.default_rng(0).uniform(-1, 1, (5, 8)).astype(np.float32)
    half = decode_full(encode_full(vectors, "fp16"), 8, "fp16")
    assert np.abs(half - vectors).max() <= HALF_STEP
    data = encode_full(vectors, "int8")
    assert len(data) == 5 * (8 + 4)
    byte = decode_full(data, 8, "int8")
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    assert (np.abs(byte - vectors) <= HALF_OF_A_127TH * largest * 1.001).all()
    # A vector of zeros has no scale of its own.
    assert not decode_full(encode_full(np.zeros((1, 8), np.float32), "int8"), 8, "int8").any()
