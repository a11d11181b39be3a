"""What a store's searches and writes cost as it grows, in steps of SQLite's virtual machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edge_mrl.search import QueryVectors, SearchOptions, answer
from edge_mrl.store.codefile import cache as codecache
from edge_mrl.store.codefile.state import read_state, write_state
from edge_mrl.store.filters import selecting
from edge_mrl.store.keywords import common
from tests.support.stores import DIM, entry, full_entry, open_enrolled, open_store

if TYPE_CHECKING:
    from pathlib import Path

    from edge_mrl.store import Store

pytestmark = pytest.mark.test

#: Documents of two stores that are compared, and how much more a linear cost may grow than they do.
SMALL, LARGE = 1_000, 4_000
LINEAR = 1.5 * LARGE / SMALL
#: Steps for each document where a filter has to look at all of them.
EACH = 20
#: What does not grow with the store may differ by this much.
EQUAL = 1.3
#: A call of the handler of progress for so many steps.
STEPS = 10
#: Shares of the documents: a half, all but a few, one in a hundred, none, and those without a value.
FILTERS: dict[str, dict[str, Any]] = {
    "half": {"even": True},
    "most": {"n": {"$gte": 10}},
    "one in a hundred": {"hundredth": 7},
    "few, by what they are not": {"hundredth": {"$ne": 7}, "n": {"$lt": 20}},
    "all but some": {"hundredth": {"$ne": 7}},
    "one of many": {"hundredth": {"$in": list(range(50))}},
    "none": {"even": "neither"},
    "words": {"even": True, "$match": "rare"},
}
WIDE = ("half", "most", "all but some", "one of many")


@contextmanager
def counting(store: Store) -> Iterator[Callable[[], int]]:
    """Count the steps of statements on a store's connection, in the block."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += STEPS

    with store.locked() as (connection, _):
        connection.set_progress_handler(step, STEPS)
    yield lambda: steps
    with store.locked() as (connection, _):
        connection.set_progress_handler(None, 0)


def fill(store: Store, documents: int) -> None:
    """One document in fifty has the word "rare", all have the word "common"."""
    drawn = np.random.default_rng(1).integers(-90, 90, (documents, 1, DIM)).astype(np.int8)
    entries = [
        entry(
            f"d{n}",
            f"common text {n}" + (" rare" if n % 50 == 0 else ""),
            n=n,
            even=n % 2 == 0,
            hundredth=n % 100,
        )
        for n in range(documents)
    ]
    store.put([replace(one, codes=codes) for one, codes in zip(entries, drawn, strict=True)])


def steps_of(store: Store, words: str, mode: Any, where: dict[str, Any] | None) -> int:
    query = QueryVectors(np.array([70, -50, 20, 90], np.int8), None)
    options = SearchOptions(mode=mode, filter=where)
    with store.reading() as view:
        view.codes  # noqa: B018 - read once
    with counting(store) as steps, store.reading() as view:
        answer(view, [words], [query], options)
    return steps()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    folder = tmp_path_factory.mktemp("growth")
    with open_store(folder / "small.db") as small, open_store(folder / "large.db") as large:
        fill(small, SMALL)
        fill(large, LARGE)
        yield small, large


@pytest.mark.parametrize("mode", ["vector", "keyword", "hybrid"])
@pytest.mark.parametrize("words", ["rare", "common"])
@pytest.mark.parametrize("name", FILTERS)
def test_filter_never_costs_more_than_the_documents_grow(
    stores: tuple[Store, Store], name: str, words: str, mode: str
) -> None:
    small, large = (steps_of(store, words, mode, FILTERS[name]) for store in stores)
    assert large <= max(LINEAR * small, EACH * LARGE)


@contextmanager
def tracing(store: Store) -> Iterator[list[str]]:
    """The statements on a store's connection, in the block."""
    statements: list[str] = []
    with store.locked() as (connection, _):
        connection.set_trace_callback(statements.append)
    try:
        yield statements
    finally:
        with store.locked() as (connection, _):
            connection.set_trace_callback(None)


