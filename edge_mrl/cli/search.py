"""``edge-mrl search``: ask a store."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edge_mrl.cli.common.hits import print_hits
from edge_mrl.cli.common.output import count, duration, print_json
from edge_mrl.cli.common.stores import (
    FILTER_HELP,
    add_filter,
    add_store,
    add_threads,
    open_existing,
    parse_filter,
)
from edge_mrl.documents import clean
from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from edge_mrl.index import Index
    from edge_mrl.search import Results

__all__ = ["HELP", "add_arguments", "run"]

HELP = "find the documents that answer a question"
#: Damaged documents that a warning names.
MOST_NAMED = 3
MODES = ("vector", "keyword", "hybrid")
RERANK = ("auto", "always")
_EPILOG = f"""\
Each document is ranked by its best passage. Printed are the path and line of its file, or its id, the
headings above the passage, and of a long passage the sentence that answers. On a terminal, the question's
words are marked where the search went by words (NO_COLOR turns that off). Everything happens on this
machine, unless you ask the store's server with --rerank. Put the question in quotes. Without a question,
the command reads questions from the keyboard or a pipe, one a line.

--mode vector ranks by meaning (the score is a cosine); keyword ranks by words (BM25; understands
"phrases" and prefix*; loads no model); hybrid ranks by both (reciprocal rank fusion).
{FILTER_HELP}
examples:
  edge-mrl search "how do I undo a commit?" --store notes.db
  edge-mrl search "tax 2024" --store notes.db -k 3 --mode hybrid --filter lang=en --json
  edge-mrl search --store notes.db
  cat questions.txt | edge-mrl search --store notes.db --json > answers.jsonl

A damaged document is left out. A warning names it, and so does "damaged" with --json.

exit codes: 0 done, even if nothing is found; 2 wrong usage, or the store or bundle cannot be used
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "query",
        nargs="?",
        metavar="QUERY",
        help="the question (default: read questions, one a line)",
    )
    add_store(parser, bundle=True)
    parser.add_argument(
        "-k", type=int, default=10, metavar="N", help="return at most N documents (default: 10)"
    )
    parser.add_argument(
        "--min-score",
        type=float,
        metavar="X",
        help="leave out documents with a score below X; scores of different modes do not compare "
        "(default: none are left out)",
    )
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="vector",
        help="rank by meaning, by words, or by both (default: vector)",
    )
    add_filter(parser)
    _add_ranking(parser)
    add_threads(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object a question, with whole passages"
    )
    parser.add_argument("--quiet", action="store_true", help="print only hits and warnings")


def _add_ranking(parser: argparse.ArgumentParser) -> None:
    """Add the options that trade time for a better ranking."""
    parser.add_argument(
        "--exact",
        action="store_true",
        help="score every passage, not only those that the 1-bit stage passes on",
    )
    parser.add_argument(
        "--width",
        type=int,
        metavar="N",
        help="number of passages that 1-bit codes pass on to whole codes; more is slower "
        "(default: 5000, or the stages that the store is tuned to)",
    )
    parser.add_argument(
        "--stages",
        metavar="DIMSxBITS:N,...",
        help="which codes to compare, and how many passages each stage passes on, as in "
        "64x1:20000,128x1:5000,128x8 (default: the stages that the store is tuned to)",
    )
    parser.add_argument(
        "--diversity",
        type=float,
        default=0.0,
        metavar="X",
        help="from 0 to 1: prefer documents that differ from those above them (default: 0)",
    )
    parser.add_argument(
        "--rerank",
        nargs="?",
        action=_Rerank,
        const="auto",
        metavar="{auto,always}",
        help="let the server rerank the best hits by full vectors: always, or only if the local order "
        "is in doubt (auto, the default); if the server does not answer in time, the local order is kept",
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=150.0,
        metavar="MS",
        help="with --rerank, wait at most MS milliseconds for the server (default: 150)",
    )


def run(args: argparse.Namespace) -> int:
    """Search and print the hits."""
    started = time.monotonic()
    asked = getattr(args, "asked", None)
    if asked is not None and args.query is not None:
        raise UsageError(f"--rerank {asked}: expected {' or '.join(RERANK)}")
    args.query = args.query if asked is None else asked
    if args.min_score is not None and not math.isfinite(args.min_score):
        raise UsageError(f"--min-score {args.min_score}: expected a finite number")
    if args.query is not None:
        _require_words(args.query)
    with open_existing(args, threads=args.threads, low_memory=args.low_memory) as index:
        if args.query is not None:
            _answer(index, args, args.query, started)
            return 0
        for query in _questions(args):
            _answer(index, args, query, time.monotonic())
    return 0


class _Rerank(argparse.Action):
    """Takes auto or always; any other word behind --rerank is the question."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        del parser, option_string
        setattr(namespace, self.dest, values if values in RERANK else RERANK[0])
        if values not in RERANK:
            namespace.asked = str(values)


def _require_words(query: str) -> None:
    if not query.strip():
        raise UsageError("the question is empty")


def _questions(args: argparse.Namespace) -> Iterator[str]:
    """Questions from the keyboard or a pipe, one a line, until the end or an empty line."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    if not args.quiet:
        print("type one question a line; an empty line ends", file=sys.stderr)
    with contextlib.suppress(EOFError):
        while query := _ask():
            yield query


def _ask() -> str:
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):  # where there is none, lines cannot be edited
            import readline  # noqa: F401 - input() edits lines and remembers them where it is loaded
        return input("> ").strip()
    print("> ", end="", file=sys.stderr, flush=True)  # standard output carries answers alone
    return input().strip()


def _answer(index: Index, args: argparse.Namespace, query: str, started: float) -> None:
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
        diversity=args.diversity,
    )
    seconds = time.monotonic() - started
    if args.min_score is not None:
        kept = tuple(hit for hit in hits if hit.score >= args.min_score)
        hits = dataclasses.replace(hits, hits=kept)
    if hits.damaged:
        _warn(hits.damaged)
    if args.json:
        _print_json(query, hits, seconds, reranked=args.rerank is not None)
        sys.stdout.flush()
        if not hits and not args.quiet:
            print("nothing found", file=sys.stderr)
        return
    print_hits(index, query, hits, mode=args.mode)
    if not args.quiet:
        counts = index.count()
        where = f"{count(counts.passages, 'passage')} of {count(counts.documents, 'document')}"
        note = ", start-up included" if args.query is not None else ""
        if not hits:
            print("nothing found", file=sys.stderr)
        print(f"searched {where} in {duration(seconds)}{note}", file=sys.stderr)
        if args.rerank is not None:
            why = f": {hits.reason}" if hits.reason else ""
            print(f"{hits.ranked_by} order{why}", file=sys.stderr)


def _warn(damaged: tuple[str, ...]) -> None:
    names = ", ".join(map(repr, damaged[:MOST_NAMED])) + (", ..." if damaged[MOST_NAMED:] else "")
    print(
        f"edge-mrl: damaged, and left out: {names}: put them again, or delete them; "
        "`edge-mrl check` names all that is damaged",
        file=sys.stderr,
    )


def _print_json(query: str, hits: Results, seconds: float, *, reranked: bool) -> None:
    rows = [{"rank": rank, **dataclasses.asdict(hit)} for rank, hit in enumerate(hits, start=1)]
    facts: dict[str, Any] = {"query": query, "hits": rows, "seconds": round(seconds, 3)}
    facts["damaged"] = list(hits.damaged)
    if reranked:
        facts |= {"ranked_by": hits.ranked_by, "reason": hits.reason}
    print_json(facts)
