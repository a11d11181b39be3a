"""A first sync, and one after a restore, by counts: what is sent first, and what is asked for twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import NetworkError
from edge_mrl.index import Index
from edge_mrl.store import replica
from edge_mrl.sync import pull
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.enrollment import enroll
from edge_mrl.sync.outcome import Outcome
from edge_mrl.sync.targets.target import PushBatch, PushResult
from edge_mrl.wire import now_ms
from edge_mrl_server.storage import open_database, purge
from tests.support.bundles import TINY
from tests.support.serving import Serving, admin, serving
from tests.sync.conftest import Device, NewCode, NewDevice
from tests.sync.parts import Parts, enrollment_of, remote_of
from tests.sync.test_run import run
from tests.sync.test_sync import alike, codes

pytestmark = pytest.mark.test

#: Documents of others, in pages of so many.
OTHERS, PAGE = 40, 8

#: One sync in a process that ends by SIGKILL at its n-th request for documents, if there is one. It
#: writes what it asks for.
CHILD = """
import json, os, signal, sys
from edge_mrl.index import Index
from edge_mrl.sync import SyncClient, pull, remote
from edge_mrl.sync.remote import Remote

path, log, after = sys.argv[1], sys.argv[2], int(sys.argv[3])
remote.SNAPSHOT_BYTES = 600
pull.Puller._fitting = lambda self, limit: min(limit, 8)
asked = 0

def note(kind, value):
    with open(log, "a") as file:
        print(kind, value, file=file)

def counted(kind, value):
    global asked
    asked += 1
    if asked > after:
        os.kill(os.getpid(), signal.SIGKILL)
    note(kind, value)

def push(self, batch, real=Remote.push):
    note("push", len(batch.items))
    return real(self, batch)

def page(self, since, real=Remote.pull, **options):
    counted("pull", since)
    return real(self, since, **options)

def part(self, code, real=Remote.snapshot, **options):
    counted("snapshot", options["start"])
    return real(self, code, **options)

Remote.push, Remote.pull, Remote.snapshot = push, page, part
with Index.open(path) as index, SyncClient.open(index) as client:
    outcome = client.sync_once()
    print(json.dumps([outcome.done, outcome.waiting, outcome.pulled]))
"""


def put(device: Device, *names: str) -> None:
    device.index.put([Document(name, f"the cat {name}") for name in names])


@pytest.fixture
def writer(new_device: NewDevice) -> Device:
    """A device whose documents are at the server."""
    device = new_device("writer")
    put(device, *(f"d{number:02}" for number in range(OTHERS)))
    assert device.client.sync_once().done
    return device


def sync_with_kills(path: Path, log: Path, after: int) -> tuple[list[Any], int]:
    """Sync in processes that are killed after so many requests; what the last said, and how many were."""
    for kills in range(OTHERS):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(path), str(log), str(after)],
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            return json.loads(done.stdout), kills
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    raise AssertionError(log.read_text())


def asked(log: Path, kind: str) -> list[int]:
    lines = [line.split() for line in log.read_text().splitlines()]
    return [int(value) for name, value in lines if name == kind]


@pytest.mark.parametrize(
    "way",
    ["new", pytest.param("new, with full vectors", marks=pytest.mark.nightly), "resent"],
)
def test_sync_that_is_killed_again_and_again_goes_on_where_it_was(
    writer: Device,
    server: Serving,
    new_device: NewDevice,
    new_code: NewCode,
    tmp_path: Path,
    way: str,
) -> None:
    if way == "new, with full vectors":
        with Index.open(tmp_path / "mine.db", TINY, keep_full="fp16") as index:
            enroll(index.store, server.url, new_code())
            index.put([Document("mine", "a model")])
    else:
        device = new_device("mine")
        if way == "resent":
            assert device.client.sync_once().done
            device.client.resend()
        put(device, "mine")
        device.close()
    path, log = tmp_path / "mine.db", tmp_path / "log"
    (done, waiting, _), kills = sync_with_kills(path, log, after=2)
    assert done, waiting
    assert kills >= 2
    with Index.open(path) as index:
        assert codes(index).keys() == {"mine", *codes(writer.index)}
        assert index.check().sound
    # This device's document was sent before anything but its place was asked for.
    first = log.read_text().split("\n")
    sent = first.index("push 1")
    assert all(line.startswith("push") or way == "resent" for line in first[:sent])
    kind = "snapshot" if way == "new" else "pull"
    places = asked(log, kind)
    # Nothing is asked for twice, but for what a kill took.
    again = sum(count - 1 for place, count in Counter(places).items() if place)
    assert again <= kills + 1
    assert places.count(0) <= 2
    assert writer.client.sync_once().pulled == 1


def test_killed_sync_that_keeps_no_place_begins_anew(
    writer: Device, new_device: NewDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: a run that is stopped at each second page never ends without a place."""
    device = new_device("mine")
    assert device.client.sync_once().done
    device.client.resend()
    monkeypatch.setattr(pull.Puller, "_fitting", lambda _, limit: min(limit, PAGE))
    monkeypatch.setattr(replica, "sweep_of", lambda _: None)
    monkeypatch.setattr(pull, "SWEEPS", 1)
    for _ in range(4):
        with remote_of(device.index.store) as remote:
            parts = Parts(device.index, remote)
            remote.changed_page = _stopped_at(remote, 3)
            with pytest.raises(InterruptedError):
                parts.puller().everything()
            replica.forget_sweep(device.index.store)
            assert remote.since[0] == 0


