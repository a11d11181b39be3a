"""``edge-mrl admin``: tenants, invitations, devices and tombstones; a module per noun."""

from __future__ import annotations

import argparse
import sys

from edge_mrl_server.cli.admin import (
    copies,
    database,
    devices,
    documents,
    invitations,
    tenants,
)
from edge_mrl_server.cli.admin.common import Actions, Subjects

__all__ = ["HELP", "add_arguments", "run"]

HELP = "manage a server's tenants, devices and tokens"
_NOUNS = (tenants, invitations, devices, documents, database, copies)
_ACTIONS: Actions = {name: action for noun in _NOUNS for name, action in noun.ACTIONS.items()}
_EPILOG = """\
examples:
  edge-mrl admin tenants create acme
  edge-mrl admin tenants limit acme documents=1000000 devices=50
  edge-mrl admin invitations create acme --hours 2
  edge-mrl admin devices list acme
  edge-mrl admin tokens revoke acme 1f0c9a7be2d4c853
  edge-mrl admin purge acme --days 90
  edge-mrl admin restamp acme --dry-run
  edge-mrl admin backup monday.db
  edge-mrl admin restore monday.db
  edge-mrl admin index create --database postgresql://edge@db.example/edge

exit codes: 0 done, 1 there was no device to revoke, 2 wrong usage or database, or one that is damaged,
            3 a missing package, 4 the database cannot be reached, or another process has it open
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    subjects = Subjects(parser)
    for noun in _NOUNS:
        noun.add(subjects)


def run(args: argparse.Namespace) -> int:
    """Run one action on the database, and print its result."""
    from edge_mrl.cli import print_json
    from edge_mrl_server.storage import open_database

    if args.subject == "codes":
        print(
            "edge-mrl: warning: `admin codes` is called `admin invitations` now; the old name goes with "
            "the next minor version",
            file=sys.stderr,
        )
    name = (args.subject, getattr(args, "verb", None))
    if name in copies.FILE_ACTIONS:
        code, result, lines = copies.FILE_ACTIONS[name](args)
    else:
        create = name == ("tenants", "create")
        # One to work with, and one that looks how far PostgreSQL is.
        with open_database(args.database, connections=2, create=create) as opened:
            code, result, lines = _ACTIONS[name](opened, args)
    if args.json:
        print_json(result)
    elif lines:
        print("\n".join(lines))
    return code
