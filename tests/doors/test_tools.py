"""What agents get is bounded, whatever the store holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_mrl import Document, Index, UsageError
from edge_mrl.doors import StoreTools
from tests.support.bundles import TINY

LONG = "the cat and the dog and the ferry. " * 3_000
#: Names and punctuation of the answer itself.
FRAME = 60


@pytest.fixture
def tools(tmp_path: Path) -> Iterator[StoreTools]:
    with Index.open(tmp_path / "s.db", TINY) as index:
        index.put(
            [
                Document("a", "the cat", {"title": "Cats", "lang": "en"}),
                Document("long", LONG, {"lang": "en"}),
                Document("wordy", "the cat again", {"words": "x" * 5_000}),
                Document("i" * 30_000, "a cat whose name is long", {}),
                Document("f.md", "# One\n\n## Two\n\nThe cat sleeps.\n", {}),
            ]
        )
        yield StoreTools(index)


def search(tools: StoreTools, query: str = "the cat", k: int = 5, **options: Any) -> Any:
    given = {"mode": "hybrid", "filter": None, "max_chars": 8_000, **options}
    return tools.search(query, k, **given)


def size(value: Any) -> int:
    return len(json.dumps(dataclasses.asdict(value), ensure_ascii=False))


@pytest.mark.parametrize("max_chars", [1_000, 1_500, 4_000, 40_000])
def test_answers_are_never_longer_than_was_asked(tools: StoreTools, max_chars: int) -> None:
    answer = search(tools, max_chars=max_chars, k=50)
    assert size(answer) <= max_chars + FRAME
    assert len(answer.results) + answer.omitted == 5
    assert answer.omitted >= (max_chars < 40_000)


def test_the_store_itself_would_answer_with_more(tools: StoreTools) -> None:
    """The sabotage twin: what is bounded is not small by itself."""
    hits = tools.index.search("the cat", 50, mode="hybrid")
    assert sum(size(hit) for hit in hits) > 35_000


def test_a_passage_that_does_not_fit_is_cut_and_says_so(tools: StoreTools) -> None:
    (found,) = search(
        tools, "ferry", k=1, mode="keyword", max_chars=1_000, filter={"lang": "en"}
    ).results
    assert (found.id, found.cut) == ("long", False)
    passage = found.end - found.start
    (whole,) = search(tools, "ferry", k=1, mode="keyword", filter={"lang": "en"}).results
    assert whole.text == LONG[whole.start : whole.end]
    assert len(whole.text) == passage


def test_hits_name_title_resource_headings_and_metadata(tools: StoreTools) -> None:
    found = {hit.id: hit for hit in search(tools, max_chars=40_000).results}
    assert (found["a"].title, found["a"].metadata) == ("Cats", {"title": "Cats", "lang": "en"})
    assert found["a"].url == "edge-mrl://document/a"
    assert found["f.md"].headings == ["One", "Two"]
    assert found["wordy"].metadata == {}


def test_a_text_is_read_part_by_part(tools: StoreTools) -> None:
    parts, start = [], 0
    while True:
        part = tools.get("long", start=start, end=None, max_chars=40_000)
        parts.append(part.text)
        assert part.length == len(LONG)
        if part.next_start is None:
            break
        start = part.next_start
    assert "".join(parts) == LONG
    assert len(parts) == 3
    assert tools.get("a", start=4, end=7, max_chars=100).text == "cat"
    assert tools.get("a", start=0, end=100, max_chars=100).text == "the cat"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda t: search(t, k=51), "k is 51, expected at most 50"),
        (lambda t: search(t, k=0), "at least 1"),
        (lambda t: search(t, max_chars=999), "at least 1000"),
        (lambda t: search(t, max_chars=40_001), "at most 40000"),
        (lambda t: search(t, filter={"$bad": 1}), "not an operator"),
        (lambda t: t.get("nobody", end=None, max_chars=10), "no document 'nobody'"),
        (lambda t: t.get("", end=None, max_chars=10), "no document ''"),
        (lambda t: t.get("a", start=8, end=None, max_chars=10), "7 characters"),
        (lambda t: t.get("a", start=-1, end=None, max_chars=10), "7 characters"),
        (lambda t: t.get("a", start=5, end=3, max_chars=10), "7 characters"),
        (lambda t: t.get("a", end=None, max_chars=0), "at least 1"),
        (lambda t: t.put("", "x", None), "empty"),
        (lambda t: t.put("x", "x", {"a": float("nan")}), "finite"),
        (lambda t: t.delete(["x"] * 101), "at most 100"),
    ],
)
def test_what_is_wrong_is_said(tools: StoreTools, call: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call(tools)


def test_documents_are_put_and_deleted(tools: StoreTools) -> None:
    assert tools.put("new", "a bird", {"lang": "en"}).outcome == "added"
    assert tools.put("new", "a bird", {"lang": "en"}).outcome == "unchanged"
    assert tools.put("new", "a tree", None).outcome == "updated"
    assert tools.delete(["new", "nobody"]).deleted == 1


def test_instructions_say_what_is_there(tools: StoreTools, tmp_path: Path) -> None:
    said = tools.instructions()
    assert "5 documents" in said
    assert '`filter` compares metadata (lang, title), as in {"lang": "en"}' in said
    assert "read only" in said
    with Index.open(tmp_path / "empty.db", TINY) as index:
        empty = StoreTools(index, write=True).instructions()
    assert "0 documents" in empty
    assert "filter" not in empty
    assert "`put` and `delete` change the store" in empty
