"""``edge-mrl admin invitations``: one-time secrets that enroll devices."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edge_mrl.errors import UsageError
from edge_mrl_server.cli.admin.common import Actions, Outcome, Subjects

if TYPE_CHECKING:
    from edge_mrl_server.storage import Database

__all__ = ["ACTIONS", "add"]


def add(subjects: Subjects) -> None:
    """Describe the noun's arguments."""
    # The old name goes with the next minor version. Without a help text it is not listed.
    for name, text in (
        ("invitations", "one-time secrets that enroll devices"),
        ("codes", None),
    ):
        verb = subjects.add(name, text)
        if text:
            verb("list", "list the invitations that can be used still")
            revoke = verb("revoke", "end invitations before they are used")
            revoke.add_argument(
                "ids", nargs="+", metavar="ID", help="as `admin invitations list` shows it"
            )
        invitation = verb("create", "make an invitation for one device; it is shown once")
        invitation.add_argument(
            "--hours",
            type=float,
            default=24.0,
            metavar="N",
            help="hours for which it is valid (default: 24)",
        )
        invitation.add_argument(
            "--read-only",
            action="store_true",
            help="the device receives documents, and what it sends is refused",
        )


def _create_invitation(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import accounts

    if not 0 < args.hours <= 24 * 365:
        raise UsageError(f"--hours {args.hours}: expected more than 0, and at most a year (8760)")
    with database.write() as transaction:
        life_ms = int(args.hours * 3_600_000)
        invitation = accounts.create_invitation(
            transaction, args.tenant, life_ms=life_ms, read_only=args.read_only
        )
    # Typed or piped in, it is in no list of processes and in no shell's history.
    lines = [invitation, "  edge-mrl enroll --server URL --invitation - --store notes.db"]
    # "code" is its old name, which goes with the next minor version.
    return 0, {"tenant": args.tenant, "invitation": invitation, "code": invitation}, lines


def _list(database: Database, args: argparse.Namespace) -> Outcome:
    from datetime import UTC, datetime

    from edge_mrl_server.storage import removal

    with database.read() as transaction:
        found = removal.list_invitations(transaction, args.tenant)
    lines = [
        f"{one['id']}  ends {datetime.fromtimestamp(one['expires_ms'] / 1000, UTC):%Y-%m-%d %H:%M} UTC  "
        + (f"used by {one['device']}" if one["device"] else "not used")
        for one in found
    ]
    return 0, {"tenant": args.tenant, "invitations": found}, lines or ["no invitations"]


def _revoke(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import removal

    with database.write() as transaction:
        count = removal.revoke_invitations(transaction, args.tenant, args.ids)
    result = {"tenant": args.tenant, "revoked": count}
    return 0 if count else 1, result, [f"{count:,} invitations revoked"]


ACTIONS: Actions = {
    ("invitations", "list"): _list,
    ("invitations", "revoke"): _revoke,
    ("invitations", "create"): _create_invitation,
    ("codes", "create"): _create_invitation,
}
