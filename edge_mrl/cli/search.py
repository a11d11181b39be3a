"""``edge-mrl search``: ask a store."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shutil
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edge_mrl.cli.stores import FILTER_HELP, add_filter, add_store
from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from edge_mrl.index import Index
    from edge_mrl.search import Results

__all__ = ["HELP", "add_arguments", "run"]

HELP = "find the documents that answer a question"
SNIPPET_LINES = 2
MODES = ("vector", "keyword", "hybrid")
_EPILOG = f"""\
Documents come by their best passage, which is shown. Everything happens on this machine, unless
--rerank asks the server that the store is enrolled with. Quote the question, so that it is one argument;
without one, questions are read line by line, from the keyboard or from a pipe.

--mode vector ranks by meaning (the score is a cosine), keyword by words (BM25; "phrases" and prefix*
are understood; no model is loaded), hybrid by both (reciprocal rank fusion).
{FILTER_HELP}
examples:
  edge-mrl search "how do I undo a commit?" --store notes.db
  edge-mrl search "tax 2024" --store notes.db -k 3 --mode hybrid --filter lang=en --json
  edge-mrl search --store notes.db
  cat questions.txt | edge-mrl search --store notes.db --json > answers.jsonl

exit codes: 0 done, also when nothing is found; 2 wrong usage, or an unusable store or bundle
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "query", nargs="?", metavar="QUERY", help="the question; without it, one a line is read"
    )
    add_store(parser, bundle=True)
    parser.add_argument(
        "-k", type=int, default=10, metavar="N", help="most documents (default: 10)"
    )
    parser.add_argument(
        "--mode", choices=MODES, default="vector", help="how to rank (default: vector)"
    )
    add_filter(parser)
    parser.add_argument(
        "--exact",
        action="store_true",
        help="score every passage, instead of the 1-bit stage's best",
    )
    parser.add_argument(
        "--width",
        type=int,
        metavar="N",
        help="passages that the 1-bit stage passes on (default: 5000)",
    )
    parser.add_argument(
        "--stages",
        metavar="DIMSxBITS:N,...",
        help="which codes are compared, of how many passages: 64x1:20000,128x1:5000,128x8 (default: "
        "what the store was tuned to)",
    )
    parser.add_argument(
        "--rerank",
        nargs="?",
        choices=("auto", "always"),
        const="auto",
        help="have the server order the best by full vectors: always, or (auto, the default) where "
        "the local order is in doubt; without an answer in time the local order stands",
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=150.0,
        metavar="MS",
        help="with --rerank, how long the server has (default: 150)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: one per core)")
    parser.add_argument("--low-memory", action="store_true", help="smallest memory, slower")
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object a question, passages whole"
    )
    parser.add_argument("--quiet", action="store_true", help="only the hits")


def run(args: argparse.Namespace) -> int:
    """Search and print the hits."""
    from edge_mrl.cli.stores import open_existing

    started = time.monotonic()
    if args.query is not None:
        _require_words(args.query)
    with open_existing(args, threads=args.threads, low_memory=args.low_memory) as index:
        if args.query is not None:
            _answer(index, args, args.query, started)
            return 0
        for query in _questions(args):
            _answer(index, args, query, time.monotonic())
    return 0


def _require_words(query: str) -> None:
    if not query.strip():
        raise UsageError("the question is empty")


def _questions(args: argparse.Namespace) -> Iterator[str]:
    """Questions from the keyboard or a pipe, one a line, until the end or an empty line typed."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    if not args.quiet:
        print("one question a line; an empty line ends", file=sys.stderr)
    with contextlib.suppress(EOFError):
        while query := _ask():
            yield query


def _ask() -> str:
    print("> ", end="", file=sys.stderr, flush=True)  # standard output carries answers alone
    return input().strip()


def _answer(index: Index, args: argparse.Namespace, query: str, started: float) -> None:
    from edge_mrl.cli.output import count, duration
    from edge_mrl.cli.stores import parse_filter
    from edge_mrl.documents import clean

    query = clean(query)
    hits = index.search(
        query,
        k=args.k,
        filter=parse_filter(args.filter),
        mode=args.mode,
        exact=args.exact,
        width=args.width,
        rerank=args.rerank,
        deadline_ms=args.deadline,
        stages=args.stages,
    )
    seconds = time.monotonic() - started
    if args.json:
        _print_json(query, hits, seconds, reranked=args.rerank is not None)
        sys.stdout.flush()
        return
    _print_text(hits)
    if not args.quiet:
        counts = index.count()
        where = f"{count(counts.passages, 'passage')} of {count(counts.documents, 'document')}"
        note = ", start-up included" if args.query is not None else ""
        print(f"searched {where} in {duration(seconds)}{note}", file=sys.stderr)
        if args.rerank is not None:
            why = f": {hits.reason}" if hits.reason else ""
            print(f"{hits.ranked_by} order{why}", file=sys.stderr)


def _print_json(query: str, hits: Results, seconds: float, *, reranked: bool) -> None:
    from edge_mrl.cli.output import print_json

    rows = [{"rank": rank, **dataclasses.asdict(hit)} for rank, hit in enumerate(hits, start=1)]
    facts: dict[str, Any] = {"query": query, "hits": rows, "seconds": round(seconds, 3)}
    if reranked:
        facts |= {"ranked_by": hits.ranked_by, "reason": hits.reason}
    print_json(facts)


def _print_text(hits: Results) -> None:
    from edge_mrl.cli.output import snippet

    width = shutil.get_terminal_size().columns
    for rank, hit in enumerate(hits, start=1):
        print(f"{rank:>3}  {hit.score:.3f}  {snippet(hit.id, chars=width)}")
        print(f"            {snippet(hit.text, chars=SNIPPET_LINES * (width - 12))}")
