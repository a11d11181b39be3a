"""A store that is enrolled, or encrypted, gets a head of its own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_mrl.cli import main
from edge_mrl.documents import Document
from edge_mrl.encode.encoder import Encoder
from edge_mrl.errors import NetworkError
from edge_mrl.heads.adaptation import adapt
from edge_mrl.index import Index
from edge_mrl.store import Key, check
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.enrollment import enroll
from edge_mrl.sync.remote import Remote
from edge_mrl_export.recipe import Recipe
from edge_mrl_server.storage import accounts, open_database
from tests.export.test_head import rows_of, sentences, static_model
from tests.heads.test_adapt import DIM, ROUNDING, SCALES, codes_of
from tests.support.keys import KEY
from tests.support.serving import Serving, serving
from tests.support.tiny import export

pytestmark = pytest.mark.test

MINE, THEIRS = 130, 30
_NUMBERS = itertools.count()
TEXTS = sentences(MINE + THEIRS)
DOCUMENTS = [Document(f"d{number}", text) for number, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = static_model(tmp_path_factory.mktemp("model") / "model", rows_of(SCALES))
    recipe = Recipe(dim=DIM, precision="fp32", head="prefix")
    return export(str(model), tmp_path_factory.mktemp("bundles") / "plain", recipe).path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("server") / "server.db") as running:
        yield running


def join(index: Index, server: Serving, tenant: str) -> SyncClient:
    with open_database(server.database) as database, database.write() as transaction:
        code = accounts.create_invitation(transaction, tenant)
    enroll(index.store, server.url, code, name=index.path.stem)
    return SyncClient.open(index)


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def device(
    request: pytest.FixtureRequest, bundle: Path, server: Serving, tmp_path: Path
) -> Iterator[tuple[Index, SyncClient, Key | None]]:
    """A device with 130 documents of its own and 30 of another, which came without their texts."""
    key, tenant = request.param, f"tenant-{next(_NUMBERS)}"
    if key is not None:
        pytest.importorskip("sqlcipher3")
    with open_database(server.database) as database, database.write() as transaction:
        accounts.create_tenant(transaction, tenant)
    with Index.open(tmp_path / "writer.db", bundle) as writer:
        writer.put(DOCUMENTS[MINE:])
        with join(writer, server, tenant) as client:
            assert client.sync_once().done
    with Index.open(tmp_path / "notes.db", bundle, key=key) as index:
        index.put(DOCUMENTS[:MINE])
        with join(index, server, tenant) as client:
            assert client.sync_once().done
            assert index.get([f"d{MINE}"])[f"d{MINE}"].text == ""
            yield index, client, key


def assert_all_coded(index: Index, bundle: Path) -> None:
    with Encoder.open(bundle) as encoder:
        assert index.binding.code_id == encoder.manifest.code_id
        wanted = encoder.encode(TEXTS).coarse
    codes, names = codes_of(index)
    assert sorted(names) == sorted(one.id for one in DOCUMENTS)
    rows = np.array([int(name[1:]) for name in names])
    assert np.abs(codes.astype(int) - wanted[rows]).max() <= ROUNDING
    assert index.search(TEXTS[MINE + 3], k=1)[0].id == f"d{MINE + 3}"
    assert check(index.store).sound


def test_server_codes_what_is_here_without_text(
    device: tuple[Index, SyncClient, Key | None], tmp_path: Path
) -> None:
    index, client, _ = device
    done = adapt(index, output=tmp_path / "adapted")
    assert (done.passages, done.documents, done.lacking) == (MINE, MINE + THEIRS, 0)
    assert done.fetched >= THEIRS
    assert_all_coded(index, tmp_path / "adapted")
    outcome = client.sync_once()
    assert (outcome.done, outcome.pulled) == (True, 0)


def test_offline_leaves_them_to_the_next_sync(
    device: tuple[Index, SyncClient, Key | None], tmp_path: Path
) -> None:
    index, client, _ = device
    done = adapt(index, output=tmp_path / "adapted", offline=True)
    assert (done.fetched, done.lacking) == (0, THEIRS)
    assert len(codes_of(index)[1]) == MINE
    assert client.sync_once().done
    assert_all_coded(index, tmp_path / "adapted")


def test_server_that_is_away_leaves_the_store_and_says_how_to_go_on(
    device: tuple[Index, SyncClient, Key | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, _, _ = device

    def away(*_: object, **__: object) -> None:
        raise NetworkError("no route to host")

    before, hits = index.binding, index.search(TEXTS[2], k=9)
    monkeypatch.setattr(Remote, "pull", away)
    monkeypatch.setattr("edge_mrl.sync.budget.ATTEMPT_WAIT_S", 0)
    said = rf"no route to host.*edge-mrl reindex --bundle {tmp_path}/adapted --store {index.path}"
    with pytest.raises(NetworkError, match=said):
        adapt(index, output=tmp_path / "adapted")
    assert index.binding == before
    assert index.search(TEXTS[2], k=9) == hits
    monkeypatch.undo()
    index.reindex(tmp_path / "adapted")
    assert_all_coded(index, tmp_path / "adapted")


def test_command_adapts_an_encrypted_store(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sqlcipher3")
    (tmp_path / "data").mkdir()
    path, key = tmp_path / "data" / "notes.db", tmp_path / "key"
    key.write_bytes(KEY())
    key.chmod(0o600)
    with Index.open(path, bundle, key=KEY) as index:
        index.put(DOCUMENTS)
    output = tmp_path / "adapted"
    arguments = ["adapt", "--store", str(path), "-o", str(output), "--json"]
    assert main(arguments) == 2
    assert "is encrypted, and no key was given" in capsys.readouterr().err
    assert main([*arguments, "--key-file", str(key), "--quiet"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["embedded"], said["fetched"], said["lacking"]) == (MINE + THEIRS, 0, 0)
    with Index.open(path, key=KEY) as index:
        assert_all_coded(index, output)
    texts = [text.encode() for text in TEXTS[:20]]
    for file in (tmp_path / "data").iterdir():
        assert not [text for text in texts if text in file.read_bytes()]
