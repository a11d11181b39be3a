"""``edge-mrl compact``: free the space of deleted documents."""

from __future__ import annotations

import argparse
import dataclasses

from edge_mrl.cli.common.output import print_json, size
from edge_mrl.cli.common.stores import add_store, open_existing

__all__ = ["HELP", "add_arguments", "run"]

HELP = "free the space of deleted documents"
_EPILOG = """\
You can search the store meanwhile; writes wait. This needs about as much free space as the store takes.
If the command is interrupted, nothing is lost.

exit codes: 0 done; 2 wrong usage, the store cannot be used, or too little free space
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_store(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print no summary")


def run(args: argparse.Namespace) -> int:
    """Compact and print what was given back."""
    with open_existing(args) as index:
        done = index.compact()
        encrypted = index.store.encrypted
    if args.json:
        print_json({"encrypted": encrypted, **dataclasses.asdict(done)})
    elif not args.quiet:
        print(
            f"{size(done.before_bytes)} before, {size(done.after_bytes)} now; "
            f"{done.rows_dropped:,} deleted passages dropped{', encrypted' if encrypted else ''}"
        )
    return 0
