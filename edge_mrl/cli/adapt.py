"""``edge-mrl adapt``: fit a head on a store's own text, on this machine."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from edge_mrl.cli.stores import add_store

if TYPE_CHECKING:
    from edge_mrl.cli.progress import Progress

__all__ = ["HELP", "add_arguments", "run"]

HELP = "fit a store's codes to its own text, on this machine"
_EPILOG = """\
Fits heads on the store's full vectors (or embeds its text again where these are gone) and on pieces of
its text, and takes the one behind which pieces that were held out best find their own passages. Writes a
bundle with it beside the store's own, then codes all documents anew. The store answers, and takes
documents, with the old codes until the new ones are complete; then it changes in one moment. No text
leaves the machine.

example:
  edge-mrl adapt --store notes.db

exit codes: 0 done; 1 no head is better, nothing was changed; 2 wrong usage, too little text, or an
unusable bundle or store; 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_store(parser, bundle=True)
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="the new bundle (default: beside the store's own)"
    )
    parser.add_argument(
        "--no-pieces",
        action="store_true",
        help="fit on the vectors alone, embedding no pieces of the text: quicker, not as good",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: one per core)")
    parser.add_argument("--low-memory", action="store_true", help="smallest memory, slower")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress or summary")


def run(args: argparse.Namespace) -> int:
    """Adapt and print what was gained."""
    from edge_mrl.cli.output import count, duration, print_json
    from edge_mrl.cli.stores import existing
    from edge_mrl.heads import adapt
    from edge_mrl.index import Index

    output = None if args.output is None else Path(args.output).expanduser()
    options = {"threads": args.threads, "low_memory": args.low_memory}
    with (
        Index.open(existing(args.store), args.bundle, **options) as index,
        _Bars(args.quiet) as bars,
    ):
        done = adapt(index, output=output, pieces=not args.no_pieces, stage=bars.stage)
    if args.json:
        print_json(dataclasses.asdict(done))
    elif not args.quiet:
        embedded = f", {count(done.embedded, 'document')} embedded again" if done.embedded else ""
        print(
            f"{done.kind} head fitted on {count(done.passages, 'passage')} and "
            f"{count(done.pieces, 'piece')} of them: {done.score_after:.1%}, "
            f"{done.score_before:.1%} before\n"
            f"({done.measured})\n"
            f"agreement with full vectors' top 10, for {count(done.held_out, 'held-out passage')}: "
            f"{done.agreement_after:.1%}, {done.agreement_before:.1%} before\n"
            f"{count(done.documents, 'document')} coded anew{embedded} in {duration(done.seconds)}; "
            f"the store's bundle is {done.after}"
        )
    return 0


class _Bars:
    """One progress bar after the other."""

    def __init__(self, quiet: bool) -> None:  # noqa: FBT001 - private, one caller
        self._quiet = quiet
        self._bar: Progress | None = None

    def stage(self, name: str, steps: int | None) -> Callable[[], None]:
        from edge_mrl.cli.progress import Progress

        self._end()
        bar = self._bar = Progress(name, steps, quiet=self._quiet)
        bar.__enter__()
        return bar.advance

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
