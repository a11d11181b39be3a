"""Several processes and threads at one store, and kill -9: all of it real."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_mrl.errors import (
    StoreBusyError,
    StoreError,
)
from edge_mrl.store import Counts, Store
from tests.support.stores import PRELUDE, entry, live_codes, open_store, run_python, start_python

if TYPE_CHECKING:
    from pathlib import Path

#: Enough kills to hit every phase of a commit of about a millisecond.
KILLS = 15


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a store.db"


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
        assert len(live_codes(store)) == 1
        run_python(f"Store.open({str(path)!r}).put([entry('b', 3)])")
        assert len(live_codes(store)) == 4
        run_python(f"Store.open({str(path)!r}).delete(['a'])")
        assert len(live_codes(store)) == 3


def test_reading_block_shows_one_state(path: Path) -> None:
    with open_store(path) as store:
        store.put([entry("a")])
        with store.reading():
            assert len(live_codes(store)) == 1
            run_python(f"Store.open({str(path)!r}).put([entry('b')])")
            assert len(live_codes(store)) == 1
            assert store.count() == Counts(1, 1)
        assert len(live_codes(store)) == 2


@pytest.mark.test
def test_processes_that_make_a_store_at_once_share_it(path: Path) -> None:
    code = f"""
with create({str(path)!r}) as store:
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
                assert len(live_codes(store)) == store.count().passages

    with open_store(path) as store, ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, store, name) for name in range(4)]:
            future.result()
        assert store.count() == Counts(80, 80)


WRITER = """
with create(sys.argv[-1]) as store:
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


@pytest.mark.test
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
            assert len(live_codes(store)) == counts.passages
            newest = [f"{last}-{part}" for part in range(3)] if last >= 0 else []
            assert sorted(store.get(newest)) == newest
    assert last > 0
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


@pytest.mark.test
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_store_killed_while_being_made_can_be_made_again(path: Path) -> None:
    code = f"""
import shutil
from pathlib import Path
path = Path({str(path)!r})
print("ready", flush=True)
while True:
    create(path).close()
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
