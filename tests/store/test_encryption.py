"""Encrypted stores: nothing in a file in the clear, the right refusals, changes that may be killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_mrl.errors import (
    DamagedError,
    MissingDependencyError,
    StoreBusyError,
    StoreError,
    StoreKeyError,
    UsageError,
)
from edge_mrl.search.scan import nearest
from edge_mrl.store import (
    Binding,
    Counts,
    PrivateData,
    Store,
    check,
    compact,
    convert,
    private_data,
    stats,
)
from edge_mrl.store.engine.keys import (
    key_from_descriptor,
    key_from_environment,
    key_from_file,
    parse_key,
)
from tests.support.keys import KEY, OTHER
from tests.support.stores import entry, fill, live_codes, open_store, small_segments, vectors

pytestmark = pytest.mark.test

pytest.importorskip("sqlcipher3", reason="needs the extra encrypted")

DIM = 64
BINDING = Binding("space-1", "code-1", DIM, 1.0, "/bundles/one")
#: Words, an id, metadata, a source and a token that no file may show.
SECRETS = (b"quixotic", b"zephyr", b"secret-id", b"hidden-value", b"secret/source", b"tok_SECRET")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a store.db"


def secret_entries() -> list[object]:
    return [
        entry(f"secret-id-{number}", "quixotic zephyr " * 20, 2, field="hidden-value")
        for number in range(30)
    ]


def traces(folder: Path, needles: tuple[bytes, ...]) -> set[tuple[str, bytes]]:
    """Files of a folder that hold one of some byte strings."""
    found = set()
    for file in folder.rglob("*"):
        try:
            data = file.read_bytes()
        except OSError:
            continue
        found |= {(file.name, needle) for needle in needles if needle in data}
    return found


def code_bits(codes: np.ndarray) -> tuple[bytes, ...]:
    """Stored codes, and their bits, as a plain store's files have them."""
    return tuple(row.tobytes() for row in codes[:5]) + tuple(
        np.packbits(row >= 0, bitorder="little").tobytes() for row in codes[:5]
    )


@pytest.mark.parametrize("encrypted", [True, False])
def test_nothing_is_in_a_file_in_the_clear_at_any_moment(encrypted: bool, path: Path) -> None:
    """Looked for while the store is open, after each kind of write, and after it was closed."""
    codes = vectors(500, DIM)
    needles = (*SECRETS, *code_bits(codes))
    seen = set()
    with open_store(path, BINDING, key=KEY if encrypted else None) as store:
        fill(store, codes)
        seen |= traces(path.parent, needles)
        rows = [replace(one, codes=codes[:2]) for one in secret_entries()]
        store.put(rows)
        seen |= traces(path.parent, needles)
        place = private_data(store, "sync.json")
        if isinstance(place, PrivateData):
            place.write_bytes(b'{"token": "tok_SECRET"}')
        with store.reading() as view:
            nearest(codes[:2], view.codes, k=3)
        seen |= traces(path.parent, needles)
        store.delete(["secret-id-3"])
        compact(store)
        assert check(store).sound
        seen |= traces(path.parent, needles)
    seen |= traces(path.parent, needles)
    if encrypted:
        assert seen == set()
        assert not path.with_name(f"{path.name}-codes").exists()
    else:  # the twin: this search finds what there is
        assert {needle for _, needle in seen} >= {b"quixotic", b"secret-id", b"hidden-value"}
        assert {needle for _, needle in seen} & set(code_bits(codes))


def test_answers_are_those_of_a_plain_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = vectors(700, DIM)
    found = []
    with small_segments(monkeypatch):
        for place, key in ((path, KEY), (path.with_name("plain.db"), None)):
            with open_store(place, BINDING, key=key) as store:
                answers = []
                for first in range(0, 700, 100):
                    fill(store, codes[first : first + 100], start=first)
                    store.delete([str(first + 3)])
                    with store.reading() as view:
                        answers.append(nearest(codes[::90], view.codes, k=5, width=40))
                answers.append(live_codes(store))
                compact(store)
                with store.reading() as view:
                    answers.append(nearest(codes[::90], view.codes, k=5, width=40))
                fill(store, codes[:50])
                compact(store)
                answers.append(live_codes(store))
            with Store.open(place, key=key) as store:
                answers.append(live_codes(store))
                assert check(store).sound
            found.append(answers)
    assert found[0] == found[1]


