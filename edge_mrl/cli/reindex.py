"""``edge-mrl reindex``: change a store's bundle."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from edge_mrl.cli.common.output import count, duration, print_json
from edge_mrl.cli.common.progress import Progress
from edge_mrl.cli.common.stores import add_store, add_threads, key_of

if TYPE_CHECKING:
    from edge_mrl.ingest import Refused

__all__ = ["HELP", "add_arguments", "run"]

#: The exit code where some texts were left out, and how many of them are named.
LEFT_OUT, MOST_NAMED = 5, 20

HELP = "change a store to another bundle"
_EPILOG = """\
Embeds all texts with the new bundle. Until the new codes are complete, the store can be searched and
takes documents with the old bundle; then it changes to the new one in a single step. You can interrupt
the command at any time and run it again to go on.

example:
  edge-mrl reindex --bundle minilm-64 --store notes.db

A text that the new bundle cannot take is named. It stays in the store, where only its words are found.

exit codes: 0 done; 2 wrong usage, or the bundle or store cannot be used; 5 done, but the bundle cannot
take some texts, which are named; 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_store(parser)
    parser.add_argument("--bundle", required=True, metavar="DIR", help="the new bundle's folder")
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="longest passage, in tokens (default: as now)"
    )
    parser.add_argument(
        "--overlap",
        type=int,
        metavar="N",
        help="tokens that neighbouring passages share (default: as now)",
    )
    add_threads(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print no progress or summary")


def run(args: argparse.Namespace) -> int:
    """Reindex and print a summary."""
    from edge_mrl.index import Index

    started = time.monotonic()
    facts: dict[str, Any] = {}
    refused: list[Refused] = []
    with Index.open(
        args.store, key=key_of(args), threads=args.threads, low_memory=args.low_memory
    ) as index:
        before = index.binding
        with Progress("reindexing", index.count().documents, quiet=args.quiet) as bar:
            seen = 0

            def show(done: int, _total: int) -> None:
                nonlocal seen
                bar.advance(done - seen, note=count(done, "document"))
                seen = done

            try:
                embedded = index.reindex(
                    args.bundle,
                    max_tokens=args.max_tokens,
                    overlap=args.overlap,
                    progress=show,
                    refused=refused,
                )
            except KeyboardInterrupt:
                bar.write(
                    f"edge-mrl: {count(seen, 'document')} done and safe: run the same command again"
                )
                raise
        facts |= {
            "embedded": embedded,
            "refused": [{"id": one.id, "reason": one.reason} for one in refused],
            "documents": index.count().documents,
            "from": before.bundle,
            "to": index.binding.bundle,
            "dim": index.binding.dim,
            "seconds": round(time.monotonic() - started, 3),
        }
    for one in [] if args.quiet else refused[:MOST_NAMED]:
        print(f"edge-mrl: warning: {one.id}: not embedded, {one.reason}", file=sys.stderr)
    if args.json:
        print_json(facts)
    elif not args.quiet:
        print(
            f"{count(embedded, 'document')} embedded in {duration(facts['seconds'])}; "
            f"the store's bundle is {facts['to']}, {facts['dim']} dimensions"
        )
    return LEFT_OUT if refused else 0
