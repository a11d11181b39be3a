"""Bringing checksums of former versions to those of today: nothing sound is lost, nothing is blessed."""

from __future__ import annotations

import io
import json
import logging
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.cli import main
from edge_mrl.errors import DamagedError, StoreError, StoreVersionError
from edge_mrl.store import Store, check
from edge_mrl.store.migrations import MIGRATIONS
from edge_mrl.store.records import encode_spans, text_hash
from edge_mrl.store.schema import former, ninth, report
from tests.golden import make_store
from tests.support.migrating import kill_at

FIFTH = make_store.STORES[3]
SHAKING = "mood \U0001fae8"  # Unicode 15.0: Python 3.12 prints it, 3.11 escapes it
SIXTEEN = '\U0001fac6 and \U0001fae8 it\'s "é"\n'  # the first is of Unicode 16.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copy(FIFTH, tmp_path / "s.db"))


def former_bytes(text: str, *, escaped: str) -> int:
    """The checksum of one text as a Python wrote it that escapes some characters."""
    shown = repr(text.replace("\U0001fae8", "A").replace("\U0001fac6", "B"))
    for letter, character in (("A", "\U0001fae8"), ("B", "\U0001fac6")):
        code = f"\\U{ord(character):08x}" if character in escaped else character
        shown = shown.replace(letter, code)
    return former._checksum([shown.encode()])


@pytest.mark.parametrize("escaped", ["\U0001fae8\U0001fac6", "\U0001fac6", ""])
def test_text_of_any_version_of_unicode_is_recognised(escaped: str) -> None:
    crc = former_bytes(SIXTEEN, escaped=escaped)
    assert former.matches([SIXTEEN], crc)
    assert not former.matches([SIXTEEN], crc ^ 1)
    assert not former.matches([SIXTEEN + "x"], crc)


def rename(path: Path, name: str, crc: int) -> None:
    """Give the first document another id, with the checksum that a Python made of it."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE documents SET id = ?, crc = ? WHERE key = 1", (name, crc))
    connection.close()


@pytest.mark.parametrize("escape", [True, False])
def test_document_is_carried_over_from_every_python(escape: bool, path: Path) -> None:
    (first, *_) = make_store.DOCUMENTS
    metadata = json.dumps(first.metadata, sort_keys=True)
    shown = SHAKING.encode("ascii", "backslashreplace") if escape else SHAKING.encode()
    parts = [b"1", b"'" + shown + b"'", repr(metadata).encode(), b"None", text_hash(first.text)]
    rename(path, SHAKING, former._checksum(parts))
    with Store.open(path) as store:
        assert store.get([SHAKING])[SHAKING].text == first.text


@pytest.mark.parametrize(
    ("table", "column", "wrong"),
    [
        ("documents", "metadata", '{"lang": "xx"}'),
        ("documents", "text", "other"),
        ("documents", "id", b"\xff".decode("latin-1")),
        ("passages", "spans", b"\0" * 16),
        ("passages", "codes", b"\0" * 8),
        ("versions", "stamp", 7),
        ("outbox", "deleted", 1),
        ("dead", "reason", "other"),
    ],
)
def test_row_that_failed_before_fails_afterwards(
    table: str, column: str, wrong: Any, path: Path
) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(f"UPDATE {table} SET {column} = ?", (wrong,)) if column != "id" else (
            connection.execute("UPDATE documents SET id = ? WHERE key = 1", (wrong,))
        )
    connection.close()
    with Store.open(path) as store:
        health = check(store)
        assert not health.sound
        words = {"documents": "document", "outbox": "sync", "versions": "sync", "dead": "sync"}
        assert words.get(table, table) in " ".join(health.problems)
        if column in ("metadata", "text"):
            with pytest.raises(DamagedError):
                store.get(["a"])


def test_checksum_that_would_be_right_by_accident_stays_wrong() -> None:
    assert ninth._carried(5, lambda: 5, right=False) == 4
    assert ninth._carried(5, lambda: 6, right=False) == 5
    assert ninth._carried(5, lambda: 6, right=True) == 6
    assert ninth._carried(None, lambda: 6, right=False) is None


def test_migration_that_is_cut_off_is_done_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(ninth, "_index_again", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Store.open(path)
    assert path.read_bytes()[: len(before)] == before
    with Store.open(path) as store:
        assert check(store).sound


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every migration takes so long that it says how far it is."""
    monkeypatch.setattr(report, "_REPORT_S", -1.0)


