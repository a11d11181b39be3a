"""The way Markdown is split belongs to the store, and the headings above a passage to its hit."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_mrl.documents import Document, PassageRule
from edge_mrl.encode import embedded_texts, split_document, split_passages
from edge_mrl.errors import UsageError
from edge_mrl.index import Index
from edge_mrl.ingest import dump_lines, load_lines, parse_line
from edge_mrl.store import Binding, Store, check
from tests.support.bundles import TINY

pytestmark = pytest.mark.test

NOTE = "# the cat\n\na dog\n\n## testing\n\n### a model\n\ntraining of a model and a test of it\n"
OLD = "tokens"


def spans_of(index: Index, name: str) -> list[tuple[int, int]]:
    with index.store.reading() as view:
        (key,) = index.store.keys([name])
        return list(view.places([key], partial=True)[key][1])


def older(path: Path) -> Path:
    """A store as an earlier version made it."""
    with Index.open(path, TINY, max_tokens=12, overlap=2) as index:
        binding, rule = index.binding, index.rule
    path.unlink()
    Store.create(path, binding, replace(rule, splitter=OLD)).close()
    return path


def test_a_new_store_splits_by_structure_and_an_older_one_as_it_did(tmp_path: Path) -> None:
    document = Document("a.md", NOTE)
    with Index.open(tmp_path / "new.db", TINY, max_tokens=12, overlap=2) as index:
        assert index.rule == PassageRule(12, 2, "markdown")
        assert index.stats().splitter == "markdown"
        index.put([document])
        assert spans_of(index, "a.md") == split_document(index.encoder, document, index.rule)
    with Index.open(tmp_path / "new.db") as index:
        assert index.rule.splitter == "markdown"
    with Index.open(older(tmp_path / "old.db")) as index:
        index.put([document])
        assert index.rule.splitter == OLD
        assert spans_of(index, "a.md") == split_passages(index.encoder, NOTE, index.rule)


def test_reindexing_splits_anew_where_texts_are_embedded_anyway(tmp_path: Path) -> None:
    with Index.open(older(tmp_path / "old.db")) as index:
        index.put([Document("a.md", NOTE), Document("b", NOTE)])
        assert index.reindex(TINY) == 0
        assert index.rule.splitter == OLD
        assert index.reindex(TINY, again=True) == 2
        rule = index.rule
        assert (rule.splitter, rule.max_tokens) == ("markdown", 12)
        found = spans_of(index, "a.md")
        assert found == split_document(index.encoder, Document("a.md", NOTE), rule)
        assert spans_of(index, "b") == split_passages(index.encoder, NOTE, rule) != found
        assert check(index.store).problems == ()


def test_a_splitter_that_is_lost_is_named_and_the_store_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    Index.open(path, TINY, max_tokens=12).close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name, value FROM settings").fetchall() == [
            ("splitter", "markdown")
        ]
        connection.execute("UPDATE settings SET value = 'nonsense'")
    connection.close()
    with Index.open(path) as index:
        assert index.rule.splitter == OLD
        assert any("splitter" in problem for problem in index.check().problems)
        assert index.check(repair=True).problems == ()
        index.put([Document("a.md", NOTE)])


def test_a_splitter_of_a_newer_version_is_refused_where_it_matters(tmp_path: Path) -> None:
    with Index.open(tmp_path / "s.db", TINY) as index:
        binding: Binding = index.binding
    Store.create(tmp_path / "n.db", binding, PassageRule(12, 2, "newer")).close()
    with Index.open(tmp_path / "n.db") as index:
        assert index.put([Document("b.txt", "a cat")]).added == 1
        with pytest.raises(Exception, match="split by 'newer', which this version does not know"):
            index.put([Document("a.md", NOTE)])
        assert [hit.id for hit in index.search("a cat")] == ["b.txt"]


def test_codes_of_a_dump_are_taken_where_texts_are_split_alike(tmp_path: Path) -> None:
    with Index.open(tmp_path / "a.db", TINY, max_tokens=12, overlap=2) as index:
        index.put([Document("a.md", NOTE)])
        lines = list(dump_lines(index.store, codes=True))
        alike = Store.create(tmp_path / "b.db", index.binding, index.rule)
        other = Store.create(tmp_path / "c.db", index.binding, replace(index.rule, splitter=OLD))
        for store, taken in ((alike, 1), (other, 0)):
            parsed = [parse_line(line) for line in lines]
            assert load_lines(store, lambda: index.encoder, parsed).taken == taken
            store.close()


def test_a_hit_has_the_headings_above_its_passage(tmp_path: Path) -> None:
    with Index.open(tmp_path / "s.db", TINY, max_tokens=16, overlap=2) as index:
        index.put([Document("a.md", NOTE), Document("b", NOTE)])
        hits = {hit.id: hit for hit in index.search("training of a model", mode="keyword")}
        assert hits["a.md"].headings == ("the cat", "testing", "a model")
        assert hits["b"].headings == ()


def test_headings_are_in_the_vectors_of_a_store_that_wants_them(tmp_path: Path) -> None:
    text = f"# cat\n\n{'a dog and a model. ' * 30}"
    document = Document("a.md", text)
    with Index.open(tmp_path / "s.db", TINY, keep_full="fp16", headings=True) as index:
        assert index.stats().splitter == "markdown+headings"
        index.put([document])
        texts = embedded_texts(index.encoder, document, spans_of(index, "a.md"), index.rule)
        assert texts[-1].startswith("cat\n")
        wanted = index.encoder.encode(texts).full
        with index.store.reading() as view:
            (key,) = index.store.keys(["a.md"])
            found = view.fulls([key])[key]
        assert np.abs(found - wanted).max() < 1e-3
        assert index.search("a dog")[0].text in text
        assert check(index.store).problems == ()


def test_headings_belong_to_the_store_and_change_with_reindexing(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Index.open(path, TINY, max_tokens=12, overlap=2) as index:
        index.put([Document("a.md", NOTE)])
    with pytest.raises(UsageError, match="was made without headings in what is embedded"):
        Index.open(path, headings=True)
    with pytest.raises(UsageError, match="headings"):
        Index.open(path, headings="yes")
    with Index.open(path, headings=False) as index:
        assert index.reindex(TINY, headings=True) == 1
        assert index.rule == PassageRule(12, 2, "markdown+headings")
        assert index.reindex(TINY) == 0  # as now
        assert index.rule.splitter == "markdown+headings"
        assert index.reindex(TINY, headings=False) == 1
        assert index.rule.splitter == "markdown"
        assert index.reindex(TINY, again=True) == 1
        assert index.rule.splitter == "markdown"
