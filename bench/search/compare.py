"""Local vector search, side by side: ``python -m bench.search.compare --rows 100000 1000000``.

Every engine gets the same clustered unit vectors (bench/support/vectors.py), a process and an
environment of its own, and one thread. Rounds of queries go over the engines in turn,
forth and back, so that a slow minute of the machine meets all of them; no two compute at once. Recall
is against exact float32.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.search.engines import ENGINES
from bench.support.children import Child, ChildError, module
from bench.support.environments import Environment
from bench.support.environments import prepare as prepare_environment
from bench.support.machine import RESULTS, save
from bench.support.vectors import CACHE, CENTRES, NOISE, QUERIES, TRUTH, DataSet
from bench.support.vectors import prepare as prepare_vectors

ROOT = Path(__file__).parent.parent.parent
FILES = CACHE / "engines"
K = 10
#: Fresh processes that open the files and answer once; the median counts.
OPENS = 3
#: A round of a slow engine has fewer queries, so that it takes about this long.
ROUND_S = 10.0
#: An engine that answers nothing for so long has hung; building a graph of 1M rows is slow.
TIMEOUT_S = 7200.0
#: Approximate: they are here for comparison, not rivals of an exhaustive search.
GRAPHS = ("usearch HNSW", "hnswlib", "chromadb HNSW")
GRAPH_ROWS = 100_000
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1"
)


@dataclass(slots=True)
class Measured:
    """What was found for one engine, as it comes in.

    Attributes:
        numbers: Results by name, rounded.
        latencies_ms: Of every timed query, by round.
        hits: Of the K neighbours, how many were found, by timed query.
        cpu_per_wall: CPU seconds for each second of clock, by round; above 1, it used threads.
        problem: Why it has no results, or not all.
    """

    numbers: dict[str, Any] = field(default_factory=dict)
    latencies_ms: list[list[float]] = field(default_factory=list)
    hits: list[int] = field(default_factory=list)
    cpu_per_wall: list[float] = field(default_factory=list)
    problem: str | None = None


def _worker(engine: str, python: Path, data: DataSet) -> Child:
    """bench/search/worker.py in a process."""
    folder = FILES / str(data.rows) / engine.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [engine, str(data.folder), str(folder)]
    return Child(
        [str(python), *module("bench.search.worker"), *arguments],
        folder.with_suffix(".log"),
        timeout_s=TIMEOUT_S,
        environment=ONE_THREAD,
    )


def main() -> int:
    """Measure, print a table for each size, write bench/results/search.json and search.svg."""
    args = _arguments()
    names = _chosen(args.engines)
    ready = {name: _prepared(name) for name in sorted({ENGINES[n].environment for n in names})}
    results = {
        str(rows): measure(
            prepare_vectors(rows, centres=args.centres),
            [name for name in names if rows <= args.graph_rows or name not in GRAPHS],
            ready,
            rounds=args.rounds,
        )
        for rows in args.rows
    }
    settings = {
        "centres": args.centres,
        "noise": NOISE,
        "rounds": args.rounds,
        "graph_rows": args.graph_rows,
        "queries": QUERIES,
        "k": K,
        "threads": 1,
        "versions": {name: found.versions for name, found in ready.items() if found.versions},
    }
    path = save("search", settings, results)
    largest = max(args.rows)
    plot = RESULTS / "search.svg"
    plot.write_text(svg(results[str(largest)], rows=largest), encoding="utf-8")
    if args.json:
        print(json.dumps({"settings": settings, "results": results}, indent=1))
    else:
        for rows, found in results.items():
            print(f"\n{int(rows):,} rows\n{table(found)}")
        print(f"written to {path.relative_to(ROOT)} and {plot.relative_to(ROOT)}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5, help="of up to 100 queries (default: 5)")
    parser.add_argument(
        "--engines",
        nargs="+",
        metavar="NAME",
        help=f"all whose name starts so: {', '.join(ENGINES)}",
    )
    parser.add_argument("--centres", type=int, default=CENTRES, help=f"default: {CENTRES}")
    parser.add_argument(
        "--graph-rows",
        type=int,
        default=GRAPH_ROWS,
        help=f"most rows of graph indexes, which take long to build (default: {GRAPH_ROWS})",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    args = parser.parse_args()
    if args.rounds < 1 or min(args.rows) < TRUTH:
        parser.error(f"--rounds must be at least 1, --rows at least {TRUTH}")
    if not _chosen(args.engines):
        parser.error(f"no such engine; there are {', '.join(ENGINES)}")
    return args


def _chosen(prefixes: Sequence[str] | None) -> list[str]:
    return [name for name in ENGINES if prefixes is None or name.startswith(tuple(prefixes))]


def _prepared(name: str) -> Environment:
    _say(f"environment {name}")
    return prepare_environment(name)


def measure(
    data: DataSet, names: Sequence[str], ready: dict[str, Environment], *, rounds: int
) -> dict[str, dict[str, Any]]:
    """All engines at one size.

    Args:
        data: The vectors.
        names: Keys of ENGINES.
        ready: Environments by name.
        rounds: Of queries.

    Returns:
        Numbers by engine, sorted by median latency; those that failed are last, with ``problem``.
    """
    measured = {name: Measured() for name in names}
    with ExitStack() as stack:
        workers = {}
        for name, found in measured.items():
            with _reporting(found):
                worker = _opened(name, data, ready[ENGINES[name].environment], found)
                workers[name] = stack.enter_context(worker)
        _rounds(workers, measured, np.asarray(data.load("truth")), rounds)
    done = {name: _summary(name, found) for name, found in measured.items()}
    return dict(sorted(done.items(), key=lambda item: item[1].get("p50_ms", math.inf)))


@contextmanager
def _reporting(found: Measured) -> Iterator[None]:
    """Note an engine's failure, and go on with the others."""
    try:
        yield
    except ChildError as error:
        found.problem = str(error)
        _say(f"  failed: {error}")


