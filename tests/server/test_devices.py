"""Stores and both databases: answers that are lost, deletions that are forgotten, copies put back."""

from __future__ import annotations

import itertools
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edge_mrl.cli import main
from edge_mrl.documents import Document
from edge_mrl.index import Index
from edge_mrl.store.replica.queue import outgoing
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.credentials import Credentials
from edge_mrl.sync.enrollment import enroll
from edge_mrl.wire.clock import now_ms
from edge_mrl_server.storage import accounts, open_database
from edge_mrl_server.storage.removal import purge
from tests.server.conftest import Place
from tests.support.bundles import TINY
from tests.support.postgres import Postgres
from tests.support.processes import COMMAND
from tests.support.relays import Relay
from tests.support.serving import admin, serving

pytestmark = pytest.mark.test

DAY_MS = 86_400_000
#: Clocks of devices agree to the time that an answer takes.
AGREE_S = 0.1


class Device:
    """A store of a tenant, with its client."""

    def __init__(self, path: Path, url: str, invitation: str) -> None:
        self.index = Index.open(path, TINY)
        enroll(self.index.store, url, invitation, name=path.stem)
        self.client = SyncClient.open(self.index)

    def put(self, **texts: str) -> None:
        self.index.put([Document(name, text) for name, text in texts.items()])

    @property
    def ids(self) -> set[str]:
        with self.index.store.locked() as (connection, _):
            return {row[0] for row in connection.execute("SELECT id FROM documents")}

    def close(self) -> None:
        self.client.close()
        self.index.close()


Open = Callable[[str, str], Device]


@contextmanager
def devices(folder: Path, database: str, tenant: str) -> Iterator[Open]:
    """Makes devices of one tenant, by name and server."""
    with ExitStack() as stack:

        def make(name: str, url: str) -> Device:
            with open_database(database) as opened, opened.write() as transaction:
                invitation = accounts.create_invitation(transaction, tenant)
            device = Device(folder / f"{name}.db", url, invitation)
            stack.callback(device.close)
            return device

        yield make


def settle(*some: Device) -> None:
    for _ in range(2):
        for device in some:
            outcome = device.client.sync_once()
            assert outcome.done, outcome


def forget(database: str, tenant: str) -> int:
    """Have the server forget all its tombstones; returns how many."""
    with open_database(database) as opened:
        return purge(opened, tenant, before_ms=now_ms() + DAY_MS)[0]


def epoch_of(database: str) -> str:
    with open_database(database) as opened, opened.read() as transaction:
        return accounts.require_tenant(transaction, "default").epoch


@contextmanager
def swallowing() -> Iterator[str]:
    """A server that takes what it is sent, and does nothing with it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listening.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(1 << 16)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def copy_database(source: Path, target: Path) -> None:
    """What ``sqlite3 SOURCE ".backup TARGET"`` does."""
    with closing(sqlite3.connect(source)) as here, closing(sqlite3.connect(target)) as there:
        here.backup(there)


# --- a push of one document, and no answer


@pytest.mark.parametrize("written", ["once", "again", "late"])
def test_document_pushed_alone_whose_answer_was_lost_stays_deleted(
    place: Place, tmp_path: Path, written: str
) -> None:
    """Nothing else of the device's is there to tell that its push arrived."""
    tenant = place.tenant()
    with Relay(place.server.port) as relay, devices(tmp_path, place.url, tenant) as make:
        one = make("one", f"http://127.0.0.1:{relay.port}")
        other = make("other", place.server.url)
        other.put(base="the cat")
        settle(other, one)
        relay.cut_after = 0
        one.put(x="a dog")
        assert one.client.sync_once(attempts=2).cause == "network"
        if written == "again":
            one.put(x="my own words")
        assert other.client.sync_once().pulled == 1
        time.sleep(AGREE_S)
        other.index.delete(["x"])
        assert other.client.sync_once().pushed == 1
        if written == "late":
            time.sleep(AGREE_S)
            one.put(x="my own words")
        assert forget(place.url, tenant) == 1
        one.put(late="never sent")
        relay.cut_after = None
        settle(one, other)
        # As where the answer was not lost: what is written above all that was forgotten counts, and
        # what was written before is kept, and not sent.
        if written == "late":
            assert one.ids == other.ids == {"base", "late", "x"}
            assert not one.client.dead_letters()
            return
        assert one.ids == other.ids == {"base", "late"}
        (letter,) = one.client.dead_letters()
        text = "a dog" if written == "once" else "my own words"
        assert (letter.reason, letter.document) == ("deleted_elsewhere", Document("x", text))
        assert not other.client.dead_letters()
        assert one.index.check().sound


