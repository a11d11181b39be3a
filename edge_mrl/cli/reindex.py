"""``edge-mrl reindex``: change a store's bundle."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from edge_mrl.cli.common.output import count, duration, print_json, size
from edge_mrl.cli.common.progress import Progress
from edge_mrl.cli.common.stores import add_store, add_threads, key_of

if TYPE_CHECKING:
    from edge_mrl.index import Index
    from edge_mrl.ingest import Tally

__all__ = ["HELP", "add_arguments", "run"]

#: The exit code where some texts were left out, and how many of them are named.
LEFT_OUT, MOST_NAMED = 5, 20

HELP = "change a store to another bundle"
_EPILOG = """\
Makes new codes of all documents: of full vectors, where the store (--keep-full) or its server keeps
those of the same model, else by embedding the texts. Until the new codes are complete, the store can be
searched and takes documents with the old bundle; then it changes to the new one in a single step. You can
interrupt the command at any time and run it again to go on. It checks first that there is room on the
disk.

examples:
  edge-mrl reindex --bundle minilm-64 --store notes.db
  edge-mrl reindex --bundle minilm-256-int4 --store notes.db --json

If an interrupted change is not wanted any more, run it with the store's own bundle. A text that the new
bundle cannot take is named. It stays in the store, where only its words are found.

exit codes: 0 done; 2 wrong usage, or the bundle or store cannot be used; 4 the server alone can give some
codes, and did not: run it again; 5 done, but the bundle cannot
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
    parser.add_argument(
        "--headings",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="embed the headings above a passage of Markdown with it (default: as now)",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="embed all texts, also where full vectors are kept or the store has this bundle already",
    )
    parser.add_argument(
        "--offline", action="store_true", help="do not ask the store's server for codes"
    )
    parser.add_argument(
        "--no-space-check",
        action="store_true",
        help="begin even where the disk seems too full: if it is, the change stops, and nothing is lost",
    )
    add_threads(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print no progress or summary")


def run(args: argparse.Namespace) -> int:
    """Reindex and print a summary."""
    from edge_mrl.index import Index
    from edge_mrl.ingest import Tally

    started = time.monotonic()
    tally = Tally()
    with Index.open(
        args.store, key=key_of(args), threads=args.threads, low_memory=args.low_memory
    ) as index:
        before, former = index.binding, index.stats()
        _reindex(index, args, tally)
        after = index.stats()
        facts = {
            "embedded": tally.embedded + len(tally.refused),
            "kept": tally.kept,
            "fetched": tally.fetched,
            "lacking": tally.lacking,
            "refused": [{"id": one.id, "reason": one.reason} for one in tally.refused],
            "documents": after.documents,
            "passages": after.passages,
            "from": before.bundle,
            "to": after.bundle,
            "dim": after.dim,
            "code": after.code,
            "code_bytes": after.code_bytes,
            "code_bytes_before": former.code_bytes,
            "needed_bytes": tally.needed_bytes,
            "seconds": round(time.monotonic() - started, 3),
        }
    for one in [] if args.quiet else tally.refused[:MOST_NAMED]:
        print(f"edge-mrl: warning: {one.id}: not embedded, {one.reason}", file=sys.stderr)
    if args.json:
        print_json(facts)
    elif not args.quiet:
        print(_summary(facts))
    return LEFT_OUT if tally.refused else 0


def _reindex(index: Index, args: argparse.Namespace, tally: Tally) -> None:
    with Progress("reindexing", index.count().documents, quiet=args.quiet) as bar:
        seen = 0

        def show(done: int, _total: int) -> None:
            nonlocal seen
            if not seen:
                bar.write(
                    f"edge-mrl: takes about {size(tally.needed_bytes)} of disk until it is done"
                )
            bar.advance(done - seen, note=count(done, "document"))
            seen = done

        try:
            index.reindex(
                args.bundle,
                max_tokens=args.max_tokens,
                overlap=args.overlap,
                headings=args.headings,
                progress=show,
                tally=tally,
                again=args.again,
                offline=args.offline,
                check_space=not args.no_space_check,
            )
        except KeyboardInterrupt:
            bar.write(
                f"edge-mrl: {count(seen, 'document')} done and safe: run the same command again"
            )
            raise


def _summary(facts: dict[str, Any]) -> str:
    made = [f"{count(facts['embedded'], 'document')} embedded"]
    if facts["kept"]:
        made.append(f"{facts['kept']:,} coded from kept vectors")
    if facts["fetched"]:
        made.append(f"{facts['fetched']:,} coded by the server")
    if facts["lacking"]:
        made.append(f"{facts['lacking']:,} of other devices without codes until the next sync")
    return (
        f"{', '.join(made)} in {duration(facts['seconds'])}; the store's bundle is {facts['to']}, "
        f"{facts['dim']} dimensions {facts['code']}, {facts['code_bytes']} B a passage "
        f"(before: {facts['code_bytes_before']} B)"
    )