def _stopped_at(remote: Any, number: int) -> Any:
    remote.since = []

    def look(page: Any) -> Any:
        remote.since.append(0 if not remote.since else page.cursor)
        if len(remote.since) == number:
            raise InterruptedError
        return page

    return look


@pytest.mark.parametrize("keep_full", [None, "fp16"])
def test_runs_of_few_bytes_send_first_and_always_come_further(
    writer: Device, server: Serving, new_code: NewCode, tmp_path: Path, keep_full: str | None
) -> None:
    most = 3_000
    with Index.open(tmp_path / "mine.db", TINY, keep_full=keep_full) as index:
        enroll(index.store, server.url, new_code())
        index.put([Document(f"mine{n}", "a model") for n in range(3)])
        seen: set[Any] = set()
        outcomes: list[Outcome] = []
        while not outcomes or not outcomes[-1].done:
            outcomes.append(run(index, max_bytes=most))
            place = _place(index)
            assert place not in seen
            seen.add(place)
            assert len(outcomes) < 40
        pushed = [outcome.pushed for outcome in outcomes]
        assert sum(pushed[:2]) == 3
        parts = max(pull.LEAST_PART_BYTES, most)
        used = [one.bytes_sent + one.bytes_received for one in outcomes]
        assert max(used[1:]) <= most + parts
        assert len(codes(index)) == OTHERS + 3


def _place(index: Index) -> Any:
    """How far a store is."""
    part = index.path.with_name(f"{index.path.name}-sync.part")
    return (
        replica.queue_of(index.store).items,
        enrollment_of(index.store),
        replica.sweep_of(index.store),
        part.stat().st_size if part.exists() else 0,
        len(codes(index)),
    )


def test_new_device_with_documents_takes_the_snapshot_and_nothing_twice(
    writer: Device, new_device: NewDevice
) -> None:
    device = new_device("mine")
    put(device, "mine")
    device.index.put([Document("d01", "a dog")])  # which others have, too: this is the later one
    counts = _items_pulled(device)
    assert counts == {}
    assert device.client.status().queue.items == 0
    assert writer.client.sync_once().pulled == 2
    assert alike(writer, device)


