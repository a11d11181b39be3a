"""Devices and their server hold the same documents, or see that they do not and mend it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge_mrl.documents import Document
from edge_mrl.index import Index
from edge_mrl.store import replica
from edge_mrl.store.replica.settlement import Rules
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.enrollment import enroll
from tests.support.bundles import TINY
from tests.support.serving import Serving, admin

DOCUMENTS = "SELECT id, stamp, device FROM {table} WHERE NOT deleted ORDER BY id"


class Fleet:
    """A server of its own, and devices; the server's database is copied and put back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "server.db"
        self.server = Serving(self.database, "--quiet")
        self.devices: dict[str, tuple[Index, SyncClient]] = {}

    def device(self, name: str, *, with_text: bool = False, keep_full: str | None = None) -> None:
        index = Index.open(self.folder / f"{name}.db", TINY, keep_full=keep_full)
        invitation = admin(self.database, "invitations", "create", "default")["invitation"]
        enroll(index.store, self.server.url, invitation, name=name, with_text=with_text)
        self.devices[name] = index, SyncClient.open(index)

    def put(self, device: str, **texts: str) -> None:
        self.devices[device][0].put([Document(name, text) for name, text in texts.items()])

    def sync(self, *names: str) -> list[object]:
        outcomes = [self.devices[name][1].sync_once() for name in names]
        assert all(outcome.done for outcome in outcomes), outcomes
        return outcomes

    def copy(self, name: str = "copy") -> None:
        with (
            closing(sqlite3.connect(self.database)) as source,
            closing(sqlite3.connect(self.folder / f"{name}.db")) as target,
        ):
            source.backup(target)

    def restore(self, name: str = "copy", *, said: bool = True) -> None:
        port = self.server.port
        self.server.kill()
        for end in ("-wal", "-shm"):
            Path(f"{self.database}{end}").unlink(missing_ok=True)
        shutil.copy(self.folder / f"{name}.db", self.database)
        if said:
            admin(self.database, "restored")
        self.server = Serving(self.database, "--quiet", port=port)

    def held(self) -> list[tuple[str, int, str]]:
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(DOCUMENTS.format(table="documents")).fetchall()

    def here(self, name: str) -> list[tuple[str, int, str]]:
        with self.devices[name][0].store.locked() as (connection, _):
            return connection.execute(DOCUMENTS.format(table="versions")).fetchall()

    def assert_same(self, *names: str) -> None:
        held = self.held()
        for name in names:
            index = self.devices[name][0]
            assert self.here(name) == held, name
            assert set(index.get([row[0] for row in held])) == {row[0] for row in held}
            assert index.stats().documents == len(held)
            assert index.check().sound, index.check().problems

    def letters(self, name: str) -> list[tuple[str, str]]:
        return [(one.id, one.reason) for one in self.devices[name][1].dead_letters()]

    def close(self) -> None:
        for index, client in self.devices.values():
            client.close()
            index.close()
        self.server.kill()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.close()


def texts(fleet: Fleet, name: str, *ids: str) -> list[str]:
    found = fleet.devices[name][0].get(ids)
    return [found[one].text if one in found else "-" for one in ids]


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


def enroll_anew(fleet: Fleet, name: str) -> None:
    index, client = fleet.devices[name]
    client.close()
    invitation = admin(fleet.database, "invitations", "create", "default")["invitation"]
    enroll(index.store, fleet.server.url, invitation, name=name, with_text=True)
    fleet.devices[name] = index, SyncClient.open(index)


def lose_what_a_former_name_wrote(fleet: Fleet, way: str) -> list[tuple[str, int, str]]:
    """Have a server lose what a device wrote before and after it was enrolled anew; what there was."""
    for name in ("A", "B"):
        fleet.device(name, with_text=True)
    fleet.put("A", a0="stays", gone="was there")
    fleet.sync("A", "B")
    fleet.copy()
    fleet.put("A", a1="first", a2="second")
    fleet.devices["A"][0].delete(["gone"])
    fleet.sync("A", "B")
    enroll_anew(fleet, "A")
    fleet.put("A", a2="changed", a3="third")
    fleet.sync("A", "B")
    before = fleet.held()
    assert len({device for _, _, device in before}) == 2
    if way == "restored":
        fleet.restore()
        enroll_anew(fleet, "A")  # the copy does not know the token of its present name
    else:
        spoil(fleet, "DELETE FROM vectors WHERE id IN ('a1', 'a3')")
        spoil(fleet, "DELETE FROM documents WHERE id IN ('a1', 'a3')")
    return before


def assert_nothing_is_lost(fleet: Fleet, before: list[tuple[str, int, str]]) -> None:
    fleet.sync("A", "B", "A", "B")
    assert [row[:2] for row in fleet.held()] == [row[:2] for row in before]
    fleet.assert_same("A", "B")
    here = texts(fleet, "B", "a0", "a1", "a2", "a3", "gone")
    assert here == ["stays", "first", "changed", "third", "-"]
    assert not fleet.letters("A") + fleet.letters("B")


@pytest.mark.test
@pytest.mark.parametrize("first", ["A", "B"])
def test_what_a_former_name_wrote_is_sent_again_as_the_version_that_it_is(
    fleet: Fleet, first: str
) -> None:
    before = lose_what_a_former_name_wrote(fleet, "restored")
    fleet.sync(first, first)
    assert fleet.held() == before
    assert_nothing_is_lost(fleet, before)
    assert fleet.held() == before


@pytest.mark.test
def test_version_that_changes_its_name_is_noticed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the test above: everything goes under the present name."""
    monkeypatch.setattr(Rules, "writer", lambda rules, _: rules.device)
    before = lose_what_a_former_name_wrote(fleet, "restored")
    fleet.sync("A", "A")
    assert [row[:2] for row in fleet.held()] == [row[:2] for row in before]
    assert fleet.held() != before


@pytest.mark.test
@pytest.mark.parametrize("first", ["A", "B"])
def test_what_a_former_name_wrote_is_claimed_where_the_server_takes_no_offers_yet(
    fleet: Fleet, first: str
) -> None:
    """Who has it under the former name would keep that, if it came back under the present one."""
    before = lose_what_a_former_name_wrote(fleet, "removed")
    fleet.sync(first, first)
    assert_nothing_is_lost(fleet, before)
    assert fleet.held() == before


def spoil(fleet: Fleet, statement: str) -> None:
    with closing(sqlite3.connect(fleet.database)) as connection, connection:
        assert connection.execute(statement).rowcount > 0
        connection.execute("DELETE FROM sums")


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
