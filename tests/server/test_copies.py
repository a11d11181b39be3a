"""Copies of the server's database: a restore is exactly the copy, or a refusal; and damage has a name."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl.errors import UsageError
from edge_mrl_server.errors import (
    DamagedDatabaseError,
    DatabaseError,
    DatabaseInUseError,
    UnavailableError,
)
from edge_mrl_server.storage import (
    Principal,
    Push,
    accounts,
    backup,
    check_restored,
    open_database,
    push,
    restore,
)
from edge_mrl_server.storage.engines import copies
from edge_mrl_server.storage.engines.guard import Files
from edge_mrl_server.storage.migrations import MIGRATIONS
from tests.support.processes import run, wait_until
from tests.support.serving import SPACE, Caller, enroll, item, operate, serving

pytestmark = pytest.mark.test

GOLDEN = Path(__file__).parents[1] / "golden"
DIM = 384


def quiet(done: int, total: int) -> None:
    assert 0 <= done <= total


def put(path: Path, *names: str, seed: int = 0) -> None:
    """Write documents as a server does."""
    with open_database(str(path)) as database:
        with database.write() as transaction:
            if accounts.ensure_tenant(transaction, "default"):
                made = accounts.enroll(
                    transaction, accounts.create_invitation(transaction, "default"), "a"
                )
                device = made.device
            else:
                device = accounts.list_devices(transaction, "default")[0]["device"]
        for start in range(0, len(names), 256):
            items = [item(name, seed=seed, n=2, dim=DIM) for name in names[start : start + 256]]
            push(database, Principal("default", device, {}), Push(SPACE, items, DIM, 0))


def in_child(work: Callable[[], None]) -> int:
    """Do something in a process that ends without closing anything; returns its exit status."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def put_and_die(path: Path, *names: str) -> None:
    """Write documents in a process that is killed: the log stays."""

    def work() -> None:
        database = open_database(str(path))
        with database.write() as transaction:
            device = accounts.list_devices(transaction, "default")[0]["device"]
        for start in range(0, len(names), 256):
            items = [item(name, seed=1, n=2, dim=DIM) for name in names[start : start + 256]]
            push(database, Principal("default", device, {}), Push(SPACE, items, DIM, 0))
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(work) == -signal.SIGKILL


def held(path: Path) -> dict[str, bytes]:
    """What a server finds: ids and vectors; the file is sound."""
    with open_database(str(path), create=False) as database:
        assert database.check()
        with database.read() as transaction:
            rows = transaction.rows("SELECT id, vectors FROM vectors")
            assert [row["id"] for row in transaction.rows("SELECT id FROM documents")]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert copies.count_problems(connection) == []
    return {row["id"]: row["vectors"] for row in rows}


def peek(path: Path) -> set[str]:
    """The ids in a database, read from a second copy of it: opening one folds its log into it."""
    there = path.with_name(f"peek-{path.name}")
    for old, new in ((path, there), (Files(path).log, Files(there).log)):
        if old.exists():
            shutil.copy(old, new)
    found = {*held(there)}
    for left in path.parent.glob(f"{there.name}*"):
        left.unlink()
    return found


def epoch(path: Path) -> str:
    with open_database(str(path)) as database, database.read() as transaction:
        return accounts.require_tenant(transaction, "default").epoch


