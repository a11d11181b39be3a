"""Two machines that go on from one copied store; and what looks like that, and is not."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.documents import Document
from edge_mrl.index import Index
from edge_mrl.store import Store, replica
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.enrollment import enroll
from edge_mrl_server.storage import open_database
from tests.support.bundles import TINY
from tests.support.processes import good
from tests.support.serving import Serving, admin, back_up, put_back, serving
from tests.sync.conftest import Clock, Device, NewCode, NewDevice

pytestmark = pytest.mark.test

DAY_MS = 86_400_000


def sync(path: Path) -> Any:
    with SyncClient.open(path) as client:
        return client.sync_once()


def put(path: Path, name: str, text: str) -> None:
    with Index.open(path) as index:
        index.put([Document(name, text)])


def texts(path: Path) -> dict[str, str]:
    with Index.open(path) as index, index.store.locked() as (connection, _):
        return dict(connection.execute("SELECT id, text FROM documents"))


def clone(path: Path, folder: Path) -> Path:
    """Copy a store with its token, as the image of a card does."""
    folder.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, folder)
    return folder / path.name


@pytest.fixture
def gold(server: Serving, new_code: NewCode, tmp_path: Path) -> Path:
    """An enrolled store that has synced."""
    path = tmp_path / "gold" / "store.db"
    path.parent.mkdir()
    with Index.open(path, TINY) as index:
        index.put([Document("a", "the cat sat on the mat")])
        enroll(index.store, server.url, new_code(), with_text=True)
    assert sync(path).done
    return path


def test_copies_are_told_apart_and_nothing_of_either_is_lost(
    gold: Path, server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    first, second = (clone(gold, tmp_path / name) for name in ("x", "y"))
    refused = []
    for number in range(3):
        for path in (first, second):
            put(path, f"{path.parent.name}{number}", f"note {number} of {path.parent.name}")
            outcome = sync(path)
            if outcome.cause is not None:
                refused.append((path, outcome))
    path, outcome = refused[0]
    assert outcome.cause == "refused"
    assert "this store is a copy of another device's" in outcome.waiting
    assert f"edge-mrl enroll --server URL --invitation - --store {path}" in outcome.waiting
    assert {path for path, _ in refused} == {second}  # the other one has the name, and goes on
    with Store.open(second) as store:
        found = replica.enrollment_of(store)
        assert found is not None
        assert replica.queue_of(store).items >= 1
    listed = admin(server.database, "devices", "list", found.tenant)["devices"]
    assert [bool(device["cloned_ms"]) for device in listed] == [True]
    said = good("admin", "devices", "list", found.tenant, "--database", server.database)
    assert b"its store was copied" in said.stdout
    # Enrolled anew, it brings what waited.
    with Store.open(second) as store:
        enroll(store, server.url, new_code(), with_text=True)
    for path in (second, first, second, first):
        assert sync(path).done
    expected = {"a"} | {f"{name}{n}" for name in ("x", "y") for n in range(3)}
    assert texts(first) == texts(second)
    assert set(texts(first)) == expected


def test_backup_of_a_device_that_is_put_back_is_no_copy(gold: Path, tmp_path: Path) -> None:
    backup = clone(gold, tmp_path / "backup")
    for number in range(3):
        put(gold, f"b{number}", "a dog")
        assert sync(gold).done
    for file in gold.parent.iterdir():
        file.unlink()
    for file in backup.parent.iterdir():
        shutil.copy(file, gold.parent)
    for number in range(6):
        put(gold, f"c{number}", "a model")
        assert sync(gold).done
    assert {"b0", "b1", "b2", "c5"} <= set(texts(gold))


def test_threads_processes_and_restarts_of_one_store_are_no_copies(gold: Path) -> None:
    with Index.open(gold) as index, SyncClient.open(index) as client:
        client.start(interval_s=0.05)
        outcomes = [sync(gold) for _ in range(4)]
        threads = [threading.Thread(target=lambda: outcomes.append(sync(gold))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.stop()
    assert all("copy" not in str(outcome.waiting) for outcome in outcomes)
    assert sync(gold).done


def test_clones_whose_clocks_are_behind_end_with_one_text(
    new_device: NewDevice, server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    """Both give the same version to other contents: the server must not take the second for the first."""
    made: Device = new_device("gold")
    replica.set_with_text(made.index.store, with_text=True)
    made.index.put([Document("status", "all is well")])
    assert made.client.sync_once().done
    gold = made.index.store.path
    made.client.close()
    made.index.close()
    stores = [clone(gold, tmp_path / name) for name in ("x", "y")]
    Clock.ahead_ms = 0
    made._clocks.ahead_ms = -DAY_MS
    for path, text in zip(stores, ("x is well", "y is broken"), strict=True):
        put(path, "status", text)
    stamps = []
    for path in stores:
        with Store.open(path) as store, store.locked() as (connection, _):
            stamps += connection.execute("SELECT stamp FROM outbox").fetchall()
    assert stamps[0] == stamps[1]
    assert sync(stores[0]).pushed == 1
    second = sync(stores[1])
    assert second.pushed == 1
    assert sync(stores[0]).pulled == 1  # asked for another mark on the way
    assert [texts(path)["status"] for path in stores] == ["y is broken"] * 2


def test_one_device_cannot_have_all_others_pull_everything(
    new_device: NewDevice, server: Serving
) -> None:
    from tests.support.serving import Caller

    victim, liar = new_device("victim"), new_device("liar")
    victim.index.put([Document(str(n), f"note {n}") for n in range(30)])
    assert victim.client.sync_once().done
    found = replica.enrollment_of(victim.index.store)
    assert found is not None
    epochs = set()
    token = _token(liar)
    for number in range(20):
        caller = Caller(server.url, token, space=liar.index.store.binding.space_id)
        epoch = _epoch(server, found.tenant)
        epochs.add(epoch)
        body = _claim({"cursor": 2**62, "push": 10 * number + 5, "epoch": epoch})
        caller.call("POST", "/v1/push", body)
        caller.close()
    epochs.add(_epoch(server, found.tenant))
    assert len(epochs) == 2  # it was believed once
    assert victim.client.sync_once().done
    outcome = victim.client.sync_once()
    assert (outcome.done, outcome.bytes_received < 1_000) == (True, True)
    listed = admin(server.database, "devices", "list", found.tenant)["devices"]
    assert max(device["doubts"] for device in listed) >= 19
    # An operator's word clears that.
    admin(server.database, "restored")
    assert victim.client.sync_once().done
    listed = admin(server.database, "devices", "list", found.tenant)["devices"]
    assert [device["doubts"] for device in listed] == [0, 0]


def test_restores_are_noticed_by_themselves_however_many_there_are(tmp_path: Path) -> None:
    """A device that has receipts of the server is believed each time."""
    database, path = tmp_path / "server.db", tmp_path / "store.db"
    copy = tmp_path / "copy.db"
    with serving(database) as server:
        port = server.port
        with Index.open(path, TINY) as index:
            index.put([Document("first", "the cat")])
            assert server.invitation is not None
            enroll(index.store, server.url, server.invitation)
        assert sync(path).done
    back_up(database, copy)
    epochs = set()
    for number in range(3):
        with serving(database, port=port) as server:
            put(path, f"n{number}", "a dog")
            assert sync(path).done
            epochs.add(_epoch(server, "default"))
        put_back(copy, database)
        with serving(database, port=port) as server:
            outcome = sync(path)
            assert outcome.done
            assert outcome.resent
            epochs.add(_epoch(server, "default"))
            (device,) = admin(server.database, "devices", "list", "default")["devices"]
            assert (device["doubts"], device["cloned_ms"]) == (0, None)
    assert len(epochs) >= 3  # the copy has the first one each time
    with open_database(str(database)) as opened, opened.read() as transaction:
        (row,) = transaction.rows("SELECT documents FROM tenants")
    assert row["documents"] == 4


def _token(device: Device) -> str:
    from edge_mrl.sync.credentials import Credentials

    found = Credentials.read(device.index.store.path)
    assert found is not None
    return found.token


def _claim(header: dict[str, Any]) -> bytes:
    import numpy as np

    from edge_mrl.wire import encode_items

    return encode_items(header, [], like=np.zeros((0, 32), np.float16))


def _epoch(server: Serving, tenant: str) -> str:
    with open_database(server.database) as database, database.read() as transaction:
        (row,) = transaction.rows("SELECT epoch FROM tenants WHERE tenant = ?", tenant)
    return str(row["epoch"])
