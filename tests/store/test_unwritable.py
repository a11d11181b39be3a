"""Stores where nothing can be written: reading goes on, a write says why not, and nothing is lost.

The cards are real: small file systems in memory that are filled, or mounted read-only.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from edge_mrl import Document, Index
from edge_mrl.cli import main
from edge_mrl.errors import StoreError, UnwritableStoreError
from edge_mrl.machine import obstacle_to_writing
from edge_mrl.store import Store, check
from edge_mrl.store.engine import lockless
from tests.faults.disk import Disk, NotAllowedError, small_disk
from tests.support.bundles import TINY_STATIC
from tests.support.keys import KEY
from tests.support.stores import BINDING, entry, open_store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts file systems as Linux does")
FULL = "its card or disk is full"
#: Committed, and folded into the database or not; with an index of the log left behind, or none.
STATES = ("folded", "pending")
#: So long that a log which has it cannot be folded into the database without making that longer.
LONG = entry("c", text=" ".join(f"word{number}" for number in range(20_000)))
WORDS = ("ferry", "harbour", "bicycle")


@pytest.fixture
def card() -> Iterator[Disk]:
    try:
        with small_disk(4 << 20) as disk:
            yield disk
    except NotAllowedError as error:
        pytest.skip(f"A FULL CARD IS NOT TRIED: {error}")


def make(folder: Path, *, state: str = "folded", encrypted: bool = False) -> Path:
    """A store with documents a, b and c; c is in the log alone where that is pending."""
    path = folder / "s.db"
    key = KEY if encrypted else None
    with open_store(path, BINDING, key=key) as store:
        store.put([entry("a"), entry("b")])
        if state == "folded":
            store.put([LONG])
    if state == "pending":
        # As a power cut leaves it: the files of a store whose process did not end well.
        with open_store(path, BINDING, key=key) as store, store.locked() as (connection, _):
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            store.put([LONG])
            for suffix in ("", "-wal"):
                shutil.copy(f"{path}{suffix}", folder / f"kept{suffix}")
        path.unlink()
        for suffix in ("", "-wal"):
            (folder / f"kept{suffix}").rename(f"{path}{suffix}")
    return path


def require_readable(path: Path, *, obstacle: str, encrypted: bool = False) -> None:
    key = KEY if encrypted else None
    with Store.open(path, key=key, timeout_s=1.0) as store:
        assert store.obstacle == obstacle
        assert not store.writable
        assert list(store.get(["a", "b", "c"])) == ["a", "b", "c"]
        assert check(store).sound
        with pytest.raises(UnwritableStoreError, match=obstacle):
            store.put([entry("d")])
        with pytest.raises(UnwritableStoreError, match="can be searched"):
            store.delete(["a"])
        assert store.count().documents == 3


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_store_on_a_full_card_is_read(state: str, encrypted: bool, card: Disk) -> None:
    if encrypted:
        pytest.importorskip("sqlcipher3", reason="needs the extra encrypted")
    path = make(card.path, state=state, encrypted=encrypted)
    card.leave(0)
    require_readable(path, obstacle=FULL, encrypted=encrypted)
    # Again, with what the first left behind.
    require_readable(path, obstacle=FULL, encrypted=encrypted)
    card.make_room()
    with Store.open(path, key=KEY if encrypted else None) as store:
        assert store.writable
        store.put([entry("d")])
        assert check(store).sound
        assert store.count().documents == 4


def test_log_that_fits_into_the_database_is_folded_which_makes_room(card: Disk) -> None:
    path = card.path / "s.db"
    with open_store(path, BINDING) as store, store.locked() as (connection, _):
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        for _ in range(20):
            store.put([entry("a")])
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", card.path / f"kept{suffix}")
    path.unlink()
    for suffix in ("", "-wal"):
        (card.path / f"kept{suffix}").rename(f"{path}{suffix}")
    card.leave(0)
    with Store.open(path) as store:
        assert store.obstacle is None
        store.put([entry("b")])
        assert store.count().documents == 2


def test_commits_in_a_log_are_not_seen_without_it(card: Disk) -> None:
    """The twin: were the log passed over, the test above would fail."""
    path = make(card.path, state="pending")
    probe = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    with closing(probe):
        assert probe.execute("SELECT count(*) FROM documents").fetchone() == (2,)


def test_log_that_must_make_the_database_grow_is_read_on_a_full_card(card: Disk) -> None:
    """A write was cut off by the end of the card: what was committed is in the log, and stays there."""
    path = card.path / "s.db"
    stored = []
    with open_store(path, BINDING) as store, store.locked() as (connection, _):
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        card.leave(1_500_000)
        with suppress(UnwritableStoreError):
            for number in range(10_000):
                store.put([entry(f"{number}", text=LONG.document.text[: 9_000 + number])])
                stored.append(str(number))
        assert len(stored) < 10_000
        card.leave(0)
        assert list(store.get(stored)) == stored  # who has it open goes on reading
    assert len(stored) > 10
    path.with_name("s.db-shm").unlink()
    card.leave(0)
    with Store.open(path) as store:
        assert store.obstacle == FULL
        assert store.count().documents == len(stored)
        assert list(store.get(stored)) == stored
    assert path.with_name("s.db-wal").stat().st_size > 0
    card.make_room()
    with Store.open(path) as store:
        store.put([entry("more")])
        assert check(store).sound
        assert store.count().documents == len(stored) + 1


def test_open_store_writes_again_once_there_is_room(card: Disk) -> None:
    path = make(card.path)
    card.leave(0)
    with Store.open(path) as store:
        with pytest.raises(UnwritableStoreError, match=FULL):
            store.put([entry("d")])
        card.make_room()
        store.put([entry("d")])
        assert store.obstacle is None
        assert store.count().documents == 4


@pytest.mark.parametrize("state", STATES)
def test_reader_without_locks_notices_what_others_write(state: str, card: Disk) -> None:
    path = make(card.path, state=state)
    card.leave(0)
    with Store.open(path) as store:
        assert store.obstacle == FULL
        card.make_room()
        with Store.open(path) as other:
            other.put([entry("d")])
            assert list(store.get(["a", "d"])) == ["a", "d"]
        assert store.count().documents == 4
    assert not lockless._ASIDE


def test_another_process_that_writes_keeps_its_locks(card: Disk) -> None:
    """POSIX drops a process's locks when any of its descriptors of the file is closed."""
    path = make(card.path, state="pending")
    card.leave(0)
    blind = Store.open(path)
    assert blind.obstacle == FULL
    card.make_room()
    with Store.open(path) as held:
        blind.close()
        # A process that takes the file for its own alone must not get it.
        code = (
            "import sqlite3, sys\n"
            f"c = sqlite3.connect({str(path)!r}, timeout=0.2, isolation_level=None)\n"
            "c.execute('PRAGMA locking_mode = EXCLUSIVE')\n"
            "try: print(c.execute('PRAGMA journal_mode = DELETE').fetchone())\n"
            "except sqlite3.OperationalError as error: print(error)\n"
        )
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert "locked" in said.stdout
        held.put([entry("d")])
    with Store.open(path) as store:
        assert store.count().documents == 4


