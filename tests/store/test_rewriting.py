"""Damage to the structure of a store's file: it is written anew from what can be read."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edge_mrl.errors import StoreBusyError
from edge_mrl.store import Health, Store, check
from edge_mrl.store.health import repair, rewriting
from tests.support.stores import entry, full_entry, open_enrolled, open_store

pytestmark = pytest.mark.test

NUMBER = 120
#: In the header of a table's leaf page ("Database File Format", section 1.6): type, cells, fragments.
LEAF, CELLS, FRAGMENTS, CELL_POINTERS = 13, 3, 7, 8
#: In the header of a database: the largest root page, and incremental vacuum (section 1.3).
LARGEST_ROOT, INCREMENTAL = 52, 64


def words(number: int) -> str:
    return f"text {number} " + f"number{number} " * 20


def page_size(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[16:18], "big")


def root(path: Path, name: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        return int(connection.execute(query, (name,)).fetchone()[0])


def change_page(path: Path, number: int, change: Callable[[bytearray], None]) -> None:
    data, size = bytearray(path.read_bytes()), page_size(path)
    page = data[(number - 1) * size : number * size]
    change(page)
    data[(number - 1) * size : number * size] = page
    path.write_bytes(data)


def leaf_of(path: Path, marker: bytes) -> int:
    """The leaf page of a table that has some bytes."""
    data, size = path.read_bytes(), page_size(path)
    pages = [data[first : first + size] for first in range(0, len(data), size)]
    return next(n for n, page in enumerate(pages, 1) if marker in page and page[0] == LEAF)


def swap_rowids(page: bytearray) -> None:
    """Let the keys of a leaf page's first two rows be in the wrong order."""
    assert page[0] == LEAF
    (first,) = struct.unpack_from(">H", page, CELL_POINTERS)
    at = first + (2 if page[first] & 0x80 else 1)  # behind the varint of the payload's size
    assert page[at] < 0x7F
    page[at] = 0x7F


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            assert connection.execute(statement).rowcount, statement


def redefine(path: Path, table: str, old: str, new: str) -> None:
    sql(
        path,
        f"UPDATE sqlite_master SET sql = replace(sql, '{old}', '{new}') WHERE name = '{table}'",
    )


def zero(page: bytearray) -> None:
    page[:] = bytes(len(page))


def fragments(page: bytearray) -> None:
    page[FRAGMENTS] ^= 0x15


def vacuum_flags(page: bytearray) -> None:
    page[INCREMENTAL + 3] = 1


#: What no document is lost by.
DAMAGE: dict[str, Callable[[Path], None]] = {
    "rows out of order": lambda path: change_page(path, leaf_of(path, b"text 7 "), swap_rowids),
    "free space": lambda path: change_page(path, leaf_of(path, b"text 9 "), fragments),
    "header": lambda path: change_page(path, 1, vacuum_flags),
    "the key of a single row": lambda path: sql(path, "UPDATE sync SET id = 5"),
    "the version of the index of words": lambda path: sql(path, "UPDATE keywords_config SET v = 0"),
    "the index of words": lambda path: change_page(path, root(path, "keywords_idx"), zero),
    "the index of metadata": lambda path: change_page(path, root(path, "fields"), zero),
    "the index of ids": lambda path: change_page(path, root(path, "sqlite_autoindex_documents_1"), zero),
    "the queue": lambda path: change_page(path, root(path, "outbox"), zero),
    "the versions": lambda path: change_page(path, root(path, "versions"), zero),
    "the checksums of the code file": lambda path: change_page(path, root(path, "segments"), zero),
    "deleted rows": lambda path: change_page(path, root(path, "tombstones"), zero),
    "settings": lambda path: change_page(path, root(path, "settings"), zero),
}  # fmt: skip


#: Kinds where a table, though not one of documents, cannot be read to its end.
UNREADABLE = ("the queue", "the versions", "settings")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rewriting") / "whole.db"
    with open_enrolled(path) as store:
        store.put([full_entry(f"d{n}", words(n), n=n) for n in range(NUMBER)])
        store.put([full_entry("gone")])
        store.delete(["gone"])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return path


