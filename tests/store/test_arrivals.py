"""What other devices wrote, taken into a store; and what a server does not have any more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import EdgeMrlError, NetworkError
from edge_mrl.store import Entry, Store, check, replica
from edge_mrl.store.replica.outbox import NEVER, UNKNOWN, Known, known_versions, write_versions
from edge_mrl.store.replica.withheld import WITHHELD_COLUMNS
from edge_mrl.wire import COUNTER_BITS, Item, Version, now_ms
from tests.support.stores import DIM, FULL_DIM, full_entry, live_codes, open_enrolled, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A stamp above those that a machine's clock gives today.
LATER = 1 << 60


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_enrolled(tmp_path / "a store.db") as store:
        yield store
        assert check(store).problems == ()


def pulled(
    name: str, stamp: int, text: str | None = "theirs", *, fill: int = 9, **metadata: str
) -> tuple[Item, Entry]:
    """A document of another device, as it is pulled."""
    vectors = np.ones((1, FULL_DIM), np.float16)
    values = None if text is None else metadata
    item = Item(name, stamp, vectors, device="other", text=text, metadata=values, spans=[(0, 1)])
    document = Document(name, text or "", metadata)
    return item, Entry(document, [(0, 1)], np.full((1, DIM), fill, np.int8))


def deleted(name: str, stamp: int) -> tuple[Item, None]:
    return Item(name, stamp, np.empty((0, FULL_DIM)), deleted=True, device="other"), None


def apply(store: Store, *items: tuple[Item, Entry | None]) -> replica.Applied:
    return replica.apply_pulled(store, items, cursor=5, epoch="e1", offset_ms=3)


def known(store: Store, *names: str) -> dict[str, Known]:
    with store.locked() as (connection, _):
        return known_versions(connection, names)


def last_stamp(store: Store) -> int:
    enrollment = replica.enrollment_of(store)
    assert enrollment is not None
    return enrollment.last


def test_new_document_is_stored_and_not_queued(store: Store) -> None:
    assert apply(store, pulled("a", LATER, lang="en")) == replica.Applied(put=1, deleted=0)
    assert store.get(["a"])["a"] == Document("a", "theirs", {"lang": "en"})
    assert replica.queue_of(store).items == 0
    enrollment = replica.enrollment_of(store)
    assert enrollment is not None
    assert (enrollment.cursor, enrollment.epoch, enrollment.offset_ms) == (5, "e1", 3)
    assert known(store, "a") == {"a": Known(Version(LATER, "other"), False, LATER)}


def test_stamp_ahead_of_the_time_counts_for_its_own_document_alone(store: Store) -> None:
    """Where last followed it, everything written here for a year would wait for the server's clock."""
    apply(store, pulled("far", LATER), pulled("near", now_ms() << COUNTER_BITS))
    store.put([full_entry("far", "mine"), full_entry("near", "mine"), full_entry("new")])
    stamps = {one.id: one.stamp for one in replica.outgoing(store, limit=9)}
    assert stamps["far"] == LATER + 1  # the next version still wins
    assert stamps.keys() == {"far", "near", "new"}
    soon = (now_ms() + 60_000) << COUNTER_BITS
    assert max(stamps["near"], stamps["new"], last_stamp(store)) < soon < LATER
    store.delete(["far"])
    assert {one.id: one.stamp for one in replica.outgoing(store, limit=9)}["far"] == LATER + 2


def test_server_that_is_behind_freezes_only_what_it_has_a_later_version_of(store: Store) -> None:
    apply(store, pulled("far", LATER))
    store.put([full_entry("far", "mine"), full_entry("new")])
    waiting = replica.outgoing(store, limit=9)
    verdicts = [replica.Verdict(one.id, one.stamp, "clock_ahead") for one in waiting]
    replica.acknowledge(store, verdicts, offset_ms=-1_000)
    new, far = replica.outgoing(store, limit=9)
    assert (new.id, far.id, far.stamp) == ("new", "far", LATER + 1)
    assert new.stamp < (now_ms() + 60_000) << COUNTER_BITS