@pytest.mark.parametrize("state", STATES)
def test_store_on_a_card_that_went_read_only_is_read(state: str, card: Disk) -> None:
    path = make(card.path, state=state)
    subprocess.run(["mount", "-o", "remount,ro", str(card.path)], check=True)
    try:
        require_readable(path, obstacle="its card or disk is mounted read-only")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(card.path)], check=True)


@pytest.mark.parametrize("state", STATES)
def test_limit_on_files_is_an_obstacle_with_its_own_words(state: str, tmp_path: Path) -> None:
    """As a quota is: there is room on the disk, and a write fails all the same."""
    path = make(tmp_path, state=state)
    code = f"""
import resource, signal
from pathlib import Path
from tests.store.test_unwritable import require_readable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))
require_readable(Path({str(path)!r}), obstacle="this process may write no larger files")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2048


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="drops root's rights with setpriv")
@pytest.mark.parametrize("suffix", ["-shm", "-wal"])
def test_files_of_somebody_else_beside_a_store_do_not_stop_reading(
    suffix: str, tmp_path: Path
) -> None:
    path = make(tmp_path, state="pending")
    other = path.with_name(f"s.db{suffix}")
    other.touch()
    other.chmod(0o444)
    code = f"""
from pathlib import Path
from edge_mrl.store import Store
with Store.open(Path({str(path)!r})) as store:
    assert store.obstacle == "s.db{suffix} is not this user's to write", store.obstacle
    assert list(store.get(["a", "b", "c"])) == ["a", "b", "c"]
