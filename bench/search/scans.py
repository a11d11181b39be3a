"""What a search costs by code, at the same rows: ``python -m bench.search.scans``.

128 dimensions of int8, 256 of int4 and 256 of 2 bits, made from the same clustered vectors of 384
dimensions, in a store's own tables in memory. Searches of each: exact (every row by its whole code); all
bits of every row, then whole codes of the best 5,000; and, for the longer codes, the first 128 bits of
every row, then either all bits of the best 20,000 (the default of large stores) or whole codes of the
best 5,000. One thread; the codes take turns in each round. Recall is that of the funnel against the exact
search of the same code.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.search.compare import ONE_THREAD
from bench.support.machine import save
from edge_mrl.cli import Progress
from edge_mrl.codes import normalize, plain_packing, quantize
from edge_mrl.search.funnel import DEFAULT_WIDTH, HALF_FIRST_WIDTH, Funnel
from edge_mrl.search.scan import nearest
from edge_mrl_export.quality.costs import code_table

WIDTH = 384
CODES = ((128, "int8"), (256, "int4"), (256, "2bit"))
BITS = {"int8": 8, "int4": 4, "2bit": 2}
FIRST_BITS = 128
ROWS = (100_000, 1_000_000)
QUERIES, ROUNDS, K = 20, 3, 10
#: As bench/support/vectors.py, whose vectors have 128 dimensions.
DECAY, NOISE, CENTRES_PER_ROW, BLOCK = 0.5, 1.1, 1 / 250, 50_000
#: Searches that score every row need so much longer that fewer queries tell as much.
EXACT_QUERIES = 5


@dataclass(frozen=True, slots=True)
class Search:
    """One way to search one code: stages as their text, or None for every row."""

    dim: int
    kind: str
    stages: str | None

    @property
    def name(self) -> str:
        """As "256 int4"."""
        return f"{self.dim} {self.kind}"


def main() -> int:
    """Measure, print a table, write bench/results/scans.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)  # in a child
    args = parser.parse_args()
    if args.measure is not None:
        print(json.dumps(measure(args.measure)))
        return 0
    results = {str(rows): _in_child(rows) for rows in args.rows}
    settings = {
        "threads": 1,
        "queries": QUERIES,
        "queries_exact": EXACT_QUERIES,
        "rounds": ROUNDS,
        "k": K,
        "vectors": f"clustered, {WIDTH} dimensions, decay {DECAY}, noise {NOISE}, seeded",
    }
    path = save("scans", settings, results)
    print(table(results))
    print(f"written to {path.name}")
    return 0


def _in_child(rows: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "bench.search.scans", "--measure", str(rows)]
    environment = {**os.environ, **ONE_THREAD}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def measure(rows: int) -> list[dict[str, Any]]:
    """Milliseconds and recall of each search among so many rows."""
    longest = max(dim for dim, _ in CODES)
    documents, queries = coded(rows, longest, first=0), coded(QUERIES, longest, first=2**31)
    tables = {}
    for dim, kind in CODES:
        packing = plain_packing(kind, dim)
        tables[dim, kind] = code_table(shortened(documents, dim), packing)
    del documents
    searches = [Search(dim, kind, stages) for dim, kind in CODES for stages in _stages(dim, kind)]
    times: dict[Search, list[float]] = {search: [] for search in searches}
    found: dict[Search, list[set[int]]] = {}
    with Progress(f"{rows:,} rows", ROUNDS * len(searches)) as progress:
        for turn in range(ROUNDS):
            for search in searches:
                asked = shortened(queries, search.dim)
                if search.stages is None and turn:
                    asked = asked[:EXACT_QUERIES]
                answers = _searched(search, asked, tables[search.dim, search.kind], times[search])
                found.setdefault(search, answers)
                progress.advance(1)
    exact = {(s.dim, s.kind): found[s] for s in searches if s.stages is None}
    return [
        {
            "code": search.name,
            "bytes": plain_packing(search.kind, search.dim).bytes(search.dim),
            "stages": search.stages or "exact",
            "ms": round(statistics.median(times[search]), 3),
            "recall_at_10": _recall(found[search], exact[search.dim, search.kind]),
        }
        for search in searches
    ]


def _stages(dim: int, kind: str) -> list[str | None]:
    whole = f"{dim}x1:{DEFAULT_WIDTH},{dim}x{BITS[kind]}"
    if dim == FIRST_BITS:
        return [None, whole]
    first = f"{FIRST_BITS}x1:"
    wide = f"{first}{HALF_FIRST_WIDTH * DEFAULT_WIDTH},{whole}"
    return [None, whole, wide, f"{first}{DEFAULT_WIDTH},{dim}x{BITS[kind]}"]


def _searched(
    search: Search, queries: NDArray[np.int8], table: Any, times: list[float]
) -> list[set[int]]:
    funnel = None if search.stages is None else Funnel.of(search.stages)
    answers = []
    for query in queries:
        start = time.perf_counter()
        matches = nearest(query[None], table, k=K, exact=funnel is None, funnel=funnel)[0]
        times.append((time.perf_counter() - start) * 1e3)
        answers.append({match.key for match in matches})
    return answers


def _recall(found: list[set[int]], exact: list[set[int]]) -> float:
    hits = sum(len(a & b) for a, b in zip(found, exact, strict=True))
    return round(hits / sum(map(len, exact)), 4)


def coded(rows: int, dim: int, *, first: int) -> NDArray[np.int8]:
    """int8 codes of clustered vectors' first dimensions, [rows, dim]; made in blocks.

    Args:
        rows: How many.
        dim: Dimensions that are kept.
        first: The number of the first block; equal numbers are equal vectors.
    """
    spectrum = (np.arange(1, WIDTH + 1) ** -DECAY).astype(np.float32)
    spectrum /= np.linalg.norm(spectrum)
    centres = max(round(max(ROWS) * CENTRES_PER_ROW), 1)
    drawn = np.random.default_rng(1).standard_normal((centres, WIDTH), dtype=np.float32)
    middles = normalize(drawn * spectrum)
    codes = np.empty((rows, dim), np.int8)
    for block, start in enumerate(range(0, rows, BLOCK), first):
        part = codes[start : start + BLOCK]
        rng = np.random.default_rng([1, block])
        chosen = middles[rng.integers(0, centres, len(part))]
        noise = rng.standard_normal((len(part), WIDTH), dtype=np.float32) * spectrum
        vectors = chosen + np.float32(NOISE) * noise
        part[:] = quantize(normalize(vectors[:, :dim]))
    return codes


def shortened(codes: NDArray[np.int8], dim: int) -> NDArray[np.int8]:
    """int8 codes of the first dimensions of vectors that longer int8 codes stand for, [n, dim]."""
    if dim == codes.shape[1]:
        return codes
    short = np.empty((len(codes), dim), np.int8)
    for start in range(0, len(codes), BLOCK):
        some = slice(start, start + BLOCK)
        short[some] = quantize(normalize(codes[some, :dim].astype(np.float32)))
    return short


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """A line for each search."""
    lines = []
    for rows, found in results.items():
        lines.append(f"\n{int(rows):,} rows")
        lines.append(f"{'code':<10}{'bytes':>6}  {'stages':<24}{'ms':>10}{'recall@10':>11}")
        lines += [
            f"{row['code']:<10}{row['bytes']:>6}  {row['stages']:<24}{row['ms']:>10.2f}"
            f"{row['recall_at_10']:>11.4f}"
            for row in found
        ]
    return "\n".join(lines).lstrip("\n")


if __name__ == "__main__":
    sys.exit(main())