def test_commit_of_another_process_is_seen(path: Path) -> None:
    with open_store(path, key=KEY) as store:
        store.put([entry("a")])
        assert len(live_codes(store)) == 1
        with Store.open(path, key=KEY) as other:
            other.put([entry("b", passages=3)])
            assert len(live_codes(store)) == 4
            compact(other)
            other.delete(["a"])
            compact(other)
            other.put([entry("c", fill=7)])
            assert live_codes(store) == live_codes(other)


def test_wrong_keys_are_refused_and_change_nothing(path: Path) -> None:
    with open_store(path, key=KEY) as store:
        store.put([entry("a")])
    plain = path.with_name("plain.db")
    open_store(plain).close()
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with pytest.raises(StoreKeyError, match="is encrypted, and no key was given"):
        Store.open(path)
    with pytest.raises(StoreKeyError, match="cannot be opened with this key"):
        Store.open(path, key=OTHER)
    with pytest.raises(StoreKeyError, match="is not encrypted, and a key was given"):
        Store.open(plain, key=KEY)
    with pytest.raises(StoreKeyError, match="no key was given"):
        open_store(path)
    for wrong in (b"", b"short", "text", None):
        with pytest.raises(UsageError, match="expected 32 random bytes"):
            Store.open(path, key=lambda wrong=wrong: wrong)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_missing_extra_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(path, key=KEY).close()
    monkeypatch.setitem(sys.modules, "sqlcipher3", None)
    monkeypatch.setitem(sys.modules, "sqlcipher3.dbapi2", None)
    with pytest.raises(MissingDependencyError, match=r"edge-mrl\[encrypted\]"):
        Store.open(path, key=KEY)


def test_looking_at_a_store_keeps_the_locks_of_one_that_is_open(path: Path) -> None:
    code = f"""
from edge_mrl.store import Store
from tests.support.keys import KEY
Store.open({str(path)!r}, key=KEY).close()
"""
    with open_store(path, key=KEY) as store:
        store.put([entry("a")])
        Store.open(path, key=KEY).close()
        with pytest.raises(StoreKeyError):
            Store.open(path)
        subprocess.run([sys.executable, "-c", code], check=True)
        assert path.with_name(f"{path.name}-wal").exists()
        store.put([entry("b")])
    with Store.open(path, key=KEY) as store:
        assert store.count() == Counts(2, 2)


@pytest.mark.parametrize("page", range(1, 30, 4))
def test_damage_is_noticed(page: int, path: Path) -> None:
    with open_store(path, key=KEY) as store:
        store.put([entry(str(n), "word " * 100, 5) for n in range(100)])
    data = bytearray(path.read_bytes())
    data[page * 4096 + 99] ^= 1  # each page is signed: one bit is enough
    path.write_bytes(data)
    with pytest.raises(StoreError):
        read_all(path)


def test_repair_of_damaged_pages_is_refused_and_changes_nothing(path: Path) -> None:
    with open_store(path, key=KEY) as store:
        store.put([entry(str(n), "word " * 100, 5) for n in range(100)])
    data = bytearray(path.read_bytes())
    data[20 * 4096 + 99] ^= 1
    path.write_bytes(data)
    with Store.open(path, key=KEY) as store:
        assert not check(store).sound
        said = "is damaged, and is encrypted: restore a copy. Without one, `edge-mrl get`"
        with pytest.raises(StoreError, match=said):
            check(store, repair=True)
    assert path.read_bytes() == bytes(data)


def test_repair_of_what_can_be_made_again_works_encrypted(path: Path) -> None:
    with open_store(path, key=KEY) as store:
        store.put([entry(str(n), n=n) for n in range(5)])
        with store.writing(), store.locked() as (connection, _):
            connection.execute("UPDATE fields SET value = 9")
            connection.execute("UPDATE state SET next_key = next_key + 1")
        health = check(store, repair=True)
        assert health.sound
        assert len(health.repaired) == 2
        assert store.put([entry("5")]) == []
        assert check(store).sound


def read_all(path: Path) -> None:
    with Store.open(path, key=KEY) as store:
        store.get([str(n) for n in range(100)])
        live_codes(store)
        if not check(store).sound:
            raise StoreError("damaged")