@pytest.mark.parametrize("written", ["once", "again"])
def test_document_that_never_arrived_is_still_new_behind_a_fence(
    place: Place, tmp_path: Path, written: str
) -> None:
    tenant = place.tenant()
    with devices(tmp_path, place.url, tenant) as make:
        one, other = make("one", place.server.url), make("other", place.server.url)
        other.put(base="the cat", gone="a model")
        settle(other, one)
        right = Credentials.read(one.index.path)
        assert right is not None
        one.put(x="a dog")
        with swallowing() as nowhere:
            replace(right, server=nowhere).write(one.index.path)
            assert one.client.sync_once(attempts=2).cause == "network"
        right.write(one.index.path)
        if written == "again":
            one.put(x="my own words")
        other.index.delete(["gone"])  # above what waits: that may not come by its old version
        assert other.client.sync_once().pushed == 1
        assert forget(place.url, tenant) == 1
        settle(one, other)
        assert one.ids == other.ids == {"base", "x"}
        assert not one.client.dead_letters()


def test_refused_document_of_a_push_without_an_answer_is_not_taken_for_known(
    place: Place, tmp_path: Path
) -> None:
    tenant = place.tenant()
    with Relay(place.server.port) as relay, devices(tmp_path, place.url, tenant) as make:
        one = make("one", f"http://127.0.0.1:{relay.port}")
        other = make("other", place.server.url)
        other.put(base="the cat", gone="a model")
        settle(other, one)
        with place.database.write() as transaction:
            accounts.set_limits(transaction, tenant, {"documents": 3})
        relay.cut_after = 0
        one.put(x="a dog", y="testing it")  # there is room for one
        assert one.client.sync_once(attempts=1).cause == "network"
        assert other.client.sync_once().pulled == 1
        other.index.delete(["x", "gone"])
        assert other.client.sync_once().pushed == 2
        assert forget(place.url, tenant) == 2
        relay.cut_after = None
        settle(one, other)
        assert one.ids == other.ids == {"base", "y"}
        assert [letter.id for letter in one.client.dead_letters()] == ["x"]


def test_store_put_back_from_a_copy_pushes_on(place: Place, tmp_path: Path) -> None:
    """Its pushes are numbered as they were once; the server knows better, and says so."""
    tenant = place.tenant()
    with devices(tmp_path, place.url, tenant) as make:
        one, other = make("one", place.server.url), make("other", place.server.url)
        one.put(a="the cat")
        settle(one)
        copy_database(one.index.path, tmp_path / "older.db")
        for name in ("b", "c"):
            one.put(**{name: "a dog"})
            settle(one)
        copy_database(tmp_path / "older.db", one.index.path)
        one.put(d="testing it")
        settle(one, other)
        assert one.ids == other.ids == {"a", "b", "c", "d"}
        assert not outgoing(one.index.store, limit=1)


def test_resend_sends_what_the_server_lacks_and_nothing_else(place: Place, tmp_path: Path) -> None:
    tenant = place.tenant()
    with devices(tmp_path, place.url, tenant) as make:
        one, other = make("one", place.server.url), make("other", place.server.url)
        one.put(a="the cat", b="a dog")
        settle(one)
        with place.database.write() as transaction:
            for table in ("documents", "vectors" if place.kind == "sqlite" else "passages"):
                transaction.run(f"DELETE FROM {table} WHERE tenant = ? AND id = 'b'", tenant)
        settle(other, one)
        assert other.ids == {"a"}
        one.client.resend()
        outcome = one.client.sync_once()
        assert (outcome.resent, outcome.pushed, outcome.done) == (1, 1, True)
        settle(other)
        assert other.ids == {"a", "b"}


def test_two_processes_that_sync_one_store_send_all_of_it(
    sqlite_place: Place, tmp_path: Path
) -> None:
    place = sqlite_place
    with devices(tmp_path, place.url, place.tenant()) as make:
        one, other = make("one", place.server.url), make("other", place.server.url)
        one.index.put([Document(str(n), f"the cat {n}") for n in range(1_500)])
        command = [*COMMAND, "sync", "--store", str(one.index.path), "--json"]
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for _ in range(2)
        ]
        said = [process.communicate(timeout=60)[0].decode() for process in running]
        assert [process.returncode for process in running] == [0, 0], said
        settle(one, other)
        assert len(other.ids) == 1_500
        assert not one.client.dead_letters()


