"""``edge-mrl load``: lines of a dump into a store."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.cli.common.defaults import bundle_of_new
from edge_mrl.cli.common.output import count, duration, print_json
from edge_mrl.cli.common.progress import Progress
from edge_mrl.cli.common.stores import add_new_store, add_threads, key_of
from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from edge_mrl.ingest import Loaded, Parsed

__all__ = ["HELP", "add_arguments", "run"]

HELP = "put the lines of a dump into a store"
STANDARD = "-"
_EPILOG = """\
The lines are those of `edge-mrl dump`. Codes that the store's own bundle and passage rule have made are
taken as they are; all else is embedded, as `edge-mrl index` does. A document replaces the one of its id.
If the command is interrupted, run it again: what is there already is not embedded again.

examples:
  edge-mrl load notes.jsonl --store copy.db --bundle minilm
  edge-mrl dump --store old.db --codes | edge-mrl load - --store new.db --bundle minilm

exit codes: 0 done; 2 wrong usage or a line that is none; the lines before it are stored
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("file", metavar="FILE", help="the lines; - for standard input")
    add_new_store(parser)
    parser.add_argument(
        "--keep-full",
        choices=("until-synced", "fp16", "int8"),
        help="also keep full vectors on disk (fixed when the store is created)",
    )
    add_threads(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print no progress or summary")


def run(args: argparse.Namespace) -> int:
    """Put the lines, and print a summary."""
    from edge_mrl.index import Index
    from edge_mrl.ingest import load_lines

    started = time.monotonic()
    if args.file != STANDARD and not Path(args.file).is_file():
        raise UsageError(f"no file {args.file}")
    with ExitStack() as stack:
        index = stack.enter_context(
            Index.open(
                args.store,
                bundle_of_new(args),
                keep_full=args.keep_full,
                key=key_of(args),
                threads=args.threads,
                low_memory=args.low_memory,
            )
        )
        total = None if args.file == STANDARD else Path(args.file).stat().st_size
        bar = stack.enter_context(Progress("loading", total, quiet=args.quiet))

        def committed(so_far: Loaded) -> None:
            bar.advance(0, note=count(so_far.taken + so_far.embedded, "document"))

        lines = _parsed(args.file, bar)
        done = load_lines(index.store, lambda: index.encoder, lines, committed=committed)
    seconds = round(time.monotonic() - started, 3)
    if args.json:
        print_json({"taken": done.taken, "embedded": done.embedded, "seconds": seconds})
    elif not args.quiet:
        print(
            f"{count(done.taken, 'document')} taken as they were, {done.embedded:,} from their texts, in "
            f"{duration(seconds)}"
        )
    return 0


def _parsed(name: str, bar: Progress) -> Iterator[Parsed]:
    from edge_mrl.ingest import parse_line

    with ExitStack() as stack:
        file = sys.stdin.buffer if name == STANDARD else stack.enter_context(Path(name).open("rb"))
        for number, line in enumerate(file, start=1):
            bar.advance(len(line))
            if not line.strip():
                continue
            try:
                yield parse_line(json.loads(line))
            except (ValueError, RecursionError, UsageError) as error:
                where = "standard input" if name == STANDARD else name
                raise UsageError(f"{where}:{number}: {error}") from error