def _items_pulled(device: Device) -> Counter[str]:
    """Sync; the writers of documents that came in pages."""
    writers: Counter[str] = Counter()
    with remote_of(device.index.store) as remote:

        def look(page: Any) -> Any:
            writers.update(str(item.device) for item in page.items)
            return page

        remote.changed_page = look
        link = _Link(remote)
        outcome = run_with(device.index, link)
        assert outcome.done, outcome
    return writers


class _Link:
    """A link that has its connection."""

    def __init__(self, remote: Any) -> None:
        self._remote = remote

    def follow(self) -> Any:
        return self._remote

    def renew(self, remote: Any, *, refused: bool = False) -> None:
        assert remote is self._remote
        assert not refused

    def keep(self, remote: Any) -> None:
        pass


def run_with(index: Index, link: Any) -> Outcome:
    from edge_mrl.sync.budget import Budget
    from edge_mrl.sync.pushes.body import BodySize
    from edge_mrl.sync.run import Run

    return Run(
        store=index.store,
        link=link,
        encoder=lambda: index.encoder,
        budget=Budget(attempts=1),
        body=BodySize(),
    ).sync()


def test_what_was_deleted_while_the_snapshot_was_fetched_is_deleted(
    writer: Device, new_device: NewDevice
) -> None:
    """A snapshot has no deletions: so changes are pulled from where the device began to send."""
    device = new_device("mine")
    put(device, "mine")
    with remote_of(device.index.store) as remote:
        parts = Parts(device.index, remote)
        pusher = parts.pusher()
        pusher.stand()
        pusher.push_new()
        assert writer.client.sync_once().pulled == 1
        writer.index.delete(["mine", "d03"])
        assert writer.client.sync_once().done
        puller = parts.puller()
        puller.own = pusher.spans
        assert puller.bootstrap() is None
        puller.changes()
        assert parts.outcome.deleted == 1
    assert codes(device.index).keys() == codes(writer.index).keys()
    assert "mine" not in codes(device.index)


