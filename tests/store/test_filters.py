"""Filters on metadata, in a real database, against the obvious twin in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_mrl.errors import DamagedError, UsageError
from edge_mrl.search import QueryVectors, SearchOptions, answer
from edge_mrl.store import check
from edge_mrl.store.filters import matching, selecting
from edge_mrl.store.filters.compiling import MAX_CONDITIONS, MAX_DEPTH, compile_filter
from edge_mrl.store.filters.values import field_rows
from tests.support.stores import DIM, entry, open_store

if TYPE_CHECKING:
    from pathlib import Path

    from edge_mrl.store import Store

METADATA: list[dict[str, Any]] = [
    {},
    {"lang": "en", "year": 2020},
    {"lang": "de", "year": 2021, "tags": ["a", "b"]},
    {"lang": "en", "year": 2022.5, "tags": []},
    {"lang": None, "year": "2020", "draft": True},
    {"author": {"name": "Ada", "born": 1815}, "draft": False},
    {"draft": 1, "odd 'name\"; DROP TABLE fields": "x"},
    {"big": 2**62 + 1, "year": -1},
    {"tags": ["b", 3, None]},
]


def selected(store: Store, where: dict[str, Any]) -> set[int]:
    with store.reading() as view:
        keys = [int(key) for key in view.select(where)]
        found = {document.id for document in view.documents(keys).values()}
        # Compared with the documents themselves, the same ones match.
        everything = view.documents([int(key) for key in view.select({})])
        assert found == {
            one.id for one in everything.values() if matching.matches(where, one.metadata)
        }
        assert view.ids_where(where) == sorted(found)
        return {int(name) for name in found}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with open_store(tmp_path_factory.mktemp("filters") / "store.db") as store:
        store.put([entry(str(i)) for i in range(0)])
        documents = [entry(str(number), f"text {number}") for number in range(len(METADATA))]
        from dataclasses import replace

        store.put(
            [
                replace(e, document=replace(e.document, metadata=metadata))
                for e, metadata in zip(documents, METADATA, strict=True)
            ]
        )
        yield store


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"lang": "en"}, {1, 3}),
        ({"lang": "en", "year": 2020}, {1}),
        ({"year": {"$gte": 2020}}, {1, 2, 3}),
        ({"year": {"$gt": 2020, "$lt": 2022}}, {2}),
        ({"year": {"$lte": 0}}, {7}),
        ({"year": "2020"}, {4}),
        ({"year": {"$gte": "2"}}, {4}),
        ({"lang": {"$in": ["de", "fr"]}}, {2}),
        ({"year": {"$in": [2020, "2020", True]}}, {1, 4}),
        ({"lang": {"$in": []}}, set()),
        ({"lang": {"$nin": ["en", "de"]}}, {0, 4, 5, 6, 7, 8}),
        ({"lang": {"$ne": "en"}}, {0, 2, 4, 5, 6, 7, 8}),
        ({"lang": None}, {4}),
        ({"lang": {"$exists": False}}, {0, 5, 6, 7, 8}),
        ({"tags": "b"}, {2, 8}),
        ({"tags": 3}, {8}),
        ({"tags": {"$exists": True}}, {2, 8}),
        ({"author.name": "Ada"}, {5}),
        ({"author.born": {"$lt": 1900}}, {5}),
        ({"draft": True}, {4}),
        ({"draft": 1}, {6}),
        ({"draft": False}, {5}),
        ({"big": 2**62 + 1}, {7}),
        ({"big": {"$in": [2**62, 2**62 + 1]}}, {7}),
        ({"big": {"$gt": 2**62}}, {7}),
        ({"big": {"$lt": 2**62 + 2}}, {7}),
        ({"big": 2**62}, set()),
        ({"big": float(2**62)}, set()),
        ({"big": {"$gte": 2**62 + 2}}, set()),
        ({}, set(range(9))),
        ({"year": {"$not": {"$gte": 2020}}}, {0, 4, 5, 6, 7, 8}),
        ({"$or": [{"lang": "de"}, {"year": 2020}]}, {1, 2}),
        ({"$and": [{"lang": "en"}, {"year": {"$gt": 2020}}]}, {3}),
        ({"$not": {"lang": "en"}}, {0, 2, 4, 5, 6, 7, 8}),
        ({"lang": "en", "$or": [{"year": 2020}, {"year": {"$gt": 2022}}]}, {1, 3}),
        ({"odd 'name\"; DROP TABLE fields": "x"}, {6}),
        ({"lang": "en' OR '1'='1"}, set()),
        ({"' OR 1=1 --": "x"}, set()),
    ],
)
def test_filter_selects(where: dict[str, Any], expected: set[int], store: Store) -> None:
    assert selected(store, where) == expected


@pytest.mark.parametrize(
    "where",
    [
        {"$and": []},
        {"$or": {"a": 1}},
        {"$nor": [{"a": 1}]},
        {"a": {"$regex": "x"}},
        {"a": {}},
        {"a": [1]},
        {"a": {"$in": "text"}},
        {"a": {"$gt": None}},
        {"a": {"$gt": float("nan")}},
        {"a": 2**63},
        {"a": {"$in": [10**5000]}},
        {"a": "\udcff"},
        {"a": "b\0"},
        {"a\udcff": 1},
        {"$not": {}},
        {"a": {"$exists": 1}},
        {"a": object()},
        {3: "x"},
        "lang = 'en'",
    ],
)
def test_what_is_no_filter_is_a_usage_error(where: Any) -> None:
    with pytest.raises(UsageError, match="filter"):
        compile_filter(where)


def test_filters_beyond_what_sqlite_takes_are_usage_errors(store: Store) -> None:
    deep: dict[str, Any] = {"a": 1}
    for _ in range(MAX_DEPTH - 1):
        deep = {"$not": deep}
    selected(store, deep)
    with pytest.raises(UsageError, match="levels"):
        compile_filter({"$not": deep})
    most = {"$or": [{"a": number} for number in range(MAX_CONDITIONS - 1)]}
    selected(store, most)
    with pytest.raises(UsageError, match="conditions"):
        compile_filter({"$or": [{"a": number} for number in range(MAX_CONDITIONS)]})
    assert selected(store, {"lang": {"$in": ["en"] * 5000}}) == {1, 3}


def matches(metadata: dict[str, Any], where: dict[str, Any]) -> bool:
    """The twin: one document against one filter."""
    rows = field_rows(metadata)

    def has(name: str, test: Any) -> bool:
        return any(n == name and test(kind, value) for n, kind, value in rows)

    def one(name: str, value: Any) -> bool:
        if name == "$and":
            return all(matches(metadata, part) for part in value)
        if name == "$or":
            return any(matches(metadata, part) for part in value)
        if name == "$not":
            return not matches(metadata, value)
        if isinstance(value, dict):
            ((operator, bound),) = value.items()
            if operator == "$gte":
                return has(name, lambda kind, v: kind == 2 and v >= bound)
            return not has(name, lambda kind, v: kind == 2 and v == bound)
        return has(name, lambda kind, v: kind == 2 and v == value)

    return all(one(name, value) for name, value in where.items())


LEAVES = st.dictionaries(
    st.sampled_from("ab"),
    st.integers(0, 3)
    | st.builds(dict, st.tuples(st.tuples(st.sampled_from(["$gte", "$ne"]), st.integers(0, 3)))),
    min_size=1,
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda f: {"$not": f}, inner)
        | st.builds(
            lambda n, f: {n: f}, st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1)
        )
    ),
    max_leaves=8,
)


@pytest.mark.test
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(where=FILTERS)
def test_any_filter_selects_what_the_twin_does(where: dict[str, Any], numbers: Store) -> None:
    with numbers.reading() as view:
        keys = [int(key) for key in view.select(where)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(selecting, "FEW", -1)  # as where each condition holds for many documents
            assert [int(key) for key in view.select(where)] == keys
        found = {document.id for document in view.documents(keys).values()}
    grid = [{"a": a, "b": b} for a in range(4) for b in range(4)] + [{"a": 1}, {"b": 2}, {}]
    expected = {str(i) for i, metadata in enumerate(grid) if matches(metadata, where)}
    assert found == expected


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path: Path = tmp_path_factory.mktemp("numbers") / "store.db"
    with open_store(path) as store:
        grid = [{"a": a, "b": b} for a in range(4) for b in range(4)] + [{"a": 1}, {"b": 2}, {}]
        store.put([entry(str(i), **metadata) for i, metadata in enumerate(grid)])
        yield store


def test_filters_follow_changes_of_metadata(store: Store, tmp_path: Path) -> None:
    with open_store(tmp_path / "s.db") as own:
        own.put([entry("1", "one", x=1), entry("2", "two", x=1)])
        own.put([entry("1", "other", x=2)])
        document = own.get(["2"])["2"]
        own.put([], unchanged=[type(document)("2", "two", {"x": 3})])
        assert selected(own, {"x": 1}) == set()
        assert selected(own, {"x": {"$in": [2, 3]}}) == {1, 2}
        own.delete(["1"])
        assert selected(own, {"x": {"$exists": True}}) == {2}


def test_value_that_is_damaged_in_the_index_never_selects_a_wrong_document(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.db") as store:
        store.put([entry(f"d{n}", f"text {n}", fill=n + 1, n=n) for n in range(6)])
        with store.writing(), store.locked() as (connection, _):
            connection.execute("UPDATE fields SET value = 2 WHERE value = 5")
        query = QueryVectors(np.ones(DIM, np.int8), None)
        for mode in ("vector", "keyword", "hybrid"):
            # Those of few documents are compared with the filter one by one: the index is not asked.
            options = SearchOptions(filter={"n": 2}, mode=mode)  # type: ignore[arg-type]
            with store.reading() as view:
                assert [hit.id for hit in answer(view, ["text"], [query], options)[0]] == ["d2"]
            # With words it is asked.
            where = {"n": 2, "$match": "text"}
            options = SearchOptions(filter=where, mode=mode)  # type: ignore[arg-type]
            with (
                pytest.raises(DamagedError, match=r"index of metadata .*check --repair"),
                store.reading() as view,
            ):
                answer(view, ["text"], [query], options)
        with pytest.raises(DamagedError, match="index of metadata"), store.reading() as view:
            view.ids_where({"n": {"$lt": 3}})
        with store.reading() as view:
            assert view.ids_where({"n": 3}) == ["d3"]  # what is not hit answers as ever
        (problem,) = check(store).problems
        assert problem == "fields: values are missing from the index of metadata"
        assert check(store, repair=True).repaired == (problem,)
        with store.reading() as view:
            assert view.ids_where({"n": {"$gte": 5}}) == ["d5"]
            assert [hit.id for hit in answer(view, ["text"], [query], options)[0]] == ["d2"]
