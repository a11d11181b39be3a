"""Keyword search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_mrl.store.keywords.expression import match_expression
from tests.support.stores import entry, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge_mrl.store import Store


def found(store: Store, query: str, **options: object) -> list[str]:
    with store.reading() as view:
        matches = view.keyword_matches(query, k=10, **options)  # type: ignore[arg-type]
        assert [score for _, score in matches] == sorted((s for _, s in matches), reverse=True)
        documents = view.documents([key for key, _ in matches])
        return [documents[key].id for key, _ in matches]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "store.db")
    store.put(
        [
            entry("ferry", "The ferry leaves at dawn, the ferry is old", lang="en"),
            entry("boat", "A boat and a ferry", lang="en"),
            entry("cafe", "Das Café öffnet", lang="de"),
            entry("empty", ""),
        ]
    )
    yield store
    store.close()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("ferry", ["ferry", "boat"]),
        ("FERRY", ["ferry", "boat"]),
        ("cafe", ["cafe"]),
        ("boat dawn", ["boat", "ferry"]),
        ('"the ferry"', ["ferry"]),
        ("oeff* öff*", ["cafe"]),
        ("nothing", []),
        ("", []),
        ("?!", []),
    ],
)
def test_keyword_search_finds(query: str, expected: list[str], store: Store) -> None:
    assert sorted(found(store, query)) == sorted(expected)


def test_rare_words_count_more(store: Store) -> None:
    assert found(store, "boat ferry")[0] == "boat"


def test_keyword_search_filters_before_it_counts(store: Store) -> None:
    assert found(store, "ferry café", where={"lang": "de"}) == ["cafe"]


def test_keyword_search_follows_changes(store: Store) -> None:
    store.put([entry("boat", "a canoe")])
    store.delete(["cafe"])
    assert found(store, "ferry") == ["ferry"]
    assert found(store, "canoe") == ["boat"]
    assert found(store, "café") == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(query=st.text())
def test_any_text_is_a_query(query: str, store: Store) -> None:
    with store.reading() as view:
        view.keyword_matches(query, k=3)


@pytest.mark.parametrize(
    "query",
    ["ferry boat", "ferry _ boat", "\u2014 ferry \u2014 boat ?!", "\uff46\uff45rry* \u20b9 bo*"],
)
def test_terms_without_a_word_do_not_count(query: str, store: Store) -> None:
    with store.reading() as view:
        keys = [int(key) for key in view.select({"$match": query})]
        assert [one.id for one in view.documents(keys).values()] == ["boat"]
        assert view.keyword_matches("?! _ \u2014", k=3) == []


def test_characters_that_no_python_here_calls_letters_are_found(store: Store) -> None:
    store.put([entry("new", "well \U0001fae8 \u1b05\u1b35 done \u0378")])
    for query in ("\U0001fae8", "\u1b05\u1b35", "\u0378"):
        assert found(store, query) == ["new"]


def test_operators_of_fts5_are_words() -> None:
    assert match_expression("cats NOT (dogs) text:x -y") == (
        '"cats" OR "NOT" OR "(dogs)" OR "text:x" OR "-y"'
    )
    assert match_expression('say "two words" pre*') == '"say" OR "two words" OR "pre"*'
    assert match_expression('say "two words" pre*', every=True) == '"say" "two words" "pre"*'