def test_private_data_is_a_file_of_rows(path: Path) -> None:
    with open_store(path, key=KEY) as store:
        place = private_data(store, "sync.part")
        assert isinstance(place, PrivateData)
        with pytest.raises(FileNotFoundError):
            place.read_bytes()
        with pytest.raises(FileNotFoundError):
            place.stream()
        place.append(b"0123")
        stream = place.stream()
        stream.seek(0, os.SEEK_END)
        assert (stream.write(b"456"), stream.write(b"789"), stream.read()) == (3, 3, b"")
        for first in range(11):
            for size in range(12):
                stream.seek(first)
                assert stream.read(size) == b"0123456789"[first : first + size]
        assert place.read_bytes() == b"0123456789"
        with store.writing():
            place.write_bytes(b"x")
        assert place.read_bytes() == b"x"
        with store.locked() as (connection, _):
            connection.execute("UPDATE private SET data = x'00'")
        with pytest.raises(DamagedError):
            place.read_bytes()
        place.unlink()
        with pytest.raises(FileNotFoundError):
            place.unlink()
    with open_store(path.with_name("plain.db")) as store:
        assert private_data(store, "sync.json") == path.with_name("plain.db-sync.json")


def beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.name}-{name}")


def test_store_is_encrypted_rekeyed_and_decrypted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_segments(monkeypatch), open_store(path, BINDING) as store:
        fill(store, vectors(300, DIM))
        codes = live_codes(store)
    beside(path, "sync.json").write_bytes(b'{"token": "tok_SECRET"}')
    beside(path, "sync.part").write_bytes(b"part " * 300_000)
    assert beside(path, "codes").exists()
    done = convert(path, key=None, new_key=KEY)
    assert (done.encrypted, done.wiped) == (True, (path.name,))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert not traces(path.parent, (*SECRETS, b"text 77", b"part part"))
    convert(path, key=KEY, new_key=OTHER)
    with pytest.raises(StoreKeyError):
        Store.open(path, key=KEY)
    with Store.open(path, key=OTHER) as store:
        assert live_codes(store) == codes
        assert check(store).sound
        assert stats(store).encrypted
        assert private_data(store, "sync.json").read_bytes() == b'{"token": "tok_SECRET"}'
    convert(path, key=OTHER, new_key=None)
    assert beside(path, "sync.json").read_bytes() == b'{"token": "tok_SECRET"}'
    assert beside(path, "sync.part").read_bytes() == b"part " * 300_000
    assert beside(path, "sync.json").stat().st_mode & 0o077 == 0
    with Store.open(path) as store:
        assert live_codes(store) == codes
        assert check(store).sound
        fill(store, vectors(300, DIM), start=300)
    with pytest.raises(UsageError, match="the new key is the old one"):
        convert(path, key=None, new_key=None)


@pytest.mark.parametrize("key", [None, KEY])
def test_store_that_is_open_is_not_converted(key: object, path: Path) -> None:
    new = OTHER
    with open_store(path, key=key) as store:
        store.put([entry("a")])
        with pytest.raises(StoreBusyError, match="open in another program"):
            convert(path, key=key, new_key=new, timeout_s=0.1)
        store.put([entry("b")])
    with Store.open(path, key=key) as store:
        assert store.count() == Counts(2, 2)
        assert check(store).sound


def test_disk_that_is_full_leaves_the_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(path).close()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge_mrl.store.engine.conversion.sync_path", fail)
    with pytest.raises(StoreError, match="No space left"):
        convert(path, key=None, new_key=KEY)
    monkeypatch.undo()
    Store.open(path).close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_former_store_that_somebody_keeps_is_not_overwritten(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a", "quixotic")])
    os.link(path, path.with_name("backup.db"))
    assert convert(path, key=None, new_key=KEY).wiped == ()
    with Store.open(path.with_name("backup.db")) as store:
        assert list(store.get(["a"])) == ["a"]


CONVERTER = """
import sys
from edge_mrl.store import convert
from tests.support.keys import KEY, OTHER
keys = {"plain": None, "key": KEY, "other": OTHER}
print("ready", flush=True)
convert(sys.argv[1], key=keys[sys.argv[2]], new_key=keys[sys.argv[3]])
print("done", flush=True)
"""


def open_either(path: Path, keys: tuple[object, ...]) -> tuple[Store, int]:
    for number, key in enumerate(keys):
        try:
            return Store.open(path, key=key), number
        except StoreKeyError:
            continue
    raise AssertionError("neither key opens the store")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "kills",
    [pytest.param(4, marks=pytest.mark.test), pytest.param(60, marks=pytest.mark.nightly)],
)
@pytest.mark.parametrize(
    ("before", "after"), [("plain", "key"), ("key", "other"), ("other", "plain")]
)
def test_killed_conversion_leaves_the_store_with_one_of_both_keys(
    before: str, after: str, kills: int, tmp_path: Path
) -> None:
    keys = {"plain": None, "key": KEY, "other": OTHER}
    whole, codes_of_one = tmp_path / "whole.db", vectors(1, DIM)
    with open_store(whole, BINDING, key=keys[before]) as store:
        fill(store, vectors(3_000, DIM))
        codes = live_codes(store)
    rng = np.random.default_rng(1)
    outcomes = set()
    for number in range(kills):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "store.db"
        shutil.copy(whole, path)
        command = [sys.executable, "-c", CONVERTER, str(path), before, after]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(float(rng.uniform(0, 0.5)))
            process.send_signal(signal.SIGKILL)
        store, which = open_either(path, (keys[before], keys[after]))
        with store:
            assert live_codes(store) == codes
            assert check(store).sound
            fill(store, codes_of_one, start=90_000)
        outcomes.add(which)
        if store.encrypted:  # what the interrupted command left is gone since the store was opened
            names = {file.name for file in folder.iterdir()}
            assert names == {"store.db"}
            assert not traces(folder, (b"text 77", b"text 2999"))
        else:
            convert(path, key=None, new_key=KEY)
            assert {file.name for file in folder.iterdir()} == {"store.db"}
        shutil.rmtree(folder)
    assert outcomes


