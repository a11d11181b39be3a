"""``edge-mrl admin documents``: what a device wrote that is lost, and anything else that is there."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from edge_mrl.errors import UsageError
from edge_mrl_server.cli.admin.common import Actions, Outcome, Subjects

if TYPE_CHECKING:
    from edge_mrl_server.storage import Database

__all__ = ["ACTIONS", "add"]


def add(subjects: Subjects) -> None:
    """Describe the noun's arguments."""
    verb = subjects.add("documents", "documents of a tenant, by the device that wrote them last")
    listing = verb("list", "list ids, devices and times; with --json as one object")
    export = verb(
        "export", "print documents as JSON Lines, with text and metadata if devices send them"
    )
    delete = verb("delete", "delete the documents of a device, on every device")
    for parser in (listing, export, delete):
        parser.add_argument(
            "--device",
            metavar="DEVICE",
            required=parser is delete,
            help="id of the device, as `admin devices list` shows it",
        )
    delete.add_argument("--yes", action="store_true", help="really delete them")


def _list(database: Database, args: argparse.Namespace) -> Outcome:
    from datetime import UTC, datetime

    from edge_mrl_server.storage import removal

    found = [
        {name: value for name, value in one.items() if name not in ("text", "metadata")}
        for one in removal.documents_of(database, args.tenant, args.device)
    ]
    lines = []
    for one in found:
        written = datetime.fromtimestamp(min(one["written_ms"], 1 << 47) / 1000, UTC)
        name = json.dumps(one["id"], ensure_ascii=False)[1:-1]
        lines.append(f"{one['device']}  {written:%Y-%m-%d %H:%M}  {name}")
    return 0, {"tenant": args.tenant, "documents": found}, lines or ["no documents"]


def _export(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import removal

    count = 0
    for one in removal.documents_of(database, args.tenant, args.device):
        print(json.dumps(one, ensure_ascii=False))
        count += 1
    return 0, {"tenant": args.tenant, "documents": count}, []


def _delete(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import removal

    if not args.yes:
        count = sum(1 for _ in removal.documents_of(database, args.tenant, args.device))
        raise UsageError(
            f"device {args.device} wrote {count:,} documents last: pass --yes to delete "
            "them on every device"
        )
    count = removal.delete_documents(database, args.tenant, args.device)
    result = {"tenant": args.tenant, "device": args.device, "deleted": count}
    return 0, result, [f"{count:,} documents deleted"]


ACTIONS: Actions = {
    ("documents", "list"): _list,
    ("documents", "export"): _export,
    ("documents", "delete"): _delete,
}