def _opened(name: str, data: DataSet, environment: Environment, found: Measured) -> Child:
    """Build in one process, open in others; the last of them goes on to the rounds."""
    if environment.problem is not None:
        raise ChildError(environment.problem)
    _say(f"{data.rows:,} rows: build {name}")
    folder = FILES / str(data.rows) / name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".log").unlink(missing_ok=True)
    with _worker(name, environment.python, data) as worker:
        seconds = worker.ask("build")["seconds"]
    found.numbers["insert_rows_per_s"] = round(data.rows / seconds)
    found.numbers["bytes_per_row"] = round(_cached_bytes(folder) / data.rows, 1)
    opens = []
    for _ in range(OPENS - 1):
        with _worker(name, environment.python, data) as worker:
            opens.append(worker.ask("open"))
    last = _worker(name, environment.python, data)
    try:
        opens.append(last.ask("open"))
        for key in opens[0]:
            found.numbers[key] = round(statistics.median(o[key] for o in opens), 2)
        both = [o["open_ms"] + o["first_query_ms"] for o in opens]
        found.numbers["open_and_first_ms"] = round(statistics.median(both), 2)
        found.numbers["opened"] = _rounded(last.ask("memory"), 1)
    except ChildError:
        last.__exit__()
        raise
    return last


def _cached_bytes(folder: Path) -> int:
    """Bytes that the files take on the disk; reading them brings them into the page cache."""
    total = 0
    for path in folder.rglob("*"):
        if path.is_file():
            total += path.stat().st_blocks * 512
            with path.open("rb") as file:
                while file.read(1 << 24):
                    pass
    return total