@pytest.mark.test
def test_journal_that_a_killed_conversion_left_is_removed(path: Path) -> None:
    with open_store(path, BINDING, key=KEY) as store:
        fill(store, vectors(3, DIM))
    journal = path.with_name(f"{path.name}-journal")
    journal.write_bytes(bytes(512) + b"text 77")  # its header is cleared: it is not played back
    with Store.open(path, key=KEY) as store:
        assert not journal.exists()
        assert check(store).sound


@pytest.mark.test
def test_process_that_waits_for_a_converted_store_opens_the_new_one(path: Path) -> None:
    with open_store(path, BINDING, key=KEY) as store:
        fill(store, vectors(3_000, DIM))
    command = [sys.executable, "-c", CONVERTER, str(path), "key", "other"]
    opened = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while process.poll() is None:
            try:
                with Store.open(path, key=OTHER, timeout_s=5) as store:
                    fill(store, vectors(1, DIM), start=90_000 + opened)
                    opened += 1
            except (StoreKeyError, StoreBusyError):
                continue
    assert process.returncode == 0 or opened == 0
    with Store.open(path, key=OTHER if process.returncode == 0 else KEY) as store:
        assert store.count().documents == 3_000 + opened


# --- where keys come from


def test_key_is_read_from_files_and_descriptors(path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "keys"
    elsewhere.mkdir()
    for name, data in (("raw", KEY()), ("hex", KEY().hex().encode() + b"\n")):
        file = elsewhere / name
        file.write_bytes(data)
        file.chmod(0o600)
        assert key_from_file(file, path)() == KEY()
    reader, writer = os.pipe()
    os.write(writer, KEY().hex().encode())
    os.close(writer)
    assert key_from_descriptor(reader)() == KEY()
    with pytest.raises(UsageError, match="descriptor 999 cannot be read"):
        key_from_descriptor(999)


def test_key_beside_the_store_or_open_to_all_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(KEY())
    with pytest.raises(UsageError, match="lies in the folder of"):
        key_from_file(tmp_path / "key", path)
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "key")
    with pytest.raises(UsageError, match="lies in the folder of"):
        key_from_file(folder / "link", path)
    (folder / "key").write_bytes(KEY())
    (folder / "key").chmod(0o604)
    with pytest.raises(UsageError, match="can be read by every user"):
        key_from_file(folder / "key", path)
    with pytest.raises(UsageError, match="cannot be read"):
        key_from_file(folder / "missing", path)


@pytest.mark.parametrize("data", [b"", b"password", b"0" * 63, b"z" * 64, b"0" * 66, b"1" * 33])
def test_what_is_no_key_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match="holds no key"):
        parse_key(data, "FILE")


def test_key_of_the_environment(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    assert key_from_environment(path, {}) is None
    assert key_from_environment(path, {"CREDENTIALS_DIRECTORY": str(folder)}) is None
    variable = {"EDGE_MRL_KEY": OTHER().hex()}
    found = key_from_environment(path, variable)
    assert found is not None
    assert found() == OTHER()
    (folder / "edge-mrl-key").write_bytes(KEY())
    (folder / "edge-mrl-key").chmod(0o400)
    found = key_from_environment(path, {**variable, "CREDENTIALS_DIRECTORY": str(folder)})
    assert found is not None
    assert found() == KEY()
    with pytest.raises(UsageError, match="EDGE_MRL_KEY holds no key"):
        key_from_environment(path, {"EDGE_MRL_KEY": "password"})


@pytest.fixture(autouse=True)
def no_key_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_MRL_KEY", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
