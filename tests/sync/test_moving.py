"""A store that moves to another code asks its server for codes, which keeps the full vectors of all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from edge_mrl.cli import main
from edge_mrl.documents import Document
from edge_mrl.encode import Encoder
from edge_mrl.errors import NetworkError
from edge_mrl.index import Index
from edge_mrl.ingest import Tally, again
from edge_mrl.store import Store, check, reindex, replica
from edge_mrl.sync.pulls.recoding import ServerCodes
from edge_mrl.sync.remote import Remote
from edge_mrl.wire import Version
from tests.support.bundles import copy_bundle, keep_codes_as, with_dim
from tests.support.stores import packing
from tests.sync.conftest import Device, NewDevice

pytestmark = pytest.mark.test

THEIRS = [Document(f"t{number:02}", f"the cat {number} of the house") for number in range(20)]
MINE = [Document(f"m{number:02}", f"a dog {number} barking") for number in range(10)]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """256 dimensions of int4 in the place of 128 of int8, but smaller."""
    return keep_codes_as(with_dim(copy_bundle(tmp_path / "wide"), 32), packing("int4", 32))


@pytest.fixture
def device(new_device: NewDevice) -> Device:
    """A device with 10 documents of its own and 20 of another device, which came without their texts."""
    writer = new_device("writer")
    writer.index.put(THEIRS)
    assert writer.client.sync_once().done
    reader = new_device("reader").here()
    reader.index.put(MINE)
    assert reader.client.sync_once().done
    assert reader.index.get(["t00"])["t00"].text == ""
    return reader


def levels(index: Index) -> dict[str, list[int]]:
    with index.store.reading() as view:
        table = view.codes
        rows = np.setdiff1d(np.arange(table.rows), table.dead)
        found, keys = table.gather_levels(rows)
        names = index.store.ids(sorted(set(keys.tolist())))
    return {names[key]: row for key, row in zip(keys.tolist(), found.tolist(), strict=True)}


def assert_moved(index: Index, bundle: Path) -> None:
    with Encoder.open(bundle) as encoder:
        kept = encoder.manifest.code.packing
        codes = encoder.encode([one.text for one in (*THEIRS, *MINE)]).coarse
    wanted = kept.unpack(kept.pack(codes), 32)
    found = levels(index)
    assert found.keys() == {one.id for one in (*THEIRS, *MINE)}
    rows = np.array([found[one.id] for one in (*THEIRS, *MINE)])
    # They travelled as float16: a value between two levels may be rounded the other way.
    assert np.abs(rows - wanted).max() <= 2
    assert (rows != wanted).mean() < 0.02
    assert check(index.store).sound


def test_server_makes_the_codes_and_sync_goes_on(
    device: Device, new_device: NewDevice, bundle: Path
) -> None:
    before = replica.enrollment_of(device.index.store)
    tally = Tally()
    assert device.index.reindex(bundle, tally=tally) == 0
    assert (tally.fetched, tally.kept, tally.embedded, tally.lacking) == (30, 0, 0, 0)
    assert_moved(device.index, bundle)
    after = replica.enrollment_of(device.index.store)
    assert before is not None
    assert after is not None
    assert after.cursor == before.cursor
    outcome = device.client.sync_once()
    assert (outcome.done, outcome.pushed, outcome.pulled) == (True, 0, 0)
    assert outcome.bytes_received < 1_000  # nobody pulls anything again
    device.index.put([Document("new", "testing the model")])
    assert device.client.sync_once().pushed == 1
    other = new_device("third").here()
    assert other.client.sync_once().pulled == 31


def test_newer_and_waiting_documents_are_right_too(device: Device, bundle: Path) -> None:
    device.index.put([Document("m00", "training it"), Document("late", "0 1 2")])
    device.index.delete(["m01"])
    tally = Tally()
    device.index.reindex(bundle, tally=tally)
    assert tally.kept + tally.fetched + tally.embedded == 30
    assert tally.lacking == 0
    with Encoder.open(bundle) as encoder:
        kept = encoder.manifest.code.packing
        codes = encoder.encode(["training it", "0 1 2"]).coarse
    found = levels(device.index)
    assert [found["m00"], found["late"]] == kept.unpack(kept.pack(codes), 32).tolist()
    assert device.client.sync_once().pushed == 3
    assert check(device.index.store).sound


def test_move_waits_for_a_server_that_alone_has_the_vectors(
    device: Device, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = device.index
    before = index.search("the cat", k=30)

    def away(*_: object, **__: object) -> None:
        raise NetworkError("no route to host")

    monkeypatch.setattr(Remote, "pull", away)
    monkeypatch.setattr("edge_mrl.sync.budget.ATTEMPT_WAIT_S", 0)
    with pytest.raises(
        NetworkError, match=r"20 documents of other devices .*no route to host.*--offline"
    ):
        index.reindex(bundle)
    assert index.search("the cat", k=30) == before
    assert reindex.progress(index.store) == (10, 30)  # all that could be made is kept
    monkeypatch.undo()
    device.here()
    tally = Tally()
    assert index.reindex(bundle, tally=tally) == 0
    assert (tally.fetched, tally.kept, tally.embedded) == (20, 0, 0)
    assert_moved(index, bundle)


def test_offline_move_leaves_the_rest_to_the_next_sync(
    device: Device, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(device.index.path)
    assert main(["reindex", "--store", path, "--bundle", str(bundle), "--offline", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["lacking"], said["fetched"], said["kept"] + said["embedded"]) == (20, 0, 10)
    device.here()
    assert device.client.sync_once().done
    assert_moved(device.index, bundle)


def test_interrupted_move_asks_for_the_rest_only(
    device: Device, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again, "FETCHED_TOGETHER", 5)
    asked: list[int] = []
    original = ServerCodes.pages

    def pages(self: ServerCodes, groups: list[int]) -> object:
        asked.append(len(groups))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return original(self, groups)

    monkeypatch.setattr(ServerCodes, "pages", pages)
    with pytest.raises(KeyboardInterrupt):
        device.index.reindex(bundle)
    done, _ = reindex.progress(device.index.store)
    assert 0 < done < 30
    tally = Tally()
    device.index.reindex(bundle, tally=tally)
    assert tally.fetched + tally.kept + tally.embedded == 30 - done
    assert_moved(device.index, bundle)


def test_codes_of_another_version_are_not_taken(
    device: Device, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sabotage twin: a server's page is taken though the document here is another version."""
    device.index.put([Document("m00", "training it")])
    device.index.store.forget_full(["m00"])  # as where the queue has no room for vectors
    original = reindex.of_versions

    def any_version(store: Store, versions: Mapping[str, Version]) -> dict[int, str]:
        keys = store.keys(["m00"] if "m00" in versions else [])
        return original(store, versions) | keys

    monkeypatch.setattr(reindex, "of_versions", any_version)
    device.index.reindex(bundle)
    with Encoder.open(bundle) as encoder:
        kept = encoder.manifest.code.packing
        (right,) = kept.unpack(kept.pack(encoder.encode(["training it"]).coarse), 32).tolist()
    assert levels(device.index)["m00"] != right
