"""What waits to be sent, and what a server's answers do to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_mrl.documents import Document
from edge_mrl.store import Store, check, replica
from edge_mrl.store.replica.outbox import NEVER, UNKNOWN, known_versions
from tests.support.stores import FULL_DIM, entry, full_entry, open_enrolled, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VECTOR_BYTES = 2 * FULL_DIM


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a store.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with open_enrolled(path) as store:
        yield store
        assert check(store).problems == ()


def waiting(store: Store) -> list[str]:
    return [one.id for one in replica.outgoing(store, limit=99)]


def judge(store: Store, status: str, *names: str, newer: int = 0) -> None:
    """Take over what a server says of the versions that wait."""
    stamps = {one.id: one.stamp for one in replica.outgoing(store, limit=99)}
    verdicts = [replica.Verdict(name, stamps[name], status, newer) for name in names]
    replica.acknowledge(store, verdicts, offset_ms=0)


def test_store_that_is_not_enrolled_queues_nothing(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a")])
        store.delete(["a"])
        assert replica.queue_of(store) == replica.Queue(0, 0, None)
        assert replica.newest_queued(store) == 0


def test_documents_wait_in_the_order_of_their_last_write(store: Store) -> None:
    store.put([full_entry("a", "text a"), full_entry("b", passages=2)])
    store.put([full_entry("a", "again")])
    store.delete(["b"])
    first, second = replica.outgoing(store, limit=9)
    assert (first.id, first.document, first.spans) == ("a", Document("a", "again"), [(0, 5)])
    assert first.vectors is not None
    assert np.array_equal(first.vectors, np.full((1, FULL_DIM), 0.5, np.float16))
    assert (second.id, second.deleted, second.document) == ("b", True, None)
    queue = replica.queue_of(store)
    assert (queue.items, queue.size_bytes) == (2, VECTOR_BYTES)
    assert queue.oldest_ms is not None
    assert second.stamp > first.stamp
    before = replica.newest_queued(store)
    store.put([full_entry("d")])
    assert replica.newest_queued(store) != before != 0
    assert [one.id for one in replica.outgoing(store, limit=9, after=first.stamp)] == ["b", "d"]
    assert [one.id for one in replica.outgoing(store, limit=1)] == ["a"]


def test_vectors_beyond_the_bound_are_left_out(path: Path) -> None:
    with open_enrolled(path, max_queue=VECTOR_BYTES) as store:
        store.put([full_entry("a"), full_entry("b")])
        assert replica.queue_of(store).size_bytes == VECTOR_BYTES
        first, second = replica.outgoing(store, limit=9)
        assert first.vectors is not None
        assert second.vectors is None  # made again from the text


def test_damaged_row_is_not_sent_but_made_again(store: Store) -> None:
    store.put([full_entry("a"), full_entry("b")])
    before = replica.outgoing(store, limit=9)
    with store.locked() as (connection, _):
        connection.execute("UPDATE outbox SET deleted = 1 WHERE id = 'a'")
    again = replica.outgoing(store, limit=9)
    assert [(one.id, one.stamp, one.deleted, one.document) for one in again] == [
        (one.id, one.stamp, False, one.document) for one in before
    ]
    assert check(store).sound


def test_accepted_version_leaves_the_queue_and_its_vectors_go(store: Store) -> None:
    store.put([full_entry("a"), full_entry("b")])
    judge(store, "applied", "a")
    assert waiting(store) == ["b"]
    with store.reading() as view:
        assert sorted(view.fulls([1, 2])) == [2]
    assert replica.ever_acknowledged(store)


def test_version_written_since_it_was_sent_keeps_waiting(store: Store) -> None:
    store.put([full_entry("a")])
    (sent,) = replica.outgoing(store, limit=9)
    store.put([full_entry("a", "newer")])
    replica.acknowledge(store, [replica.Verdict("a", sent.stamp, "applied")], offset_ms=0)
    (still,) = replica.outgoing(store, limit=9)
    assert still.document is not None
    assert still.document.text == "newer"
    assert still.vectors is not None


@pytest.mark.parametrize("status", ["invalid", "too_large", "forbidden"])
def test_refused_version_becomes_a_dead_letter(store: Store, status: str) -> None:
    store.put([full_entry("a")])
    judge(store, status, "a")
    assert waiting(store) == []
    (letter,) = replica.list_dead_letters(store)
    assert (letter.id, letter.reason) == ("a", status)


def test_version_ahead_of_the_servers_clock_gets_a_stamp_that_it_takes(store: Store) -> None:
    replica.mark_success(store, offset_ms=3_600_000)  # this machine's clock seemed an hour late
    store.put([full_entry("a")])
    (before,) = replica.outgoing(store, limit=9)
    judge(store, "clock_ahead", "a")
    (after,) = replica.outgoing(store, limit=9)
    assert after.id == "a"
    assert after.stamp < before.stamp


def test_one_push_is_open_at_a_time(store: Store) -> None:
    store.put([full_entry("a"), full_entry("b")])
    assert replica.begin_push(store, 1, ["a"])
    assert not replica.begin_push(store, 2, ["b"])  # what became of the first is not known
    enrollment = replica.enrollment_of(store)
    assert enrollment is not None
    assert enrollment.is_open
    replica.settle_push(store, 1, refused=None)
    assert not replica.begin_push(store, 1, ["b"])  # that number is used
    assert replica.begin_push(store, 2, ["b"])


@pytest.mark.parametrize(
    ("refused", "acknowledged"), [(None, NEVER), ((), UNKNOWN), (("a",), NEVER)]
)
def test_push_is_settled_by_what_became_of_it(
    store: Store, refused: tuple[str, ...] | None, acknowledged: int
) -> None:
    store.put([full_entry("a")])
    assert replica.begin_push(store, 1, ["a"])
    replica.settle_push(store, 1, refused=refused)
    with store.locked() as (connection, _):
        assert known_versions(connection, ["a"])["a"].acknowledged == acknowledged
    assert replica.ever_acknowledged(store) == (acknowledged != NEVER)
    assert waiting(store) == ["a"]  # it is sent again all the same