def copied(whole: Path, folder: Path) -> Path:
    return Path(shutil.copy(whole, folder / "s.db"))


def mended(store: Store, health: Health) -> set[str]:
    """Put again what has to be; returns the ids of all documents, whose texts and words are right."""
    again = [int(name[1:]) for name in health.damaged_ids]
    store.put([full_entry(f"d{n}", words(n), n=n) for n in again])
    found = {}
    for n in range(NUMBER):
        found |= store.get([f"d{n}"])
    assert all(one.text == words(int(name[1:])) for name, one in found.items())
    with store.reading() as view:
        numbers = sorted(int(name[1:]) for name in found)
        for n in numbers[::9]:
            assert view.names([key for key, _ in view.keyword_matches(f"number{n}", k=9)]) == [
                f"d{n}"
            ]
            assert view.names([int(key) for key in view.select({"n": n})]) == [f"d{n}"]
        assert len(set(view.select({"n": {"$gte": 0}}).tolist())) == len(found)
        assert view.codes.rows - len(view.codes.dead) == len(found)
    return set(found)


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_to_the_structure_is_named_and_heals(kind: str, whole: Path, tmp_path: Path) -> None:
    path = copied(whole, tmp_path)
    DAMAGE[kind](path)
    with Store.open(path) as store:
        before = path.read_bytes()
        health = check(store)
        assert (health.sound, health.repaired) == (False, ())
        assert path.read_bytes() == before
        health = check(store, repair=True)
        assert all("structure" not in problem for problem in health.problems), health
        assert any(
            text.split(":")[0] in ("structure", "keywords", "sync", "fields")
            for text in health.repaired
        )
        assert not any("gone" in text for text in health.repaired)
        assert mended(store, health) == {f"d{n}" for n in range(NUMBER)}
        assert check(store, repair=True).sound
    # What could not be read to its end is kept.
    files = {file.name for file in tmp_path.iterdir() if "codes" not in file.name}
    assert files == ({"s.db", "s.db-damaged"} if kind in UNREADABLE else {"s.db"})
    with Store.open(path) as store:
        assert check(store).sound
        assert store.count().documents == NUMBER


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [
        ("dead", "since_ms", "sinne_ms"),
        ("passages", "documents(key)", "dmcuments(key)"),
        ("state", "id = 1", "id < 1"),
    ],
)
def test_definition_that_was_hit_is_right_again_when_the_store_is_opened(
    table: str, old: str, new: str, whole: Path, tmp_path: Path
) -> None:
    path = copied(whole, tmp_path)
    redefine(path, table, old, new)
    with Store.open(path) as store:
        health = check(store)
        assert health.sound, health
        assert mended(store, health) == {f"d{n}" for n in range(NUMBER)}
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT sql FROM sqlite_master WHERE name = ?"
        (sql_now,) = connection.execute(query, (table,)).fetchone()
    assert old in sql_now
    assert new not in sql_now


def test_table_whose_name_was_hit_is_named_again_when_the_store_is_opened(
    whole: Path, tmp_path: Path
) -> None:
    path = copied(whole, tmp_path)
    rename = "UPDATE sqlite_master SET name = 'dmad', tbl_name = 'dmad' WHERE name = 'dead'"
    sql(path, rename)
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.DatabaseError):
        connection.execute("SELECT count(*) FROM documents").fetchone()
    with Store.open(path) as store:
        health = check(store)
        assert health.sound
        assert mended(store, health) == {f"d{n}" for n in range(NUMBER)}


def test_documents_that_cannot_be_read_are_named_and_the_file_is_kept(
    whole: Path, tmp_path: Path
) -> None:
    path = copied(whole, tmp_path)
    page = leaf_of(path, b"text 60 ")
    change_page(path, page, zero)
    with Store.open(path) as store:
        assert not check(store).sound
        health = check(store, repair=True)
        assert health.sound
        (gone,) = (text for text in health.repaired if "gone" in text)
        assert "put them again (the former file is kept as s.db-damaged)" in gone
        there = mended(store, health)
        lost = {f"d{n}" for n in range(NUMBER)} - there
        assert 1 <= len(lost) <= 20
        assert all(repr(name) in gone for name in lost)
        assert {"d0", f"d{NUMBER - 1}"} <= there
        store.put([full_entry(name, words(int(name[1:])), n=int(name[1:])) for name in lost])
        assert mended(store, health) == {f"d{n}" for n in range(NUMBER)}
        assert check(store).sound
    kept = tmp_path / "s.db-damaged"
    assert (kept.stat().st_mode & 0o777, kept.stat().st_size) == (0o600, whole.stat().st_size)


