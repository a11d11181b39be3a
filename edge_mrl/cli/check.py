"""``edge-mrl check``: check a store for damage."""

from __future__ import annotations

import argparse
import dataclasses

from edge_mrl.cli.common.output import count, print_json
from edge_mrl.cli.common.progress import Progress
from edge_mrl.cli.common.stores import add_store, open_existing

__all__ = ["HELP", "add_arguments", "run"]

HELP = "check a store for damage"
_EPILOG = """\
Compares every document, passage, code and full vector with its checksum, the indexes of metadata and
words with the documents, and the code file with the database. --repair makes again what can be: indexes,
lists, counters, the queue for the server, and the code file. Where the file itself is damaged, it writes
what can be read anew; that needs free space of twice the store's size. A damaged document cannot be
repaired: index its file again, or delete it.

exit codes: 0 sound, or repaired; 1 damaged; 2 wrong usage, or the store cannot be read
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_store(parser)
    parser.add_argument(
        "--repair",
        action="store_true",
        help="make damaged indexes, lists, counters, queue and code file again",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print problems only, no progress")


def run(args: argparse.Namespace) -> int:
    """Check and print what is wrong."""
    with open_existing(args) as index:
        total = index.count().documents
        with Progress("checking", total, quiet=args.quiet or args.json) as bar:
            health = index.check(repair=args.repair, advance=bar.advance)
        encrypted = index.store.encrypted
    if args.json:
        facts = {"sound": health.sound, "encrypted": encrypted}
        print_json({**facts, **dataclasses.asdict(health)})
        return 0 if health.sound else 1
    for text in health.repaired:
        print(f"repaired: {text}")
    for text in health.problems:
        print(f"damaged: {text}")
    for text in () if args.quiet else health.notes:
        print(f"note: {text}")
    if health.sound and not args.quiet:
        print(f"sound: {count(health.documents, 'document')}{', encrypted' if encrypted else ''}")
    return 0 if health.sound else 1
