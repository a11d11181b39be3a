"""Dead letters: kept to be read, queued again, or dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge_mrl.documents import Document
from edge_mrl.store import Store, check, replica
from edge_mrl.store.replica.dead_letters import write_dead_letter
from tests.support.stores import full_entry, open_enrolled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two documents and a deletion that a server has refused, and a document that was deleted there."""
    with open_enrolled(tmp_path / "a store.db") as store:
        store.put([full_entry("a", "text a"), full_entry("b", "text b"), full_entry("c")])
        store.delete(["c"])
        waiting = replica.outgoing(store, limit=9)
        verdicts = [replica.Verdict(one.id, one.stamp, "forbidden") for one in waiting]
        replica.acknowledge(store, verdicts, offset_ms=0)
        with store.writing(), store.locked() as (connection, _):
            kept = ('{"k": 1}', "text d")
            letter = ("d", 1, replica.DELETED_ELSEWHERE, 0)
            write_dead_letter(connection, letter, kept=kept)
        yield store
        assert check(store).problems == ()


def test_dead_letters_show_the_document_that_is_here_or_kept(store: Store) -> None:
    a, b, c, d = replica.list_dead_letters(store)
    assert (a.id, a.reason, a.deleted, a.document) == (
        "a",
        "forbidden",
        False,
        Document("a", "text a"),
    )
    assert b.document == Document("b", "text b")
    assert (c.id, c.deleted, c.document) == ("c", True, None)
    assert (d.reason, d.document) == (
        replica.DELETED_ELSEWHERE,
        Document("d", "text d", {"k": 1}),
    )
    assert a.since_ms > 0
    assert replica.count_dead_letters(store) == 4


def test_requeued_letters_get_new_stamps(store: Store) -> None:
    newest = replica.enrollment_of(store)
    assert newest is not None
    queued, documents = replica.requeue_dead_letters(store, ["a", "c", "not there"])
    assert (queued, documents) == (2, [])
    first, second = replica.outgoing(store, limit=9)
    assert (first.id, second.id, second.deleted) == ("a", "c", True)
    assert min(first.stamp, second.stamp) > newest.last
    assert [letter.id for letter in replica.list_dead_letters(store)] == ["b", "d"]


def test_document_that_was_deleted_elsewhere_comes_back_to_be_put(store: Store) -> None:
    queued, documents = replica.requeue_dead_letters(store)
    assert (queued, documents) == (3, [Document("d", "text d", {"k": 1})])
    assert [letter.id for letter in replica.list_dead_letters(store)] == ["d"]
    store.put([full_entry("d", "text d")])
    assert replica.count_dead_letters(store) == 0  # a newer version makes the letter useless


def test_dropped_letters_leave_the_documents(store: Store) -> None:
    assert replica.drop_dead_letters(store, ["a", "not there"]) == 1
    assert replica.count_dead_letters(store) == 3
    assert store.get(["a"])["a"].text == "text a"
    with store.reading() as view:
        assert view.fulls([1]) == {}  # kept to be sent only
        assert list(view.fulls([2])) == [2]
    assert replica.drop_dead_letters(store) == 3
    assert replica.list_dead_letters(store) == []
    assert replica.queue_of(store).items == 0


def test_damaged_letter_is_not_believed(store: Store) -> None:
    with store.locked() as (connection, _):
        connection.execute("UPDATE dead SET reason = 'invalid' WHERE id = 'b'")
    before = {one.id: one for one in replica.list_dead_letters(store)}
    assert (before["b"].reason, before["b"].document) == ("damaged", None)
    assert "`edge-mrl check --repair` drops it" in before["b"].detail
    assert before["a"].reason != "damaged"
    with store.locked() as (connection, _):
        connection.execute("UPDATE dead SET reason = 'forbidden' WHERE id = 'b'")
