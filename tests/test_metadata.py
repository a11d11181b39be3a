"""Which metadata a document may have: one judgement, and what it bounds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mrl.documents import (
    MAX_INTEGER,
    MAX_LEVELS,
    MAX_METADATA_BYTES,
    MAX_NAME_BYTES,
    MAX_NAMES_BYTES,
    MAX_VALUES,
    Document,
    metadata_problem,
)
from edge_mrl.errors import UsageError
from edge_mrl.store import Store
from edge_mrl.store.filters.compiling import compile_filter
from edge_mrl.store.filters.values import field_rows
from edge_mrl.store.records import encode_metadata
from tests.support.stores import entry, open_store

#: What is said of these limits where they stand: bytes of a store for a document, and for a byte of it.
MOST_STORED = 400_000
MOST_PER_BYTE = 100


def nested(levels: int, inner: Any = 1) -> dict[str, Any]:
    value: Any = inner
    for _ in range(levels):
        value = {"a": value}
    return dict(value)


def contains_itself() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["a"] = loop
    return loop


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, "NoneType, expected an object"),
        ([("a", 1)], "list, expected an object"),
        ({1: "a"}, "int, expected text"),
        ({None: "a"}, "NoneType, expected text"),
        ({"a": {2.5: 1}}, "float, expected text"),
        ({"a\0": 1}, "NUL"),
        ({"a": "b\0"}, "NUL"),
        ({"\udc80": 1}, "lone surrogate"),
        ({"a": ["x", "\ud800"]}, "lone surrogate"),
        ({"n": MAX_INTEGER + 1}, "more than 64 bits"),
        ({"n": -MAX_INTEGER - 2}, "more than 64 bits"),
        ({"n": 10**309}, "more than 64 bits"),
        ({"n": 10**5000}, "more than 64 bits"),
        ({"a": [{"b": math.inf}]}, "'a.b' is inf, expected a finite number"),
        ({"a": math.nan}, "finite"),
        ({"a": b"bytes"}, "bytes, expected text, a number"),
        ({"a": {1, 2}}, "set, expected text, a number"),
        ({"a": object()}, "object, expected text"),
        (nested(MAX_LEVELS + 1), "deeper than 16 levels"),
        ({"a": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}, "deeper than 16 levels"),
        (contains_itself(), "deeper than 16 levels"),
        ({"a": [0] * MAX_VALUES}, "more than 2,048 values"),
        ({"a": [[]] * MAX_VALUES}, "more than 2,048 values"),
        ({"a" * (MAX_NAME_BYTES + 1): 0}, "name of more than 512 bytes"),
        ({"é" * (MAX_NAME_BYTES // 2): {"b": 0}}, "name of more than 512 bytes"),
        ({"K" * 500: {str(i): 0 for i in range(200)}}, "names of the metadata's values"),
        ({"K" * 500: list(range(200))}, "names of the metadata's values"),
        ({"a": "x" * MAX_METADATA_BYTES}, "more than 262,144 bytes"),
        ({"a": "é" * (MAX_METADATA_BYTES // 2)}, "more than 262,144 bytes"),
        ({"a": "\n" * (MAX_METADATA_BYTES // 2)}, "more than 262,144 bytes"),
    ],
)
def test_metadata_beyond_a_limit_is_named(metadata: Any, words: str) -> None:
    assert words in str(metadata_problem(metadata))
    if isinstance(metadata, Mapping):
        with pytest.raises(UsageError, match="document 'd': "):
            encode_metadata(Document("d", "", metadata))
        assert field_rows(metadata) == []


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"": None},
        {"n": [MAX_INTEGER, -MAX_INTEGER - 1, 1.7e308, -0.0, True]},
        {"a": ("x", [], {}, {"b.c": "é \U0001f600"})},
        nested(MAX_LEVELS),
        {"a": [0] * (MAX_VALUES - 1)},
        {"a" * MAX_NAME_BYTES: 0},
        {"K" * 63: {f"{i:03}": i for i in range(977)}},
        {"a": "x" * (MAX_METADATA_BYTES - len('{"a":""}'))},
    ],
)
def test_metadata_at_a_limit_is_kept(metadata: dict[str, Any]) -> None:
    assert metadata_problem(metadata) is None
    assert json.loads(encode_metadata(Document("d", "", metadata))) == json.loads(
        json.dumps(metadata)
    )


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(alphabet=st.characters(exclude_categories=()), max_size=5)
    | st.binary(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(alphabet=st.characters(exclude_categories=()), max_size=4) | st.integers(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(VALUES)
def test_any_value_is_judged_and_what_is_kept_comes_back(value: Any) -> None:
    metadata = {"a": value}
    if metadata_problem(metadata) is None:
        assert json.loads(encode_metadata(Document("d", "", metadata))) == metadata
        field_rows(metadata)
    else:
        with pytest.raises(UsageError):
            encode_metadata(Document("d", "", metadata))


@given(VALUES, st.text(alphabet=st.characters(exclude_categories=()), max_size=4))
def test_any_filter_is_understood_or_a_usage_error(value: Any, name: str) -> None:
    for where in (value, {name: value}, {name: {"$in": [value]}}, {name: {"$gte": value}}):
        message = ""
        try:
            compile_filter(where)
        except UsageError as error:
            message = str(error)
        assert message.encode() is not None  # it can be printed


@pytest.mark.parametrize(
    "metadata",
    [
        {"k" * 30: [str(i) if i % 2 else i for i in range(MAX_VALUES - 1)]},
        {"k" * 31: list(range(MAX_VALUES - 1))},
        {"k" * 500: list(range(MAX_NAMES_BYTES // 500 - 1))},
        {"k" * 60: {chr(97 + i % 26) + str(i): 0 for i in range(900)}},
        {"k": [f"{i:04}" + "x" * 100 for i in range(MAX_VALUES - 1)]},
        {"k": "x" * (MAX_METADATA_BYTES - 100)},
    ],
)
def test_no_metadata_takes_more_of_a_store_than_the_limits_say(
    metadata: dict[str, Any], tmp_path: Path
) -> None:
    assert metadata_problem(metadata) is None
    given, documents = len(json.dumps(metadata)), 8
    with open_store(tmp_path / "s.db") as store:
        before = pages_bytes(store)
        for number in range(documents):
            store.put([entry(str(number), "a", **metadata)])
        each = (pages_bytes(store) - before) / documents
    assert each <= MOST_STORED + 2 * given
    assert each <= MOST_PER_BYTE * given


def pages_bytes(store: Store) -> int:
    with store.locked() as (connection, _):
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages * size)
