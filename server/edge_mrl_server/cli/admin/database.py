"""``edge-mrl admin purge`` and ``index``: what is in the database as a whole."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edge_mrl.errors import UsageError
from edge_mrl_server.cli.admin.common import Actions, Outcome, Subjects

if TYPE_CHECKING:
    from edge_mrl_server.storage import Database

__all__ = ["ACTIONS", "add"]
DAY_MS = 86_400_000


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
    index("create", "make the index (takes minutes; devices can go on)", tenant=False)
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
    if args.verb == "create":
        database.make_index()
    else:
        database.drop_index()
    return 0, {"index": args.verb}, [f"index: {args.verb} done"]


ACTIONS: Actions = {
    ("purge", None): _purge,
    ("index", "create"): _index,
    ("index", "drop"): _index,
}
