"""Commits by time: a slow machine commits often, a fast one in large parts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_mrl import Document, Index
from edge_mrl.ingest import pace
from edge_mrl.ingest.pace import COMMIT_S, FIRST_CHARS, MOST_CHARS, Pace
from tests.support.bundles import TINY_STATIC


class Clock:
    """A machine that takes so many seconds for a character."""

    def __init__(self, speed: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.speed = 0.0, speed
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def times(self, sizes: list[int]) -> list[float]:
        """How long each part took."""
        found = []
        for part in Pace().parts(sizes, sizes):
            self.now += sum(part) * self.speed
            found.append(sum(part) * self.speed)
        return found


@pytest.mark.parametrize("speed", [1e-6, 1e-4, 1e-3, 1e-2, 0.05])
def test_parts_take_about_as_long_on_any_machine(
    speed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [400] * 2_000
    times = Clock(speed, monkeypatch).times(sizes)
    assert sum(times) == pytest.approx(sum(sizes) * speed)
    assert times[0] == pytest.approx(FIRST_CHARS * speed)
    settled = times[4:-1]
    most = max(COMMIT_S + 400 * speed, 400 * speed)
    assert all(took <= most * 1.01 for took in settled)
    # Nor more often than that, or than memory allows.
    least = min(COMMIT_S, MOST_CHARS * speed)
    assert all(took >= least * 0.99 for took in settled)


def test_without_a_limit_of_time_a_slow_machine_would_commit_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The twin: the test above sees parts of a fixed size."""
    monkeypatch.setattr(pace, "COMMIT_S", 1e9)
    times = Clock(1e-2, monkeypatch).times([400] * 2_000)
    assert max(times) > 50 * COMMIT_S


def test_document_that_takes_longer_is_a_part_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1e-2, monkeypatch)
    assert clock.times([50_000, 100, 90_000, 100])[0] == pytest.approx(500.0)


#: Embedding takes a second a document, and the power fails after so many seconds, again and again.
SLOW = """
import sys, time
from edge_mrl import Document, Index
from edge_mrl.encode import Encoder
encode = Encoder.encode
def slowly(self, texts, **options):
    texts = list(texts)
    time.sleep(0.02 * len(texts))
    return encode(self, texts, **options)
Encoder.encode = slowly
from edge_mrl.ingest import pace
pace.COMMIT_S, pace.FIRST_CHARS = 0.2, 2_000
print("ready", flush=True)
with Index.open(sys.argv[1], sys.argv[2]) as index:
    index.put([Document(str(n), f"document {n} " + "word " * 80) for n in range(120)])
print("done", flush=True)
"""


@pytest.mark.test
def test_machine_that_is_cut_off_again_and_again_gets_on(tmp_path: Path) -> None:
    """Each run is killed long before it could embed a whole batch of 256 documents."""
    path = tmp_path / "s.db"
    counts = [0]
    for _ in range(40):
        with subprocess.Popen(
            [sys.executable, "-c", SLOW, str(path), str(TINY_STATIC)],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            # Once it has committed more, wherever it is by then.
            while process.poll() is None and _count(path) <= counts[-1]:
                time.sleep(0.02)
            ended = process.poll() is not None
            if not ended:
                os.kill(process.pid, signal.SIGKILL)
        counts.append(_count(path))
        if ended:
            break
    assert counts[-1] == 120
    assert len(counts) > 4
    assert counts == sorted(counts)


def _count(path: Path) -> int:
    if not path.exists() or not path.stat().st_size:
        return 0
    with Index.open(path) as index:
        return index.count().documents


def test_few_texts_are_one_commit(tmp_path: Path) -> None:
    seen = []
    with Index.open(tmp_path / "s.db", TINY_STATIC) as index:
        documents = [Document(str(n), "a few words") for n in range(200)]
        index.put(documents, committed=lambda stored: seen.append(stored.documents))
        index.put(documents, committed=lambda stored: seen.append(stored.documents))
    assert seen == [200, 200]
