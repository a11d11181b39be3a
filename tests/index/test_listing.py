"""What an index holds: listed in one state, in bounded memory, whoever writes meanwhile."""

from __future__ import annotations

import os
import sqlite3
import tracemalloc
from pathlib import Path

import pytest

from edge_mrl import DamagedError, Document, Index, UsageError
from tests.support.bundles import TINY
from tests.support.stores import entry, open_store

#: Bytes that a listing of 64 MB of text may take: a few documents, and SQLite's cache.
LISTING_BYTES = 8_000_000


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index.open(tmp_path / "notes.db", bundle=TINY)
    made.put(
        [
            Document("b", "the cat", {"lang": "en", "title": "Ferry times"}),
            Document("a", "the dog and the cat", {"lang": "de", "title": "Fähre"}, "a.md"),
            Document("c", "training", {"n": 1}),
        ]
    )
    return made


def test_documents_come_in_the_order_of_their_first_put(index: Index) -> None:
    index.put([Document("b", "another text"), Document("d", "barking")])
    assert list(index.ids()) == list(index) == ["b", "a", "c", "d"]
    found = list(index.documents())
    assert [one.id for one in found] == ["b", "a", "c", "d"]
    assert found[0].text == "another text"
    assert (found[1].metadata, found[1].source) == ({"lang": "de", "title": "Fähre"}, "a.md")


def test_an_index_knows_its_length_and_its_ids(index: Index) -> None:
    assert len(index) == 3
    assert "a" in index
    assert all(other not in index for other in ("x", "", 7, None, b"a"))
    index.delete(["a", "b", "c"])
    assert len(index) == 0
    assert index
    assert list(index) == list(index.documents()) == []


@pytest.mark.parametrize("everything", [None, {}])
def test_no_filter_and_an_empty_one_are_all(
    everything: dict[str, str] | None, index: Index
) -> None:
    assert index.select(everything) == ["a", "b", "c"]
    assert len(list(index.documents(everything))) == 3
    for mode in ("vector", "keyword", "hybrid"):
        found = index.search("the cat", filter=everything, mode=mode)
        assert found == index.search("the cat", mode=mode)
        assert len(found) >= 2


def test_filter_chooses_what_is_listed(index: Index) -> None:
    assert list(index.ids({"lang": {"$in": ["en", "de"]}})) == ["b", "a"]
    assert [one.id for one in index.documents({"n": {"$gte": 1}})] == ["c"]
    with pytest.raises(UsageError, match="is not an operator"):
        index.documents({"n": {"$near": 1}})


def test_contains_looks_within_texts(index: Index) -> None:
    assert index.select({"title": {"$contains": "erry t"}}) == ["b"]
    assert index.select({"title": {"$contains": "ferry"}}) == []
    assert index.select({"title": {"$contains": "ä"}}) == ["a"]
    assert index.select({"title": {"$not": {"$contains": "Ferry"}}}) == ["a", "c"]
    assert index.select({"n": {"$contains": "1"}}) == []
    for wrong in ("", 1, None, ["a"], "\ud800"):
        with pytest.raises(UsageError, match=r"\$contains: expected a text"):
            index.select({"title": {"$contains": wrong}})


def test_match_looks_for_all_words_of_the_text(index: Index) -> None:
    assert index.select({"$match": "cat THE"}) == ["a", "b"]
    assert index.select({"$match": "cat dog"}) == ["a"]
    assert index.select({"$match": '"dog and"'}) == ["a"]
    assert index.select({"$match": "train*"}) == ["c"]
    assert index.select({"$not": {"$match": "cat"}}) == ["c"]
    assert index.select({"$or": [{"$match": "dog"}, {"n": 1}]}) == ["a", "c"]
    assert [hit.id for hit in index.search("training", filter={"$match": "dog"})] == ["a"]
    assert [one.id for one in index.documents({"$match": "dog", "lang": "de"})] == ["a"]
    for wrong in ("", "?!", 7, None, {"$eq": "cat"}):
        with pytest.raises(UsageError, match=r"\$match: expected words"):
            index.select({"$match": wrong})


def test_a_listing_is_one_state(index: Index) -> None:
    listing = index.documents()
    assert next(listing).id == "b"
    index.delete(["c"])
    index.put([Document("a", "replaced"), Document("e", "new")])
    assert [(one.id, one.text) for one in listing] == [
        ("a", "the dog and the cat"),
        ("c", "training"),
    ]
    assert list(index) == ["b", "a", "e"]


def test_listings_that_are_left_early_hold_nothing(index: Index) -> None:
    counts = []
    for _ in range(5):
        listing, names = index.documents(), index.ids({"lang": "en"})
        next(listing)
        next(names)
        listing.close()
        names.close()
        counts.append(_open_files())  # SQLite keeps some for the next connection
    assert counts[0] == counts[-1]
    assert index.compact().before_bytes > 0  # no reader is left that it would wait for


def test_damaged_documents_are_named_after_all_others_were_given(index: Index) -> None:
    with sqlite3.connect(index.path) as connection:
        connection.execute("UPDATE documents SET text = 'changed' WHERE id = 'a'")
    connection.close()
    given = []
    with pytest.raises(DamagedError, match="documents 'a' are not what was stored"):
        given.extend(one.id for one in index.documents())
    assert given == ["b", "c"]
    assert list(index.ids()) == ["b", "a", "c"]


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_read_only_store_is_listed(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.close()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everything
    with Index.open(index.path) as again:
        assert not again.store.writable
        assert list(again) == ["b", "a", "c"]
        assert len(list(again.documents({"lang": "en"}))) == 1


def test_memory_does_not_grow_with_what_is_listed(tmp_path: Path) -> None:
    with open_store(tmp_path / "large.db") as store:
        for number in range(64):
            store.put([entry(f"d{number}", chr(97 + number % 26) * 1_000_000)])
        index = Index(store, None)
        tracemalloc.start()
        total = sum(len(one.text) for one in index.documents())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert total == 64_000_000
    assert peak < LISTING_BYTES


def test_a_closed_index_lists_nothing_and_says_that_it_is_closed(index: Index) -> None:
    assert repr(index) == f"Index({str(index.path)!r}, dim=16, code='int8')"
    index.close()
    for call in (index.ids, index.documents, lambda: len(index), lambda: "a" in index):
        with pytest.raises(UsageError, match="is closed"):
            call()
    assert repr(index).endswith(", closed)")
