"""``edge-mrl dump``: a store as lines of JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from edge_mrl.cli.common.output import count, duration, print_json
from edge_mrl.cli.common.progress import Progress
from edge_mrl.cli.common.stores import (
    FILTER_HELP,
    add_filter,
    add_store,
    open_existing,
    parse_filter,
)
from edge_mrl.cli.common.vectors import replacing
from edge_mrl.errors import DamagedError, UsageError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "write what a store holds as lines of JSON"
STANDARD = "-"
_EPILOG = f"""\
Each line is one document: {{"id", "text", "metadata", "source"}}. With --codes or --vectors it also has
"passages", each with "start", "end" (offsets in the text, in characters), and
  "code", "full"   the stored code, and the full vector in float16 where the store keeps it, in base64:
                   `edge-mrl load` puts them into another store of the same bundle without embedding
  "vector"         numbers, of length 1: the full vector where the store keeps it, else that of the code

One state of the store is written, whoever writes to it meanwhile. Damaged documents are left out and
named. A file appears once it is complete.
{FILTER_HELP}
examples:
  edge-mrl dump --store notes.db -o notes.jsonl
  edge-mrl dump --store notes.db --vectors --filter lang=en | head -1
  edge-mrl dump --store notes.db --codes -o moved.jsonl

exit codes: 0 done; 2 wrong usage, the store cannot be used, or documents are damaged
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_store(parser)
    parser.add_argument(
        "-o",
        "--output",
        default=STANDARD,
        metavar="FILE",
        help="where to write (default: -, standard output)",
    )
    parser.add_argument(
        "--codes", action="store_true", help="also write codes, for `edge-mrl load`"
    )
    parser.add_argument(
        "--vectors", action="store_true", help="also write vectors, for other programs"
    )
    add_filter(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the summary as one JSON object (not if the lines go to standard output)",
    )
    parser.add_argument("--quiet", action="store_true", help="print no progress or summary")


def run(args: argparse.Namespace) -> int:
    """Write the lines, and a summary unless they go to standard output."""
    from edge_mrl.ingest import dump_lines

    started = time.monotonic()
    damaged: DamagedError | None = None
    documents = 0
    with ExitStack() as stack:
        index = stack.enter_context(open_existing(args))
        file = _open_output(args.output, stack)
        bar = stack.enter_context(Progress("writing", len(index), quiet=args.quiet))
        lines = dump_lines(
            index.store, parse_filter(args.filter), codes=args.codes, vectors=args.vectors
        )
        try:
            for text in _each(lines):
                file.write(text)
                documents += 1
                bar.advance()
        except DamagedError as error:
            damaged = error  # all others are written, and are worth keeping
        file.flush()
    facts = {"documents": documents, "seconds": round(time.monotonic() - started, 3)}
    if args.output != STANDARD and args.json:
        print_json({**facts, "damaged": damaged is not None})
    elif args.output != STANDARD and not args.quiet:
        print(f"{count(documents, 'document')} in {duration(facts['seconds'])}: {args.output}")
    if damaged is not None:
        raise damaged
    return 0


def _each(lines: Iterator[dict[str, object]]) -> Iterator[bytes]:
    for line in lines:
        yield json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _open_output(output: str, stack: ExitStack) -> BinaryIO:
    if output == STANDARD:
        return sys.stdout.buffer
    path = Path(output)
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"output {output}: expected a file in a folder that exists")
    return stack.enter_context(replacing(path))
