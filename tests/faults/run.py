"""One seed, or some: real devices, a real server, a network that fails, kills; then all is compared.

python -m tests.faults.run --seed 7 --database sqlite
python -m tests.faults.run --seeds 0-99 --database postgresql --json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

from tests.faults.databases import Database
from tests.faults.places import databases, scratch
from tests.faults.plan import in_kotlin, make_plan
from tests.faults.proxy import FAULTS
from tests.faults.report import Report
from tests.faults.sabotage import SABOTAGES
from tests.faults.world import World

__all__ = ["run_seed"]


def run_seed(
    seed: int, database: Database, *, broken: str = "", kotlin: Collection[int] = ()
) -> Report:
    """Run a seed in a folder of its own, which is kept where it fails and EDGE_MRL_KEEP is set.

    Args:
        seed: Which.
        database: Where the server's database is.
        broken: How the product is broken on purpose (``sabotage``); empty for not at all. What then
            happens to exchanges is what does harm.
        kotlin: Numbers of the devices that are in Kotlin.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"emrl-seed{seed}-", dir=scratch()))
    plan, faults = in_kotlin(make_plan(seed, database_dies=database.dies), kotlin), FAULTS
    if broken:
        wanted = SABOTAGES[broken]
        plan = replace(plan, rate=wanted.rate or plan.rate)
        faults = wanted.faults or FAULTS
    report = World(plan, seed, database, folder, broken=broken, faults=faults).run()
    if report.problems and os.environ.get("EDGE_MRL_KEEP"):
        report.problems.append(f"kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _numbers(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    """Run seeds; 1 where one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", "--seeds", type=_numbers, required=True, metavar="N[-M]")
    parser.add_argument("--step", type=int, default=1, metavar="K", help="every Kth of the seeds")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument(
        "--broken", default="", choices=SABOTAGES, metavar="NAME", help="break the product"
    )
    parser.add_argument(
        "--kotlin", type=_numbers, default=(), metavar="N[-M]", help="devices that are in Kotlin"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each seed")
    args = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    failed = 0
    with databases(args.database) as database:
        for seed in args.seed[:: args.step]:
            report = run_seed(seed, database, broken=args.broken, kotlin=args.kotlin)
            failed += bool(report.problems)
            print(json.dumps(asdict(report)) if args.json else report, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
