"""A plain store beside an encrypted one: ``python -m bench.store.encryption --rows 10000 100000``.

For each size: durable puts of ready vectors, the time until a process has opened the store and answered
once, its memory then, and searches. Every step is a process of its own with one thread, without a model.
Both kinds take turns, so that a busy machine slows both; the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.support.machine import save

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent.parent
FILES = ROOT / "build" / "bench-encryption"
DIM, K, PUT, SEED = 128, 10, 1024, 1
#: Searches that are timed, after the first.
SEARCHES = 60
ROUNDS = 3
KINDS = ("plain", "encrypted")
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def main() -> int:
    """Measure, print a table, write bench/results/encryption.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)  # STEP KIND ROWS, in a child
    args = parser.parse_args()
    if args.step is not None:
        step, kind, rows = args.step
        print(json.dumps(STEPS[step](kind, int(rows))))
        return 0
    results = {}
    try:
        for rows in args.rows:
            results[str(rows)] = measure(rows)
            print(rows, json.dumps(results[str(rows)], indent=1))
    finally:
        shutil.rmtree(FILES, ignore_errors=True)
    settings = {"dim": DIM, "put_documents": PUT, "searches": SEARCHES, "rounds": ROUNDS}
    print(f"written to {save('encryption', settings, results).relative_to(ROOT)}")
    return 0


def measure(rows: int) -> dict[str, dict[str, float]]:
    """The medians of both kinds of store of one size."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for number in range(ROUNDS):
        shutil.rmtree(FILES, ignore_errors=True)
        FILES.mkdir(parents=True)
        order = KINDS if number % 2 else KINDS[::-1]
        figures: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
        for step in STEPS:
            for kind in order:
                figures[kind] |= _child(step, kind, rows)
        for kind in KINDS:
            found[kind].append(figures[kind])
    return {
        kind: {name: round(statistics.median(one[name] for one in all_), 2) for name in all_[0]}
        for kind, all_ in found.items()
    }


def _child(step: str, kind: str, rows: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.store.encryption", "--step", step, kind, str(rows)]
    environment = {**os.environ, **ONE_THREAD}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, check=True
    )
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def _key() -> bytes:
    return hashlib.sha256(b"bench").digest()


def put(kind: str, rows: int) -> dict[str, float]:
    """Make a store; rows a second, and bytes a row on disk."""
    from edge_mrl.documents import Document, PassageRule
    from edge_mrl.store import Binding, Entry, Store

    binding = Binding("space", "code", DIM, 1.0, "/bundle")
    path, key = FILES / f"{kind}.db", _key if kind == "encrypted" else None
    seconds = 0.0
    with Store.create(path, binding, PassageRule(8, 2), key=key) as store:
        for first in range(0, rows, PUT):
            codes = _codes(min(PUT, rows - first), first)
            entries = [
                Entry(
                    Document(str(first + i), f"a note of one line {first + i}"), [(0, 8)], row[None]
                )
                for i, row in enumerate(codes)
            ]
            started = time.perf_counter()
            store.put(entries)
            seconds += time.perf_counter() - started
    size = sum(file.stat().st_size for file in FILES.glob(f"{kind}.db*"))
    return {"put_rows_s": rows / seconds, "bytes_row": size / rows}


def search(kind: str, rows: int) -> dict[str, float]:
    """Open a store, answer once, then again and again."""
    from edge_mrl.search.scan import nearest
    from edge_mrl.store import Store

    if kind == "encrypted":
        import sqlcipher3.dbapi2  # noqa: F401 - its loading is not the store's
    queries = _codes(SEARCHES, rows + 1)
    before = _rss_mb()
    started = time.perf_counter()
    with Store.open(FILES / f"{kind}.db", key=_key if kind == "encrypted" else None) as store:
        times = []
        for query in queries[[0, *range(SEARCHES)]]:
            with store.reading() as view:
                nearest(query[None], view.codes, k=K)
            times.append(time.perf_counter() - started)
            started = time.perf_counter()
        return {
            "first_ms": times[0] * 1000,
            "search_ms": statistics.median(times[1 + SEARCHES // 2 :]) * 1000,
            "memory_mb": _rss_mb() - before,
        }


def _codes(rows: int, seed: int) -> NDArray[np.int8]:
    rng = np.random.default_rng([SEED, seed])
    return rng.integers(-127, 128, (rows, DIM), np.int8)


def _rss_mb() -> float:
    text = Path("/proc/self/status").read_text("utf-8")
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


STEPS = {"put": put, "search": search}

if __name__ == "__main__":
    raise SystemExit(main())
