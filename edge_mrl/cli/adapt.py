"""``edge-mrl adapt``: fit a head to a store's own text, on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from edge_mrl.cli.common.output import count, duration, print_json
from edge_mrl.cli.common.progress import Progress
from edge_mrl.cli.common.stores import add_store, add_threads, existing, key_of

if TYPE_CHECKING:
    from edge_mrl.heads import Adaptation

__all__ = ["HELP", "add_arguments", "run"]

HELP = "fit a store's codes to its own text, on this machine"
_EPILOG = """\
Fits heads to the full vectors of the store's passages (they are embedded again if the store does not keep
them) and of excerpts of these passages. Chooses the head with which held-out excerpts best find the
passages that they were taken from. Writes a bundle with it beside the store's own bundle, then codes all
documents again. Meanwhile the store answers, and takes documents, with the old codes. It changes over in
one transaction. No text leaves this machine. A store that is enrolled sends its server the head, which
codes the documents of other devices that are here without their texts.

example:
  edge-mrl adapt --store notes.db

exit codes: 0 done; 1 no head is better than the present one, nothing was changed; 2 wrong usage, too
            little text, or a bundle or store that cannot be used; 4 the server alone can give some
            codes, and did not; 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_store(parser, bundle=True)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="folder of the new bundle (default: beside the store's own bundle; beside the store, if "
        "that is a .zip or installed)",
    )
    parser.add_argument(
        "--no-excerpts",
        action="store_true",
        help="fit without excerpts of the text, which have to be embedded: faster, but not as good",
    )
    parser.add_argument("--no-pieces", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--offline", action="store_true", help="do not ask the store's server for codes"
    )
    add_threads(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print neither progress nor a summary")


def run(args: argparse.Namespace) -> int:
    """Adapt the store, and print the scores before and after."""
    from edge_mrl.heads import adapt
    from edge_mrl.index import Index

    if args.no_pieces:
        print("edge-mrl: warning: --no-pieces is called --no-excerpts now", file=sys.stderr)
    output = None if args.output is None else Path(args.output).expanduser()
    options = {"threads": args.threads, "low_memory": args.low_memory}
    with (
        Index.open(
            existing(args.store, key_of(args)), args.bundle, key=key_of(args), **options
        ) as index,
        _Bars(quiet=args.quiet) as bars,
    ):
        excerpts = not (args.no_excerpts or args.no_pieces)
        done = adapt(
            index, output=output, excerpts=excerpts, offline=args.offline, stage=bars.stage
        )
    if args.json:
        # "pieces" is the former name of "excerpts"; it goes with the next minor version.
        print_json({**dataclasses.asdict(done), "pieces": done.excerpts})
    elif not args.quiet:
        print(_text(done))
    return 0


def _text(done: Adaptation) -> str:
    embedded = f", {count(done.embedded, 'document')} embedded again" if done.embedded else ""
    embedded += f", {done.fetched:,} coded by the server" if done.fetched else ""
    if done.lacking:
        embedded += f", {done.lacking:,} of other devices without codes until the next sync"
    return (
        f"{done.kind} head fitted on {count(done.passages, 'passage')} and "
        f"{count(done.excerpts, 'excerpt')} of them\n"
        f"score: {done.score_after:.1%}, before: {done.score_before:.1%} ({done.measured})\n"
        f"agreement with full vectors' top 10, for {count(done.held_out, 'held-out passage')}: "
        f"{done.agreement_after:.1%}, before: {done.agreement_before:.1%}\n"
        f"{count(done.documents, 'document')} coded again{embedded} in {duration(done.seconds)}; "
        f"the store's bundle is {done.after}\n"
        f"the former one stays at {done.before}: remove it if no other store uses it"
    )


class _Bars:
    """Progress bars for stages, one after the other."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None

    def stage(self, name: str, steps: int | None) -> Callable[[], None]:
        """End the last bar and start one for a stage; returns a function to call after each step."""
        self._end()
        bar = self._bar = Progress(name, steps, quiet=self._quiet)
        bar.__enter__()
        return bar.advance

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
