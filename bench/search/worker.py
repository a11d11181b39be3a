"""One engine in one process, told what to do on standard input: ``python -m bench.search.worker``.

Requests (bench/support/answers.py): ``build`` (then the process should end), ``open``, ``round``
(timed queries), ``memory``.

Runs in the peer's environment: numpy, the peer, and nothing else may be imported.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.search.engines import ENGINES, Engine
from bench.support.answers import serve

__all__ = ["Worker", "main"]


class Worker:
    """An engine, its folder, and the data set's arrays.

    Args:
        engine: To be measured.
        data: Folder of the data set (bench/support/vectors.py).
        path: Folder of the engine's own files.
    """

    def __init__(self, engine: Engine, data: Path, path: Path) -> None:
        self._engine, self._data, self._path = engine, data, path
        self._queries = np.load(data / "queries.npy")
        self._codes = np.load(data / "query_codes.npy")

    def build(self) -> dict[str, Any]:
        """Insert every row, durably; seconds of that alone."""
        vectors = np.load(self._data / "vectors.npy", mmap_mode="r")
        codes = np.load(self._data / "codes.npy", mmap_mode="r")
        self._engine.load()
        start = time.perf_counter()
        self._engine.build(self._path, vectors, codes)
        return {"seconds": time.perf_counter() - start}

    def open(self) -> dict[str, Any]:
        """Milliseconds of the import, of the opening, and of the first query."""
        started = time.perf_counter()
        self._engine.load()
        loaded = time.perf_counter()
        self._engine.open(self._path)
        opened = time.perf_counter()
        self._engine.query(self._queries[0], self._codes[0], 10)
        answered = time.perf_counter()
        return {
            "import_ms": (loaded - started) * 1e3,
            "open_ms": (opened - loaded) * 1e3,
            "first_query_ms": (answered - opened) * 1e3,
        }

    def round(self, queries: list[int], k: int) -> dict[str, Any]:
        """Latency and answers of some queries by index, and CPU seconds for each second of clock."""
        latencies, answers = [], []
        wall, cpu = time.perf_counter(), time.process_time()
        for query in queries:
            vector, code = self._queries[query], self._codes[query]
            start = time.perf_counter()
            ids = self._engine.query(vector, code, k)
            latencies.append((time.perf_counter() - start) * 1e3)
            answers.append([int(i) for i in ids])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {"latencies_ms": latencies, "ids": answers, "cpu_per_wall": cpu / wall}

    def memory(self) -> dict[str, float | None]:
        """Resident megabytes, and those of them that are no mapped file; None where unknown."""
        status = Path("/proc/self/status")
        lines = status.read_text("utf-8").splitlines() if status.exists() else []
        fields = dict(line.split(":", 1) for line in lines)
        keys = {"rss_mb": "VmRSS", "anonymous_mb": "RssAnon"}
        return {
            name: int(fields[key].split()[0]) * 1024 / 1e6 if key in fields else None
            for name, key in keys.items()
        }


def main() -> int:
    """Answer requests until standard input ends."""
    name, data, path = sys.argv[1:]
    worker = Worker(ENGINES[name](), Path(data), Path(path))
    return serve([worker.build, worker.open, worker.round, worker.memory])


if __name__ == "__main__":
    sys.exit(main())
