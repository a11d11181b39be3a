"""Processes of both languages are killed while they write one store; the other goes on with it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest

from edge_mrl.codes import Packing
from edge_mrl.store import Store, check
from tests.android.probe import KotlinError, Probe
from tests.android.stores import BATCH, DIM, KotlinStore, batch, binding_of, python_store

#: How long a process may write before it is killed, in seconds: several batches, and some filings.
LONGEST_S = 1.2
START_TIMEOUT_S = 60


class _Written:
    """What both processes were told is committed.

    Attributes:
        next: The number of the next batch; all before it are committed.
        deleted: Documents whose deletion is committed. Of other first documents of every third batch, a
            process may have been killed between their deletion and its word of it.
    """

    def __init__(self) -> None:
        self.next = 0
        self.deleted: set[str] = set()

    def require(self, ids: set[str], began: int) -> None:
        """Every committed batch is there; the one that was cut off is there as a whole or not at all."""
        assert not self.deleted & ids, began
        wanted = {name for number in range(self.next) for name in _names(number)}
        there = ids - {_first(number) for number in range(1, self.next, 3)}
        assert not wanted - there, began
        more = there - wanted
        assert len(more) in (0, BATCH), began
        assert all(name.startswith(f"b{self.next}-") for name in more)
        if more:
            self.next += 1


def _first(number: int) -> str:
    return f"b{number}-0"


def _names(number: int) -> set[str]:
    gone = {_first(number)} if number % 3 == 1 else set()
    return {f"b{number}-{place}" for place in range(BATCH)} - gone


def _kill_kotlin(path: Path, random: Random, written: _Written) -> None:
    """Have Kotlin put batch after batch, and kill it at a random moment."""
    with Probe([f"-Dorg.sqlite.tmpdir={path.parent}"]) as probe:
        theirs = KotlinStore(probe, path)
        theirs("open")
        timer = threading.Timer(random.uniform(0.05, LONGEST_S), probe.process.kill)
        timer.start()
        try:
            while True:
                theirs.put(batch(written.next, DIM))
                written.next += 1
                if written.next % 3 == 0:
                    theirs("delete", ids=[_first(written.next - 2)])
                    written.deleted.add(_first(written.next - 2))
        except (KotlinError, BrokenPipeError):
            pass
        finally:
            timer.join()
            probe.process.wait(START_TIMEOUT_S)


def _kill_python(path: Path, random: Random, written: _Written) -> None:
    """The same with a Python process."""
    command = [sys.executable, "-m", "tests.android.putting", str(path), str(written.next)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        timer = threading.Timer(START_TIMEOUT_S, process.kill)
        timer.start()
        for line in process.stdout:
            if int(line) == written.next:
                written.next += 1
                if written.next % 3 == 0:
                    written.deleted.add(_first(written.next - 2))
            if timer.interval == START_TIMEOUT_S:  # it has begun
                timer.cancel()
                timer = threading.Timer(random.uniform(0.0, LONGEST_S), process.kill)
                timer.start()
        timer.cancel()
        timer.join()


def _ids(path: Path, kotlin: Probe, *, by_kotlin: bool) -> set[str]:
    """Open the store after a kill, find it sound, and read which documents it has."""
    if by_kotlin:
        theirs = KotlinStore(kotlin, path)
        theirs("open")
        assert theirs("check")["problems"] == []
        ids = set(theirs("select", filter={}))
        theirs("close")
        return ids
    with Store.open(path) as store:
        assert check(store).sound
        with store.reading() as view:
            assert view.codes.repaired == 0
            return set(view.ids_where({}))


def _campaign(path: Path, kotlin: Probe, *, kills: int, seed: int) -> None:
    random, written = Random(seed), _Written()
    python_store(path, binding_of(Packing(), DIM)).close()
    for number in range(kills):
        if written.next > 24:  # a store anew, so that each kill costs the same
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
            written = _Written()
            python_store(path, binding_of(Packing(), DIM)).close()
        began = written.next
        kill = _kill_kotlin if number % 2 == 0 else _kill_python
        kill(path, random, written)
        written.require(_ids(path, kotlin, by_kotlin=number % 2 == 1), began)


@pytest.mark.test
def test_a_killed_process_loses_nothing_that_was_committed(tmp_path: Path, kotlin: Probe) -> None:
    _campaign(tmp_path / "s.db", kotlin, kills=4, seed=1)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_hundred_kills_lose_nothing(tmp_path: Path, kotlin: Probe) -> None:
    _campaign(tmp_path / "s.db", kotlin, kills=100, seed=2)


@pytest.mark.test
def test_the_campaign_sees_what_is_lost(tmp_path: Path) -> None:
    written = _Written()
    written.next = 3
    there = _names(0) | _names(1) | _names(2)
    written.require(set(there), 0)
    with pytest.raises(AssertionError):
        written.require(there - {"b0-7"}, 0)
    written.deleted.add("b1-0")
    with pytest.raises(AssertionError):
        written.require(there | {"b1-0"}, 0)
    with pytest.raises(AssertionError):
        written.require(there | {"b3-1"}, 0)
    written.require(there | {f"b3-{place}" for place in range(BATCH)}, 0)
    assert written.next == 4