def test_version_that_cannot_be_stored_is_kept_until_a_newer_one_comes(store: Store) -> None:
    letter = replica.Withheld("x", Version(LATER, "other"), False, replica.UNREADABLE, "too deep")
    applied = replica.apply_pulled(store, [pulled("a", 5)], cursor=7, withheld=[letter])
    assert applied == replica.Applied(put=1, deleted=0, withheld=1)
    (found,) = replica.list_dead_letters(store)
    assert (found.id, found.reason, found.device, found.detail, found.stamp, found.document) == (
        "x", "unreadable", "other", "too deep", LATER, None,
    )  # fmt: skip
    assert replica.count_dead_letters(store) == 1
    apply(store, pulled("x", LATER - 1))  # an older one heals nothing
    assert replica.count_dead_letters(store) == 1
    apply(store, pulled("x", LATER))
    assert replica.count_dead_letters(store) == 0
    replica.apply_pulled(store, [], cursor=8, withheld=[letter])  # what is here is not withheld
    assert replica.count_dead_letters(store) == 0
    later = replace(letter, version=Version(LATER + 9, "other"))
    replica.apply_pulled(store, [], cursor=8, withheld=[later])
    store.put([full_entry("x", "mine")])
    assert replica.count_dead_letters(store) == 0
    (mine,) = replica.outgoing(store, limit=9)
    assert mine.stamp == LATER + 10


@pytest.mark.parametrize("column", WITHHELD_COLUMNS.split(", "))
def test_damaged_version_that_is_withheld_is_left_out_and_named(column: str, store: Store) -> None:
    letters = [
        replica.Withheld(name, Version(7, "other"), False, replica.UNREADABLE, "too deep")
        for name in ("x", "y")
    ]
    replica.apply_pulled(store, [], cursor=7, withheld=letters)
    with store.writing(), store.locked() as (connection, _):
        wrong = {"id": "'z'", "stamp": str(1 << 61), "metadata": "x'ff'"}.get(column, "'odd'")
        connection.execute(f"UPDATE withheld SET {column} = {wrong} WHERE id = 'x'")
    name = "z" if column == "id" else "x"
    found = {one.id: (one.reason, one.document) for one in replica.list_dead_letters(store)}
    assert found == {name: ("damaged", None), "y": ("unreadable", None)}
    assert replica.count_dead_letters(store) == 2
    replica.local_sums(store)
    replica.ask_for_unreadable(store)
    assert replica.requeue_dead_letters(store) == (1, [])
    (problem,) = check(store).problems
    assert problem == f"sync: withheld of document {name!r} is damaged"
    if column == "device":
        assert replica.drop_dead_letters(store, [name]) == 1
    elif column == "stamp":  # what is damaged says nothing of the time
        store.put([full_entry("x", "mine")])
        (mine,) = replica.outgoing(store, limit=9)
        assert mine.stamp < (now_ms() + 60_000) << COUNTER_BITS
    else:
        assert check(store, repair=True).repaired == (problem,)
    assert [one.id for one in replica.list_dead_letters(store)] == ["y"]


def test_applying_twice_changes_nothing(store: Store) -> None:
    items = (pulled("a", LATER), deleted("b", LATER + 1))
    assert apply(store, *items) == replica.Applied(1, 0)
    before = (store.get(["a"]), live_codes(store), known(store, "a", "b"))
    assert apply(store, *items) == replica.Applied(0, 0)
    assert (store.get(["a"]), live_codes(store), known(store, "a", "b")) == before


def test_older_version_loses_and_stays_queued(store: Store) -> None:
    store.put([full_entry("a", "mine")])
    assert apply(store, pulled("a", 1), deleted("a", 2)) == replica.Applied(0, 0)
    assert store.get(["a"])["a"].text == "mine"
    assert replica.queue_of(store).items == 1


