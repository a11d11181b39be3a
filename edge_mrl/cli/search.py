"""``edge-mrl search``: ask a store."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from typing import TYPE_CHECKING

from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from edge_mrl.index import Hit

__all__ = ["HELP", "add_arguments", "run"]

HELP = "find the documents that answer a question"
SNIPPET_LINES = 2
_EPILOG = """\
Documents come by the cosine of their best passage, which is shown. Everything happens on this
machine. Quote the question, so that it is one argument.

examples:
  edge-mrl search "how do I undo a commit?" --store notes.db
  edge-mrl search "tax 2024" --store notes.db -k 3 --json

exit codes: 0 done, also when nothing is found; 2 wrong usage, or an unusable store or bundle
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("query", metavar="QUERY", help="the question, in your own words")
    parser.add_argument("--store", required=True, metavar="FILE", help="the store")
    parser.add_argument(
        "-k", type=int, default=10, metavar="N", help="most documents (default: 10)"
    )
    parser.add_argument(
        "--bundle", metavar="DIR", help="where the store's bundle is, if it has moved"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: one per core)")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, passages and metadata whole"
    )
    parser.add_argument("--quiet", action="store_true", help="only the hits")


def run(args: argparse.Namespace) -> int:
    """Search and print the hits."""
    from edge_mrl.cli.output import count, duration
    from edge_mrl.documents import clean
    from edge_mrl.index import Index
    from edge_mrl.store import Store

    query = clean(args.query)
    if not query.strip():
        raise UsageError("the question is empty")
    started = time.monotonic()
    if args.bundle is not None:
        Store.open(args.store).close()  # searching makes no store: a wrong path is an error
    with Index.open(args.store, args.bundle, threads=args.threads) as index:
        hits = index.search(query, k=args.k)
        counts = index.count()
    seconds = time.monotonic() - started
    if args.json:
        _print_json(query, hits, seconds)
        return 0
    _print_text(hits)
    if not args.quiet:
        where = f"{count(counts.passages, 'passage')} of {count(counts.documents, 'document')}"
        print(f"searched {where} in {duration(seconds)}, start-up included", file=sys.stderr)
    return 0


def _print_json(query: str, hits: list[Hit], seconds: float) -> None:
    from edge_mrl.cli.output import print_json

    rows = [{"rank": rank, **dataclasses.asdict(hit)} for rank, hit in enumerate(hits, start=1)]
    print_json({"query": query, "hits": rows, "seconds": round(seconds, 3)})


def _print_text(hits: list[Hit]) -> None:
    from edge_mrl.cli.output import snippet

    width = shutil.get_terminal_size().columns
    for rank, hit in enumerate(hits, start=1):
        print(f"{rank:>3}  {hit.score:.3f}  {snippet(hit.id, chars=width)}")
        print(f"            {snippet(hit.text, chars=SNIPPET_LINES * (width - 12))}")
