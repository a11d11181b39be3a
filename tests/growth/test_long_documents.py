"""What a hit in a document of many passages costs: memory, and what is decoded."""

from __future__ import annotations

import sqlite3
import tracemalloc
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import DamagedError
from edge_mrl.search import QueryVectors, SearchOptions, answer, fusion
from edge_mrl.store import Entry, view
from tests.support.stores import BINDING, DIM, open_store

if TYPE_CHECKING:
    from pathlib import Path

    from edge_mrl.search import Hit
    from edge_mrl.store import Store

pytestmark = pytest.mark.test

FULL_DIM = 256
PASSAGES = 20_000
LINE = "some words\n"
#: The passage that is looked for.
WANTED = 12_345


def long_store(path: Path, keep: str) -> tuple[Store, QueryVectors]:
    """A store with one document of many passages and some short ones; and the vectors of one passage."""
    rng = np.random.default_rng(0)
    store = open_store(path, replace(BINDING, full_dim=FULL_DIM), keep_full=keep)
    size = len(LINE)
    spans = [(size * i, size * (i + 1)) for i in range(PASSAGES)]
    full = rng.standard_normal((PASSAGES, FULL_DIM), dtype=np.float32)
    full /= np.linalg.norm(full, axis=1, keepdims=True)
    codes = np.full((PASSAGES, DIM), -9, np.int8)
    codes[WANTED] = 9
    store.put([Entry(Document("long", LINE * PASSAGES), spans, codes, full)])
    store.put([Entry(Document(f"d{i}", "a"), [(0, 1)], codes[:1], full[:1]) for i in range(9)])
    return store, QueryVectors(codes[WANTED], full[WANTED])


def best(store: Store, query: QueryVectors, mode: str = "vector") -> Hit:
    with store.reading() as shown:
        shown.codes  # noqa: B018 - read before what is counted
        options = SearchOptions(k=3, mode=mode)
        return answer(shown, ["some words"], [query], options)[0][0]


@pytest.mark.parametrize("keep", ["fp16", "int8"])
def test_rescoring_reads_full_vectors_in_pieces(
    tmp_path: Path, keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "PIECE_BYTES", 1000)  # so that vectors lie across their borders
    store, query = long_store(tmp_path / "s.db", keep)
    with closing(store):
        assert best(store, query).start == WANTED * len(LINE)
        assert best(store, query).score > 0.99
        monkeypatch.undo()
        tracemalloc.start()
        best(store, query)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        whole = PASSAGES * FULL_DIM
        assert peak < 0.75 * whole
        # The twin: all of them at once.
        tracemalloc.start()
        with store.reading() as shown:
            shown.fulls([1])
        _, twin = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert twin > 4 * whole


def test_a_hit_makes_the_offsets_of_its_passage_alone(tmp_path: Path) -> None:
    store, _ = long_store(tmp_path / "s.db", "fp16")
    with closing(store):
        with store.reading() as shown:
            ((_, spans),) = shown.places([1]).values()
        size = len(LINE)
        assert len(spans) == PASSAGES
        assert spans[WANTED] == (WANTED * size, WANTED * size + size)
        assert spans[-2:] == list(spans)[-2:]
        assert spans == [(size * i, size * i + size) for i in range(PASSAGES)]
        tracemalloc.start()
        with store.reading() as shown:
            shown.places([1])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 40 * PASSAGES  # a list of pairs takes 120 bytes for each


def test_words_are_looked_for_until_a_passage_has_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, query = long_store(tmp_path / "s.db", "fp16")
    looked = 0
    words = fusion._words

    def counted(text: str) -> set[str]:
        nonlocal looked
        looked += 1
        return words(text)

    monkeypatch.setattr(fusion, "_words", counted)
    with closing(store):
        hit = best(store, query, "keyword")
    assert (hit.id, hit.start) == ("long", 0)
    assert looked < 10


@pytest.mark.parametrize(
    "change", ["zeroblob(length(vectors))", "x'00'", "'text'", "substr(vectors, 2)"]
)
def test_damaged_full_vectors_are_left_out(tmp_path: Path, change: str) -> None:
    store, query = long_store(tmp_path / "s.db", "fp16")
    with closing(store):
        with closing(sqlite3.connect(tmp_path / "s.db")) as connection, connection:
            connection.execute(f"UPDATE fulls SET vectors = {change} WHERE document = 1")
        with store.reading() as shown:
            assert shown.fulls_at({1: WANTED, 2: 0}).keys() == {2}
            assert shown.damaged == {1}
            with pytest.raises(DamagedError, match="full vectors"):
                shown.fulls([1])
        assert best(store, query).id != "long"