# --- a database that is put back from a copy


@dataclass(frozen=True, slots=True)
class Kept:
    """A server's database that can be copied, and put back; no server may run then."""

    url: str
    copy: Callable[[], None]
    put_back: Callable[[], None]


_NUMBERS = itertools.count(1)


@pytest.fixture
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    if request.param == "sqlite":
        path, older = tmp_path / "server.db", tmp_path / "server-copy.db"

        def put_back() -> None:
            for file in tmp_path.glob("server.db*"):
                file.unlink()
            shutil.copy(older, path)

        return Kept(str(path), lambda: copy_database(path, older), put_back)
    pg: Postgres = request.getfixturevalue("pg")
    name = f"kept{next(_NUMBERS)}"
    url = pg.make_database(name)

    def run(sql: str) -> None:
        pg.run_program("psql", pg.url, "-q", "-v", "ON_ERROR_STOP=1", "-c", sql)

    def restore() -> None:
        run(f"DROP DATABASE {name}")
        run(f"CREATE DATABASE {name} TEMPLATE {name}_copy")

    return Kept(url, lambda: run(f"CREATE DATABASE {name}_copy TEMPLATE {name}"), restore)


#: Each database, and each way, once before a merge; the other two at night.
RESTORED = [
    pytest.param("sqlite", True, id="sqlite-told"),
    pytest.param("postgres", False, id="postgres-found-out"),
    pytest.param("sqlite", False, id="sqlite-found-out", marks=pytest.mark.nightly),
    pytest.param("postgres", True, id="postgres-told", marks=pytest.mark.nightly),
]


@pytest.mark.parametrize(("kept", "told"), RESTORED, indirect=["kept"])
def test_restored_database_gets_back_what_it_lost_and_nothing_that_was_deleted(
    kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, told: bool
) -> None:
    with ExitStack() as stack:
        make = stack.enter_context(devices(tmp_path, kept.url, "default"))
        with serving(kept.url) as server:
            one, other = make("one", server.url), make("other", server.url)
            one.put(kept="the cat", edited="a dog", gone="a model", purged="of")
            settle(one, other)
            other.index.delete(["purged"])
            settle(other, one)
            # From now on, what is absent may have been deleted.
            assert forget(kept.url, "default") == 1
            settle(one, other)
            server.stop()
            kept.copy()
        with serving(kept.url, port=server.port) as server:
            one.put(lost="testing it", edited="training of a model")
            one.index.delete(["gone"])
            settle(one)
            third = make("third", server.url)  # which the copy does not know
            third.put(theirs="it and it")
            settle(third, one, other)
            other.put(late="0 1")
            settle(other)
            everything = {"kept", "edited", "lost", "theirs", "late"}
            assert other.ids == third.ids | {"late"} == everything
            server.stop()
            kept.put_back()
        if told:
            assert admin(kept.url, "restored") == {"tenants": 1}
        before = epoch_of(kept.url)
        with serving(kept.url, port=server.port) as server:
            # Changes are numbered on from the copy's, beyond what the others have seen.
            new = make("new", server.url)
            for n in range(9):
                new.put(**{f"n{n}": "the dog"})
                settle(new)
            new.index.delete(["kept"])
            settle(new)
            if told:  # else numbers are given out twice until "one" comes: nothing may be forgotten
                assert forget(kept.url, "default") == 1
            # "lost", "edited", and that "gone" is deleted; "late", and that "purged" is.
            assert one.client.sync_once().resent == 3
            epoch = epoch_of(kept.url)
            assert (epoch == before) == told
            assert main(["sync", "--store", str(other.index.path)]) == 0
            assert (
                "lacked what this device has: 2 documents queued again" in capsys.readouterr().out
            )
            refused = third.client.sync_once()
            assert (refused.cause, "401" in str(refused.waiting)) == ("refused", True)
            with open_database(kept.url) as opened, opened.write() as transaction:
                invitation = accounts.create_invitation(transaction, "default")
            enroll(third.index.store, server.url, invitation, name="third")
            settle(third, one, other, new)
            numbers = {f"n{n}" for n in range(9)}
            expected = (everything - {"kept"}) | numbers
            for device in (one, other, third, new):
                assert device.ids == expected
                assert device.client.status().queue.items == 0
                assert device.client.sync_once().resent is None
                assert device.index.check().sound
            assert new.index.search("training of a model", k=1)[0].id == "edited"
            assert epoch_of(kept.url) == epoch  # one device has said it for all