def test_newer_version_wins_and_takes_ours_off_the_queue(store: Store) -> None:
    store.put([full_entry("a", "mine", fill=1)])
    assert apply(store, pulled("a", LATER)) == replica.Applied(1, 0)
    assert store.get(["a"])["a"].text == "theirs"
    assert live_codes(store) == [[9] * DIM]
    assert replica.queue_of(store).items == 0
    assert replica.list_dead_letters(store) == []


def test_deletion_keeps_what_was_written_here_as_a_dead_letter(store: Store) -> None:
    store.put([full_entry("a", "mine", k="v")])
    assert apply(store, deleted("a", LATER)) == replica.Applied(0, 1)
    assert store.get(["a"]) == {}
    (letter,) = replica.list_dead_letters(store)
    assert (letter.id, letter.reason) == ("a", replica.DELETED_ELSEWHERE)
    assert letter.document == Document("a", "mine", {"k": "v"})


def test_same_codes_without_text_keep_the_text_that_is_here(store: Store) -> None:
    store.put([full_entry("a", "mine", fill=9)])
    before = live_codes(store)
    # A value between two codes may be rounded the other way by the device that pulls it.
    assert apply(store, pulled("a", LATER, None, fill=8)) == replica.Applied(0, 0)
    assert store.get(["a"])["a"].text == "mine"
    assert live_codes(store) == before
    assert replica.queue_of(store).items == 0
    with store.reading() as view:
        assert view.fulls([1]) == {}  # the server has them
    assert apply(store, pulled("a", LATER + 1, None, fill=7)) == replica.Applied(1, 0)
    assert live_codes(store) == [[7] * DIM]


def test_failure_on_the_way_leaves_everything_as_it_was(store: Store) -> None:
    store.put([full_entry("a", "mine")])
    item, entry = pulled("b", LATER + 1)
    wrong = Entry(entry.document, [(0, 1)], np.ones((1, DIM + 1), np.int8))
    before = (known(store, "a", "b"), replica.enrollment_of(store))
    with pytest.raises(EdgeMrlError, match="codes of document 'b'"):
        apply(store, pulled("a", LATER), (item, wrong))
    assert (known(store, "a", "b"), replica.enrollment_of(store)) == before
    assert store.get(["a", "b"])["a"].text == "mine"
    assert replica.queue_of(store).items == 1


def test_store_that_is_not_enrolled_takes_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path / "plain.db") as store:
        with pytest.raises(EdgeMrlError, match="is not enrolled"):
            apply(store, pulled("a", LATER))
        assert store.count().documents == 0


def test_blocks_that_take_are_one_transaction(store: Store) -> None:
    store.put([full_entry("a", "mine")])

    def fail() -> None:
        with store.taking() as taking:
            taking.delete(["a", "not there"])
            taking.put([pulled("b", LATER)[1]])
            assert taking.changed
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(store.get(["a", "b"])) == ["a"]
    with store.taking() as taking:
        taking.delete(["a"])
        taking.put([pulled("b", LATER)[1]])
        taking.put([pulled("c", LATER)[1]])
    assert list(store.get(["a", "b", "c"])) == ["b", "c"]
    assert live_codes(store) == [[9] * DIM] * 2
    # The queue is the caller's: the row of "a" still waits, and "b" and "c" are not queued.
    assert replica.queue_of(store).items == 1
    with store.locked() as (connection, _):
        connection.execute("DELETE FROM outbox")
        write_versions(
            connection,
            {
                "a": Known(Version(LATER, "other"), True, LATER),
                "b": Known(Version(LATER, "other"), False, LATER),
                "c": Known(Version(LATER, "other"), False, LATER),
            },
        )


# --- reconcile


def sent(store: Store, name: str, stamp: int | None = None) -> int:
    """Have a server acknowledge a document; returns its stamp."""
    (one,) = [one for one in replica.outgoing(store, limit=9) if one.id == name]
    replica.acknowledge(store, [replica.Verdict(name, stamp or one.stamp, "applied")], offset_ms=0)
    return one.stamp


