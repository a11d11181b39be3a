"""An encrypted store is synced; its token and a partial snapshot are in its database alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import NetworkError, StoreKeyError
from edge_mrl.index import Index
from edge_mrl.store import convert
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.credentials import Credentials
from edge_mrl.sync.enrollment import enroll
from edge_mrl.sync.pulls.part_file import PartFile
from tests.support.bundles import TINY
from tests.support.keys import KEY, OTHER
from tests.support.processes import wait_until
from tests.support.serving import Serving
from tests.sync.conftest import NewCode, NewDevice

pytest.importorskip("sqlcipher3", reason="needs the extra encrypted")


def folder_of(tmp_path: Path) -> Path:
    folder = tmp_path / "encrypted"
    folder.mkdir()
    return folder


def test_encrypted_store_is_synced_with_nothing_beside_it(
    server: Serving, new_code: NewCode, new_device: NewDevice, tmp_path: Path
) -> None:
    other = new_device("other")
    other.index.put([Document(str(n), f"a cat and a dog {n}") for n in range(9)])
    other.client.sync_once()
    folder = folder_of(tmp_path)
    path = folder / "notes.db"
    with Index.open(path, TINY, key=KEY) as index:
        enroll(index.store, server.url, new_code())
        found = Credentials.read(index.store)
        assert found is not None
        with SyncClient.open(index) as client:
            assert client.sync_once().pulled == 9
            index.put([Document("mine", "a quixotic note")])
            assert client.sync_once().pushed == 1
        data = [file.read_bytes() for file in folder.iterdir()]
        assert not any(found.token.encode() in some for some in data)
    assert [file.name for file in folder.iterdir()] == [path.name]
    other.client.sync_once()
    assert "mine" in other.index.get(["mine"])
    # The token goes with the store: to another key, and out of it.
    convert(path, key=KEY, new_key=OTHER)
    with SyncClient.open(path, key=OTHER) as client:
        assert client.sync_once().waiting is None
    convert(path, key=OTHER, new_key=None)
    with SyncClient.open(path) as client:
        assert client.sync_once().waiting is None
    convert(path, key=None, new_key=KEY)
    assert [file.name for file in folder.iterdir()] == [path.name]
    with SyncClient.open(path, key=KEY) as client:
        assert client.sync_once().waiting is None


@pytest.mark.test
def test_encrypted_store_is_synced_in_the_background(
    server: Serving, new_code: NewCode, new_device: NewDevice, tmp_path: Path
) -> None:
    other = new_device("other")
    path = folder_of(tmp_path) / "notes.db"
    with Index.open(path, TINY, key=KEY) as index:
        enroll(index.store, server.url, new_code())
        with SyncClient.open(index) as client:
            client.start(interval_s=0.05)
            index.put([Document("mine", "a quixotic note")])
            wait_until(lambda: client.status().queue.items == 0, 30)
            other.here().index.put([Document("theirs", "another note")])
            assert other.client.sync_once().done
            wait_until(lambda: "theirs" in index.get(["theirs"]), 30)
        assert index.check().sound
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_copy_of_an_encrypted_store_is_one_with_the_same_key(tmp_path: Path) -> None:
    """A backup as the manual has it: the file, while no program has the store open."""
    path = folder_of(tmp_path) / "notes.db"
    with Index.open(path, TINY, key=KEY) as index:
        index.put([Document(str(n), f"a cat and a dog {n}") for n in range(9)])
    copy = Path(shutil.copy(path, tmp_path / "copy.db"))
    with Index.open(copy, key=KEY) as index:
        assert index.check().sound
        assert index.count().documents == 9
        assert index.search("a cat", k=1)[0].id in map(str, range(9))
    with pytest.raises(StoreKeyError):
        Index.open(copy, key=OTHER)


def test_partial_snapshot_is_continued_from_the_database(tmp_path: Path) -> None:
    from edge_mrl.bundle import read_manifest
    from edge_mrl.store import private_data
    from edge_mrl.sync.remote import CodeKey

    code = repr(CodeKey.of(read_manifest(TINY)))
    path = folder_of(tmp_path) / "notes.db"
    frames = [b"one frame", b"", b"another quixotic frame"]
    data = b"".join(len(frame).to_bytes(4, "little") + frame for frame in frames)
    with Index.open(path, TINY, key=KEY) as index:
        place = private_data(index.store, "sync.part")
        with PartFile(place, code) as part:
            part.add(data[:7], size_bytes=len(data), etag='"1"', digest=None)
    with Index.open(path, key=KEY) as index:
        place = private_data(index.store, "sync.part")
        with PartFile(place, code) as part:
            assert (part.size, part.etag, part.complete) == (7, '"1"', False)
            with pytest.raises(NetworkError, match="changed"):
                part.add(b"x", size_bytes=1, etag='"2"', digest=None)
            part.add(data[7:20], size_bytes=len(data), etag='"1"', digest=None)
            part.add(data[20:], size_bytes=len(data), etag='"1"', digest=None)
            assert part.complete
            assert part.sound()
            assert list(part.frames()) == frames
            files = [file.read_bytes() for file in path.parent.iterdir()]
            assert not any(b"quixotic" in some for some in files)
            part.remove()
        with PartFile(place, code) as part:
            assert part.size == 0
