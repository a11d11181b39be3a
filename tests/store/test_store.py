"""What a store keeps, with vectors made here: no model."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mrl.documents import Document, clean
from edge_mrl.errors import (
    UsageError,
)
from edge_mrl.search.scan import nearest
from edge_mrl.store import Counts, Entry, Health, Store, check, text_hash
from tests.support.stores import BINDING, DIM, RULE, entry, live_codes, open_store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a store.db"


def test_store_gives_back_what_was_put(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("b", "text b", 2, fill=3, lang="en"), entry("a", "text a", 0)])
    with Store.open(path) as store:
        assert store.binding == BINDING
        assert store.rule == RULE
        assert store.count() == Counts(documents=2, passages=2)
        assert store.get(["a", "b", "c"]) == {
            "a": Document("a", "text a"),
            "b": Document("b", "text b", {"lang": "en"}),
        }
        assert store.hashes(["b", "c"]) == {"b": text_hash("text b")}
        assert live_codes(store) == [[3] * DIM] * 2
        with store.reading() as view:
            keys = view.codes.gather_levels(np.arange(2))[1].tolist()
            assert view.places(keys) == {keys[0]: (0, [(0, 6), (1, 6)])}
            assert view.documents(keys)[keys[0]].id == "b"


def test_emptied_store_is_sound(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a", "some words")])
        store.delete(["a"])
        assert check(store) == Health(0, (), (), ())


def test_put_replaces_the_document_of_its_id(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a", "old", 3, fill=1, x=1)])
        store.put([entry("a", "new", 1, fill=2)])
        assert store.get(["a"])["a"] == Document("a", "new")
        assert store.count() == Counts(1, 1)
        assert live_codes(store) == [[2] * DIM]


def test_equal_scores_come_by_id_and_not_by_key(path: Path) -> None:
    with open_store(path) as store:
        store.put(
            [entry("c"), entry("\U0001f600"), entry("a", passages=0), entry("\uffff"), entry("b")]
        )
        with store.reading() as view:
            matches = nearest(np.ones((1, DIM), np.int8), view.codes, k=9)[0]
            keys = [match.key for match in matches]
            assert [view.documents(keys)[key].id for key in keys] == [
                "b",
                "c",
                "\uffff",
                "\U0001f600",
            ]


def test_delete_takes_passages_and_codes_along(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a", passages=3), entry("b")])
        assert store.delete(["a", "missing"]) == 1
        assert store.delete([]) == 0
        assert store.count() == Counts(1, 1)
        assert live_codes(store) == [[1] * DIM]
        assert check(store).sound
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM passages").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize("method", ["delete", "get"])
def test_single_string_for_ids_is_a_type_error(method: str, path: Path) -> None:
    with open_store(path) as store, pytest.raises(TypeError, match="list"):
        getattr(store, method)("abc")


def test_more_ids_than_sqlite_has_parameters(path: Path) -> None:
    ids = [f"{number:04}" for number in range(2100)]
    with open_store(path) as store:
        store.put([entry(name) for name in ids])
        assert list(store.get(ids)) == ids
        assert store.delete(ids) == len(ids)


@pytest.mark.parametrize(
    "codes",
    [np.zeros((2, DIM), np.int8), np.zeros((1, 5), np.int8), np.zeros((1, DIM), np.float32)],
)
def test_codes_of_the_wrong_shape_or_type_are_refused(codes: np.ndarray, path: Path) -> None:
    with open_store(path) as store:
        wrong = Entry(Document("b", "t"), [(0, 1)], codes)
        with pytest.raises(UsageError, match=r"expected int8\[1, 4\]"):
            store.put([entry("a"), wrong])
        assert store.count() == Counts(0, 0)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", np.float32(1), 10**309])
def test_metadata_that_json_cannot_carry_is_refused(value: object, path: Path) -> None:
    with open_store(path) as store:
        with pytest.raises(UsageError, match="document 'a': metadata 'x' is"):
            store.put([entry("a", x=value)])
        assert store.count() == Counts(0, 0)


def test_put_that_fails_half_way_stores_nothing(path: Path) -> None:
    broken = Entry(Document("b", "t"), [(0, None)], np.zeros((1, DIM), np.int8))  # type: ignore[list-item]
    with open_store(path) as store:
        with pytest.raises(TypeError):
            store.put([entry("a"), broken])
        assert store.count() == Counts(0, 0)
        store.put([entry("a")])


def test_unchanged_documents_get_their_metadata_alone(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a", "text", 2, x=1), entry("b", "text")])
        with store.reading() as view:
            table = view.codes
        stale = [Document("b", "other"), Document("c", "gone")]
        assert store.put([], unchanged=[Document("a", "text", {"x": 2}), *stale]) == stale
        assert store.get(["a"])["a"].metadata == {"x": 2}
        with store.reading() as view:
            assert view.codes is table  # nothing to load again


TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=20)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | VALUES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(VALUES, inner, max_size=2),
    max_leaves=5,
)


@pytest.mark.test
@settings(deadline=None)  # a sync to disk takes as long as it takes
@given(name=NAMES, text=TEXT, metadata=st.dictionaries(VALUES, JSON, max_size=3))
def test_any_document_comes_back_as_utf8_can_carry_it(
    name: str, text: str, metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.db"
    document = Document(name, text, metadata)
    with open_store(path) as store:
        store.put([Entry(document, [], np.empty((0, DIM), np.int8))])
        back = store.get([name])[name]
        assert store.hashes([name]) == {name: text_hash(text)}
    assert back.id == name
    assert back.text == clean(text)
    assert back.metadata == metadata