def position(
    *, cursor: int = 9, fence: int = 0, epoch: str = "e1", kept: int = 0
) -> replica.ServerPosition:
    return replica.ServerPosition(cursor, fence, epoch, kept)


def reconcile(
    store: Store, there: dict[str, int], server: replica.ServerPosition, *, push: int | None
) -> replica.Agreed:
    """Agree on a page that had all of this."""
    replica.forget_sweep(store)
    now = replica.Sweep(server.cursor, server.fence, server.epoch)
    replica.note_swept(store, there, now, before=None)
    return replica.reconcile(store, server, push=push)


def test_document_that_a_server_forgot_after_deleting_it_is_deleted_here(store: Store) -> None:
    store.put([full_entry("gone"), full_entry("there"), full_entry("new")])
    stamps = {name: sent(store, name) for name in ("gone", "there")}
    fenced = position(fence=8)
    agreed = reconcile(store, {"there": stamps["there"]}, fenced, push=0)
    assert agreed == replica.Agreed(deleted=1, resent=None)
    assert sorted(store.get(["gone", "there", "new"])) == ["new", "there"]
    # What no server had gets a new stamp, above those that were forgotten.
    assert known(store, "new")["new"].version.stamp == last_stamp(store)
    assert [one.id for one in replica.outgoing(store, limit=9)] == ["new"]
    assert known(store, "gone") == {}


def test_nothing_is_deleted_without_a_fence(store: Store) -> None:
    store.put([full_entry("a")])
    sent(store, "a")
    agreed = reconcile(store, {}, position(), push=0)
    assert agreed == replica.Agreed(0, None)
    assert "a" in store.get(["a"])


def test_written_since_it_was_deleted_there_is_kept_as_a_dead_letter(store: Store) -> None:
    store.put([full_entry("a", "sent")])
    sent(store, "a")
    store.put([full_entry("a", "written since")])
    assert reconcile(store, {}, position(fence=8), push=0).deleted == 1
    (letter,) = replica.list_dead_letters(store)
    assert letter.document == Document("a", "written since")


def test_reconciling_waits_for_another_process_that_has_pushed(store: Store) -> None:
    store.put([full_entry("a")])
    sent(store, "a")
    before = replica.enrollment_of(store)
    with pytest.raises(NetworkError, match="another process pushed"):
        reconcile(store, {}, position(fence=8), push=4)
    assert replica.enrollment_of(store) == before
    assert "a" in store.get(["a"])


def test_restored_server_is_sent_again_what_it_lost(store: Store) -> None:
    store.put([full_entry("lost"), full_entry("there")])
    assert replica.begin_push(store, 1, ["lost", "there"])
    stamps = {name: sent(store, name) for name in ("lost", "there")}
    replica.settle_push(store, 1, refused=())
    replica.mark_success(store, cursor=5)
    apply(store)  # in epoch e1
    restored = position(epoch="e2")
    agreed = reconcile(store, {"there": stamps["there"]}, restored, push=1)
    assert agreed == replica.Agreed(deleted=0, resent=1)
    (waiting,) = replica.outgoing(store, limit=9)
    assert (waiting.id, waiting.stamp) == ("lost", stamps["lost"])
    assert known(store, "lost")["lost"].acknowledged == NEVER
    enrollment = replica.enrollment_of(store)
    assert enrollment is not None
    assert (enrollment.cursor, enrollment.epoch) == (9, "e2")


def test_push_that_arrived_leaves_a_version_that_is_not_known(store: Store) -> None:
    store.put([full_entry("a"), full_entry("b")])
    assert replica.begin_push(store, 1, ["a", "b"])
    replica.settle_push(store, 1, refused=["b"])
    found = known(store, "a", "b")
    assert (found["a"].acknowledged, found["a"].sent) == (UNKNOWN, 1)
    assert (found["b"].acknowledged, found["b"].sent) == (NEVER, 0)
