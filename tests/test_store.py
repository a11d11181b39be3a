"""The store with vectors made here: real files, real processes, no model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_mrl.documents import Document, clean
from edge_mrl.errors import (
    BindingError,
    NotAStoreError,
    StoreBusyError,
    StoreError,
    StoreVersionError,
    UsageError,
)
from edge_mrl.passages import PassageRule
from edge_mrl.schema import APPLICATION_ID, MIGRATIONS
from edge_mrl.store import Binding, Counts, Entry, Store, text_hash
from tests.golden import make_store

DIM = 4
BINDING = Binding("space-1", "code-1", DIM, 1.0, "/bundles/one")
RULE = PassageRule(8, 2)
#: Enough kills to hit every phase of a commit of about a millisecond.
KILLS = 15


def open_store(path: Path, binding: Binding = BINDING, **options: Any) -> Store:
    return Store.open(path, create=lambda: (binding, RULE), **options)


def entry(
    name: str, text: str = "some text", passages: int = 1, *, fill: int = 1, **metadata: Any
) -> Entry:
    spans = [(i, len(text)) for i in range(passages)]
    return Entry(Document(name, text, metadata), spans, np.full((passages, DIM), fill, np.int8))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a store.db"


def test_store_gives_back_what_was_put(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("b", "text b", 2, fill=3, lang="en"), entry("a", "text a", 0)])
    with Store.open(path) as store:
        assert store.binding == BINDING
        assert store.rule == RULE
        assert store.count() == Counts(documents=2, passages=2)
        assert store.get(["a", "b", "c"]) == {
            "a": Document("a", "text a"),
            "b": Document("b", "text b", {"lang": "en"}),
        }
        assert store.hashes(["b", "c"]) == {"b": text_hash("text b")}
        table = store.codes()
        assert table.codes.tolist() == [[3] * DIM] * 2
        assert table.starts.tolist() == [0]
        key = int(table.keys[0])
        assert [store.span(key, 0), store.span(key, 1)] == [(0, 6), (1, 6)]
        assert store.documents([key])[key].id == "b"


def test_put_replaces_the_document_of_its_id(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a", "old", 3, fill=1, x=1)])
        store.put([entry("a", "new", 1, fill=2)])
        assert store.get(["a"])["a"] == Document("a", "new")
        assert store.count() == Counts(1, 1)
        assert store.codes().codes.tolist() == [[2] * DIM]


def test_ranks_follow_ids_and_not_keys(path: Path) -> None:
    with open_store(path) as store:
        store.put(
            [entry("c"), entry("\U0001f600"), entry("a", passages=0), entry("\uffff"), entry("b")]
        )
        table = store.codes()
        names = {key: document.id for key, document in store.documents(table.keys.tolist()).items()}
        by_rank = [names[int(key)] for key in table.keys[np.argsort(table.ranks)]]
    assert by_rank == ["b", "c", "\uffff", "\U0001f600"]


def test_delete_takes_passages_and_codes_along(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a", passages=3), entry("b")])
        assert store.delete(["a", "missing"]) == 1
        assert store.delete([]) == 0
        assert store.count() == Counts(1, 1)
        assert len(store.codes().codes) == 1
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM codes").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize("method", ["delete", "get"])
def test_single_string_for_ids_is_a_type_error(method: str, path: Path) -> None:
    with open_store(path) as store, pytest.raises(TypeError, match="list"):
        getattr(store, method)("abc")


def test_more_ids_than_sqlite_has_parameters(path: Path) -> None:
    ids = [f"{number:04}" for number in range(2100)]
    with open_store(path) as store:
        store.put([entry(name) for name in ids])
        assert list(store.get(ids)) == ids
        assert store.delete(ids) == len(ids)


@pytest.mark.parametrize(
    "codes",
    [np.zeros((2, DIM), np.int8), np.zeros((1, 5), np.int8), np.zeros((1, DIM), np.float32)],
)
def test_codes_of_the_wrong_shape_or_type_are_refused(codes: np.ndarray, path: Path) -> None:
    with open_store(path) as store:
        wrong = Entry(Document("b", "t"), [(0, 1)], codes)
        with pytest.raises(UsageError, match=r"expected int8\[1, 4\]"):
            store.put([entry("a"), wrong])
        assert store.count() == Counts(0, 0)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", np.float32(1)])
def test_metadata_that_json_cannot_carry_is_refused(value: object, path: Path) -> None:
    with open_store(path) as store:
        with pytest.raises(UsageError, match="'a' is not JSON"):
            store.put([entry("a", x=value)])
        assert store.count() == Counts(0, 0)


def test_put_that_fails_half_way_stores_nothing(path: Path) -> None:
    broken = Entry(Document("b", "t"), [(0, None)], np.zeros((1, DIM), np.int8))  # type: ignore[list-item]
    with open_store(path) as store:
        with pytest.raises(StoreError):
            store.put([entry("a"), broken])
        assert store.count() == Counts(0, 0)
        store.put([entry("a")])


def test_unchanged_documents_get_their_metadata_alone(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a", "text", 2, x=1), entry("b", "text")])
        table = store.codes()
        stale = [Document("b", "other"), Document("c", "gone")]
        assert store.put([], unchanged=[Document("a", "text", {"x": 2}), *stale]) == stale
        assert store.get(["a"])["a"].metadata == {"x": 2}
        assert store.codes() is table  # nothing to load again


TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=20)
NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=5,
)


@settings(deadline=None)  # a sync to disk takes as long as it takes
@given(name=NAMES, text=TEXT, metadata=st.dictionaries(TEXT, JSON, max_size=3))
def test_any_document_comes_back_as_utf8_can_carry_it(
    name: str, text: str, metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.db"
    given_json = json.dumps(metadata, ensure_ascii=False, sort_keys=True)
    document = Document(name, text, metadata)
    with open_store(path) as store:
        store.put([Entry(document, [], np.empty((0, DIM), np.int8))])
        back = store.get([name])[name]
        assert store.hashes([name]) == {name: text_hash(text)}
    assert back.id == name
    assert back.text == clean(text)
    assert back.metadata == json.loads(clean(given_json))


# --- what is ours and what is not


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
    def create() -> tuple[Binding, PassageRule]:
        raise UsageError("no bundle")

    with pytest.raises(UsageError, match="no bundle"):
        Store.open(path, create=create)
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
    for attempt in (lambda: open_store(path), lambda: Store.open(path)):
        with pytest.raises(NotAStoreError, match="no edge-mrl store"):
            attempt()
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
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreVersionError, match="update edge-mrl"):
        open_store(path)
    assert path.read_bytes() == before


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


def test_store_of_version_1_opens_with_all_it_held(path: Path) -> None:
    shutil.copy(make_store.STORE, path)
    with Store.open(path) as store:
        assert (store.binding, store.rule) == (make_store.BINDING, make_store.RULE)
        expected = {document.id: document for document in make_store.DOCUMENTS}
        assert store.get(expected) == expected
        table = store.codes()
        assert table.codes.tolist() == make_store.CODES.tolist()
        spans = [store.span(int(table.keys[0]), 1), store.span(int(table.keys[1]), 0)]
        assert spans == [make_store.SPANS[0][1], make_store.SPANS[1][0]]
    connection = sqlite3.connect(path)
    row = connection.execute(
        "SELECT hash, codes FROM documents JOIN codes ON key = document"
    ).fetchone()
    assert row == (
        hashlib.sha256(b"the cat and a dog").digest(),
        b"\x01\x81\x00\x7f\x02\x02\x02\x02",
    )
    connection.close()


def test_new_migration_is_applied_once_with_its_record(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(path) as store:
        store.put([entry("a")])
    added = (*MIGRATIONS, ("0002-test", ("CREATE TABLE extra (x)", "INSERT INTO extra VALUES (1)")))
    monkeypatch.setattr("edge_mrl.schema.MIGRATIONS", added)
    for _ in range(2):
        with Store.open(path) as store:
            assert store.count() == Counts(1, 1)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM extra").fetchone() == (1,)
    assert connection.execute("SELECT name FROM migrations WHERE version = 2").fetchone() == (
        "0002-test",
    )
    connection.close()


def test_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(path).close()
    before = path.read_bytes()
    broken = (
        *MIGRATIONS,
        ("0002-test", ("CREATE TABLE extra (x)", "INSERT INTO missing VALUES (1)")),
    )
    monkeypatch.setattr("edge_mrl.schema.MIGRATIONS", broken)
    with pytest.raises(StoreError, match="missing"):
        Store.open(path)
    assert path.read_bytes() == before


# --- damage


def big_store(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry(f"{number:03}", "word " * 100, 5) for number in range(100)])


def use(path: Path) -> None:
    with Store.open(path) as store:
        store.codes()
        store.get([f"{number:03}" for number in range(100)])
        store.put([entry("new")])


@pytest.mark.parametrize("page", range(1, 8))
def test_overwritten_page_is_reported_as_damage(page: int, path: Path) -> None:
    big_store(path)
    data = bytearray(path.read_bytes())
    data[page * 4096 : (page + 1) * 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged"):
        use(path)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
def test_cut_file_is_reported_as_damage(keep: float, path: Path) -> None:
    big_store(path)
    os.truncate(path, int(path.stat().st_size * keep))
    with pytest.raises(StoreError, match="is damaged"):
        use(path)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE codes SET codes = x'010203'",
        "DELETE FROM documents",
        "DELETE FROM documents WHERE key = (SELECT max(key) FROM documents)",
        "DELETE FROM binding",
        "DELETE FROM migrations",
    ],
)
def test_rows_that_do_not_agree_are_reported_as_damage(statement: str, path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a"), entry("b")])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute(statement)
    connection.close()
    with pytest.raises(StoreError, match="is damaged"):
        use(path)


def test_closed_store_is_an_error(path: Path) -> None:
    store = open_store(path)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.count()


# --- several at once

PRELUDE = """
import sys, numpy as np
from edge_mrl.documents import Document
from edge_mrl.passages import PassageRule
from edge_mrl.store import Binding, Entry, Store
def create():
    return Binding("space-1", "code-1", 4, 1.0, "/bundles/one"), PassageRule(8, 2)
