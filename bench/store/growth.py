"""A store as it grows: ``python -m bench.store.growth --rows 10000 100000 1000000 3000000``.

For each size: durable puts of ready vectors, bytes on disk, time to the first answer and of the ones
after it, memory, and deleting half of the documents and compacting. Every step is a process of its own
with one thread, without a model; what it reads is in the page cache. Documents have one passage, a
short text and no metadata. A small store is scored whole, so there the funnel is the exact search.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.support.machine import RESULTS, save
from edge_mrl_export.pages.plots import Line, Panel, decades, svg

# A step's process imports the product only when its memory without it is known.
if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.store import Store

ROOT = Path(__file__).parent.parent.parent
FILES = ROOT / "build" / "bench-growth"
K = 10
SEED = 1
#: Documents in one put, and in one delete.
PUT, DELETE = 4096, 5000
#: Vectors drawn at a time, below a block of bench/support/vectors.py; 3M at once would take gigabytes.
CHUNK = 12 * PUT
#: Queries timed through the funnel, and exactly.
FUNNEL, EXACT = 100, 10
#: Fresh processes that open the store and answer once; the median counts.
OPENS = 5
#: Documents put one by one while the syncs are counted.
SINGLES = 200


def main() -> int:
    """Measure, print a table, write bench/results/growth.json and growth.svg."""
    args = _arguments()
    if args.step is not None:
        step, folder, rows = args.step
        print(json.dumps(STEPS[step](Path(folder), int(rows))))
        return 0
    shutil.rmtree(FILES, ignore_errors=True)  # of a run that was killed
    try:
        syncs = count_syncs()
        sizes = {str(rows): measure(rows) for rows in sorted(set(args.rows))}
    finally:
        shutil.rmtree(FILES, ignore_errors=True)
    settings = {
        "dim": 128,
        "k": K,
        "threads": 1,
        "put_documents": PUT,
        "delete_documents": DELETE,
        "funnel_queries": FUNNEL,
        "exact_queries": EXACT,
        "opens": OPENS,
    }
    path = save("growth", settings, {"syncs_per_commit": syncs, "sizes": sizes})
    plot = RESULTS / "growth.svg"
    plot.write_text(chart(sizes), encoding="utf-8")
    print(table(sizes))
    print("syncs per commit: " + ("not counted, no strace" if syncs is None else f"{syncs:g}"))
    print(f"written to {path.relative_to(ROOT)} and {plot.relative_to(ROOT)}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    sizes = [10_000, 100_000, 1_000_000, 3_000_000]
    parser.add_argument("--rows", type=int, nargs="+", default=sizes)
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)  # STEP FOLDER ROWS, in a child
    args = parser.parse_args()
    if min(args.rows) < 2 * K:
        parser.error(f"--rows must be at least {2 * K}")
    return args


def measure(rows: int) -> dict[str, Any]:
    """All numbers of a store of one size."""
    folder = FILES / str(rows)
    folder.mkdir(parents=True)
    found: dict[str, Any] = {}
    _say(f"{rows:,} rows: putting")
    found |= _child("put", folder, rows)
    _say(f"{rows:,} rows: opening")
    opened = [_child("open", folder, rows) for _ in range(OPENS)]
    found |= {key: round(statistics.median(one[key] for one in opened), 2) for key in opened[0]}
    _say(f"{rows:,} rows: searching")
    found |= _child("search", folder, rows)
    _say(f"{rows:,} rows: deleting half, compacting")
    found |= _child("delete", folder, rows)
    shutil.rmtree(folder)
    return found


def count_syncs() -> float | None:
    """Syncs for each put of one document, those of a new store's creation included.

    None where strace is not installed, or may not trace.
    """
    if shutil.which("strace") is None:
        return None
    folder = FILES / "singles"
    folder.mkdir(parents=True)
    _say("counting syncs")
    trace = ("strace", "-f", "-e", "trace=fdatasync,fsync")
    done = subprocess.run(
        [*trace, *_command("singles", folder, SINGLES)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if done.returncode:
        return None
    calls = sum(done.stderr.count(name) for name in ("fdatasync(", "fsync("))
    return round((calls - done.stderr.count("resumed")) / SINGLES, 3)


def _child(step: str, folder: Path, rows: int) -> dict[str, Any]:
    """Run a step in a fresh process with one thread."""
    from bench.search.compare import ONE_THREAD

    done = subprocess.run(
        _command(step, folder, rows),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **ONE_THREAD},
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _command(step: str, folder: Path, rows: int) -> list[str]:
    return [sys.executable, "-m", "bench.store.growth", "--step", step, str(folder), str(rows)]


def put(folder: Path, rows: int) -> dict[str, Any]:
    """Build the store; seconds are those of the puts and the closing, not of drawing vectors."""
    from bench.support.vectors import QUERY_BLOCK, clustered
    from edge_mrl.codes.packing import quantize
    from edge_mrl.store import stats

    queries = clustered(FUNNEL, seed=SEED, first_block=QUERY_BLOCK)
    np.save(folder / "queries.npy", quantize(queries))
    store = _open(folder)
    seconds = 0.0
    for first, codes in _batches(rows):
        start = time.perf_counter()
        _put(store, first, codes)
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    store.close()
    seconds += time.perf_counter() - start
    with _open(folder) as store:
        size = stats(store).bytes
    return {
        "put_rows_per_s": round(rows / seconds),
        "database_bytes_per_row": round(size["database"] / rows, 1),
        "codes_bytes_per_row": round(size["codes"] / rows, 1),
    }


def singles(folder: Path, rows: int) -> dict[str, Any]:
    """Put documents one by one."""
    codes = np.ones((1, 128), np.int8)
    with _open(folder) as store:
        for row in range(rows):
            _put(store, row, codes)
    return {}


def first_answer(folder: Path, rows: int) -> dict[str, Any]:
    """Milliseconds to import the product, and from there to the first answer."""
    del rows
    queries = np.load(folder / "queries.npy")
    start = time.perf_counter()
    from edge_mrl.store import store  # noqa: F401 - the cost of it

    imported = time.perf_counter()
    with _open(folder) as opened:
        _ask(opened, queries[0])
        answered = time.perf_counter()
    return {"import_ms": (imported - start) * 1e3, "open_and_first_ms": (answered - imported) * 1e3}


def search(folder: Path, rows: int) -> dict[str, Any]:
    """Milliseconds for a query, through the funnel and exactly, and megabytes of the process."""
    del rows
    memory = {"numpy": _memory_mb()}
    queries = np.load(folder / "queries.npy")
    with _open(folder) as store:
        _ask(store, queries[0])
        memory["first"] = _memory_mb()
        funnel = [_timed_ms(store, query) for query in queries]
        memory["queried"] = _memory_mb()
        exact = [_timed_ms(store, query, exact=True) for query in queries[:EXACT]]
    return {
        "funnel_p50_ms": round(float(np.percentile(funnel, 50)), 3),
        "funnel_p95_ms": round(float(np.percentile(funnel, 95)), 3),
        "funnel_min_ms": round(min(funnel), 3),
        "exact_p50_ms": round(statistics.median(exact), 3),
        "memory": memory,
    }


def delete(folder: Path, rows: int) -> dict[str, Any]:
    """Delete every second document and compact; seconds of each, and bytes around the latter."""
    from edge_mrl.store import compact

    gone = [str(row) for row in range(0, rows, 2)]
    with _open(folder) as store:
        start = time.perf_counter()
        for first in range(0, len(gone), DELETE):
            store.delete(gone[first : first + DELETE])
        deleted = time.perf_counter()
        done = compact(store)
        compacted = time.perf_counter()
    return {
        "delete_s": round(deleted - start, 3),
        "compact_s": round(compacted - deleted, 3),
        "before_compact_bytes": done.before_bytes,
        "after_compact_bytes": done.after_bytes,
    }


STEPS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "put": put,
    "singles": singles,
    "open": first_answer,
    "search": search,
    "delete": delete,
}


def _open(folder: Path) -> Store:
    from edge_mrl.documents import PassageRule
    from edge_mrl.store import Binding, Store

    binding = Binding("s" * 64, "c" * 64, 128, 1.0, "bench")
    return Store.create(folder / "bench.store", binding, PassageRule(200, 0))


def _batches(rows: int) -> Iterator[tuple[int, NDArray[np.int8]]]:
    """First row and int8[PUT, 128] codes, the last batch perhaps smaller."""
    from bench.support.vectors import clustered
    from edge_mrl.codes.packing import quantize

    for block, start in enumerate(range(0, rows, CHUNK)):
        number = min(CHUNK, rows - start)
        codes = quantize(clustered(number, seed=SEED, first_block=block))
        for first in range(0, number, PUT):
            yield start + first, codes[first : first + PUT]


def _put(store: Store, first: int, codes: NDArray[np.int8]) -> None:
    from edge_mrl.documents import Document
    from edge_mrl.store import Entry

    texts = [f"passage {row}" for row in range(first, first + len(codes))]
    store.put(
        [
            Entry(Document(str(first + i), text), [(0, len(text))], codes[i : i + 1])
            for i, text in enumerate(texts)
        ]
    )


def _ask(store: Store, query: NDArray[np.int8], *, exact: bool = False) -> None:
    """One answer as a caller gets it: the documents, not only their keys."""
    from edge_mrl.search.scan import nearest

    with store.reading() as view:
        found = nearest(query[None], view.codes, k=K, exact=exact)[0]
        if len(view.documents([match.key for match in found])) != K:
            raise RuntimeError(f"expected {K} documents, got {len(found)}")


def _timed_ms(store: Store, query: NDArray[np.int8], *, exact: bool = False) -> float:
    start = time.perf_counter()
    _ask(store, query, exact=exact)
    return (time.perf_counter() - start) * 1e3


def _memory_mb() -> dict[str, float | None]:
    """Resident megabytes, and those of them that are no mapped file; None where unknown."""
    status = Path("/proc/self/status")
    lines = status.read_text("utf-8").splitlines() if status.exists() else []
    fields = dict(line.split(":", 1) for line in lines)
    return {
        name: round(int(fields[key].split()[0]) * 1024 / 1e6, 1) if key in fields else None
        for name, key in {"rss_mb": "VmRSS", "anonymous_mb": "RssAnon"}.items()
    }


LINES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "durable put, rows/s": lambda found: found["put_rows_per_s"],
    "database, bytes/row": lambda found: found["database_bytes_per_row"],
    "code file, bytes/row": lambda found: found["codes_bytes_per_row"],
    "import, ms": lambda found: found["import_ms"],
    "open + first answer, ms": lambda found: found["open_and_first_ms"],
    "funnel p50, ms": lambda found: found["funnel_p50_ms"],
    "funnel p95, ms": lambda found: found["funnel_p95_ms"],
    "funnel min, ms": lambda found: found["funnel_min_ms"],
    "exact p50, ms": lambda found: found["exact_p50_ms"],
    "RSS with numpy, MB": lambda found: found["memory"]["numpy"]["rss_mb"],
    "RSS, first answer, MB": lambda found: found["memory"]["first"]["rss_mb"],
    f"RSS, {FUNNEL} queries, MB": lambda found: found["memory"]["queried"]["rss_mb"],
    "  of it no mapped file": lambda found: found["memory"]["queried"]["anonymous_mb"],
    "delete half, s": lambda found: found["delete_s"],
    "compact, s": lambda found: found["compact_s"],
    "before compacting, MB": lambda found: round(found["before_compact_bytes"] / 1e6, 1),
    "after compacting, MB": lambda found: round(found["after_compact_bytes"] / 1e6, 1),
}


def table(sizes: dict[str, dict[str, Any]]) -> str:
    """A column for each size."""
    lines = [f"{'rows':<26}" + "".join(f"{int(rows):>14,}" for rows in sizes)]
    for name, value in LINES.items():
        cells = ("-" if value(f) is None else f"{value(f):,}" for f in sizes.values())
        lines.append(f"{name:<26}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)


def chart(sizes: dict[str, dict[str, Any]]) -> str:
    """Times, and memory where it is known, against rows; all scales are logarithmic."""
    names = {
        "Time, one thread": (
            "exact p50, ms",
            "open + first answer, ms",
            "funnel p95, ms",
            "funnel p50, ms",
        ),
        "Memory": (f"RSS, {FUNNEL} queries, MB", "RSS, first answer, MB", "RSS with numpy, MB"),
    }
    rows = decades("rows (log)", [int(rows) for rows in sizes])
    panels = []
    for title, chosen in names.items():
        unit = chosen[0].rpartition(", ")[2]
        lines = [_line(name, sizes) for name in chosen]
        values = [y for line in lines for _, y in line.points]
        if values:
            panels.append(Panel(title, rows, decades(f"{unit} (log)", values), lines))
    return svg(panels)


def _line(name: str, sizes: dict[str, dict[str, Any]]) -> Line:
    points = [(float(rows), LINES[name](found)) for rows, found in sizes.items()]
    return Line(name.rpartition(", ")[0], [(x, y) for x, y in points if y is not None])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