def _rounds(
    workers: dict[str, Child], measured: dict[str, Measured], truth: Any, rounds: int
) -> None:
    """Time the queries, a round of each engine after the other's; then ask for TRUTH neighbours."""
    sizes = {}
    for name, worker in workers.items():
        with _reporting(measured[name]):
            sizes[name] = _round_size(worker, rounds)
    for number in range(rounds):
        _say(f"round {number + 1} of {rounds}")
        for name in list(sizes)[:: 1 if number % 2 == 0 else -1]:
            with _reporting(measured[name]):
                _one_round(workers[name], measured[name], truth, number * sizes[name], sizes[name])
    for name in sizes:
        with _reporting(measured[name]):
            answer = workers[name].ask("round", queries=list(range(QUERIES)), k=TRUTH)
            hits = [_hits(ids, row) for ids, row in zip(answer["ids"], truth, strict=True)]
            measured[name].numbers["recall_at_100"] = round(sum(hits) / truth.size, 4)
            measured[name].numbers["queried"] = _rounded(workers[name].ask("memory"), 1)


def _round_size(worker: Child, rounds: int) -> int:
    """Queries in a round: all, or as many as ROUND_S allows; all rounds together ask each."""
    warm = worker.ask("round", queries=[0, 1, 2], k=K)["latencies_ms"]
    affordable = int(ROUND_S * 1e3 / max(statistics.median(warm), 1e-3))
    return min(QUERIES, max(affordable, math.ceil(QUERIES / rounds)))


def _one_round(worker: Child, found: Measured, truth: Any, first: int, size: int) -> None:
    queries = [(first + i) % QUERIES for i in range(size)]
    answer = worker.ask("round", queries=queries, k=K)
    found.latencies_ms.append(answer["latencies_ms"])
    found.cpu_per_wall.append(answer["cpu_per_wall"])
    pairs = zip(answer["ids"], queries, strict=True)
    found.hits += [_hits(ids, truth[query, :K]) for ids, query in pairs]


def _hits(ids: Sequence[int], truth: Any) -> int:
    return len(set(ids) & set(truth.tolist()))


def _summary(name: str, found: Measured) -> dict[str, Any]:
    """One engine's numbers, flat enough for a table."""
    engine = ENGINES[name]
    row: dict[str, Any] = {"codes": engine.codes, "exact": engine.exact}
    if found.latencies_ms:
        latencies = np.concatenate([np.asarray(part) for part in found.latencies_ms])
        row |= {
            "p50_ms": round(float(np.percentile(latencies, 50)), 3),
            "p95_ms": round(float(np.percentile(latencies, 95)), 3),
            "min_ms": round(float(latencies.min()), 3),
            "round_p50_ms": [round(statistics.median(part), 3) for part in found.latencies_ms],
            "queries_timed": len(latencies),
            "cpu_per_wall": round(statistics.median(found.cpu_per_wall), 2),
            "recall_at_10": round(sum(found.hits) / (K * len(found.hits)), 4),
        }
    row |= found.numbers
    if found.problem is not None:
        row["problem"] = found.problem
    return row


def _rounded(values: dict[str, Any], digits: int) -> dict[str, Any]:
    return {k: None if v is None else round(v, digits) for k, v in values.items()}


