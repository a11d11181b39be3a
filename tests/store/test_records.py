"""Values in columns: what is written comes back, and what differs has another checksum."""

from __future__ import annotations

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

VALUES = st.one_of(st.none(), st.integers(), st.text(), st.binary())


@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4))
def test_checksum_tells_values_apart(one: list[int | str], other: list[int | str]) -> None:
    same = [repr(value) for value in one] == [repr(value) for value in other]
    assert (checksum(*one) == checksum(*other)) == same


def test_checksum_is_the_one_that_stores_have() -> None:
    # Written down, so that stores of earlier versions stay readable.
    assert checksum("a", 1, None, b"\x00") == 3_551_228_580
    assert checksum() == 0


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
