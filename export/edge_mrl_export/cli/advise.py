"""``edge-mrl advise``, found by the runtime's command line through its entry point."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mrl_export.cli.eval import add_text_arguments, sizes

if TYPE_CHECKING:
    from edge_mrl_export.quality import Advice
    from edge_mrl_export.texts import Retrieval

__all__ = ["HELP", "add_arguments", "run"]

HELP = "find the smallest code that is good enough, on your data"
_EPILOG = """\
examples:
  edge-mrl advise --corpus notes/                             all-MiniLM-L6-v2 on your own text
  edge-mrl advise BAAI/bge-small-en-v1.5 --data scifact/ --tolerance 0.02
  edge-mrl advise minilm --corpus notes/ --documents 200000 --budget 20MB -o advice
  edge-mrl advise minilm --corpus notes/ --apply notes.db  tune a store's funnel as well
  edge-mrl advise --data scifact/ --picture frontier.svg      draw what codes keep, by bytes

exit codes: 0 success, 1 no code is good enough and fits, or there is too little text to choose by,
            2 wrong usage or data, 3 a package is missing, 4 the hub cannot be reached
"""
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add_text_arguments(parser)
    parser.add_argument(
        "--tolerance",
        type=_share,
        default=0.03,
        metavar="SHARE",
        help="share of the full model's nDCG@10 that may be lost (default: 0.03)",
    )
    parser.add_argument(
        "--budget",
        type=_size,
        metavar="SIZE",
        help="storage that all codes may take at most, such as 50MB (default: no limit)",
    )
    parser.add_argument(
        "--documents",
        type=_count,
        default=1_000_000,
        metavar="N",
        help="how many documents there will be, one passage each (default: 1,000,000)",
    )
    parser.add_argument(
        "--dims", type=sizes, metavar="N,N", help="dimensions to try (default: powers of 2 from 16)"
    )
    parser.add_argument(
        "--apply",
        type=Path,
        metavar="STORE",
        help="also tune the funnel of this store to its own codes, and save it there",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE.svg",
        help="also draw what codes keep by bytes a passage, on held-out queries",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="also write advice.json, advice.html and advice.svg to this folder",
    )


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share; expected, for example, 0.03")
    return value


def _count(text: str) -> int:
    digits = text.replace(",", "").replace("_", "")
    if not digits.isdigit() or not int(digits):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of documents; expected, for example, 200000"
        )
    return int(digits)


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]?B?)", text.strip().upper())
    unit = (
        None if match is None else UNITS.get(match[2] if match[2][-1:] == "B" else f"{match[2]}B")
    )
    if match is None or unit is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; expected, for example, 50MB")
    return int(float(match[1]) * unit)


def _check_picture(path: Path | None) -> None:
    """Refuse a place for the picture before anything is measured."""
    from edge_mrl.errors import UsageError

    if path is None:
        return
    if path.suffix.lower() != ".svg":
        raise UsageError(f"--picture {path}: expected a name that ends in .svg")
    if not path.parent.is_dir():
        raise UsageError(f"--picture {path}: no folder {path.parent}; make it first")


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; errors are raised for the dispatcher to print."""
    from edge_mrl.cli import print_json
    from edge_mrl_export.quality import Cache, Question, advise, opened, tune

    _check_picture(args.picture)
    data = _read(args)
    cache = Cache(None, quiet=args.quiet) if args.no_cache else Cache.usual(quiet=args.quiet)
    corpus = tuple(args.corpus) or tuple(folder / "corpus.jsonl" for folder in args.data)
    question = Question(args.tolerance, args.budget, args.documents, corpus)
    with opened(args.target, args.source) as subject:
        advice = advise(subject, question, data, dims=args.dims, cache=cache, quiet=args.quiet)
    values = advice.as_json()
    said = [advice.text()]
    if args.apply is not None:
        tuned = tune(args.apply, quiet=args.quiet)
        values["applied"] = tuned.as_json()
        said.append(tuned.text())
    said += _write(args, advice, values)
    if args.json:
        print_json(values)
    else:
        print("\n\n".join(said))
    return 0 if advice.found else 1


def _read(args: argparse.Namespace) -> list[Retrieval]:
    """The sets to measure on."""
    from edge_mrl.errors import UsageError
    from edge_mrl_export.texts import Retrieval, read_data, read_passages

    if not args.data and not args.corpus:
        raise UsageError(
            "nothing to measure on: give your own text with --corpus, or a set with --data"
        )
    data = []
    for path in args.data:
        found = read_data(path)
        if not isinstance(found, Retrieval):
            raise UsageError(
                f"{path} holds pairs with scores; advise needs a folder in BEIR's layout"
            )
        data.append(found)
    return [*data, read_passages(args.corpus)] if args.corpus else data


def _write(args: argparse.Namespace, advice: Advice, values: dict[str, Any]) -> list[str]:
    """Write the files that were asked for; returns what to say of them."""
    said = []
    if args.picture is not None:
        args.picture.write_text(advice.plot(), encoding="utf-8")
        said.append(f"written to {args.picture}")
    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(values, indent=1) + "\n"
        (args.output / "advice.json").write_text(text, encoding="utf-8")
        (args.output / "advice.html").write_text(advice.html(), encoding="utf-8")
        (args.output / "advice.svg").write_text(advice.plot(), encoding="utf-8")
        said.append(f"written to {args.output}: advice.json, advice.html, advice.svg")
    return said