COLUMNS = {
    "p50 ms": "p50_ms",
    "p95": "p95_ms",
    "min": "min_ms",
    "CPU": "cpu_per_wall",
    "@10": "recall_at_10",
    "@100": "recall_at_100",
    "rows/s": "insert_rows_per_s",
    "B/row": "bytes_per_row",
    "open+1st ms": "open_and_first_ms",
}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The engines in the order given; those without latencies as lines below."""
    heads = [*COLUMNS, "RSS open MB", "RSS MB"]
    lines = [f"{'':<20}{'codes':<12}" + "".join(f"{head:>12}" for head in heads)]
    for name, row in results.items():
        if "p50_ms" not in row:
            continue
        cells = [row.get(key) for key in COLUMNS.values()]
        cells += [(row.get(state) or {}).get("rss_mb") for state in ("opened", "queried")]
        shown = ("-" if cell is None else f"{cell:,}" for cell in cells)
        lines.append(f"{name:<20}{row['codes']:<12}" + "".join(f"{cell:>12}" for cell in shown))
    lines += [f"{name}: {row['problem']}" for name, row in results.items() if "problem" in row]
    return "\n".join(lines)


WIDTH, HEIGHT, MARGIN, LINE = 860, 520, 64, 15
RECALLS = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 1)


def svg(results: dict[str, dict[str, Any]], *, rows: int) -> str:
    """Median latency against recall@10, both log scales; filled: every row is looked at."""
    points = {name: row for name, row in results.items() if "p50_ms" in row}
    if not points:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
    logs = [math.log10(row["p50_ms"]) for row in points.values()]
    low, high = math.floor(min(logs)), max(math.floor(min(logs)) + 1, math.ceil(max(logs)))

    def across(ms: float) -> float:
        return MARGIN + (math.log10(ms) - low) / (high - low) * (WIDTH - MARGIN - 150)

    def down(recall: float) -> float:
        # What is missed on a log scale, down to a thousandth: nearly all engines are above 0.9.
        return HEIGHT - MARGIN + math.log10(1.001 - recall) / 3 * (HEIGHT - 2 * MARGIN)

    placed = {n: (across(row["p50_ms"]), down(row["recall_at_10"])) for n, row in points.items()}
    title = f"{rows:,} vectors of 128 dimensions, top {K}, one thread"
    parts = [_text(MARGIN, 28, title, 15), *_axes(low, high, across, down)]
    for name, label_y in _labels(placed).items():
        x, y = placed[name]
        ours = name.startswith("edge-mrl")
        parts.append(
            _mark(x, y, color="#c2410c" if ours else "#1d4ed8", solid=points[name]["exact"])
        )
        if abs(label_y - y) > LINE / 2:
            parts.append(_line(x, y, x + 9, label_y))
        parts.append(_text(x + 11, label_y + 4, name, 12))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
    head += 'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>'
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _axes(low: int, high: int, across: Any, down: Any) -> list[str]:
    parts = []
    for power in range(low, high + 1):
        x = across(10.0**power)
        parts += [
            _line(x, down(0), x, down(1)),
            _text(x - 10, down(0) + 18, f"{10.0**power:g}", 12),
        ]
    for recall in RECALLS:
        y = down(recall)
        parts += [_line(across(10.0**low), y, across(10.0**high), y)]
        parts += [_text(MARGIN - 32, y + 4, f"{recall:g}", 12)]
    parts.append(
        _text(MARGIN, HEIGHT - 16, "median ms for a query (log); filled: looks at all rows", 13)
    )
    parts.append(_text(MARGIN - 32, MARGIN - 14, f"recall@{K} against exact float32", 13))
    return parts


def _labels(placed: dict[str, tuple[float, float]]) -> dict[str, float]:
    """A height for each label, moved away from marks and from those placed before."""
    taken = [(x - 6, x + 6, y) for x, y in placed.values()]
    heights = {}
    for name, (x, y) in sorted(placed.items(), key=lambda item: item[1]):
        left, right = x + 9, x + 14 + 7.0 * len(name)
        steps = sorted(range(-40, 41), key=abs)
        tried = (y + LINE / 2 * step for step in steps)
        heights[name] = next((t for t in tried if _free(taken, left, right, t)), y)
        taken.append((left, right, heights[name]))
    return heights


def _free(taken: list[tuple[float, float, float]], left: float, right: float, y: float) -> bool:
    inside = MARGIN - LINE / 2 < y < HEIGHT - MARGIN
    return inside and not any(
        left < end and start < right and abs(y - other) < LINE for start, end, other in taken
    )


def _text(x: float, y: float, text: str, size: int) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="#222">{text}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="#ccc"/>'


def _mark(x: float, y: float, *, color: str, solid: bool) -> str:
    fill = color if solid else "white"
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{color}" stroke-width="2"/>'
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