def entry(name, passages=1):
    return Entry(Document(name, name), [(0, 1)] * passages, np.ones((passages, 4), np.int8))
"""


def start_python(code: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PRELUDE + code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run_python(code: str) -> str:
    with start_python(code) as process:
        output = process.communicate()[0]
    assert process.returncode == 0
    return output


def test_writer_waits_and_then_says_that_the_store_is_busy(path: Path) -> None:
    open_store(path).close()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with open_store(path, timeout_s=0.2) as store:
        started = time.monotonic()
        with pytest.raises(StoreBusyError, match="another process"):
            store.put([entry("a")])
        assert time.monotonic() - started >= 0.2
        assert store.count() == Counts(0, 0)  # reading goes on
        blocker.execute("COMMIT")
        store.put([entry("a")])
    blocker.close()


def test_commit_of_another_process_is_seen(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a")])
        before = store.codes()
        assert store.codes() is before
        run_python(f"Store.open({str(path)!r}).put([entry('b', 3)])")
        assert len(store.codes().codes) == 4
        run_python(f"Store.open({str(path)!r}).delete(['a'])")
        assert len(store.codes().codes) == 3


def test_reading_block_shows_one_state(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a")])
        with store.reading():
            assert len(store.codes().codes) == 1
            run_python(f"Store.open({str(path)!r}).put([entry('b')])")
            assert len(store.codes().codes) == 1
            assert store.count() == Counts(1, 1)
        assert len(store.codes().codes) == 2


def test_processes_that_make_a_store_at_once_share_it(path: Path) -> None:
    code = f"""
