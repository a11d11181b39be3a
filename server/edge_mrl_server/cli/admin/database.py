"""``edge-mrl admin purge`` and ``index``: what is in the database as a whole."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from edge_mrl.errors import UsageError
from edge_mrl_server.cli.admin.common import Actions, Outcome, Subjects, in_percent

if TYPE_CHECKING:
    from edge_mrl_server.storage import Database, IndexMade

__all__ = ["ACTIONS", "add"]
DAY_MS = 86_400_000
#: PostgreSQL's own bounds of ``maintenance_work_mem`` are 1 MB and 2 TB.
LEAST_MEMORY_MB, MOST_MEMORY_MB = 1, 2_097_151


def add(subjects: Subjects) -> None:
    """Describe the nouns' arguments."""
    purge = subjects.alone("purge", "forget that documents were deleted long ago")
    purge.add_argument("tenant", metavar="TENANT", help="name of the tenant")
    purge.add_argument(
        "--days",
        type=float,
        required=True,
        metavar="N",
        help="forget deletions that are older than N days",
    )
    index = subjects.add("index", "PostgreSQL's index over vectors, for tenants with many of them")
    create = index("create", "make the index (takes minutes; devices can go on)", tenant=False)
    create.add_argument(
        "--memory",
        type=int,
        metavar="MB",
        help="memory that PostgreSQL may use for it (default: what the vectors need, at most 1,024); "
        "with less it takes several times as long",
    )
    create.add_argument("--quiet", action="store_true", help="show no progress")
    index("drop", "drop the index", tenant=False)


def _purge(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl.wire import now_ms
    from edge_mrl_server.storage import purge

    if not args.days >= 0:
        raise UsageError(f"--days {args.days}: expected 0 or more")
    before = now_ms() - int(args.days * DAY_MS)
    count, fence = purge(database, args.tenant, before_ms=before)
    result = {"tenant": args.tenant, "forgotten": count, "fence": fence}
    return 0, result, [f"{count:,} tombstones forgotten; fence {fence:,}"]


def _index(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import PostgresDatabase

    if not isinstance(database, PostgresDatabase):
        raise UsageError(
            "SQLite has no such index: the server keeps one bit of each dimension in memory instead"
        )
    if args.verb == "drop":
        database.drop_index()
        return 0, {"index": "drop"}, ["index: drop done"]
    if args.memory is not None and not LEAST_MEMORY_MB <= args.memory <= MOST_MEMORY_MB:
        raise UsageError(
            f"--memory {args.memory}: expected {LEAST_MEMORY_MB} to {MOST_MEMORY_MB:,} MB"
        )
    with in_percent("making the index", quiet=args.quiet or args.json) as progress:
        made = database.make_index(memory_mb=args.memory, progress=progress)
    return 0, {"index": "create", **asdict(made)}, _lines(made)


def _lines(made: IndexMade) -> list[str]:
    from edge_mrl.cli import size

    lines = ["an index that was never finished is dropped"] if made.dropped else []
    if not made.made:
        return [f"the index is there: {size(made.size_bytes)}, {made.passages:,} passages"]
    lines.append(
        f"index made in {made.seconds:.0f} s: {size(made.size_bytes)}, {made.passages:,} passages, "
        f"with {made.memory_mb:,} MB of memory"
    )
    if made.memory_mb < made.wanted_mb:
        lines.append(
            f"with --memory {made.wanted_mb} it would have been faster: the graph takes that much"
        )
    return lines


ACTIONS: Actions = {
    ("purge", None): _purge,
    ("index", "create"): _index,
    ("index", "drop"): _index,
}
