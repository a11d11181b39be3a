"""One encoder in one process, told what to do on standard input (bench/support/answers.py).

Arguments: ENGINE MODEL THREADS. Runs in the peer's environment, where the peer and numpy are all there
is; a start is measured, so little is imported before it.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.encode.engines import ENGINES, EdgeMrl, Engine
from bench.support.answers import serve

__all__ = ["Worker", "keep_to", "main", "peak_mb"]

CPUS = Path("/sys/devices/system/cpu")
#: Documents are timed for at least so many seconds: a static model takes a tenth for a round's.
TIMED_S = 0.5
#: Texts encoded together where memory is watched over many.
CHUNK = 1000


class Worker:
    """An engine and the texts that it gets.

    Args:
        engine: To be measured.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._texts: dict[str, list[str]] = {}

    def start(self, text: str) -> dict[str, float]:
        """Seconds of the import, of the opening, and of the first vector."""
        started = time.perf_counter()
        self._engine.load()
        loaded = time.perf_counter()
        self._engine.open()
        opened = time.perf_counter()
        self._engine.query(text)
        answered = time.perf_counter()
        return {
            "import_s": loaded - started,
            "open_s": opened - loaded,
            "first_vector_s": answered - opened,
        }

    def texts(self, documents: list[str], queries: list[str]) -> None:
        """Take the texts that later requests name by number."""
        self._texts = {"documents": documents, "queries": queries}

    def queries(self, numbers: list[int]) -> dict[str, Any]:
        """Milliseconds of each query, one at a time, and CPU seconds for each second of clock."""
        latencies = []
        wall, cpu = time.perf_counter(), time.process_time()
        for number in numbers:
            start = time.perf_counter()
            self._engine.query(self._texts["queries"][number])
            latencies.append((time.perf_counter() - start) * 1e3)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {"latencies_ms": latencies, "cpu_per_wall": cpu / wall}

    def documents(
        self, numbers: list[int], batch: int | None = None, save: str | None = None
    ) -> dict[str, float]:
        """Seconds of some documents in one call, and CPU seconds for each.

        What takes less than TIMED_S is repeated until then, and the mean counts.

        Args:
            numbers: Which.
            batch: Texts at a time; None for the engine's own way.
            save: File for float32[n, D], written after the clock has stopped.
        """
        texts = [self._texts["documents"][number] for number in numbers]
        start, cpu, calls = time.perf_counter(), time.process_time(), 0
        while calls == 0 or time.perf_counter() - start < TIMED_S:
            vectors = self._engine.documents(texts, batch)
            calls += 1
        cpu, wall = time.process_time() - cpu, time.perf_counter() - start
        if save is not None:
            import numpy as np

            np.save(save, np.asarray(vectors, dtype=np.float32))
        return {"seconds": wall / calls, "cpu_per_wall": cpu / wall}

    def alone(self, numbers: list[int], save: str) -> None:
        """Save float32[n, D] of some documents, each in a call of its own."""
        import numpy as np

        texts = [self._texts["documents"][number] for number in numbers]
        vectors = [self._engine.documents([text], None)[0] for text in texts]
        np.save(save, np.asarray(vectors, dtype=np.float32))

    def many(self, count: int) -> dict[str, float]:
        """Encode ``count`` documents in one stream, repeating the texts; then ``memory``."""
        start = time.perf_counter()
        endless = itertools.islice(itertools.cycle(self._texts["documents"]), count)
        if isinstance(self._engine, EdgeMrl):
            for _ in self._engine.stream(endless):
                pass
        else:
            for chunk in _chunks(endless, CHUNK):
                self._engine.documents(chunk, None)
        return {"seconds": time.perf_counter() - start, **self.memory()}

    def memory(self) -> dict[str, float]:
        """Megabytes: the most that was resident so far, and what is now (Linux)."""
        return {"peak_mb": peak_mb(), "rss_mb": _status_mb("VmRSS") or 0.0}


def peak_mb() -> float:
    """The most memory that this process had, in MB."""
    found = _status_mb("VmHWM")
    if found is not None:
        return found
    import resource  # on Linux its figure may be the parent's

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _status_mb(field: str) -> float | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text("utf-8").splitlines())
    return int(lines[field].split()[0]) * 1024 / 1e6


def _chunks(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    while chunk := list(itertools.islice(texts, size)):
        yield chunk


def keep_to(threads: int) -> None:
    """Use no more CPUs than threads, of different cores first: some engines take no such number."""
    if not hasattr(os, "sched_setaffinity"):
        return
    allowed = sorted(os.sched_getaffinity(0), key=_sibling_rank)
    os.sched_setaffinity(0, allowed[:threads])


def _sibling_rank(cpu: int) -> tuple[int, int]:
    """(0, cpu) for the first CPU of a core, (1, cpu) for others."""
    path = CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    first = path.read_text("ascii").strip() if path.exists() else str(cpu)
    return int(first.split(",")[0].split("-")[0] != str(cpu)), cpu


def main() -> int:
    """Answer requests until standard input ends."""
    name, path, threads = sys.argv[1:]
    keep_to(int(threads))
    worker = Worker(ENGINES[name](Path(path), int(threads)))
    methods = (
        worker.start,
        worker.texts,
        worker.queries,
        worker.documents,
        worker.alone,
        worker.many,
        worker.memory,
    )
    return serve(methods)
