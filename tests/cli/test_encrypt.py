"""``edge-mrl encrypt``, ``rekey`` and ``decrypt``, and the other commands on an encrypted store."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edge_mrl.cli import main
from edge_mrl.store import Store
from tests.support.keys import KEY, OTHER

pytest.importorskip("sqlcipher3", reason="needs the extra encrypted")

BUNDLE = Path(__file__).parents[1] / "golden" / "tiny-bert-16"


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("EDGE_MRL_KEY", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    folder = tmp_path / "keys"
    folder.mkdir()
    for name, key in (("key", KEY), ("other", OTHER)):
        (folder / name).write_text(key().hex() + "\n")
        (folder / name).chmod(0o600)
    return folder


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.mkdir()
    for number in range(5):
        (path / f"{number}.txt").write_text(f"a quixotic note {number}")
    return path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def output(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return dict(json.loads(capsys.readouterr().out))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "notes.db"


def test_store_is_made_encrypted_and_every_command_works_on_it(
    store: Path, notes: Path, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ("--key-file", keys / "key")
    assert run("index", notes, "--bundle", BUNDLE, "--store", store, *key, "--quiet") == 0
    assert b"quixotic" not in store.read_bytes()
    assert run("search", "note 3", "--store", store, *key, "--json") == 0
    capsys.readouterr()
    assert run("stats", "--store", store, *key) == 0
    assert f"{store} (encrypted)" in capsys.readouterr().out
    assert run("stats", "--store", store, *key, "--json") == 0
    assert output(capsys)["encrypted"] is True
    assert run("check", "--store", store, *key) == 0
    assert capsys.readouterr().out == "sound: 5 documents, encrypted\n"
    assert run("check", "--store", store, *key, "--repair", "--json") == 0
    assert output(capsys)["encrypted"] is True
    assert run("compact", "--store", store, *key) == 0
    assert capsys.readouterr().out.endswith(" deleted passages dropped, encrypted\n")
    assert run("compact", "--store", store, *key, "--json") == 0
    assert output(capsys)["encrypted"] is True
    assert run("reindex", "--bundle", BUNDLE, "--store", store, *key, "--quiet") == 0
    capsys.readouterr()
    assert run("stats", "--store", store) == 2
    assert "is encrypted, and no key was given" in capsys.readouterr().err
    assert run("stats", "--store", store, "--key-file", keys / "other") == 2
    assert "cannot be opened with this key" in capsys.readouterr().err
    assert [file.name for file in store.parent.iterdir()] == [store.name]


@pytest.mark.test
def test_doctor_says_encrypted(
    store: Path, notes: Path, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ("--key-file", keys / "key")
    assert run("index", notes, "--bundle", BUNDLE, "--store", store, *key, "--quiet") == 0
    run("doctor", "--store", store, *key)
    assert "encrypted, intact, documents: 5" in capsys.readouterr().out


def test_store_is_encrypted_rekeyed_and_decrypted(
    store: Path,
    notes: Path,
    keys: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("index", notes, "--bundle", BUNDLE, "--store", store, "--quiet") == 0
    assert run("encrypt", "--store", store) == 2
    assert "no key was given" in capsys.readouterr().err
    assert run("encrypt", "--store", store, "--key-file", keys / "key", "--json") == 0
    assert output(capsys)["encrypted"] is True
    assert run("rekey", "--store", store, "--key-file", keys / "key") == 2
    assert "no new key was given" in capsys.readouterr().err
    new = ("--new-key-file", keys / "other")
    assert run("rekey", "--store", store, "--key-file", keys / "key", *new) == 0
    assert "has the new key" in capsys.readouterr().out
    Store.open(store, key=OTHER).close()
    monkeypatch.setenv("EDGE_MRL_KEY", OTHER().hex())
    assert run("encrypt", "--store", store) == 2  # it is
    capsys.readouterr()
    assert run("decrypt", "--store", store) == 0
    assert "is not encrypted any more" in capsys.readouterr().out
    assert b"quixotic" in store.read_bytes()
    assert run("stats", "--store", store) == 2  # a key was given
    assert "is not encrypted, and a key was given" in capsys.readouterr().err


def test_key_comes_from_a_descriptor(
    store: Path, notes: Path, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.write(writer, KEY())
    os.close(writer)
    arguments = ("index", notes, "--bundle", BUNDLE, "--store", store)
    assert run(*arguments, "--key-fd", reader, "--quiet") == 0
    Store.open(store, key=KEY).close()
    (store.parent / "key").write_bytes(KEY())
    assert run("stats", "--store", store, "--key-file", store.parent / "key") == 2
    assert "lies in the folder of" in capsys.readouterr().err
