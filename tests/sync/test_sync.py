"""Stores and a real server: nothing lost, nothing doubled, nothing that was deleted comes back."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import UsageError
from edge_mrl.index import Index
from edge_mrl.store import replica
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.credentials import Credentials, credentials_path
from edge_mrl.sync.policy import Conditions, Policy
from edge_mrl.sync.targets.target import PushBatch
from edge_mrl.wire.clock import now_ms
from edge_mrl.wire.frames import encode_items
from edge_mrl_server.storage import open_database
from edge_mrl_server.storage.removal import purge
from tests.support.bundles import TINY
from tests.support.processes import COMMAND
from tests.support.serving import Serving
from tests.sync.conftest import Device, NewDevice

DAY_MS = 86_400_000
WORDS = ("the", "cat", "and", "a", "dog", "training", "of", "model", "testing", "it", "0", "1")


def text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))


def rows(path: Path, table: str) -> int:
    with sqlite3.connect(path) as connection:
        count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return count


def codes(index: Index) -> dict[str, bytes]:
    """The codes of every document, by id."""
    with index.store.locked() as (connection, _):
        found = connection.execute(
            "SELECT id, codes FROM documents LEFT JOIN passages ON document = key"
        )
        return dict(found.fetchall())


def alike(one: Device, other: Device) -> bool:
    """Whether two devices have the same documents with the same codes.

    Vectors travel as float16: a value on the border between two codes may be rounded the other way.
    """
    mine, theirs = codes(one.index), codes(other.index)
    return mine.keys() == theirs.keys() and all(near(mine[name], theirs[name]) for name in mine)


def near(one: bytes | None, other: bytes | None) -> bool:
    rows = [np.frombuffer(data or b"", np.int8).astype(int) for data in (one, other)]
    return len(rows[0]) == len(rows[1]) and bool((np.abs(rows[0] - rows[1]) <= 1).all())


def versions(index: Index) -> dict[str, tuple[int, str, int]]:
    with index.store.locked() as (connection, _):
        found = connection.execute("SELECT id, stamp, device, deleted FROM versions")
        return {row[0]: row[1:] for row in found}


def settle(*devices: Device) -> None:
    """Sync until nobody has anything new."""
    for _ in range(3):
        for device in devices:
            outcome = device.here().client.sync_once()
            assert outcome.done, outcome
    assert [device.client.status().queue.items for device in devices] == [0] * len(devices)


def test_store_that_is_not_enrolled_keeps_nothing_of_sync(tmp_path: Path) -> None:
    with Index.open(tmp_path / "s.db", TINY) as index:
        index.put([Document("a", "the cat")])
        index.delete(["a"])
        with pytest.raises(UsageError, match="not enrolled"):
            SyncClient.open(index)
    assert [rows(tmp_path / "s.db", t) for t in ("sync", "versions", "outbox", "dead")] == [0] * 4


@pytest.mark.parametrize("seed", range(3))
def test_devices_with_wrong_clocks_converge(seed: int, new_device: NewDevice) -> None:
    rng = random.Random(seed)
    one = new_device("one", ahead_ms=DAY_MS)
    other = new_device("other", ahead_ms=-DAY_MS)
    names = [f"d{number}" for number in range(8)]
    for _ in range(25):
        device = rng.choice((one, other)).here()
        chance = rng.random()
        if chance < 0.5:
            device.index.put([Document(n, text(rng)) for n in rng.sample(names, 2)])
        elif chance < 0.7:
            device.index.delete([rng.choice(names)])
        else:
            device.client.sync_once()
    settle(one, other)
    assert versions(one.index) == versions(other.index)
    assert alike(one, other)
    # The last word is had by whoever writes last, however wrong the clocks are.
    last = other.here().index
    last.put([Document("last", "the cat")])
    settle(other, one)
    one.here().index.delete(["last"])
    settle(one, other)
    assert "last" not in codes(other.index)


def test_text_and_metadata_travel_only_when_asked(new_device: NewDevice) -> None:
    one, other = new_device("one"), new_device("other")
    one.index.put([Document("a", "the cat and a dog", {"secret": 1})])
    settle(one, other)
    hit = other.index.search("the cat and a dog")[0]
    assert (hit.id, hit.text, hit.metadata) == ("a", "", {})
    assert hit.score == one.index.search("the cat and a dog")[0].score
    one.client.set_with_text(with_text=True)
    settle(one, other)
    assert other.index.get(["a"])["a"] == Document("a", "the cat and a dog", {"secret": 1})
    one.index.put([Document("a", "the cat and a dog", {"secret": 2})])
    assert one.client.status().queue.items == 1  # only metadata changed
    settle(one, other)
    assert other.index.get(["a"])["a"].metadata == {"secret": 2}


def test_acknowledgement_that_was_lost_does_no_harm(new_device: NewDevice) -> None:
    device = new_device("one")
    device.index.put([Document("a", "the cat"), Document("b", "a dog")])
    device.client.sync_once()
    device.index.put([Document("a", "a model"), Document("b", "testing it")])
    remote = device.client._link.follow()
    sent = replica.outgoing(device.index.store, limit=10)
    from edge_mrl.wire.frames import Item

    items = [Item(one.id, one.stamp, one.vectors) for one in sent if one.vectors is not None]
    frame = encode_items({"cursor": 0}, items, like=items[0].vectors)
    remote.push(PushBatch(items, frame))  # and the answer is lost
    device.index.put([Document("b", "0 1 2")])  # written between the sending and the answer
    verdicts = [replica.Verdict(one.id, one.stamp, "applied") for one in sent]
    replica.acknowledge(device.index.store, verdicts, offset_ms=0)
    assert [one.id for one in replica.outgoing(device.index.store, limit=10)] == ["b"]
    other = new_device("other")
    settle(device, other)
    assert alike(other, device)
    assert rows(device.index.path, "fulls") == 0  # forgotten with the acknowledgement


def test_unsent_document_that_was_deleted_elsewhere_stays_readable(new_device: NewDevice) -> None:
    one, other = new_device("one", ahead_ms=-DAY_MS), new_device("other")
    one.here().index.put([Document("a", "the cat")])
    settle(one, other)
    one.here().index.put([Document("a", "my own words", {"n": 1})])
    time.sleep(0.3)  # clocks are level to the time that an answer takes
    other.here().index.delete(["a"])
    settle(other, one)
    (letter,) = one.client.dead_letters()
    assert (letter.reason, letter.document) == (
        "deleted_elsewhere",
        Document("a", "my own words", {"n": 1}),
    )
    assert one.client.retry() == 1
    settle(one, other)
    assert "a" in codes(other.index)
    assert one.client.status().dead == 0


def test_queue_that_is_too_large_drops_vectors_and_no_document(new_device: NewDevice) -> None:
    device, other = new_device("one"), new_device("other")
    with device.index.store.writing(), device.index.store.locked() as (connection, _):
        from edge_mrl.store.replica.outbox import read_enrollment, write_enrollment

        found = read_enrollment(connection)
        assert found is not None
        write_enrollment(connection, replace(found, max_queue=200))
    device.index.put([Document(str(n), f"the cat {n}") for n in range(20)])
    waiting = device.client.status().queue
    assert waiting.items == 20
    assert 0 < waiting.size_bytes <= 200
    settle(device, other)
    assert alike(other, device)


def test_copied_store_is_asked_to_enroll(new_device: NewDevice, tmp_path: Path) -> None:
    device = new_device("one")
    device.index.put([Document("a", "the cat")])
    path = device.index.path
    assert stat.S_IMODE(credentials_path(path).stat().st_mode) == 0o600
    with sqlite3.connect(path) as connection, sqlite3.connect(tmp_path / "copy.db") as copy:
        connection.backup(copy)
    with pytest.raises(UsageError, match="is a copy"):
        SyncClient.open(tmp_path / "copy.db")
    found = Credentials.read(path)
    assert found is not None
    assert found.token not in repr(found)
    replace(found, device="another").write(tmp_path / "copy.db")
    with pytest.raises(UsageError, match="copied or restored"):
        SyncClient.open(tmp_path / "copy.db")


def test_refused_token_stops_with_its_reason_and_loses_nothing(new_device: NewDevice) -> None:
    device = new_device("one")
    device.index.put([Document("a", "the cat")])
    found = Credentials.read(device.index.path)
    assert found is not None
    replace(found, token="wrong").write(device.index.path)
    outcome = device.client.sync_once()
    assert outcome.cause == "refused"
    assert "401" in str(outcome.waiting)
    found.write(device.index.path)
    assert device.client.sync_once().pushed == 1


def test_policy_holds_and_says_why(new_device: NewDevice) -> None:
    device = new_device("one")
    device.index.put([Document(str(n), "the cat") for n in range(9)])
    conditions = Conditions(metered=True)
    with SyncClient.open(device.index, conditions=lambda: conditions) as client:
        assert client.sync_once().waiting == "the connection is metered"
        assert client.status().waiting == "the connection is metered"
        client.policy = Policy(max_bytes=2_000)
        client._conditions = Conditions
        client.sync_once()
        for _ in range(9):
            outcome = client.sync_once()
            assert outcome.bytes_sent + outcome.bytes_received < 4_000
        assert client.status().queue.items == 0
        client._conditions = lambda: conditions
        assert client.sync_once(now=True).waiting in (None, "this run's 2,000 bytes are used up")


def test_device_that_was_away_for_longer_than_deletions_are_kept(
    new_device: NewDevice, server: Serving
) -> None:
    one, other = new_device("one"), new_device("other")
    one.index.put([Document(name, text(random.Random(name))) for name in ("a", "b", "c")])
    settle(one, other)
    other.index.put([Document("b", "my own words"), Document("e", "written meanwhile")])
    time.sleep(0.3)
    one.index.delete(["a", "b"])
    one.index.put([Document("d", "a dog")])
    settle(one)
    with open_database(server.database) as database:
        forgotten, _ = purge(database, one.client.status().tenant, before_ms=now_ms() + DAY_MS)
    assert forgotten == 2
    settle(other, one)
    assert set(codes(one.index)) == set(codes(other.index)) == {"c", "d", "e"}
    assert alike(one, other)
    (letter,) = other.client.dead_letters()
    assert (letter.id, letter.reason) == ("b", "deleted_elsewhere")
    assert letter.document == Document("b", "my own words")
    assert other.index.check().sound


def test_document_put_again_before_its_own_deletion_is_forgotten(
    new_device: NewDevice, server: Serving
) -> None:
    one, other = new_device("one"), new_device("other")
    one.index.put([Document(name, "the cat") for name in ("a", "b")])
    settle(one, other)
    one.index.delete(["a"])
    with SyncClient.open(one.index, push_only=True) as client:
        assert client.sync_once().pushed == 1
    one.index.put([Document("a", "a dog")])
    time.sleep(0.01)
    other.index.delete(["b"])  # later, so that nothing older than this may come back
    settle(other)
    with open_database(server.database) as database:
        assert purge(database, one.client.status().tenant, before_ms=now_ms() + DAY_MS)[0] == 2
    settle(one, other)
    assert set(codes(one.index)) == set(codes(other.index)) == {"a"}
    assert alike(one, other)
    assert not one.client.dead_letters()


KILLS = 4


@pytest.mark.test
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_killed_sync_loses_and_doubles_nothing(new_device: NewDevice) -> None:
    device, other = new_device("one"), new_device("other")
    rng = random.Random(7)
    for kill in range(KILLS):
        device.index.put([Document(f"{kill}-{n}", text(rng)) for n in range(300)])
        device.index.delete([f"{kill - 1}-{n}" for n in range(100)])
        command = [*COMMAND, "sync", "--store", str(device.index.path), "--quiet"]
        with subprocess.Popen(command) as process:
            time.sleep(rng.uniform(0.2, 1.2))
            process.kill()
    settle(device, other)
    assert len(codes(other.index)) == KILLS * 300 - (KILLS - 1) * 100
    assert alike(other, device)
    assert other.index.check().sound
    assert device.index.check().sound


def test_syncing_loads_no_model(new_device: NewDevice) -> None:
    device = new_device("one")
    device.index.put([Document("a", "the cat")])
    code = (
        "import sys\nfrom edge_mrl.cli import main\n"
        f"assert main(['sync', '--store', {str(device.index.path)!r}, '--quiet']) == 0\n"
        "print([n for n in ('onnxruntime', 'tokenizers') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert device.client.status().queue.items == 0


@pytest.mark.test
def test_command_says_what_is_still_queued(new_device: NewDevice, tmp_path: Path) -> None:
    device = new_device("one")
    device.index.put([Document("a", "the cat")])
    path = str(device.index.path)
    found = Credentials.read(device.index.path)
    assert found is not None
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    command = [*COMMAND, "sync", "--store", path]
    done = subprocess.run([*command, "--server", nowhere], capture_output=True, check=False)
    assert done.returncode == 4
    assert b"1 document still queued" in done.stderr
    done = subprocess.run([*command, "--server", found.server], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"1 sent" in done.stdout
    shutil.rmtree(tmp_path / "none", ignore_errors=True)
