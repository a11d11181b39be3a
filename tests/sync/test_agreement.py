"""Devices and their server hold the same documents, or see that they do not and mend it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge_mrl.store import replica
from tests.support.fleet import Fleet, spoil, texts

pytestmark = pytest.mark.test


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.close()


@pytest.mark.test
@pytest.mark.parametrize("said", [True, False], ids=["said", "noticed"])
def test_any_device_offers_what_a_restored_server_has_lost(fleet: Fleet, said: bool) -> None:
    for name in ("A", "B", "C"):
        fleet.device(name, with_text=True)
    fleet.put("A", a1="old", a0="stays", gone="was there")
    fleet.sync("A", "B", "C")
    fleet.copy()
    fleet.put("A", a1="new", a2="second")
    fleet.devices["A"][0].delete(["gone"])
    fleet.sync("A", "B")
    before = fleet.held()
    fleet.restore(said=said)
    # A never returns; B has all that it wrote.
    fleet.sync("B", "C", "B", "C")
    assert fleet.held() == before  # under their first stamps and devices
    fleet.assert_same("B", "C")
    assert texts(fleet, "C", "a0", "a1", "a2", "gone") == ["stays", "new", "second", "-"]
    fleet.device("D")
    fleet.sync("D")
    fleet.assert_same("D")
    fleet.sync("A", "B", "C", "D")  # and then A returns
    fleet.assert_same("A", "B", "C", "D")
    assert fleet.held() == before


@pytest.mark.test
def test_what_no_device_can_send_falls_back_to_the_servers_state(fleet: Fleet) -> None:
    for name in ("A", "B"):
        fleet.device(name)  # vectors alone: B has codes and no text
    fleet.put("A", a1="old", a0="stays")
    fleet.sync("A", "B")
    fleet.copy()
    fleet.put("A", a1="new", a2="second")
    fleet.sync("A", "B")
    fleet.restore()
    fleet.sync("B")
    assert fleet.letters("B") == [("a1", "lost"), ("a2", "lost")]
    fleet.assert_same("B")
    fleet.device("C")
    fleet.sync("C")
    fleet.assert_same("B", "C")
    fleet.sync("A", "B", "C")  # the writer returns, and all is there again
    fleet.assert_same("A", "B", "C")
    assert texts(fleet, "A", "a0", "a1", "a2") == ["stays", "new", "second"]
    assert not fleet.letters("B")
    assert [row[0] for row in fleet.held()] == ["a0", "a1", "a2"]


@pytest.mark.test
def test_full_vectors_are_enough_to_offer(fleet: Fleet) -> None:
    fleet.device("A")
    fleet.device("B", keep_full="fp16")
    fleet.put("A", a0="stays")
    fleet.sync("A", "B")
    fleet.copy()
    fleet.put("A", a1="lost there")
    fleet.sync("A", "B")
    before = fleet.held()
    fleet.restore()
    fleet.sync("B")
    assert fleet.held() == before
    fleet.assert_same("B")
    assert not fleet.letters("B")


def test_difference_that_nobody_caused_is_seen_and_mended(fleet: Fleet) -> None:
    """A document that left a store, or the server, without any version saying so."""
    for name in ("A", "B"):
        fleet.device(name, with_text=True)
    fleet.put("A", **{f"a{n}": f"text {n}" for n in range(30)})
    fleet.sync("A", "B", "A")
    store = fleet.devices["B"][0].store
    with store.writing(), store.locked() as (connection, _):
        from edge_mrl.store.replica.outbox import drop_versions

        drop_versions(connection, ["a3"])
    fleet.devices["B"][0].delete(["a3"])
    with store.writing(), store.locked() as (connection, _):
        connection.execute("DELETE FROM outbox")
        drop_versions(connection, ["a3"])
    (outcome,) = fleet.sync("B")
    assert outcome.differs == 0
    fleet.assert_same("A", "B")
    # Its writer sends again what the server has lost.
    spoil(fleet, "DELETE FROM vectors WHERE id = 'a5'")
    spoil(fleet, "DELETE FROM documents WHERE id = 'a5'")
    fleet.sync("A", "A", "B")
    fleet.assert_same("A", "B")
    assert "diverged" in fleet.server.log()


def test_difference_that_cannot_be_mended_is_said_and_pulled_once(fleet: Fleet) -> None:
    fleet.device("A")
    fleet.put("A", a="text", b="other")
    fleet.sync("A", "A")
    with closing(sqlite3.connect(fleet.database)) as connection, connection:
        (data,) = connection.execute("SELECT sums FROM sums").fetchone()
        wrong = bytes([data[0] ^ 1]) + data[1:]
        connection.execute("UPDATE sums SET sums = ?", (wrong,))
    outcomes = [fleet.sync("A")[0] for _ in range(4)]
    assert [outcome.differs for outcome in outcomes] == [1] * 4
    assert fleet.server.log().count("diverged") == 1
    assert fleet.devices["A"][1].status().differs == 1


def test_letters_here_are_no_difference(fleet: Fleet) -> None:
    fleet.device("A")
    fleet.put("A", a="text", b="other")
    fleet.sync("A", "A")
    store = fleet.devices["A"][0].store
    fleet.put("A", c="refused")
    (waiting,) = replica.outgoing(store, limit=9)
    replica.acknowledge(store, [replica.Verdict("c", waiting.stamp, "forbidden")], offset_ms=0)
    assert [outcome.differs for outcome in fleet.sync("A", "A")] == [0, 0]
    assert "diverged" not in fleet.server.log()


def test_sums_follow_every_write_here(fleet: Fleet) -> None:
    for name in ("A", "B"):
        fleet.device(name, with_text=True)
    fleet.put("A", **{f"a{n}": f"text {n}" for n in range(30)})
    fleet.sync("A", "B")
    fleet.devices["B"][0].delete(["a1", "a2"])
    fleet.put("B", a3="changed", b1="new")
    fleet.sync("B", "A")
    for name in ("A", "B"):
        store = fleet.devices[name][0].store
        kept = replica.local_sums(store).sums
        assert bytes(kept) == bytes(replica.local_sums(store, anew=True).sums)
    with closing(sqlite3.connect(fleet.database)) as connection:
        (data,) = connection.execute("SELECT sums FROM sums").fetchone()
    assert data == bytes(kept)