"""
    line = [sys.executable, "-c", code]
    if os.geteuid() == 0:
        line = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", *line]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_trial_of_writing_leaves_nothing(tmp_path: Path) -> None:
    assert obstacle_to_writing(tmp_path) is None
    assert not list(tmp_path.iterdir())
    assert "No such file" in str(obstacle_to_writing(tmp_path / "none"))


# --- commands


READING = (
    ("search", "ferry"),
    ("search", "ferry", "--mode", "keyword"),
    ("search", "ferry", "--mode", "vector", "--json"),
    ("stats",),
    ("stats", "--json"),
    ("check",),
    ("check", "--repair"),
    ("list",),
    ("list", "--json"),
    ("get", "ferry"),
    ("dump",),
    ("doctor",),
)
WRITING = (
    ("delete", "ferry"),
    ("index", "{lines}"),
    ("load", "{dump}"),
    ("compact",),
    ("encrypt", "--key-file", "{key}"),
)


@pytest.fixture
def full(card: Disk, tmp_path: Path) -> tuple[Path, Disk]:
    path = card.path / "s.db"
    with Index.open(path, TINY_STATIC) as index:
        index.put([Document(word, f"all about the {word}") for word in WORDS])
    (tmp_path / "lines").write_text('{"id": "new", "text": "new words"}\n')
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_bytes(bytes(range(32)))
    with contextlib.redirect_stdout((tmp_path / "dump").open("w", encoding="utf-8")) as file:
        assert main(["dump", "--store", str(path)]) == 0
        file.close()
    card.leave(0)
    return path, card


@pytest.mark.test
def test_every_command_that_reads_goes_on_and_says_why(
    full: tuple[Path, Disk], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = full
    for command in READING:
        code = main([*command, "--store", str(path)])
        said = capsys.readouterr()
        assert code == (1 if command[0] == "doctor" else 0), (command, said)
        assert "ferry" in said.out or command[0] in ("stats", "check", "doctor"), command
        if command[0] == "doctor":
            assert "restore" not in said.out
            assert "index the documents again" not in said.out
            assert FULL in said.out
            assert "intact, documents: 3" in said.out
        else:
            assert f"can only be read: {FULL}: free some space" in said.err, command


@pytest.mark.test
def test_every_command_that_writes_says_so_and_changes_nothing(
    full: tuple[Path, Disk], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, card = full
    before = path.read_bytes()
    places = {name: str(tmp_path / name) for name in ("lines", "dump", "key")}
    for command in WRITING:
        words = [word.format(**places) for word in command]
        code = main([*words, "--store", str(path)])
        said = capsys.readouterr()
        assert code == StoreError.exit_code == 2, (command, said)
        assert FULL in said.err or "cannot grow" in said.err, (command, said.err)
        assert "free some space" in said.err, (command, said.err)
        assert path.read_bytes() == before, command
    card.make_room()
    assert main(["delete", "ferry", "--store", str(path)]) == 0
    assert main(["check", "--store", str(path)]) == 0
    assert {one.name for one in card.path.iterdir()} <= {"s.db", "s.db-wal", "s.db-shm"}