@pytest.mark.usefixtures("talkative")
@pytest.mark.parametrize("old", make_store.STORES[:-1], ids=lambda old: old.stem)
def test_long_migration_says_how_far_it_is(
    old: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(shutil.copy(old, tmp_path / "s.db"))
    with caplog.at_level(logging.INFO, "edge_mrl.store"):
        Store.open(path).close()
    assert "bringing the store to version 10" in caplog.text
    said = [one.__dict__ for one in caplog.records]
    assert {one["path"] for one in said} == {str(path)}
    for version in {one["version"] for one in said}:
        done = [one["done"] for one in said if one["version"] == version]
        (total,) = {one["total"] for one in said if one["version"] == version}
        assert done == sorted(done)
        assert done[-1] == total > 2
        assert done[0] < total
    caplog.clear()
    Store.open(path).close()
    assert not caplog.records


def test_short_migration_says_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edge_mrl.store"):
        Store.open(path).close()
    assert not caplog.records


def swollen(folder: Path) -> Path:
    """A store of the second version with 303 documents."""
    path = Path(shutil.copy(make_store.STORES[1], folder / "s.db"))
    swell(path, 300)
    return path


def swell(path: Path, count: int) -> None:
    """Put so many more documents into a store of the second version, as its program did."""
    connection = sqlite3.connect(path)
    changes, first = connection.execute("SELECT changes, next_row FROM state").fetchone()
    with connection:
        for row, key in enumerate(range(100, 100 + count), start=first):
            text = f"caf\u00e9 number {key}"
            name, digest, codes = f"more {key}", text_hash(text), bytes(4)
            crc = former.checksum(key, name, "{}", None, digest)
            document = (key, name, "{}", None, digest, crc, text)
            connection.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)", document)
            connection.execute("INSERT INTO keywords (rowid, text) VALUES (?, ?)", (key, text))
            spans = encode_spans([(0, len(text))])
            crc = former.passage_check(key, spans, codes)
            passage = (row, key, 1, crc, spans, codes)
            connection.execute("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?)", passage)
        state = (changes + 1, 100 + count, first + count, 0, bytes(16))
        columns = "changes = ?, next_key = ?, next_row = ?, filed = ?, generation = ?, crc = ?"
        connection.execute(f"UPDATE state SET {columns}", (*state, former.checksum(*state)))
    connection.close()


def is_whole(path: Path) -> bool:
    with Store.open(path) as store:
        found = store.get([f"more {key}" for key in (100, 399)])
        return check(store).sound and len(found) == 2 and store.count().documents == 303


@pytest.mark.test
def test_migration_that_is_killed_begins_again(tmp_path: Path) -> None:
    path = swollen(tmp_path)
    for record in (2, 8, 14):
        kill_at(path, record)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert is_whole(path)


@pytest.mark.test
def test_migration_that_commits_half_of_its_work_is_noticed(tmp_path: Path) -> None:
    path = swollen(tmp_path)
    kill_at(path, 14, "commits")
    with suppress(StoreError):
        assert not is_whole(path)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("talkative")
def test_commands_show_migrations(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other, third = (Path(shutil.copy(path, path.with_name(f"{n}.db"))) for n in (2, 3))
    assert main(["stats", "--store", str(path), "--json"]) == 0
    said = capsys.readouterr()
    assert said.err.count("s.db was written by an earlier edge-mrl") == 1
    assert json.loads(said.out)["documents"] == 3
    assert main(["stats", "--store", str(path)]) == 0
    assert capsys.readouterr().err == ""
    assert main(["check", "--store", str(other), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    assert main(["check", "--store", str(third)]) == 0
    bars = terminal.getvalue().split("\r")
    last = next(bar for bar in reversed(bars) if bar.startswith("bringing"))
    assert last.startswith("bringing 3.db to version 10  [########################] 100%")
    assert not logging.getLogger("edge_mrl.store").handlers


def test_metadata_beyond_the_limits_stays_without_fields(path: Path) -> None:
    connection = sqlite3.connect(path)
    first = make_store.DOCUMENTS[0]
    metadata = json.dumps({"n": 10**300, "lang": "en"})
    crc = former.checksum(1, "a", metadata, None, text_hash(first.text))
    with connection:
        connection.execute(
            "UPDATE documents SET metadata = ?, crc = ? WHERE key = 1", (metadata, crc)
        )
        connection.execute("INSERT INTO fields VALUES ('n', 2, 1e300, 1)")
    connection.close()
    with Store.open(path) as store:
        assert store.get(["a"])["a"].metadata["n"] == 10**300
        with store.reading() as view:
            assert view.select({"lang": "en"}).tolist() == []
        health = check(store)
        assert health.sound
        assert (
            "document 'a': no filter finds it, because metadata 'n' is an integer of more"
            in (health.notes[0])
        )
        assert store.delete(["a"]) == 1
        assert check(store).notes == ()


def test_program_of_before_refuses_the_new_format(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(path).close()
    before = path.read_bytes()
    monkeypatch.setattr("edge_mrl.store.file.MIGRATIONS", MIGRATIONS[:7])
    with pytest.raises(StoreVersionError, match="update edge-mrl"):
        Store.open(path)
    assert path.read_bytes() == before


def test_golden_listing_is_that_of_the_golden_store() -> None:
    listed = json.loads(make_store.NEWEST.with_suffix(".json").read_text("utf-8"))
    assert listed == make_store.checksums(make_store.NEWEST)
    assert {"documents", "passages", "fulls", "versions", "outbox", "dead", "sync"} < listed.keys()


@pytest.mark.parametrize("old", make_store.ENROLLED, ids=lambda old: old.stem)
def test_migrated_store_has_the_checksums_of_a_new_one(old: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(old, tmp_path / "s.db"))
    Store.open(path).close()
    new, listed = make_store.checksums(path), make_store.checksums(make_store.NEWEST)
    for table in ("documents", "passages", "fulls"):  # the others have times in them
        assert new[table] == listed[table]