@pytest.mark.parametrize("mode", ["vector", "keyword", "hybrid"])
@pytest.mark.parametrize("name", WIDE)
def test_filter_that_many_match_costs_no_look_at_all_of_them(
    stores: tuple[Store, Store], name: str, mode: str
) -> None:
    for store in stores:
        with tracing(store) as statements:
            steps_of(store, "common", mode, FILTERS[name])
        assert not [sql for sql in statements if "fields" in sql]
    with tracing(store) as statements:  # where none of the best match, all that do are looked up
        steps_of(store, "common", mode, FILTERS["none"])
    assert [sql for sql in statements if "fields" in sql]


@pytest.mark.parametrize("name", FILTERS)
def test_words_are_looked_up_once_and_not_for_each_document(
    stores: tuple[Store, Store], name: str
) -> None:
    """FTS5 that is asked for one row at a time begins anew each time: its plan has "=" then."""
    _, store = stores
    with tracing(store) as statements:
        steps_of(store, "common", "keyword", FILTERS[name])
    plans = []
    with store.locked() as (connection, _):
        for sql in statements:
            if "-rank" in sql:
                plans += [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
    indexes = [plan.rpartition(":")[2] for plan in plans if "VIRTUAL TABLE" in plan]
    assert indexes
    assert all(index == "M1" for index in indexes), plans


def test_plan_that_begins_anew_is_seen(stores: tuple[Store, Store]) -> None:
    """The test above can fail: without the sign before ``rowid``, the plan is the other one."""
    with stores[0].locked() as (connection, _):
        query = (
            "EXPLAIN QUERY PLAN SELECT rowid FROM keywords WHERE keywords MATCH 'a' "
            "AND rowid IN (SELECT document FROM fields WHERE name = 'n')"
        )
        plans = [row[3] for row in connection.execute(query)]
    assert any("=" in plan.rpartition(":")[2] for plan in plans if "VIRTUAL TABLE" in plan)


def test_common_word_is_not_ranked_where_a_rarer_one_is_there(
    stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store = stores
    both = steps_of(store, "common rare", "keyword", None)
    monkeypatch.setattr(common, "LIMITS", ((0.4, 10), (0.2, 100)))
    assert steps_of(store, "common rare", "keyword", None) < both / 4


def test_numbers_are_counted_once_for_each_state(stores: tuple[Store, Store]) -> None:
    _, store = stores
    assert store.count().documents == LARGE
    with counting(store) as steps:
        assert store.count().documents == LARGE
    assert steps() < LARGE / 10


@pytest.mark.parametrize("after", ["put", "delete"])
def test_write_costs_the_same_however_many_documents_wait(tmp_path: Path, after: str) -> None:
    costs = []
    for waiting in (10, 2_000):
        with open_enrolled(tmp_path / f"{waiting}.db") as store:
            store.put([full_entry(f"d{n}", f"text {n}") for n in range(waiting)])
            store.put([full_entry("last", "the last one")])  # counts what waits
            with counting(store) as steps:
                if after == "put":
                    store.put([full_entry("one", "another one")])
                else:
                    store.delete(["last"])
            costs.append(steps())
    assert costs[1] <= EQUAL * costs[0]


def undone(store: Store) -> None:
    """A write that fails after it has queued something."""
    with store.writing():
        with store._counting.queueing(["a"], store._most()):
            store._connection.execute("DELETE FROM outbox WHERE id = 'a'")
        raise OverflowError


def test_bytes_that_wait_are_right_after_every_kind_of_write(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with open_enrolled(path, max_queue=10_000) as store, open_enrolled(path) as other:
        size = 16  # bytes of the full vectors of a passage: 8 dimensions as fp16

        def waiting() -> int:
            with store.locked() as (connection, _):
                (found,) = connection.execute("SELECT sum(bytes) FROM outbox").fetchone()
                return int(found)  # of all, not kept

        def room() -> int:
            seen = []
            with store.writing(), store._counting.queueing([], store._most()) as left:
                seen.append(left)
            (found,) = seen
            assert found is not None
            return found

        steps: list[Callable[[], object]] = [
            lambda: store.put([full_entry("a"), full_entry("b", passages=3)]),
            lambda: store.put([full_entry("b", "other text")]),
            lambda: other.put([full_entry("c", passages=2)]),
            lambda: store.delete(["a"]),
            lambda: store.put([full_entry("a", "again")]),
            lambda: store.put([replace(full_entry("d"), full=np.zeros((1, 8), np.float32))]),
        ]
        for step in steps:
            step()
            assert room() == 10_000 - waiting()
        with pytest.raises(OverflowError):
            undone(store)
        assert room() == 10_000 - waiting()
        assert waiting() % size == 0


@pytest.mark.parametrize("filed", [False, True])
def test_search_after_a_commit_reads_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, filed: bool
) -> None:
    if filed:
        monkeypatch.setattr(codecache, "STAGE_ROWS", 1_500)
    with open_store(tmp_path / "s.db") as store:
        fill(store, 2_000)
        with store.locked() as (connection, _):
            assert bool(read_state(connection).filed) is filed
        store.put([entry(f"more{n}", f"text {n}") for n in range(1_000)])
        with store.reading() as view:
            assert view.codes.rows == 3_000
        store.put([entry("new", "a new text", fill=7)])
        store.delete(["more3"])
        with counting(store) as steps, store.reading() as view:
            codes, keys = view.codes.gather(np.array([2_003, 3_000]))
            assert view.codes.live == 3_000
        assert (codes[1][:DIM] == 7).all()
        assert len(keys) == 2
        assert steps() < 500
        with open_store(tmp_path / "s.db") as anew, anew.reading() as other:
            rows = np.setdiff1d(np.arange(3_001), other.codes.dead)
            theirs = other.codes.gather(rows)
        with store.reading() as view:
            for mine, right in zip(view.codes.gather(rows), theirs, strict=True):
                assert (mine == right).all()


def taken_back(store: Store) -> None:
    """A write that reads what it has written, and fails."""
    with store.taking() as taking:
        taking.put([entry("b", fill=2)])
        write_state(taking.connection, replace(taking.state, changes=taking.state.changes + 1))
        with store.reading() as view:
            assert view.codes.rows == 2
        raise OverflowError


def test_rows_of_a_write_that_is_undone_are_forgotten(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.db") as store:
        store.put([entry("a", fill=1)])
        with pytest.raises(OverflowError):
            taken_back(store)
        store.put([entry("c", fill=3)])
        with store.reading() as view:
            codes, _ = view.codes.gather(np.array([0, 1]))
        assert codes[:, 0].tolist() == [1, 3]


def test_condition_that_few_match_decides_what_the_others_cost(
    stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    filters: list[dict[str, Any]] = [
        {"even": True, "n": {"$lt": 20}},
        {"hundredth": {"$ne": 7}, "n": {"$lt": 20}},
        {"$or": [{"n": 3}, {"n": 4}], "even": {"$in": [True, False]}},
    ]

    def steps(store: Store, where: dict[str, Any]) -> int:
        with counting(store) as counted, store.reading() as view:
            assert 0 < len(view.select(where)) <= 20
        return counted()

    monkeypatch.setattr(selecting, "FEW", 50)
    for where in filters:
        small, large = (steps(store, where) for store in stores)
        assert large <= EQUAL * small
    # The twin: with each condition as a set, the wide one costs what it selects.
    monkeypatch.setattr(selecting, "FEW", -1)
    small, large = (steps(store, filters[0]) for store in stores)
    assert large > 2 * EQUAL * small
