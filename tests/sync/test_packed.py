"""Codes that travel as a store keeps them: the same codes, in fewer bytes, also from older servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.bundle.manifest import read_manifest
from edge_mrl.codes.packing import INT8, Packing
from edge_mrl.documents import Document
from edge_mrl.index import Index
from edge_mrl.sync.enrollment import enroll
from edge_mrl.sync.pulls.forms import CodeKey, PageForm
from edge_mrl.sync.remote import Remote
from tests.support.bundles import TINY, copy_bundle, keep_codes_as
from tests.support.serving import Serving
from tests.support.stores import PACKINGS, packing
from tests.sync.conftest import Device, NewCode, NewDevice
from tests.sync.parts import Parts, remote_of

pytestmark = pytest.mark.test

#: Of 30 documents, each with one passage.
DOCUMENTS = [Document(f"d{number:02}", f"the cat {number} of the house") for number in range(30)]


@pytest.fixture
def writer(new_device: NewDevice) -> Device:
    device = new_device("writer")
    device.index.put(DOCUMENTS)
    assert device.client.sync_once().done
    return device


def stored(index: Index) -> dict[str, bytes]:
    """The codes of each document, as the database holds them."""
    with index.store.reading() as view:
        keys = index.store.keys([document.id for document in DOCUMENTS])
        table = view.codes
        codes, owners = table.gather_levels(np.setdiff1d(np.arange(table.rows), table.dead))
        by_key = dict(zip(owners.tolist(), codes, strict=True))
        return {name: by_key[key].tobytes() for key, name in keys.items()}


def pulled(
    path: Path, bundle: Path, url: str, code: str, *, pages: bool
) -> tuple[dict[str, bytes], set[str]]:
    """What a new device of a bundle has after its first sync, and the types of what it was sent."""
    seen: set[str] = set()
    with Index.open(path, bundle) as index:
        enroll(index.store, url, code)
        with remote_of(index.store) as remote:
            parts = Parts(index, remote)
            original = parts.puller()
            entries: Any = original._entries
            made = entries.of

            def of(items: Any, *rest: Any) -> Any:
                seen.update(item.vectors.dtype.name for item in items)
                return made(items, *rest)

            entries.of = of
            if pages:
                original.changes()
            else:
                original.bootstrap()
        return stored(index), seen


@pytest.mark.parametrize("pages", [True, False], ids=["pages", "snapshot"])
@pytest.mark.parametrize("name", PACKINGS)
def test_codes_arrive_packed_and_are_those_that_the_device_would_make(
    name: str, pages: bool, writer: Device, server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    kept = packing(name, 16)
    bundle = copy_bundle(tmp_path / "bundle")
    if kept != INT8:
        keep_codes_as(bundle, kept)
    here, kinds = pulled(tmp_path / "reader.db", bundle, server.url, new_code(), pages=pages)
    assert kinds == {"int8" if kept == INT8 else "uint8"}
    with Index.open(tmp_path / "own.db", bundle) as index:
        index.put(DOCUMENTS)
        own = stored(index)
    assert here.keys() == own.keys()
    # A value at the border of two codes may be rounded the other way, as it travels as float16.
    differ = [name for name in own if here[name] != own[name]]
    assert len(differ) <= 2


@pytest.mark.parametrize("name", ["int4", "2bit around a centre"])
def test_server_that_knows_no_packed_codes_sends_int8_codes(
    name: str,
    writer: Device,
    server: Serving,
    new_code: NewCode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = keep_codes_as(copy_bundle(tmp_path / "bundle"), packing(name, 16))
    new, _ = pulled(tmp_path / "new.db", bundle, server.url, new_code(), pages=True)
    whole = CodeKey.query

    def known(self: CodeKey) -> dict[str, Any]:
        """What an older server understands of the request."""
        assert whole.fget is not None
        asked = whole.fget(self)
        return {key: asked[key] for key in ("head", "dim", "scale")}

    monkeypatch.setattr(CodeKey, "query", property(known))
    old, kinds = pulled(tmp_path / "old.db", bundle, server.url, new_code(), pages=True)
    assert kinds == {"int8"}
    assert old == new


def test_packed_codes_take_half_and_a_quarter_of_the_bytes(
    writer: Device, server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    manifest = read_manifest(TINY)
    sizes = {}
    with Index.open(tmp_path / "asks.db", TINY) as index:
        enroll(index.store, server.url, new_code())
        with remote_of(index.store) as remote:
            for kept in (INT8, Packing("int4", 8.0), Packing("2bit", 8.0), Packing("1bit")):
                code = CodeKey(manifest.head.id, manifest.dim, manifest.code.scale, kept)
                sizes[kept.kind] = vector_bytes(remote, code)
    documents = len(DOCUMENTS)
    assert sizes == {
        "int8": 16 * documents,
        "int4": 8 * documents,
        "2bit": 4 * documents,
        "1bit": 2 * documents,
    }


def vector_bytes(remote: Remote, code: CodeKey) -> int:
    page = remote.pull(0, form=PageForm("coarse", code))
    return sum(item.vectors.nbytes for item in page.items)
