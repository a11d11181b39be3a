"""What a store's operations cost as it grows: ``python -m bench.growth.device``.

For each size, stores of short texts with words as frequent as those of English questions, two fields of
metadata and random codes of 128 dimensions. Each operation is timed in a process of its own with one
thread, without a model: the median of up to nine calls after the first. ``--before DIR`` times another
state of the code too, side by side: a checkout, such as ``git worktree add ../before 406857d`` makes.
An operation that takes longer than --most is given up and has no figure.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.growth.operations import OPERATIONS
from bench.support.machine import RESULTS, save
from edge_mrl_export.pages.plots import Line, Panel, decades, svg

ROOT = Path(__file__).parent.parent.parent
FILES = ROOT / "build" / "bench-growth-device"
PROGRAM = Path(__file__).parent / "operations.py"
SIZES = [10_000, 100_000, 1_000_000, 3_000_000]
#: Milliseconds by operation, then by state of the code, then by number of documents.
Times = dict[str, dict[str, dict[str, float | None]]]


def main() -> int:
    """Measure, print a table, write bench/results/growth-device.json and .svg."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--before", type=Path, metavar="DIR", help="an older checkout")
    parser.add_argument("--most", type=float, default=120, help="seconds for an operation (120)")
    args = parser.parse_args()
    trees = {"now": ROOT} | ({"before": args.before.resolve()} if args.before else {})
    found: Times = {name: {tree: {} for tree in trees} for name in OPERATIONS}
    for rows in sorted(set(args.rows)):
        shutil.rmtree(FILES, ignore_errors=True)
        FILES.mkdir(parents=True)
        _say(f"{rows:,} documents: building")
        _run(ROOT, "build", rows, None)
        for name, by_tree in found.items():
            for tree, path in trees.items():
                # Where the smaller store took too long, the larger one does.
                given_up = None in by_tree[tree].values()
                time = None if given_up else _run(path, name, rows, args.most)
                by_tree[tree][str(rows)] = time
                _say(f"{rows:,} documents, {name}, {tree}: {time} ms")
        shutil.rmtree(FILES)
    settings = {"dim": 128, "k": 10, "threads": 1, "most_seconds": args.most}
    if args.before:
        settings["before"] = commit_of(args.before)
    path = save("growth-device", settings, found)
    plot = RESULTS / "growth-device.svg"
    plot.write_text(chart(found), encoding="utf-8")
    print(table(found))
    print(f"written to {path.relative_to(ROOT)} and {plot.relative_to(ROOT)}")
    return 0


def _run(tree: Path, what: str, rows: int, most: float | None) -> float | None:
    """Milliseconds of an operation; None if it took too long."""
    one_thread = {"OMP_NUM_THREADS": "1", "EDGE_MRL_KERNEL": "off"}
    try:
        done = subprocess.run(
            [sys.executable, str(PROGRAM), what, str(FILES), str(rows)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **one_thread, "PYTHONPATH": str(tree)},
            timeout=most,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return None
    time: float | None = json.loads(done.stdout or "null")
    return time


def commit_of(tree: Path) -> str:
    """The commit of a checkout."""
    command = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def table(found: Times) -> str:
    """A line for each operation and state of the code, a column for each size."""
    sizes = [*next(iter(next(iter(found.values())).values()))]
    lines = [f"{'ms, documents':<46}" + "".join(f"{int(rows):>12,}" for rows in sizes)]
    for name, by_tree in found.items():
        for tree, times in reversed(by_tree.items()):
            cells = ("-" if times[rows] is None else f"{times[rows]:,.2f}" for rows in sizes)
            lines.append(f"{f'{name}, {tree}':<46}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def chart(found: Times) -> str:
    """Milliseconds against documents, a panel for each operation; all scales are logarithmic."""
    panels = []
    for name, by_tree in found.items():
        lines = [
            Line(tree, [(float(rows), ms) for rows, ms in times.items() if ms is not None])
            for tree, times in by_tree.items()
        ]
        rows = [x for line in lines for x, _ in line.points]
        values = [y for line in lines for _, y in line.points]
        if values:
            panels.append(
                Panel(name, decades("documents (log)", rows), decades("ms (log)", values), lines)
            )
    return svg(panels)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