def test_whoever_has_the_store_open_goes_on(whole: Path, tmp_path: Path) -> None:
    path = copied(whole, tmp_path)
    DAMAGE["rows out of order"](path)
    with Store.open(path) as one, Store.open(path) as other, other.reading() as view:
        assert len(view.select({"n": {"$gte": 0}})) == NUMBER
        assert check(one, repair=True).damaged_ids
        assert len(view.select({"n": {"$gte": 0}})) == NUMBER  # one state until the block ends
    with Store.open(path) as store:
        assert check(store, repair=True).damaged_ids


def test_write_by_another_process_meanwhile_is_never_lost(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied(whole, tmp_path)
    DAMAGE["free space"](path)
    with Store.open(path) as store, Store.open(path) as other:
        wanted = repair._repair

        def late(connection: sqlite3.Connection, parts: object) -> None:
            wanted(connection, parts)  # type: ignore[arg-type]
            other.put([full_entry("late", "a late text")])

        with monkeypatch.context() as patch:
            patch.setattr(repair, "_repair", late)
            with pytest.raises(StoreBusyError, match="written by another process meanwhile"):
                check(store, repair=True)
        assert store.get(["late"])["late"].text == "a late text"
        assert check(store, repair=True).sound
        assert store.get(["late"])["late"].text == "a late text"
        # The twin: without the comparison it would be.
        second = path.with_name("again.db")
        store.close()
        shutil.copy(whole, second)
    DAMAGE["free space"](second)
    with Store.open(second) as store, Store.open(second) as other:
        monkeypatch.setattr(repair, "_repair", late)
        monkeypatch.setattr(rewriting, "_require_same", lambda *_: None)
        check(store, repair=True)
        assert store.get(["late"]) == {}


DIES = """
import os, signal, sys
from edge_mrl.store import Store, check
from edge_mrl.store.health import rewriting
path, moment = sys.argv[1], sys.argv[2]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if moment == "made":
    rewriting._copy_over = die
elif moment == "copied":
    rewriting.remove_with_log = lambda *_, count=[]: count.append(1) or (len(count) > 1 and die())
else:
    step = []
    def same(*_):
        step.append(1)
        if len(step) > int(moment):
            die()
    rewriting._require_same = same
check(Store.open(path), repair=True)
"""


@pytest.mark.parametrize("moment", ["made", "1", "copied"])
def test_kill_at_any_moment_leaves_the_old_store_or_the_new_one(
    moment: str, whole: Path, tmp_path: Path
) -> None:
    path = copied(whole, tmp_path)
    DAMAGE["free space"](path)
    done = subprocess.run([sys.executable, "-c", DIES, str(path), moment], check=False)
    assert done.returncode == -signal.SIGKILL
    with Store.open(path) as store:
        assert check(store).sound == (moment == "copied")
        health = check(store, repair=True)
        assert health.sound
        assert mended(store, health) == {f"d{n}" for n in range(NUMBER)}
    assert sorted(file.name for file in tmp_path.iterdir() if "codes" not in file.name) == ["s.db"]


def test_store_without_enrollment_and_with_old_rows_heals(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with open_store(path) as store:
        store.put([entry(f"d{n}", words(n), n=n) for n in range(3)])
    change_page(path, leaf_of(path, b"text 1 "), swap_rowids)
    with Store.open(path) as store:
        health = check(store, repair=True)
        assert health.damaged_ids == ("d0",)
        store.put([entry("d0", words(0), n=0)])
        assert check(store, repair=True).sound
        assert {name: one.text for name, one in store.get(["d0", "d1", "d2"]).items()} == {
            f"d{n}": words(n) for n in range(3)
        }
