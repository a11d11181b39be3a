"""One document, one exception or one wrong clock stops nothing else."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import StoreError
from edge_mrl.store import replica
from edge_mrl.store.replica import withheld
from edge_mrl.sync.background import BackgroundSync
from edge_mrl.sync.outcome import Outcome
from edge_mrl.sync.policy import Backoff
from edge_mrl.sync.pulls.entries import Entries
from tests.support.serving import Serving
from tests.sync.conftest import Device, NewDevice
from tests.sync.test_background import PATIENCE_S, Scripted


def spoil(server: Serving, device: Device, name: str, metadata: Any) -> None:
    """Have a server hold what an older one took: metadata that devices cannot store."""
    tenant = device.client.status().tenant
    data = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    with closing(sqlite3.connect(server.database)) as connection, connection:
        changed = connection.execute(
            "UPDATE documents SET metadata = ? WHERE tenant = ? AND id = ?",
            (data, tenant, name),
        ).rowcount
    assert changed == 1


def put(device: Device, *names: str) -> None:
    device.index.put([Document(name, f"the cat {name}") for name in names])


def letters(device: Device) -> list[tuple[str, str]]:
    return [(letter.id, letter.reason) for letter in device.client.dead_letters()]


BAD = {
    "integer": {"n": 10**309},
    "surrogate": b'{"n": "\\ud800"}',
    "infinite": b'{"n": 1e999}',
    "deep": b'{"n": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}


@pytest.mark.test
@pytest.mark.parametrize("kind", BAD)
def test_document_that_cannot_be_stored_is_a_letter_and_the_rest_arrives(
    kind: str, server: Serving, new_device: NewDevice
) -> None:
    one, other = new_device("one"), new_device("other")
    put(other, "first")
    assert other.client.sync_once().done
    put(one, "a", "evil", "b")
    assert one.client.sync_once().done
    spoil(server, one, "evil", BAD[kind])
    outcome = other.client.sync_once()
    assert (outcome.done, outcome.pulled, outcome.unreadable) == (True, 2, 1), outcome
    assert letters(other) == [("evil", "unreadable")]
    (letter,) = other.client.dead_letters()
    assert letter.device == one.client.status().device
    assert letter.stamp > 0
    assert letter.detail
    assert set(other.index.get(["a", "b", "evil"])) == {"a", "b"}
    again = other.client.sync_once()
    assert (again.done, again.pulled, again.dead) == (True, 0, 0)  # the cursor has moved
    one.index.put([Document("evil", "a newer version heals")])
    assert one.client.sync_once().done
    assert other.client.sync_once().pulled == 1
    assert not letters(other)
    assert other.index.get(["evil"])
    assert other.index.check().sound


def test_letter_heals_when_it_is_asked_for_again_or_the_program_is_another(
    server: Serving, new_device: NewDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = new_device("one"), new_device("other")
    put(one, "evil", "good")
    assert one.client.sync_once().done
    spoil(server, one, "evil", BAD["integer"])
    put(other, "mine")  # so that it pulls pages, and no snapshot
    assert other.client.sync_once().unreadable == 1
    assert other.client.retry() == 1
    assert other.client.sync_once().unreadable == 1  # still so
    assert other.client.sync_once().unreadable == 0  # and not asked for at each sync
    spoil(server, one, "evil", {"n": 1})
    assert other.client.sync_once().pulled == 0
    monkeypatch.setattr(withheld, "__version__", "99.0")  # another program may read it
    assert other.client.sync_once().pulled == 1
    assert not letters(other)
    assert set(other.index.get(["evil", "good"])) == {"evil", "good"}
    assert other.client.drop() == 0


def test_whatever_an_entry_ends_with_is_that_documents_alone(
    new_device: NewDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = new_device("one"), new_device("other")
    put(other, "mine")
    put(one, *(str(number) for number in range(9)))
    assert one.client.sync_once().done
    real = Entries._entry

    def entry(self: Any, item: Any) -> Any:
        if item.id in ("3", "4"):
            raise ZeroDivisionError("what nobody thought of")
        return real(self, item)

    monkeypatch.setattr(Entries, "_entry", entry)
    assert other.client.sync_once().unreadable == 2
    assert letters(other) == [("3", "unreadable"), ("4", "unreadable")]
    assert len(other.index.get([str(number) for number in range(9)])) == 7


@pytest.mark.test
def test_constraint_of_the_store_is_found_in_halves_and_a_full_disk_is_no_document(
    new_device: NewDevice,
) -> None:
    one, other = new_device("one"), new_device("other")
    put(other, "mine")
    assert other.client.sync_once().done
    put(one, *(str(number) for number in range(20)))
    assert one.client.sync_once().done
    trigger = (
        "CREATE TRIGGER t BEFORE INSERT ON documents WHEN new.id IN ('7', '11') "
        "BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    with other.index.store.locked() as (connection, _):
        connection.execute(trigger)
    outcome = other.client.sync_once()
    assert (outcome.done, outcome.pulled, outcome.unreadable) == (True, 18, 2)
    assert letters(other) == [("11", "unreadable"), ("7", "unreadable")]
    with other.index.store.locked() as (connection, _):
        connection.execute("DROP TRIGGER t")
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    one.index.put([Document(f"big{n}", f"the dog {n} " * 400) for n in range(40)])
    assert one.client.sync_once().done
    with pytest.raises(StoreError, match="cannot grow"):
        other.client.sync_once()
    assert len(letters(other)) == 2
    with other.index.store.locked() as (connection, _):
        connection.execute("PRAGMA max_page_count = 1000000")
    assert other.client.sync_once().pulled == 40


class Raising(Scripted):
    """Runs that raise what nobody expects."""

    def __init__(self, device: Device, errors: Sequence[BaseException]) -> None:
        super().__init__(device.index.store)
        self.errors = list(errors)
        self.said: list[str] = []

    def attempt(self, *, now: bool, step: Callable[[Outcome], None] | None) -> Outcome:
        outcome = super().attempt(now=now, step=step)
        if self.errors:
            raise self.errors.pop(0)
        return outcome

    def report(self, waiting: str) -> None:
        self.said.append(waiting)


class PanicError(BaseException):
    """What a library in Rust raises: ``except Exception`` does not catch it."""


def test_thread_survives_and_reports_whatever_is_raised(new_device: NewDevice) -> None:
    errors = [OverflowError("int too large"), PanicError("rust"), MemoryError()]
    raising, outcomes = Raising(new_device("one"), errors), []
    thread = BackgroundSync(raising, interval_s=600, backoff=Backoff(cap_s=0.05, first_s=0.01))
    thread._listener.ran = outcomes.append  # type: ignore[method-assign]
    thread.start()
    assert raising.wait_for(4)
    thread.stop(PATIENCE_S)
    assert [outcome.cause for outcome in outcomes[:3]] == ["internal"] * 3
    assert "OverflowError: int too large" in raising.said[0]
    assert "PanicError: rust" in raising.said[1]
    assert outcomes[3].done


def test_client_says_what_failed_and_goes_on_when_it_can(
    new_device: NewDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = new_device("one")
    put(device, "a")
    failing = threading.Event()
    failing.set()
    real = replica.outgoing

    def outgoing(*args: Any, **options: Any) -> Any:
        if failing.is_set():
            raise OverflowError("int too large to convert to float")
        return real(*args, **options)

    monkeypatch.setattr(replica, "outgoing", outgoing)
    outcomes: list[Outcome] = []
    heard = threading.Condition()

    def notify(outcome: Outcome) -> None:
        with heard:
            outcomes.append(outcome)
            heard.notify_all()
        if len(outcomes) == 2:
            raise KeyError("the application's own fault")

    device.client.start(interval_s=600, max_wait_s=0.05, notify=notify)
    with heard:
        assert heard.wait_for(lambda: len(outcomes) >= 4, PATIENCE_S)
    assert {outcome.cause for outcome in outcomes} == {"internal"}
    assert "OverflowError" in str(device.client.status().waiting)
    assert device.client.status().queue.items == 1
    failing.clear()
    with heard:
        assert heard.wait_for(lambda: outcomes[-1].done, PATIENCE_S)
    device.client.stop()
    assert device.client.status().waiting is None
    assert device.client.status().queue.items == 0


def test_pull_goes_on_where_the_push_waits(
    new_device: NewDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_mrl.errors import NetworkError
    from edge_mrl.sync.remote import Remote

    one, other = new_device("one"), new_device("other")
    put(other, "first")
    assert other.client.sync_once().done
    put(one, "a")
    assert one.client.sync_once().done
    put(other, "waits")

    def busy(*_: Any) -> Any:
        raise NetworkError("busy", retry_after_s=100)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "push", busy)
        outcome = other.client.sync_once()
    assert (outcome.waiting, outcome.pulled, outcome.retry_after_s) == ("busy", 1, 100)
    assert other.index.get(["a"])
    assert other.client.status().queue.items == 1
    assert other.client.sync_once().pushed == 1
