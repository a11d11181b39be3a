"""Threads that search wait for no other thread of their process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.documents import Document
from edge_mrl.index import Index
from edge_mrl.search import QueryVectors, SearchOptions, answer
from edge_mrl.store import Store, check, compact, readers
from tests.support.bundles import TINY
from tests.support.stores import DIM, entry, open_store

pytestmark = pytest.mark.test

#: Long enough for what does not wait, on any machine.
PATIENCE_S = 60
#: Long enough to see that something waits.
MOMENT_S = 0.3
QUERY = QueryVectors(np.ones(DIM, np.int8), None)


def found(store: Store) -> list[str]:
    with store.searching() as view:
        return sorted(hit.id for hit in answer(view, ["text"], [QUERY], SearchOptions(k=99))[0])


@contextmanager
def other_thread() -> Iterator[None]:
    """Keep a thread alive, so that a search knows that it is not alone."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait, args=(PATIENCE_S,))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def opened(path: Path) -> int:
    """How often this process has a file open."""
    files = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return files.count(str(path.resolve()))


def test_search_waits_for_no_write(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.db") as store, ThreadPoolExecutor(2) as threads:
        store.put([entry("a"), entry("b")])
        with store.writing():
            store._connection.execute("DELETE FROM documents WHERE id = 'b'")
            searching = threads.submit(found, store)
            assert searching.result(PATIENCE_S) == ["a", "b"]  # what is committed

            def reading() -> int:
                with store.reading() as view:
                    return len(view.existing([1, 2]))

            # The twin: the store's own connection is lent to one thread at a time.
            waiting = threads.submit(reading)
            threading.Event().wait(MOMENT_S)
            assert not waiting.done()
        assert waiting.result(PATIENCE_S) == 1


def test_searches_run_side_by_side_on_a_few_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    plain = Store.open.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Store], *args: Any, **options: Any) -> Store:
        nonlocal count
        count += 1
        opened: Store = plain(cls, *args, **options)
        return opened

    monkeypatch.setattr(Store, "open", classmethod(counted))
    together = threading.Barrier(readers.MOST, timeout=PATIENCE_S)

    def side_by_side(store: Store) -> bool:
        with store.searching() as view:
            together.wait()  # all of them are in here
            return len(view.existing([1])) == 1

    with open_store(tmp_path / "s.db") as store, ThreadPoolExecutor(8) as threads:
        store.put([entry("a")])
        for _ in range(3):
            assert all(threads.map(side_by_side, [store] * 2 * readers.MOST))
        assert count == readers.MOST


def test_process_of_one_thread_has_one_connection(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with open_store(path) as store:
        store.put([entry("a")])
        if threading.active_count() == 1:
            assert found(store) == ["a"]
            assert store._readers._idle == []
        with other_thread():
            assert found(store) == ["a"]
            assert len(store._readers._idle) == 1
    assert opened(path) == 0


def test_connection_that_is_lent_is_closed_when_its_search_ends(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = open_store(path)
    store.put([entry("a")])
    with other_thread():
        with store.searching() as view:
            store.close()
            assert view.existing([1]) == [1]
            assert opened(path) > 0
        assert opened(path) == 0


def test_file_that_took_its_name_is_not_searched(tmp_path: Path) -> None:
    with open_store(tmp_path / "other.db") as other:
        other.put([entry("other")])
    with open_store(tmp_path / "s.db") as store, other_thread():
        store.put([entry("mine")])
        (tmp_path / "other.db").replace(tmp_path / "s.db")
        assert found(store) == ["mine"]


def test_where_no_connection_can_be_opened_the_own_one_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(tmp_path / "s.db") as store, other_thread():
        store.put([entry("a")])
        monkeypatch.setattr(readers, "inode", lambda _: None)
        assert found(store) == ["a"]
        assert store._readers._idle == []


def test_searches_follow_a_change_of_the_bundle(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    other = TINY.parent / "tiny-bert-coarse-8"
    with Index.open(path, TINY) as index, other_thread():
        index.put([Document("a", "a cat"), Document("b", "a dog")])
        assert len(index.search("a cat")) == 2
        vector = index.encoder.encode(["a cat"]).coarse[0]
        with Index.open(path) as another:
            another.reindex(other)
        assert len(index.search("a cat")) == 2
        assert index.binding.dim == 8
        assert [hit.id for hit in index.similar("a")] == ["b"]
        with pytest.raises(Exception, match="the vector is"):
            index.search_vector(vector)


def test_threads_search_while_others_write(tmp_path: Path) -> None:
    """Each answer is one state: both halves of a document pair, or neither."""
    done = threading.Event()

    def search(store: Store) -> int:
        answers = 0
        while not done.is_set() or not answers:
            names = found(store)
            assert {name[1:] for name in names if name[0] == "a"} == {
                name[1:] for name in names if name[0] == "b"
            }
            answers += 1
        return answers

    with open_store(tmp_path / "s.db") as store, ThreadPoolExecutor(3) as threads:
        searches = [threads.submit(search, store) for _ in range(3)]
        steps: list[Callable[[int], object]] = [
            lambda n: store.put([entry(f"a{n}"), entry(f"b{n}", fill=2)]),
            lambda n: store.put([replace(entry(f"a{n}", fill=3), full=None), entry(f"b{n}")]),
            lambda n: store.delete([f"a{n - 1}", f"b{n - 1}"]),
            lambda n: compact(store) if n % 10 == 0 else None,
        ]
        try:
            for n in range(40):
                for step in steps:
                    step(n)
        finally:
            done.set()
        assert all(one.result(PATIENCE_S) for one in searches)
        assert check(store).problems == ()
