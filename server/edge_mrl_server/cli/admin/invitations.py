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
        invitation = subjects.add(name, text)(
            "create", "make an invitation for one device; it is shown once"
        )
        invitation.add_argument(
            "--hours",
            type=float,
            default=24.0,
            metavar="N",
            help="hours for which it is valid (default: 24)",
        )


def _create_invitation(database: Database, args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import accounts

    if not 0 < args.hours <= 24 * 365:
        raise UsageError(f"--hours {args.hours}: expected more than 0, and at most a year (8760)")
    with database.write() as transaction:
        life_ms = int(args.hours * 3_600_000)
        invitation = accounts.create_invitation(transaction, args.tenant, life_ms=life_ms)
    lines = [
        invitation,
        f"  edge-mrl enroll --server URL --invitation {invitation} --store notes.db",
    ]
    # "code" is its old name, which goes with the next minor version.
    return 0, {"tenant": args.tenant, "invitation": invitation, "code": invitation}, lines


ACTIONS: Actions = {
    ("invitations", "create"): _create_invitation,
    ("codes", "create"): _create_invitation,
}
