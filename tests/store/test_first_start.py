"""A store's first moment: whole or not there, whoever is killed or starts too; and its files' modes."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edge_mrl.errors import NotAStoreError, StoreBusyError
from edge_mrl.store import Counts, Store
from edge_mrl.store.codefile.file import code_path
from edge_mrl.store.engine.making import make_whole, unfinished_path
from tests.support.stores import PRELUDE, entry, fill, open_store, run_python, small_segments

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files have no modes and no locks")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a store.db"


def cut_off_in_place(path: Path, *, journal: bool) -> None:
    """What a power cut leaves of a database that was being made in place: its first page is missing."""
    work = path.with_name("work.db")
    with closing(sqlite3.connect(work, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")  # pages go to the file before the commit
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE numbers (n)")
        connection.executemany("INSERT INTO numbers VALUES (?)", [("x" * 500,)] * 500)
        data = bytearray(work.read_bytes())
        assert len(data) > 3 * 4096
        data[:4096] = bytes(4096)
        path.write_bytes(data)
        if journal:
            shutil.copy(f"{work}-journal", f"{path}-journal")
        connection.execute("ROLLBACK")
    work.unlink()


def test_store_that_a_power_cut_left_unfinished_is_made_again(path: Path) -> None:
    cut_off_in_place(path, journal=True)
    with open_store(path) as store:
        store.put([entry("a")])
    with Store.open(path) as store:
        assert store.count() == Counts(1, 1)


def test_file_without_a_journal_is_left_as_it_is(path: Path) -> None:
    """The twin: what nothing says to be an unfinished store may be anybody's."""
    cut_off_in_place(path, journal=False)
    before = path.read_bytes()
    path.with_name(f"{path.name}-journal").write_bytes(b"my journal\n")
    with pytest.raises(NotAStoreError):
        open_store(path)
    assert path.read_bytes() == before
    assert path.with_name(f"{path.name}-journal").read_bytes() == b"my journal\n"


STEPS = """
import os
from edge_mrl.store.engine import making
left = int(sys.argv[2])
def counted(what):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return what(*arguments, **options)
    return call
making.sync_path = counted(making.sync_path)
making.create_private = counted(making.create_private)
making.remove_with_log = counted(making.remove_with_log)
making.Path.replace = counted(making.Path.replace)
import edge_mrl.store.file as file
file._connect_to_write = counted(file._connect_to_write)
create(making.Path(sys.argv[1])).close()
"""


@pytest.mark.test
def test_process_that_ends_at_any_step_leaves_a_store_or_none(path: Path) -> None:
    ended = 0
    for step in range(9):
        command = [sys.executable, "-c", PRELUDE + STEPS, str(path), str(step)]
        ended += subprocess.run(command, check=False).returncode == 9
        with open_store(path) as store:
            store.put([entry("a")])
        with Store.open(path) as store:
            assert store.count() == Counts(1, 1)
        assert {file.name for file in path.parent.iterdir()} == {path.name}
        path.unlink()
    assert 6 <= ended < 9


@pytest.mark.test
def test_processes_that_start_at_once_all_have_the_store(path: Path) -> None:
    code = PRELUDE + f"create({str(path)!r}).put([entry(sys.argv[1])])"
    for round_ in range(3):
        some = [
            subprocess.Popen([sys.executable, "-c", code, f"{round_} {number}"])
            for number in range(5)
        ]
        assert [process.wait() for process in some] == [0] * 5
        with Store.open(path) as store:
            assert store.count() == Counts(5, 5)
        path.unlink()
        code_path(path).unlink(missing_ok=True)


def test_place_of_a_store_is_waited_for(path: Path) -> None:
    import fcntl

    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StoreBusyError, match="being made"):
            open_store(path, timeout_s=0.05)
    open_store(path).close()


def test_what_cannot_be_made_leaves_the_folder_as_it_was(path: Path) -> None:
    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        make_whole(path, fail, timeout_s=0.1)
    assert not list(path.parent.iterdir())
    path.touch()
    with pytest.raises(OSError, match="No space"):
        make_whole(path, fail, timeout_s=0.1)
    assert list(path.parent.iterdir()) == [path]


def test_log_of_a_store_that_is_gone_is_not_played_into_a_new_one(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("old")])
        shutil.copy(f"{path}-wal", path.with_name("log"))
    path.unlink()
    path.with_name("log").rename(f"{path}-wal")
    with open_store(path) as store:
        store.put([entry("new")])
        assert list(store.get(["old", "new"])) == ["new"]


def test_unfinished_store_of_a_killed_process_is_taken_away(path: Path) -> None:
    unfinished_path(path).write_bytes(b"half of a store")
    open_store(path).close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_their_owners_whatever_the_umask(
    umask: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(umask)
    try:
        with small_segments(monkeypatch), open_store(path) as store:
            fill(store, np.ones((200, 4), np.int8))
            found = modes(path.parent)
            names = {path.name, f"{path.name}-wal", f"{path.name}-shm", f"{path.name}-codes"}
            assert found == dict.fromkeys(names, 0o600)
    finally:
        os.umask(before)


def test_files_of_an_older_release_are_tightened_and_the_folder_is_not(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a")])
        for file in path.parent.iterdir():
            file.chmod(0o664)
        path.parent.chmod(0o755)
        Store.open(path).close()
        assert set(modes(path.parent).values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


WATCHED = """
import os
os.umask(0)
print("ready", flush=True)
for number in range(10**6):
    with create(sys.argv[1]) as store:
        store.put([entry(str(number))])
    os.unlink(sys.argv[1])
"""


def open_to_others(folder: Path, looks: int) -> set[str]:
    """The name of a file that was seen with rights of others, while another process makes them."""
    for _ in range(looks):
        for file in folder.iterdir():
            try:
                mode = file.stat().st_mode
            except FileNotFoundError:
                continue
            if mode & 0o077:
                return {file.name}
    return set()


@pytest.mark.test
@pytest.mark.parametrize("sabotaged", [False, True])
def test_no_file_is_open_to_others_for_a_moment(sabotaged: bool, path: Path) -> None:
    begin = (
        "import edge_mrl.store.engine.making as m; m.create_private = lambda path: path.touch()\n"
    )
    code = PRELUDE + (begin if sabotaged else "") + WATCHED
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = open_to_others(path.parent, 30_000)
        process.send_signal(signal.SIGKILL)
    assert bool(seen) is sabotaged


def test_deleted_text_is_gone_from_the_file(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a", "quixotic zephyr " * 400), entry("b")])
        store.delete(["a"])
    assert b"quixotic zephyr" not in path.read_bytes()
    run_python(f"assert 'b' in Store.open({str(path)!r}).get(['b'])")
