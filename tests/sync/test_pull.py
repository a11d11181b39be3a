"""Pulling: changes, snapshots, and everything, from a real server into a real store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import NetworkError
from edge_mrl.index import Index
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.enrollment import enroll
from tests.support.bundles import TINY
from tests.support.serving import Serving
from tests.sync.conftest import Device, NewCode, NewDevice
from tests.sync.parts import Parts, enrollment_of, remote_of
from tests.sync.test_sync import alike, codes, near


@pytest.fixture
def writer(new_device: NewDevice) -> Device:
    """A device whose documents are at the server, one of them deleted again."""
    device = new_device("writer")
    device.index.put([Document(f"d{number:02}", f"the cat {number}") for number in range(20)])
    device.index.delete(["d19"])
    assert device.client.sync_once().done
    return device


def test_changes_are_counted_and_move_the_cursor(writer: Device, new_device: NewDevice) -> None:
    reader = new_device("reader")
    with remote_of(reader.index.store) as remote:
        parts = Parts(reader.index, remote)
        parts.puller().changes()
        assert (parts.outcome.pulled, parts.outcome.deleted) == (19, 0)
        cursor = enrollment_of(reader.index.store).cursor
        assert cursor > 0
        parts.puller().changes()
        assert parts.outcome.pulled == 19
        writer.index.put([Document("d00", "a dog")])
        writer.index.delete(["d01", "d02"])
        assert writer.client.sync_once().done
        parts.puller().changes()
        assert (parts.outcome.pulled, parts.outcome.deleted) == (20, 2)
        assert enrollment_of(reader.index.store).cursor > cursor
        assert set(remote.asked) == {"pull"}
    assert alike(writer, reader)
    assert parts.steps[-1] == parts.outcome


def test_new_store_is_filled_from_a_snapshot(writer: Device, new_device: NewDevice) -> None:
    reader = new_device("reader")
    with remote_of(reader.index.store) as remote:
        parts = Parts(reader.index, remote)
        assert parts.puller().bootstrap() is None
        assert "pull" not in remote.asked
        assert "snapshot" in remote.asked
        assert parts.outcome.pulled == 19
        parts.puller().changes()  # the cursor is behind the snapshot
        assert parts.outcome.pulled == 19
    assert alike(writer, reader)
    assert not list(reader.index.path.parent.glob("*.part"))


def test_store_with_documents_of_its_own_pulls_pages_instead(
    writer: Device, new_device: NewDevice
) -> None:
    reader = new_device("reader")
    reader.index.put([Document("mine", "a model")])
    with remote_of(reader.index.store) as remote:
        parts = Parts(reader.index, remote)
        agreed = parts.puller().bootstrap()
        assert agreed is not None
        assert (agreed.deleted, agreed.resent) == (0, None)
        assert "snapshot" not in remote.asked
    assert codes(reader.index).keys() == {"mine", *codes(writer.index)}


@pytest.mark.parametrize("data", [b"", b"no JSON", b'{"code": "another"}'.ljust(2_000)])
def test_snapshot_of_which_a_damaged_part_is_here_is_fetched_whole(
    writer: Device, new_device: NewDevice, data: bytes
) -> None:
    reader = new_device("reader")
    part = reader.index.path.with_name(f"{reader.index.path.name}-sync.part")
    part.write_bytes(data)
    with remote_of(reader.index.store) as remote:
        parts = Parts(reader.index, remote)
        parts.puller().bootstrap()
        assert not part.exists()
        assert "pull" not in remote.asked
    assert alike(writer, reader)
    assert reader.index.check().sound


def test_store_that_keeps_full_vectors_makes_its_codes_itself(
    writer: Device, server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    with Index.open(tmp_path / "full.db", TINY, keep_full="fp16") as index:
        enroll(index.store, server.url, new_code())
        with SyncClient.open(index) as client:
            assert client.sync_once().pulled == 19
        there, here = codes(writer.index), codes(index)
        assert there.keys() == here.keys()
        assert all(near(there[name], here[name]) for name in there)
        with index.store.reading() as view:
            keys = index.store.keys(["d00"])
            (rows,) = view.fulls(list(keys)).values()
        full = index.encoder.encode(["the cat 0"], kind="document").full
        assert full is not None
        assert rows == pytest.approx(full, abs=2e-3)  # they travelled as float16


def test_everything_brings_what_is_there_and_keeps_what_waits(
    writer: Device, new_device: NewDevice
) -> None:
    reader = new_device("reader")
    assert reader.client.sync_once().done
    reader.index.put([Document("mine", "a model")])
    with remote_of(reader.index.store) as remote:
        parts = Parts(reader.index, remote)
        agreed = parts.puller().everything()
        assert (agreed.deleted, agreed.resent) == (0, None)
        assert parts.outcome.pulled == 0  # nothing is newer than what is here
    assert "mine" in codes(reader.index)
    assert reader.client.status().queue.items == 1
    assert writer.client.sync_once().pulled == 0


@pytest.mark.parametrize("change", ["width", "kind"])
def test_vectors_of_another_shape_are_refused_and_nothing_is_stored(
    writer: Device, new_device: NewDevice, change: str
) -> None:
    reader = new_device("reader")

    def damage(page: Any) -> Any:
        items = list(page.items)
        rows = items[0].vectors
        wrong = rows[:, :-1] if change == "width" else rows.astype(np.float16)
        items[0] = replace(items[0], vectors=wrong)
        return replace(page, items=items)

    with remote_of(reader.index.store) as remote:
        remote.changed_page = damage
        parts = Parts(reader.index, remote)
        with pytest.raises(NetworkError, match="expected int8"):
            parts.puller().changes()
        assert (parts.outcome.pulled, codes(reader.index)) == (0, {})
        assert enrollment_of(reader.index.store).cursor == 0
        remote.changed_page = lambda page: page
        parts.puller().changes()
    assert alike(writer, reader)
