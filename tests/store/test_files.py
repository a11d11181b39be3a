"""Which files are stores, and what damage does to one."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.errors import (
    BindingError,
    DamagedError,
    NotAStoreError,
    StoreError,
    StoreVersionError,
    UsageError,
)
from edge_mrl.search.scan import nearest
from edge_mrl.store import Binding, Counts, Health, Store, check, replica
from edge_mrl.store.file import APPLICATION_ID
from edge_mrl.store.migrations import MIGRATIONS
from edge_mrl.store.replica.outbox import known_versions
from tests.golden import make_store
from tests.support.stores import BINDING, DIM, RULE, entry, live_codes, open_store, run_python


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a store.db"


def test_missing_store_is_an_error_and_makes_no_file(path: Path) -> None:
    with pytest.raises(UsageError, match="no store at"):
        Store.open(path)
    assert not path.exists()


def test_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    with pytest.raises(UsageError, match="no store at"):
        Store.open(path)
    with open_store(path) as store:
        store.put([entry("a")])
    Store.open(path).close()


def test_store_that_cannot_be_bound_leaves_no_file(path: Path) -> None:
    for keep_full in ("fp16", "everything"):  # the bundle gives no full vectors; no such choice
        with pytest.raises(UsageError, match=r"cannot keep full vectors|keep_full is 'everything'"):
            Store.create(path, BINDING, RULE, keep_full=keep_full)
        assert not path.exists()


def make_foreign(path: Path, *, wal: bool, application_id: int = 0) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA application_id = {application_id}")
    connection.execute(f"PRAGMA journal_mode = {'WAL' if wal else 'DELETE'}")
    connection.execute("CREATE TABLE documents (x)")
    return connection


@pytest.mark.parametrize("wal", [False, True])
@pytest.mark.parametrize("application_id", [0, 5])
@pytest.mark.parametrize("left_open", [False, True])
def test_foreign_database_stays_byte_identical(
    wal: bool, application_id: int, left_open: bool, path: Path
) -> None:
    connection = make_foreign(path, wal=wal, application_id=application_id)
    if not left_open:
        connection.close()
    before = {
        file.name: file.read_bytes() for file in path.parent.iterdir() if "-shm" not in file.name
    }
    with pytest.raises(NotAStoreError, match="not an edge-mrl store"):
        open_store(path)
    with pytest.raises(NotAStoreError, match="not an edge-mrl store"):
        Store.open(path)
    after = {
        file.name: file.read_bytes() for file in path.parent.iterdir() if "-shm" not in file.name
    }
    assert after == before
    connection.close()


@pytest.mark.parametrize(
    "data", [b"# Notes\n", b"\x00" * 5000, b"SQLite format 3\x00" + b"\xff" * 4080]
)
def test_other_file_stays_byte_identical(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    with pytest.raises(NotAStoreError):
        open_store(path)
    assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


def test_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(NotAStoreError, match="folder"):
        open_store(tmp_path)


def test_looking_at_a_store_keeps_the_locks_of_one_that_is_open(path: Path) -> None:
    # POSIX drops a process's locks on a file when any descriptor of it is closed; were they gone,
    # the other process would take itself for the last one and delete the log in use.
    with open_store(path) as store:
        store.put([entry("a")])
        Store.open(path).close()
        run_python(f"Store.open({str(path)!r}).close()")
        assert path.with_name(f"{path.name}-wal").exists()
        store.put([entry("b")])
    with Store.open(path) as store:
        assert store.count() == Counts(2, 2)


@pytest.mark.parametrize(
    ("change", "what"),
    [({"space_id": "space-2"}, "embedding space"), ({"code_id": "code-2", "dim": 8}, "code")],
)
def test_codes_of_another_bundle_are_refused_naming_both(
    change: dict[str, Any], what: str, path: Path
) -> None:
    fields = {"space_id": "space-1", "code_id": "code-1", "dim": DIM, "scale": 1.0}
    other = Binding(**{**fields, **change}, bundle="/bundles/two")
    with open_store(path) as store:
        with pytest.raises(BindingError, match=f"another {what}") as error:
            store.require(other)
        assert "/bundles/one" in str(error.value)
        assert "/bundles/two" in str(error.value)
        assert store.binding == BINDING


def test_bundle_that_moved_is_remembered(path: Path) -> None:
    moved = Binding("space-1", "code-1", DIM, 1.0, str(path.parent / "near" / "bundle"))
    with open_store(path) as store:
        store.require(moved)
    with Store.open(path) as store:
        assert store.binding == moved
        assert store.bundle_candidates() == [path.parent / "near/bundle", Path(moved.bundle)]


def test_newer_store_is_refused_and_stays_as_it_is(path: Path) -> None:
    open_store(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.execute("INSERT INTO migrations VALUES (?, 'newer', 0)", (len(MIGRATIONS) + 1,))
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreVersionError, match="update edge-mrl"):
        open_store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [0, 1, len(MIGRATIONS) + 1, 1 << 24])
def test_version_that_is_damaged_is_mended(
    version: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(path) as store:
        store.put([entry("a")])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    with monkeypatch.context() as patch:
        patch.setattr("edge_mrl.store.file.can_write", lambda _: False)
        with pytest.raises(DamagedError, match="restore a copy"):
            Store.open(path)
    with Store.open(path) as store:
        assert store.get(["a"])
        assert check(store).sound
    assert path.read_bytes()[60:64] == len(MIGRATIONS).to_bytes(4, "big")


def test_store_that_does_not_say_so_any_more_is_called_damaged(path: Path) -> None:
    open_store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 0")
    before = path.read_bytes()
    with pytest.raises(DamagedError, match=r"does not say any more that it is a store.*restore"):
        Store.open(path)
    assert path.read_bytes() == before


def test_file_that_sqlite_will_not_write_is_explained(path: Path) -> None:
    open_store(path).close()
    data = bytearray(path.read_bytes())
    data[18] = 9  # the version of the format that is needed to write it
    path.write_bytes(data)
    with Store.open(path) as store, pytest.raises(StoreError, match=r"beginning of the file"):
        store.put([entry("a")])


def test_schema_is_what_the_format_says(path: Path) -> None:
    open_store(path).close()
    header = path.read_bytes()[:100]
    assert header[68:72] == b"eMRL" == APPLICATION_ID.to_bytes(4, "big")
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    names = [row[0] for row in connection.execute("SELECT name FROM migrations")]
    assert names == [name for name, _ in MIGRATIONS]
    connection.close()


@pytest.mark.parametrize("old", make_store.STORES, ids=lambda old: old.stem)
def test_store_of_every_version_opens_with_all_it_held(old: Path, path: Path) -> None:
    shutil.copy(old, path)
    with Store.open(path) as store:
        assert (store.binding, store.rule) == (make_store.binding(old), make_store.RULE)
        expected = {document.id: document for document in make_store.DOCUMENTS}
        assert store.get(expected) == expected
        assert live_codes(store) == make_store.CODES.tolist()
        with store.reading() as view:
            keys = [match[0] for match in view.keyword_matches("cat end", k=9)]
            assert {view.documents([key])[key].id for key in keys} == {"a", "caf\u00e9"}
            found = view.places(keys)
            assert sorted(found.values()) == [(0, make_store.SPANS[0]), (2, make_store.SPANS[1])]
            selected = view.select({"lang": "en"}).tolist()
            assert [view.documents(selected)[key].id for key in selected] == ["a"]
        assert check(store) == Health(3, (), (), ())
    connection = sqlite3.connect(path)
    row = connection.execute(
        "SELECT hash, codes FROM documents JOIN passages ON key = document ORDER BY first_row"
    ).fetchone()
    assert row == (
        hashlib.sha256(b"the cat and a dog").digest(),
        b"\x01\x81\x00\x7f\x02\x02\x02\x02",
    )
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master")]
    assert not [name for name in names if name.startswith("old_")]
    connection.close()


@pytest.mark.parametrize("old", make_store.ENROLLED, ids=lambda old: old.stem)
def test_queue_of_an_enrolled_store_is_still_there(old: Path, path: Path) -> None:
    shutil.copy(old, path)
    with Store.open(path) as store:
        found = replica.enrollment_of(store)
        assert found is not None
        mine = make_store.ENROLLMENT
        assert (found.server, found.tenant, found.device) == (mine.server, mine.tenant, mine.device)
        assert (found.cursor, found.with_text) == (mine.cursor, False)
        # Pushes are numbered since the newest: what was sent before cannot be asked for.
        numbered = old in make_store.STORES[3:]
        assert (found.epoch, found.push, found.answered) == ("", int(numbered), 0)
        first, second, third = replica.outgoing(store, limit=9)
        assert [first.document, second.document] == make_store.DOCUMENTS[:2]
        assert [first.spans, second.spans] == make_store.SPANS[:2]
        for one, full in ((first, make_store.FULLS[:2]), (second, make_store.FULLS[2:])):
            assert np.array_equal(one.vectors, full.astype(np.float16))
        assert (third.id, third.deleted) == ("gone", True)
        with store.locked() as (connection, _):
            known = known_versions(connection, ["a", "caf\u00e9", "blank", "gone"])
        assert {k: (v.sent, v.acknowledged > 0) for k, v in known.items()} == {
            "a": (int(numbered), False),
            "caf\u00e9": (0, False),
            "blank": (0, True),
            "gone": (0, True),
        }
        # What is said of a push says nothing of one that another process has begun since.
        replica.settle_push(store, 0, refused=None)
        after = replica.enrollment_of(store)
        assert after is not None
        assert after.is_open == numbered
        (letter,) = replica.list_dead_letters(store)
        assert (letter.id, letter.reason, letter.deleted) == ("refused", "forbidden", True)
        # It goes on: what is sent leaves the queue, and its vectors go with it.
        sent = [replica.Verdict(one.id, one.stamp, "applied") for one in (first, second, third)]
        replica.acknowledge(store, sent, offset_ms=0)
        assert replica.queue_of(store) == replica.Queue(0, 0, None)
        assert check(store) == Health(3, (), (), ())


def test_new_migration_is_applied_once_with_its_record(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(path) as store:
        store.put([entry("a")])
    added = (*MIGRATIONS, ("9999-test", ("CREATE TABLE extra (x)", "INSERT INTO extra VALUES (1)")))
    monkeypatch.setattr("edge_mrl.store.file.MIGRATIONS", added)
    for _ in range(2):
        with Store.open(path) as store:
            assert store.count() == Counts(1, 1)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM extra").fetchone() == (1,)
    assert connection.execute(
        "SELECT name FROM migrations ORDER BY version DESC LIMIT 1"
    ).fetchone() == ("9999-test",)
    connection.close()


def test_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(path).close()
    before = path.read_bytes()
    broken = (
        *MIGRATIONS,
        ("9999-test", ("CREATE TABLE extra (x)", "INSERT INTO missing VALUES (1)")),
    )
    monkeypatch.setattr("edge_mrl.store.file.MIGRATIONS", broken)
    with pytest.raises(StoreError, match="missing"):
        Store.open(path)
    assert path.read_bytes() == before


def big_store(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry(f"{number:03}", "word " * 100, 5) for number in range(100)])


def notice(path: Path) -> None:
    """Do all that users do; raises StoreError where that, or a check, finds damage."""
    with Store.open(path) as store:
        store.get([f"{number:03}" for number in range(100)])
        with store.reading() as view:
            matches = nearest(np.ones((1, DIM), np.int8), view.codes, k=1000, exact=True)[0]
            view.documents([match.key for match in matches])
        health = check(store)
        if not health.sound:
            raise StoreError(f"is damaged: {health.problems}")


@pytest.mark.parametrize("page", range(1, 38, 3))
def test_overwritten_page_is_reported_as_damage(page: int, path: Path) -> None:
    big_store(path)
    data = bytearray(path.read_bytes())
    if page * 4096 >= len(data):
        pytest.skip("the store has fewer pages")
    data[page * 4096 : (page + 1) * 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged"):
        notice(path)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
def test_cut_file_is_reported_as_damage(keep: float, path: Path) -> None:
    big_store(path)
    os.truncate(path, int(path.stat().st_size * keep))
    with pytest.raises(StoreError, match="is damaged"):
        notice(path)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE passages SET codes = x'010203'",
        "UPDATE passages SET codes = x'01010102' WHERE first_row = 0",
        "UPDATE passages SET first_row = 7 WHERE first_row = 1",
        "UPDATE passages SET spans = x'0000000008000000' WHERE first_row = 0",
        "DELETE FROM passages WHERE first_row = 0",
        "DELETE FROM documents",
        "DELETE FROM documents WHERE key = (SELECT max(key) FROM documents)",
        "UPDATE documents SET text = 'another text' WHERE id = 'a'",
        "UPDATE documents SET metadata = '{}' WHERE id = 'a'",
        "UPDATE documents SET id = 'c' WHERE id = 'a'",
        "UPDATE documents SET text = 7 WHERE id = 'a'",
        "DELETE FROM fields",
        "INSERT INTO fields VALUES ('x', 2, 5, 1)",
        "UPDATE keywords_docsize SET sz = x'7f'",
        "INSERT INTO keywords (keywords) VALUES ('delete-all')",
        "INSERT INTO tombstones VALUES (0, 0, zeroblob(1024))",
        "UPDATE state SET next_row = 1",
        "UPDATE state SET filed = 1",
        "UPDATE binding SET passage_tokens = 9",
        "DELETE FROM state",
        "DELETE FROM binding",
        "DELETE FROM migrations",
    ],
)
def test_rows_that_do_not_agree_are_reported_as_damage(statement: str, path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a", x=1), entry("b")])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute(statement)
    connection.close()
    with pytest.raises(StoreError, match="is damaged"):
        notice(path)


def test_closed_store_is_an_error(path: Path) -> None:
    store = open_store(path)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.count()