with Store.open({str(path)!r}, create=create) as store:
    for number in range(20):
        store.put([entry(f"{{sys.argv[-1]}}-{{number}}")])
"""
    command = [sys.executable, "-c", PRELUDE + code]
    processes = [subprocess.Popen([*command, str(number)]) for number in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    with Store.open(path) as store:
        assert store.count() == Counts(80, 80)


def test_threads_share_a_store(path: Path) -> None:
    def work(store: Store, name: int) -> None:
        for number in range(20):
            store.put([entry(f"{name}-{number}")])
            with store.reading():
                assert len(store.codes().codes) == store.count().passages

    with open_store(path) as store, ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, store, name) for name in range(4)]:
            future.result()
        assert store.count() == Counts(80, 80)


# --- kill -9

WRITER = """
with Store.open(sys.argv[-1], create=create) as store:
    start = store.count().documents // 3
    print("ready", flush=True)
    for number in range(start, 10**6):
        store.put([entry(f"{number}-{part}", part) for part in range(3)])
        print(number, flush=True)
"""


def acknowledged_before_kill(path: Path, delay_s: float) -> int:
    """Start a writer, kill it, and return the number of the last batch that it acknowledged."""
    command = [sys.executable, "-c", PRELUDE + WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        lines = [line for line in process.stdout if line.endswith("\n")]
    assert process.returncode == -signal.SIGKILL
    return int(lines[-1]) if lines else -1


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_killed_writer_loses_nothing_it_acknowledged(path: Path) -> None:
    rng, last = np.random.default_rng(0), -1
    for _ in range(KILLS):
        last = max(last, acknowledged_before_kill(path, float(rng.uniform(0, 0.05))))
        with Store.open(path) as store:
            counts = store.count()
            # Whole batches: each of documents with 0, 1 and 2 passages.
            assert counts.documents >= 3 * (last + 1)
            assert counts.documents % 3 == 0
            assert counts.passages == counts.documents
            assert len(store.codes().codes) == counts.passages
            newest = [f"{last}-{part}" for part in range(3)] if last >= 0 else []
            assert sorted(store.get(newest)) == newest
    assert last > KILLS
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_store_killed_while_being_made_can_be_made_again(path: Path) -> None:
    code = f"""
import shutil
from pathlib import Path
path = Path({str(path)!r})
print("ready", flush=True)
while True:
    Store.open(path, create=create).close()
    for file in path.parent.iterdir():
        file.unlink()
"""
    rng = np.random.default_rng(0)
    for _ in range(KILLS):
        with start_python(code) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(float(rng.uniform(0, 0.02)))
            process.kill()
        with open_store(path) as store:
            store.put([entry("a")])
            assert store.count() == Counts(1, 1)
        for file in path.parent.iterdir():
            file.unlink()


def test_copy_of_a_closed_store_is_a_store(path: Path, tmp_path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a")])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    copy = shutil.copy(path, tmp_path / "copy.db")
    with Store.open(copy) as store:
        assert store.count() == Counts(1, 1)


def test_full_disk_is_reported_and_stores_nothing(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a")])
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="cannot grow"):
            store.put([entry("b", "text " * 10_000)])
        assert store.count() == Counts(1, 1)
