"""``edge-mrl compact``: the space of deleted documents, given back."""

from __future__ import annotations

import argparse
import dataclasses

from edge_mrl.cli.stores import add_store

__all__ = ["HELP", "add_arguments", "run"]

HELP = "free the space of deleted documents"
_EPILOG = """\
Searches go on meanwhile; writes wait. It needs about as much free space as the store takes. A kill at
any moment loses nothing.

exit codes: 0 done; 2 wrong usage, an unusable store, or too little free space
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_store(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no summary")


def run(args: argparse.Namespace) -> int:
    """Compact and print what was given back."""
    from edge_mrl.cli.output import print_json, size
    from edge_mrl.cli.stores import open_existing

    with open_existing(args) as index:
        done = index.compact()
    if args.json:
        print_json(dataclasses.asdict(done))
    elif not args.quiet:
        print(
            f"{size(done.before_bytes)} before, {size(done.after_bytes)} now; "
            f"{done.rows_dropped:,} deleted passages dropped"
        )
    return 0
