"""``edge-mrl eval``, found by the runtime's command line through its entry point."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_mrl_export.quality import Assessment

__all__ = ["HELP", "add_arguments", "add_text_arguments", "run", "sizes"]

HELP = "measure how much retrieval quality short codes keep, on your data"
_EPILOG = """\
examples:
  edge-mrl eval minilm --corpus notes/                  your own text, without judgements
  edge-mrl eval minilm --data scifact/ -o quality       BEIR's layout; charts and a page in quality/
  edge-mrl eval ./my-model --data sts.csv --dims 64,128     a source model, on pairs with scores

exit codes: 0 success, 2 wrong usage or data, 3 a package is missing, 4 the hub cannot be reached
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add_text_arguments(parser)
    parser.add_argument(
        "--dims",
        type=sizes,
        metavar="N,N",
        help="dimensions of codes to measure (default: powers of 2 from 16, and the bundle's own)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="also write eval.json, eval.html and charts to this folder",
    )


def add_text_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments that ``eval`` and ``advise`` share."""
    parser.add_argument(
        "target",
        nargs="?",
        metavar="BUNDLE|MODEL",
        help="a bundle's folder, or a model's folder or hub id (default: all-MiniLM-L6-v2)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR|FILE",
        help="retrieval sets: folders in BEIR's layout; for eval also pairs with scores "
        "(.csv, .tsv, .jsonl with s1, s2, score)",
    )
    parser.add_argument(
        "--corpus",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE|DIR",
        help="your own text (.txt, .md, .jsonl); results are judged by the full model's ranking",
    )
    parser.add_argument(
        "--source",
        metavar="MODEL",
        help="the bundle's fp32 source: folder or hub id (default: the model that the bundle names)",
    )
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="do not cache vectors for the next run, nor use cached ones",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def sizes(text: str) -> tuple[int, ...]:
    """Sizes such as "32,64", ascending, each once."""
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of sizes; expected, for example, 32,64,128"
        )
    return tuple(found)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; errors are raised for the dispatcher to print."""
    from edge_mrl.cli import print_json
    from edge_mrl.errors import UsageError
    from edge_mrl_export.quality import Cache, assess, opened

    if not args.data and not args.corpus:
        raise UsageError(
            "nothing to measure on: give your own text with --corpus, or a set with --data"
        )
    cache = Cache(None, quiet=args.quiet) if args.no_cache else Cache.usual(quiet=args.quiet)
    with opened(args.target, args.source) as subject:
        result = assess(
            subject,
            data=args.data,
            corpus=args.corpus,
            dims=args.dims,
            cache=cache,
            quiet=args.quiet,
        )
    if args.output is not None:
        _write(result, args.output)
    if args.json:
        print_json(result.as_json())
    else:
        print(result.text())
        if args.output is not None:
            print(f"\nwritten to {args.output}: eval.json, eval.html and charts")
    return 0


def _write(result: Assessment, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = result.as_json()
    (folder / "eval.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    (folder / "eval.html").write_text(result.html(), encoding="utf-8")
    for name, drawing in result.plots().items():
        (folder / f"{name}.svg").write_text(drawing, encoding="utf-8")