@pytest.mark.parametrize("answered", [True, False])
def test_document_that_was_deleted_before_is_deleted(
    writer: Device, new_device: NewDevice, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    """Its deletion is older than all that is pulled behind a snapshot: so everything is pulled."""
    device = new_device("mine")
    put(device, "mine", "d03")
    writer.index.put([Document("d03", "a dog")])
    writer.index.delete(["d03"])
    assert writer.client.sync_once().done
    with remote_of(device.index.store) as remote:
        if not answered:
            real = remote.push

            def lose(batch: PushBatch) -> PushResult:
                result = real(batch)
                if batch.items:
                    raise NetworkError("the answer was lost")
                return result

            with monkeypatch.context() as patch:
                patch.setattr(remote, "push", lose)
                assert run_with(device.index, _Link(remote)).cause == "network"
        assert run_with(device.index, _Link(remote)).done
        assert "snapshot" not in remote.asked
    assert codes(device.index).keys() == {"mine", *codes(writer.index)}
    assert "d03" not in codes(device.index)


def test_document_older_than_forgotten_deletions_waits_for_everything(
    writer: Device, server: Serving, new_device: NewDevice
) -> None:
    """It gets a stamp above them, which needs everything pulled; sent as it is, it would be the older."""
    device = new_device("mine")
    put(device, "d03")
    (waiting,) = replica.outgoing(device.index.store, limit=9)
    writer.index.put([Document("d03", "a dog")])
    writer.index.delete(["d03"])
    assert writer.client.sync_once().done
    with open_database(server.database) as database:
        tenant = enrollment_of(device.index.store).tenant
        assert purge(database, tenant, before_ms=now_ms() + 60_000)[0] == 1
    with remote_of(device.index.store) as remote:
        assert run_with(device.index, _Link(remote)).done
        assert "snapshot" not in remote.asked
    with device.index.store.locked() as (connection, _):
        query = "SELECT stamp FROM versions WHERE id = 'd03'"
        assert connection.execute(query).fetchone()[0] > waiting.stamp
    assert writer.client.sync_once().pulled == 1
    assert alike(writer, device)


def test_restore_between_sending_and_the_snapshot_is_noticed(tmp_path: Path) -> None:
    from tests.support.serving import back_up, put_back

    database, copy = tmp_path / "s.db", tmp_path / "copy.db"
    with serving(database) as server:
        invitations = [
            admin(database, "invitations", "create", "default")["invitation"] for _ in range(2)
        ]
        with Index.open(tmp_path / "other.db", TINY) as other:
            enroll(other.store, server.url, invitations[0])
            other.put([Document("theirs", "a dog")])
            with SyncClient.open(other) as client:
                assert client.sync_once().done
    with Index.open(tmp_path / "mine.db", TINY) as index:
        with serving(database) as server:
            enroll(index.store, server.url, invitations[1])
            index.put([Document("mine", "a model")])
            back_up(database, copy)
            with remote_of(index.store) as remote:
                pusher = Parts(index, remote).pusher()
                pusher.stand()
                pusher.push_new()
        put_back(copy, database)
        with serving(database, "--port", str(server.port)) as server:
            admin(database, "restored")
            with SyncClient.open(index) as client:
                outcome = client.sync_once()
            assert (outcome.done, outcome.resent) == (True, 1)
            assert codes(index).keys() == {"mine", "theirs"}
            assert replica.queue_of(index.store).items == 0


def test_device_does_not_pull_what_it_has_just_pushed(new_device: NewDevice) -> None:
    one, other = new_device("one"), new_device("other")
    put(other, "theirs")
    assert other.client.sync_once().done
    assert one.client.sync_once().done
    put(other, "theirs too")
    assert other.client.sync_once().done
    # More than one push takes: others' come first, and all of this device's are one span.
    put(one, *(f"mine{number}" for number in range(600)))
    counts = _items_pulled(one)
    assert list(counts.values()) == [1]
    assert other.client.sync_once().pulled == 600
    assert alike(one, other)
    put(one, "one more")
    assert _items_pulled(one) == {}


def test_device_pulls_its_own_documents_where_it_lacks_them(
    new_device: NewDevice, new_code: NewCode, server: Serving, tmp_path: Path
) -> None:
    """After a backup was put back, and in a new store; the cursor tells, not the writer's name."""
    import shutil
    import sqlite3
    from contextlib import closing

    one = new_device("one")
    put(one, "before")
    assert one.client.sync_once().done
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(one.index.path)) as source, closing(sqlite3.connect(copy)) as to:
        source.backup(to)
    put(one, "since")
    assert one.client.sync_once().done
    one.close()
    for ending in ("-wal", "-shm", ".codes"):
        one.index.path.with_name(one.index.path.name + ending).unlink(missing_ok=True)
    shutil.copy(copy, one.index.path)
    with Index.open(one.index.path) as index:
        assert codes(index).keys() == {"before"}
        with SyncClient.open(index) as client:
            assert client.sync_once().done
        assert codes(index).keys() == {"before", "since"}
    with Index.open(tmp_path / "lost.db", TINY) as index:
        enroll(index.store, server.url, new_code())
        with SyncClient.open(index) as client:
            assert client.sync_once().pulled == 2


def test_answer_that_names_a_span_falsely_moves_no_cursor(new_device: NewDevice) -> None:
    one, other = new_device("one"), new_device("other")
    put(other, "theirs")
    assert other.client.sync_once().done
    assert one.client.sync_once().done
    before = enrollment_of(one.index.store)
    for span in (
        replica.Span(before.cursor + 1, before.cursor + 9, before.epoch),
        replica.Span(before.cursor, before.cursor + 9, "another"),
        replica.Span(before.cursor - 1, before.cursor, before.epoch),
    ):
        assert not replica.pass_over(one.index.store, span)
    assert enrollment_of(one.index.store) == before
