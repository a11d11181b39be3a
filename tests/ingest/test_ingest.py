"""Batches, entries, and embedding again; with a real, small bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.documents import Document, PassageRule
from edge_mrl.encode.encoder import Encoder
from edge_mrl.errors import UsageError
from edge_mrl.index import Index
from edge_mrl.ingest import Stored, again, batches, embed, putting, rule_for
from tests.support.bundles import TINY, TINY_COARSE

RULE = PassageRule(6, 2)
DOCUMENTS = [
    Document("long", "the cat and a dog barking of training model 0 1 2"),
    Document("blank", " "),
    Document("short", "the cat"),
]


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    with Encoder.open(TINY) as encoder:
        yield encoder


def test_batch_ends_at_its_number_of_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(putting, "BATCH_DOCUMENTS", 2)
    documents = [Document(str(n), "text") for n in range(5)]
    assert [len(batch) for batch in batches(documents)] == [2, 2, 1]
    assert [one for batch in batches(documents) for one in batch] == documents


def test_batch_ends_at_its_number_of_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(putting, "BATCH_CHARS", 10)
    documents = [Document(str(n), "x" * size) for n, size in enumerate((4, 6, 30, 1))]
    assert [[one.id for one in batch] for batch in batches(documents)] == [["0", "1"], ["2"], ["3"]]


def test_no_batch_has_an_id_twice() -> None:
    documents = [Document("a", "1"), Document("b", "2"), Document("a", "3")]
    assert list(batches(documents)) == [documents[:2], documents[2:]]


def test_batches_are_read_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(putting, "BATCH_DOCUMENTS", 2)
    read: list[int] = []

    def endless() -> Iterator[Document]:
        number = 0
        while True:
            read.append(number)
            yield Document(str(number), "text")
            number += 1

    next(batches(endless()))
    assert read == [0, 1]


def test_entries_hold_the_codes_of_their_passages(encoder: Encoder) -> None:
    entries = embed(encoder, DOCUMENTS, RULE, "fp16")
    assert [entry.document for entry in entries] == DOCUMENTS
    assert [len(entry.spans) > 1 for entry in entries] == [True, False, False]
    assert entries[1].spans == []
    for entry in entries:
        passages = [entry.document.text[start:end] for start, end in entry.spans]
        alone = encoder.encode(passages, kind="document")
        assert alone.full is not None
        assert entry.full is not None
        np.testing.assert_array_equal(entry.codes, alone.coarse)
        np.testing.assert_allclose(entry.full, alone.full, atol=1e-6)


def test_full_vectors_are_dropped_where_the_store_keeps_none(encoder: Encoder) -> None:
    assert all(entry.full is None for entry in embed(encoder, DOCUMENTS, RULE, None))
    with Encoder.open(TINY_COARSE) as coarse:
        assert all(entry.full is None for entry in embed(coarse, DOCUMENTS, RULE, "fp16"))


def test_rule_stays_where_the_new_model_can_read_its_passages(encoder: Encoder) -> None:
    assert rule_for(encoder, RULE, None, None) == RULE
    assert rule_for(encoder, RULE, 9, None) == PassageRule(9, 1, "markdown")
    fitting = rule_for(encoder, PassageRule(100_000, 5), None, None)
    assert fitting.max_tokens < encoder.manifest.max_tokens
    with pytest.raises(UsageError, match="100000 tokens"):
        rule_for(encoder, RULE, 100_000, None)


def test_reindexing_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again, "REINDEX_DOCUMENTS", 2)
    seen: list[tuple[int, int]] = []

    def interrupt(done: int, total: int) -> None:
        seen.append((done, total))
        raise KeyboardInterrupt

    with Index.open(tmp_path / "notes.db", bundle=TINY) as index:
        index.put(Document(str(n), "the cat") for n in range(5))
        with pytest.raises(KeyboardInterrupt):
            index.reindex(TINY_COARSE, progress=interrupt)
        before = index.binding
        assert index.count().documents == 5
        assert index.reindex(TINY_COARSE, progress=lambda *told: seen.append(told)) == 3
        assert index.binding.code != before.code
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_document_that_changes_behind_reindexing_is_embedded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again, "REINDEX_DOCUMENTS", 2)
    with Index.open(tmp_path / "notes.db", bundle=TINY) as index:
        index.put(Document(str(n), "the cat") for n in range(4))

        def change(done: int, _total: int) -> None:
            if done == 2:
                index.put([Document("0", "a dog barking")])

        assert index.reindex(TINY_COARSE, progress=change) == 5
        assert index.get(["0"])["0"].text == "a dog barking"
        assert index.search("a dog barking", k=1)[0].id == "0"
        assert index.check().sound


def test_what_puts_did_adds_up() -> None:
    total = Stored(added=1, passages=4) + Stored(updated=2, unchanged=3, passages=5)
    assert total == Stored(1, 2, 3, 9)
    assert total.documents == 6


@pytest.mark.parametrize("odd", [5, None, "text", b"text", {"id": "a", "text": "b"}])
def test_what_is_no_list_of_documents_is_named_with_an_example(odd: Any) -> None:
    with pytest.raises(UsageError, match=r"documents is .*, as in put\(\[Document\("):
        next(batches(odd))
