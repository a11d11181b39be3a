"""A code file that is cut short, or whose medium fails, under a search: right answers, no signal."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge_mrl.machine import read_at, read_into
from edge_mrl.search.scan import nearest
from edge_mrl.store import Binding, Store, check
from edge_mrl.store.codefile import column
from edge_mrl.store.codefile.file import code_path
from edge_mrl.store.codefile.table import CodeTable
from tests.support.stores import fill, open_store, small_segments, vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DIM = 64
BINDING = Binding("space-1", "code-1", DIM, 1.0, "/bundles/one")
NUMBER = 1_000

#: Cuts the file at a place, lets it be as long again, and so on: as a medium that comes and goes.
CUTTER = """
import os, random, sys, time
path, rng = sys.argv[1], random.Random(1)
print("ready", flush=True)
for _ in range(10**7):
    try:
        size = os.path.getsize(path)
        os.truncate(path, rng.choice([0, 40, 65_536, size // 3, size - 5]))
        if rng.random() < 0.5:
            os.truncate(path, size)
    except OSError:
        pass
    time.sleep(rng.random() / 200)
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with small_segments(monkeypatch):
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with open_store(tmp_path / "store.db", BINDING) as store:
        fill(store, vectors(NUMBER, DIM))
    return tmp_path / "store.db"


Answers = list[list[tuple[int, float]]]


def ask(store: Store, pause: Callable[[], None] = lambda: None) -> Answers:
    queries = vectors(NUMBER, DIM)[::200]
    with store.reading() as view:
        assert view.codes.rows == NUMBER
        pause()
        found = nearest(queries, view.codes, k=5, width=40)
        return [[(match.key, match.score) for match in row] for row in found]


@pytest.mark.test
def test_search_is_right_while_another_process_cuts_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repairs: list[int] = []
    repair = CodeTable.repair

    def counted(table: CodeTable, number: int) -> None:
        repairs.append(number)
        repair(table, number)

    monkeypatch.setattr(CodeTable, "repair", counted)
    monkeypatch.setattr(column, "_room_bytes", lambda: 0)  # each search reads
    with Store.open(path) as store:
        expected = ask(store)
    command = [sys.executable, "-c", CUTTER, str(code_path(path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(20):
            with Store.open(path) as store:
                assert ask(store, lambda: time.sleep(0.01)) == expected
        process.send_signal(signal.SIGKILL)
    with Store.open(path) as store:
        assert ask(store) == expected
        assert check(store).sound
    assert repairs  # it was cut where it was read, not only where it was opened


MAPPED = """
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
data = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
os.truncate(sys.argv[1], 0)
print(data[70_000])
"""


def test_the_twin_a_mapped_file_ends_the_process(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MAPPED, str(code_path(path))], check=False)
    assert done.returncode == -signal.SIGBUS


def test_no_file_of_a_store_is_mapped_but_the_index_of_its_log(path: Path) -> None:
    with Store.open(path) as store:
        ask(store)
        lines = Path("/proc/self/maps").read_text("utf-8").splitlines()
        mapped = {line.split(maxsplit=5)[5] for line in lines if str(path) in line}
    assert mapped <= {f"{path}-shm"}


@pytest.mark.parametrize("code", [errno.EIO, errno.ENXIO])
def test_medium_that_fails_leaves_right_answers(
    code: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(path) as store:
        expected = ask(store)
    failed = 0

    def fail(*_: object) -> int:
        nonlocal failed
        failed += 1
        raise OSError(code, os.strerror(code))

    with Store.open(path) as store, monkeypatch.context() as patch:
        with store.reading() as view:
            assert view.codes.rows == NUMBER
        patch.setattr(column, "read_at", fail)
        patch.setattr(column, "read_into", fail)
        assert ask(store) == expected
        assert failed
    with Store.open(path) as store, monkeypatch.context() as patch:
        patch.setattr(column, "read_into", fail)
        assert ask(store) == expected


def test_codes_that_are_asked_for_often_are_kept_where_there_is_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0

    def count(read: object) -> object:
        def counted(*arguments: object) -> object:
            nonlocal reads
            reads += 1
            return read(*arguments)  # type: ignore[operator]

        return counted

    found = {}
    for room in (10**9, 0):
        with Store.open(path) as store, monkeypatch.context() as patch:
            patch.setattr(column, "_room_bytes", lambda room=room: room)
            patch.setattr(column, "read_at", count(read_at))
            patch.setattr(column, "read_into", count(read_into))
            first = ask(store)
            reads = 0
            assert [ask(store) for _ in range(20)] == [first] * 20
            found[room] = reads
    assert found[10**9] == 0
    assert found[0] > 0