NAMES = tuple(f"old{n}" for n in range(12))
#: The log in the three states that matter: small, begun anew after a checkpoint, and folded in.
LOGS = {"small": 60, "wrapped": 3_600, "absent": 0}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A database with a copy beside it."""
    path = tmp_path / "s.db"
    put(path, *NAMES)
    backup(path, tmp_path / "copy.db", force=False, progress=quiet)
    return path


def later(path: Path, kind: str) -> None:
    """What was written after the copy, by a server that was killed, or was stopped in order."""
    if kind == "absent":
        put(path, "new0", seed=1)
        assert not Files(path).has_log
        return
    put_and_die(path, *(f"new{n}" for n in range(LOGS[kind])))
    assert Files(path).has_log


# --- a restore


@pytest.mark.parametrize("kind", LOGS)
def test_restore_is_exactly_the_copy(place: Path, kind: str) -> None:
    copy = place.with_name("copy.db")
    wanted, before = peek(copy), copy.read_bytes()
    old_epoch = epoch(place)
    later(place, kind)
    newer = peek(place)
    assert newer > wanted
    done = restore(place, copy, force=False, progress=quiet)
    assert held(place).keys() == wanted
    assert copy.read_bytes() == before
    assert epoch(place) != old_epoch
    assert done.kept is not None
    assert peek(done.kept) == newer
    assert (done.copied.documents, done.copied.doubts) == (len(NAMES), ())
    assert place.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["small", "wrapped"])
def test_copy_that_is_put_back_by_hand_is_a_mixture_and_is_noticed(
    place: Path, kind: str, tmp_path: Path
) -> None:
    """The twin of the test above: what it compares does fail where somebody only copies the file."""
    copy = place.with_name("copy.db")
    plain = tmp_path / "plain.db"  # as sqlite3's own .backup makes it
    with closing(sqlite3.connect(copy)) as old, closing(sqlite3.connect(plain)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode = WAL")
    wanted = peek(copy)
    later(place, kind)
    for source in (copy, plain):
        mixed = tmp_path / f"{source.stem}-mixed.db"
        shutil.copy(source, mixed)
        shutil.copy(Files(place).log, Files(mixed).log)
        with pytest.raises(DatabaseError, match="-wal"):
            check_restored(mixed)
        if source == copy:
            with pytest.raises(DatabaseError, match="does not belong"):
                open_database(str(mixed))
    with contextlib.suppress(DatabaseError, AssertionError):
        assert held(tmp_path / "plain-mixed.db").keys() != wanted
        return
    # Malformed: it is never called busy.
    result = run("serve", "--database", tmp_path / "plain-mixed.db", "--port", "0")
    assert result.returncode == 2, result.stderr


@pytest.mark.parametrize("stopped", [True, False])
def test_copy_is_taken_with_its_own_log(place: Path, tmp_path: Path, stopped: bool) -> None:
    """A copy of the files of a server that was killed: the log has commits that the file lacks."""
    put_and_die(place, "in-the-log")
    cold = tmp_path / "cold" / "s.db"
    cold.parent.mkdir()
    for file in (place, Files(place).log):
        shutil.copy(file, cold.parent / file.name)
    if stopped:
        cold.parent.chmod(0o500)
    target = tmp_path / "target.db"
    try:
        done = restore(target, cold, force=False, progress=quiet)
    finally:
        cold.parent.chmod(0o700)
    assert done.with_log
    assert done.kept is None
    assert held(target).keys() == {*NAMES, "in-the-log"}
    assert Files(cold).has_log


def corrupt(path: Path, *, start: int = 4096) -> None:
    """As a worn disk does it: every page, or every one but the first, holds something else."""
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    data[start:] = rng.integers(0, 256, len(data) - start, np.uint8).tobytes()
    path.write_bytes(data)


def other_moment(path: Path) -> None:
    """Whole pages, of two moments: no check of the structure can see it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE tenants SET documents = documents + 7")
        connection.commit()


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 // 4096 * 4096])


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "empty file"),
    "text": (lambda path: path.write_text("no database " * 900), "damaged"),
    "store": (lambda path: shutil.copy(GOLDEN / "store-1.db", path), "device's store"),
    "foreign": (
        lambda path: (path.unlink(), sqlite3.connect(path).executescript("CREATE TABLE x (y)")),
        "not a database of this server",
    ),
    "newer": (newer, "newer edge-mrl"),
    "corrupt": (corrupt, "damaged"),
    "half": (half, "damaged"),
    "mixture": (other_moment, "mixture of several moments"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "no copy"),
    "missing": (lambda path: path.unlink(), "no copy"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_copy_is_refused_and_nothing_changes(place: Path, kind: str) -> None:
    copy = place.with_name("copy.db")
    make, message = WRONG[kind]
    if kind == "store" and not (GOLDEN / "store-1.db").exists():
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute(f"PRAGMA application_id = {0x654D524C}")
    else:
        make(copy)
    later(place, "small")
    files = sorted(place.parent.iterdir())
    before = {file: file.read_bytes() for file in (place, Files(place).log)}
    with pytest.raises((DatabaseError, UsageError), match=message):
        restore(place, copy, force=False, progress=quiet)
    assert {file: file.read_bytes() for file in before} == before
    assert sorted(place.parent.iterdir()) == files


def test_copy_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    target = tmp_path / "s.db"
    restore(target, GOLDEN / "server-1.db", force=False, progress=quiet)
    with closing(sqlite3.connect(target)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        assert version == len(MIGRATIONS["sqlite"])
        assert connection.execute("SELECT id FROM documents WHERE NOT deleted").fetchall() == [
            ("a",),
            ("b",),
        ]


def test_damaged_database_is_replaced_and_kept(place: Path) -> None:
    wanted = peek(place.with_name("copy.db"))
    corrupt(place, start=0)
    damaged = place.read_bytes()
    done = restore(place, place.with_name("copy.db"), force=False, progress=quiet)
    assert held(place).keys() == wanted
    assert done.kept is not None
    assert done.kept.read_bytes() == damaged


def test_full_disk_changes_nothing(place: Path) -> None:
    """A limit on the size of files: as a quota, or a disk that is full."""
    later(place, "small")
    copy, second = place.with_name("copy.db"), place.with_name("second.db")
    before = {file: file.read_bytes() for file in (place, Files(place).log)}
    resource = pytest.importorskip("resource")

    def limited(work: Callable[[], object]) -> int:
        def child() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
            with pytest.raises(UnavailableError):
                work()

        return in_child(child)

    assert limited(lambda: restore(place, copy, force=False, progress=quiet)) == 0
    assert {file: file.read_bytes() for file in before} == before
    assert limited(lambda: backup(place, second, force=False, progress=quiet)) == 0
    assert not [file for file in place.parent.iterdir() if "part" in file.name or file == second]


# --- a kill at every moment


def killed_at(number: int, work: Callable[[], None]) -> bool:
    """Do something in a process that SIGKILL ends before its file operation of that number.

    Returns:
        Whether it was killed; False where there are fewer operations.
    """

    def counting() -> None:
        left = number

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in (
                "open",
                "os.rename",
                "os.remove",
                "os.link",
                "os.utime",
                "sqlite3.connect",
            ):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()

    code = in_child(counting)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def kills(place: Path, restoring: Callable[[Path, Path], None]) -> Iterator[tuple[int, Path, bool]]:
    """Kill a restore before each of its operations; gives what is left each time."""
    copy = place.with_name("copy.db")
    for number in range(200):
        folder = place.with_name(f"at{number}")
        folder.mkdir()
        for file in (place, Files(place).log):
            if file.exists():
                shutil.copy(file, folder / file.name)
        target = folder / place.name
        killed = killed_at(number, lambda t=target: restoring(t, copy))
        yield number, target, killed
        shutil.rmtree(folder)
        if not killed:
            return


def restore_quietly(path: Path, copy: Path) -> None:
    restore(path, copy, force=False, progress=quiet)


NIGHTLY = pytest.mark.nightly


@pytest.mark.parametrize(
    "kind",
    ["small", pytest.param("absent", marks=NIGHTLY), pytest.param("damaged", marks=NIGHTLY)],
)
def test_kill_at_any_moment_of_a_restore_leaves_the_old_database_or_the_copy(
    place: Path, kind: str
) -> None:
    copy = place.with_name("copy.db")
    wanted = peek(copy)
    later(place, "small" if kind == "damaged" else kind)
    old = peek(place)
    if kind == "damaged":
        corrupt(place, start=0)
    seen = set()
    for number, target, killed in kills(place, restore_quietly):
        decided = Files(target).incoming.exists() or not killed
        try:
            found = {*held(target)}
        except DatabaseError:
            assert kind == "damaged", number
            assert not decided
            found = old
        assert found in (old, wanted), number
        seen.add(found == wanted)
        assert killed or found == wanted
        # And whatever was left, the next restore works.
        restore_quietly(target, copy)
        assert held(target).keys() == wanted, number
    assert seen == {True, False}


def test_restore_in_another_order_is_caught(place: Path) -> None:
    """The twin: a restore that replaces the database first, and takes its log away then."""
    copy = place.with_name("copy.db")
    wanted = peek(copy)
    later(place, "small")
    old, mixed = peek(place), 0

    def careless(path: Path, copy: Path) -> None:
        part = Files(path).part
        with closing(sqlite3.connect(copy)) as source, closing(sqlite3.connect(part)) as made:
            source.backup(made)
            made.execute("PRAGMA journal_mode = WAL")
        part.replace(path)
        Files(path).log.unlink()

    for number, target, _ in kills(place, careless):
        if number < 2:
            continue
        try:
            mixed += held(target).keys() not in (old, wanted)
        except DatabaseError:
            mixed += 1
        # A log that is replayed whole makes the former database again: the restore is undone in silence.
        mixed += {*held(target)} == old and not Files(target).part.exists()
    assert mixed


# --- who has it open


def test_restore_is_refused_while_a_server_runs(place: Path) -> None:
    before = peek(place)
    with serving(place, "--workers", "2", "--admin-port", "0"):
        result = run("admin", "restore", place.with_name("copy.db"), "--database", place, "--json")
        assert result.returncode == 4, result.stdout
        assert b"stop every server process" in result.stdout
        copied = operate(place, "backup", str(place.with_name("live.db")))
        assert copied["documents"] == len(NAMES)
    assert held(place).keys() == peek(place.with_name("live.db")) == before
    assert operate(place, "restore", str(place.with_name("live.db")))["kept"]
    assert held(place).keys() == before


def test_restore_is_refused_while_another_program_has_it_open(place: Path) -> None:
    """One that knows nothing of our lock: SQLite's own shell, or an earlier server."""
    copy = place.with_name("copy.db")
    connection = sqlite3.connect(place)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("SELECT count(*) FROM documents").fetchone()

    def refused() -> None:
        with pytest.raises(DatabaseInUseError):
            restore(place, copy, force=False, progress=quiet)
        assert not Files(place).incoming.exists()
        with pytest.raises(DatabaseInUseError):
            restore(place.with_name("other.db"), place, force=False, progress=quiet)

    assert in_child(refused) == 0
    connection.close()
    restore(place, copy, force=False, progress=quiet)


def test_server_waits_for_a_restore_and_finishes_one_that_was_decided(place: Path) -> None:
    copy, files = place.with_name("copy.db"), Files(place)
    wanted = peek(copy)
    later(place, "small")

    def work() -> None:
        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "os.link":  # the first that is done to the database itself
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        restore_quietly(place, copy)

    assert in_child(work) == -signal.SIGKILL
    assert files.incoming.exists()
    with serving(place) as server:
        assert not files.incoming.exists()
        assert server.invitation is None
    assert held(place).keys() == wanted


# --- a backup


def test_backup_never_replaces_a_file_unless_told(place: Path) -> None:
    copy = place.with_name("copy.db")
    before = copy.read_bytes()
    put(place, "more")
    with pytest.raises(UsageError, match="--force"):
        backup(place, copy, force=False, progress=quiet)
    assert copy.read_bytes() == before
    made = backup(place, copy, force=True, progress=quiet)
    assert made.documents == len(NAMES) + 1
    assert copy.stat().st_mode & 0o777 == 0o600
    assert sorted(f.name for f in place.parent.iterdir()) == ["copy.db", "s.db", "s.db-lock"]
    with pytest.raises(UsageError, match="the database itself"):
        backup(place, place, force=True, progress=quiet)
    with pytest.raises(UsageError, match="no such folder"):
        backup(place, place.parent / "no" / "copy.db", force=True, progress=quiet)
    Files(copy).log.write_bytes(b"of something else")
    with pytest.raises(UsageError, match="would be replayed"):
        backup(place, copy, force=True, progress=quiet)
    with pytest.raises(DatabaseError, match="no database"):
        backup(place.with_name("missing.db"), copy, force=True, progress=quiet)
    assert not place.with_name("missing.db").exists()


def test_backup_of_a_damaged_database_is_refused(place: Path) -> None:
    corrupt(place)
    with pytest.raises(DamagedDatabaseError):
        backup(place, place.with_name("second.db"), force=False, progress=quiet)
    assert not place.with_name("second.db").exists()


def test_backup_is_one_moment_of_a_server_that_writes(sqlite_path: Path) -> None:
    """Whatever is pushed meanwhile: a batch is in the copy as a whole, or not at all."""
    with serving(sqlite_path, "--quiet") as server:
        assert server.invitation is not None
        device = enroll(server.url, server.invitation)
        for number in range(6):
            device.statuses(*(item(f"{number}/{n}", n=2) for n in range(64)))
            if number % 2:
                operate(sqlite_path, "backup", f"{sqlite_path}.{number}")
        device.close()
    for number in (1, 3, 5):
        found = peek(Path(f"{sqlite_path}.{number}"))
        assert len(found) == 64 * (number + 1)


def test_postgresql_is_copied_by_its_own_tools() -> None:
    for words in (("backup", "copy.db"), ("restore", "copy.db")):
        result = run("admin", *words, "--database", "postgresql://edge@db.example/edge")
        assert result.returncode == 2
        assert b"pg_dump" in result.stderr or b"pg_restore" in result.stderr


# --- damage


def test_server_does_not_start_on_a_malformed_database(place: Path) -> None:
    corrupt(place)
    result = run("serve", "--database", place, "--port", "0", "--json")
    assert result.returncode == 2
    assert b"DamagedDatabaseError" in result.stdout
    result = run("admin", "restored", "--database", place)
    assert result.returncode == 2
    assert b"damaged" in result.stderr


def test_server_does_not_start_beside_the_log_of_a_database_that_is_gone(place: Path) -> None:
    later(place, "small")
    place.unlink()
    result = run("serve", "--database", place, "--port", "0", "--json")
    assert result.returncode == 2
    assert b"is missing or empty" in result.stdout
    assert not place.exists()
    assert Files(place).has_log


def test_malformed_database_is_never_busy(sqlite_path: Path) -> None:
    with serving(sqlite_path, "--quiet", "--admin-port", "0") as server:
        assert server.invitation is not None
        device = enroll(server.url, server.invitation)
        device.statuses(*(item(f"{n}", dim=DIM) for n in range(200)), dim=DIM)
        with closing(sqlite3.connect(sqlite_path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        corrupt(sqlite_path)
        # Each process has some pages in memory: it finds out when it needs others.
        wait_until(lambda: device.call("GET", "/v1/pull?since=0&vectors=full").status != 200)
        anyone = Caller(server.url)
        for reply in (
            device.call("GET", "/v1/pull?since=0&vectors=full"),
            device.push(item("more", dim=DIM), dim=DIM),
            anyone.call("GET", "/readyz"),
        ):
            assert (reply.status, reply.code) == (503, "damaged"), reply
            assert int(reply.headers["retry-after"]) >= 60
        assert anyone.call("GET", "/healthz").status == 200
        anyone.close()
        assert "database damaged" in server.log()
        assert "internal error" not in server.log()
        device.close()
    # It is remembered: a page in memory must not make it look sound.
    result = run("serve", "--database", sqlite_path, "--port", "0")
    assert result.returncode == 2
    assert b"damaged" in result.stderr


def test_mark_goes_when_the_database_is_found_sound(place: Path) -> None:
    files = Files(place)
    files.mark_damaged("seen by a test")
    with open_database(str(place)) as database, database.read() as transaction:
        assert accounts.list_tenants(transaction)
        assert files.damage_said() is None
        files.mark_damaged("seen by another process")
        with pytest.raises(DamagedDatabaseError, match="another process"), database.write():
            pass
