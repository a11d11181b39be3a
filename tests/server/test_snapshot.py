"""Snapshots on the disk: made once for each state, kept while they are young, deleted when too large."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_mrl.bundle import derive_codes, head_id
from edge_mrl.wire import Item, decode_items, decode_message, now_ms
from edge_mrl_server.http import snapshot as module
from edge_mrl_server.http.heads import CodeKey, HeadCache
from edge_mrl_server.http.refusals import Refusal
from edge_mrl_server.http.snapshot import Snapshot, SnapshotCache
from edge_mrl_server.storage import Database, Principal, Push, accounts, open_database, purge, push
from tests.support.serving import SPACE, item

CODE = CodeKey(head_id(None, layer_norm=False), 4, 1.0)


class Maker:
    """A database with tenants, and a cache before it."""

    def __init__(self, database: Database, folder: Path, max_bytes: int = 1 << 20) -> None:
        self.database = database
        self.cache = SnapshotCache(folder, max_bytes=max_bytes)
        self.heads = HeadCache()

    def put(self, *items: Item, tenant: str = "t") -> None:
        push(self.database, Principal(tenant, "d", {}), Push(SPACE, items, 8, 0))

    def get(
        self,
        *,
        tenant: str = "t",
        code: CodeKey = CODE,
        text: bool = False,
        etag: str | None = None,
    ) -> Snapshot:
        about = (self.database, self.heads, tenant, code)
        opened = self.cache.find(*about, text=text, etag=etag) or self.cache.make(*about, text=text)
        opened.close()
        return opened.snapshot


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(str(tmp_path / "server.db")) as database:
        for name in ("t", "u"):
            with database.write() as transaction:
                accounts.create_tenant(transaction, name)
        yield database


@pytest.fixture
def maker(database: Database, tmp_path: Path) -> Iterator[Maker]:
    maker = Maker(database, tmp_path / "cache")
    yield maker
    maker.cache.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that is not of the last change is made anew at once."""
    monkeypatch.setattr(module, "PATIENCE", 0.0)


def read(snapshot: Snapshot) -> tuple[dict[str, object], list[Item]]:
    data, header, items = snapshot.path.read_bytes(), {}, []
    assert len(data) == snapshot.size_bytes
    assert hashlib.sha256(data).digest() == snapshot.sha256
    while data:
        (size,) = struct.unpack_from("<I", data)
        message = decode_message(data[4 : 4 + size])
        header = header or dict(message.header)
        items += decode_items(message)
        data = data[4 + size :]
    return header, items


def test_file_holds_what_is_live_as_codes(maker: Maker) -> None:
    sent = item("a", n=2, seed=1, text="words", spans=[(0, 1), (1, 2)])
    maker.put(sent, item("b", seed=2), item("gone", deleted=True))
    header, items = read(maker.get())
    assert (header["cursor"], header["documents"]) == (3, 2)
    assert [i.id for i in items] == ["a", "b"]
    full = sent.vectors.astype(np.float32)
    assert np.array_equal(items[0].vectors, derive_codes(full, None, dim=4))
    assert items[0].text is None
    assert read(maker.get(text=True))[1][0].text == "words"


@pytest.mark.usefixtures("impatient")
def test_file_is_made_once_for_each_state_and_code(maker: Maker) -> None:
    maker.put(item("a"))
    first = maker.get()
    assert maker.get() is first
    other = maker.get(code=replace(CODE, dim=3))
    assert other.path != first.path
    maker.put(item("b"))
    second = maker.get()
    assert (second.change, second.etag == first.etag) == (2, False)
    assert read(second)[0]["documents"] == 2


def test_young_file_is_sent_though_the_tenant_has_changed(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 1e9)
    maker.put(item("a"))
    first = maker.get()
    maker.put(item("b"))
    assert maker.get() is first
    # But not when deletions behind it are forgotten: they could not be learnt any more.
    maker.put(item("a", after=1, deleted=True))
    assert purge(maker.database, "t", before_ms=now_ms() + 1_000)[0] == 1
    fresh = maker.get()
    assert [i.id for i in read(fresh)[1]] == ["b"]
    assert maker.get(etag=first.etag) is fresh


@pytest.mark.usefixtures("impatient")
def test_device_gets_the_rest_of_the_file_that_it_has_a_part_of(maker: Maker) -> None:
    maker.put(item("a"))
    first = maker.get()
    maker.put(item("b"))
    assert maker.get() is not first
    assert maker.get(etag=first.etag) is first
    assert maker.get(etag='"unknown"') is not first
    # A tag is good within its tenant alone.
    assert maker.get(tenant="u", etag=first.etag).path != first.path


@pytest.mark.usefixtures("impatient")
def test_least_recently_used_file_is_deleted_when_there_are_too_many_bytes(
    database: Database, tmp_path: Path
) -> None:
    maker = Maker(database, tmp_path / "small", max_bytes=2_000)  # room for two
    files = []
    for number in range(3):
        maker.put(item("a", after=number, text="x" * 600, spans=[(0, 1)], seed=number))
        files.append(maker.get(text=True))
        if number == 1:
            assert maker.get(text=True, etag=files[0].etag) is files[0]  # used again
    assert [file.path.exists() for file in files] == [True, False, True]
    maker.cache.close()
    assert not any(file.path.exists() for file in files)


def test_file_that_somebody_deleted_is_made_again(maker: Maker) -> None:
    maker.put(item("a"))
    first = maker.get()
    first.path.unlink()
    assert read(maker.get())[0]["documents"] == 1


def test_file_that_is_not_finished_is_not_left(
    maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.put(item("a"))

    def fail(*_: object) -> Item:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(module, "coded", fail)
        with pytest.raises(ZeroDivisionError):
            maker.get()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    assert read(maker.get())[0]["documents"] == 1


def test_code_of_an_unknown_head_is_refused(maker: Maker) -> None:
    with pytest.raises(Refusal, match="not registered"):
        maker.get(code=CodeKey("0" * 64, 4, 1.0))


def test_tenant_without_documents_has_one_empty_frame(maker: Maker) -> None:
    header, items = read(maker.get())
    assert (header["cursor"], header["documents"], items) == (0, 0, [])
