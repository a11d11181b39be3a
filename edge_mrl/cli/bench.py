"""``edge-mrl bench``: measure the speed and memory of a bundle and a store on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mrl.cli.common.output import count, print_json, size, table
from edge_mrl.cli.common.progress import Progress
from edge_mrl.cli.common.stores import add_key, add_threads, existing, key_of
from edge_mrl.cli.common.vectors import replacing
from edge_mrl.errors import UsageError
from edge_mrl.machine import facts

if TYPE_CHECKING:
    from edge_mrl.diagnose import Change, Figure, Report, Sample, Setup

__all__ = ["HELP", "add_arguments", "run"]

HELP = "measure speed and memory on this machine"
SECONDS = 10.0
ROWS = 100_000
_LABELS = {
    "start": "process start to first embedding",
    "query_p50": "one query, p50",
    "query_p95": "one query, p95",
    "documents": "documents",
    "search_vector_p50": "search by vector, p50",
    "search_vector_p95": "search by vector, p95",
    "search_words_p50": "search by text, p50",
    "search_words_p95": "search by text, p95",
    "memory_query": "peak memory, queries",
    "memory_documents": "peak memory, documents",
    "memory_search": "peak memory, search",
}
_EPILOG = """\
Runs five rounds, with a fresh process for each measurement. A figure is the median of the rounds; the
least and the greatest round show its spread. Files are read from the page cache. Memory is the peak
resident set size (RSS) of the measuring process, mapped weights included.

Searches run in --store, which is only read, or in a temporary store of --rows random codes. "By vector"
is a search with a query vector that is ready; "by text" includes encoding the query. Texts come from
--texts, one per line (at most 128, evenly spread over the file; queries are the first words of texts), or
are English prose from Python's standard library.

--compare shows an earlier result beside this one. A figure is "better" or "worse" if the ranges of the
rounds do not overlap, otherwise "same".

examples:
  edge-mrl bench --bundle minilm
  edge-mrl bench --store notes.db --texts questions.txt --output before.json
  edge-mrl bench --store notes.db --texts questions.txt --compare before.json --fail-above 10

exit codes: 0 done; 1 a figure is worse by more than --fail-above; 2 wrong usage or input, or a bundle or
            store that cannot be used
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "--bundle", metavar="DIR", help="the bundle to measure (default: the store's own bundle)"
    )
    parser.add_argument(
        "--store", metavar="FILE", help="the store to search in (default: a temporary store)"
    )
    add_key(parser)
    parser.add_argument(
        "--rows",
        type=int,
        metavar="N",
        help=f"number of passages in the temporary store (default: {ROWS})",
    )
    parser.add_argument(
        "--texts", metavar="FILE", help="measure with the texts of this file, one per line"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        metavar="S",
        help=f"seconds for each measurement, over all rounds (default: {SECONDS:.0f})",
    )
    add_threads(parser)
    parser.add_argument(
        "--output", metavar="FILE", help="write the result to this file, for --compare"
    )
    parser.add_argument(
        "--compare", metavar="FILE", help="compare with the earlier result in this file"
    )
    parser.add_argument(
        "--fail-above",
        type=float,
        metavar="PERCENT",
        help="with --compare, exit with code 1 if a figure is worse by more than PERCENT",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print neither progress nor warnings")


def run(args: argparse.Namespace) -> int:
    """Measure, print the figures, and compare them with an earlier result if one is given."""
    from edge_mrl.diagnose import compare, differences

    before = _earlier(args)
    _check_output(args.output)
    report = _measure(args, _setup(args), _sample(args))
    if args.output:
        _save(report, Path(args.output))
    changes = [] if before is None else compare(before, report)
    others = [] if before is None else differences(before, report)
    if args.json:
        _print_json(report, None if before is None else changes, others)
    else:
        _print_text(report)
        if before is not None:
            print(f"\n{_comparison(changes)}")
    for line in others:
        _warn(args, f"{args.compare} was measured differently: {line}")
    failed = [change for change in changes if change.loss_percent > _allowed(args)]
    for change in failed:
        print(
            f"edge-mrl: failed: {_label(change.name)} is {change.loss_percent:.0f}% worse, "
            f"{args.fail_above:g}% allowed",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _allowed(args: argparse.Namespace) -> float:
    return float("inf") if args.fail_above is None else float(args.fail_above)


def _earlier(args: argparse.Namespace) -> Report | None:
    from edge_mrl.diagnose import parse_report

    if args.compare is None:
        if args.fail_above is not None:
            raise UsageError("--fail-above needs an earlier result to compare with: --compare FILE")
        return None
    if args.fail_above is not None and not args.fail_above >= 0:
        raise UsageError(f"--fail-above is {args.fail_above}, expected at least 0")
    path = Path(args.compare)
    if not path.is_file():
        raise UsageError(f"no file {args.compare}: expected a result of `edge-mrl bench --output`")
    return parse_report(path.read_bytes(), args.compare)


def _check_output(output: str | None) -> None:
    """Check the path of --output before the minutes of measuring, not after."""
    if output is None:
        return
    if Path(output).is_dir() or not Path(output).absolute().parent.is_dir():
        raise UsageError(f"output {output}: expected a file in an existing folder")


def _setup(args: argparse.Namespace) -> Setup:
    from edge_mrl.bundle import bundle_folder
    from edge_mrl.diagnose import Setup

    if args.store is None and args.bundle is None:
        raise UsageError(
            "expected --bundle DIR, or --store FILE to measure a store with its own bundle"
        )
    if args.store is not None and args.rows is not None:
        raise UsageError("--rows is the size of the temporary store: omit it with --store")
    return Setup(
        bundle=_bundle_of(args) if args.bundle is None else bundle_folder(Path(args.bundle)),
        store=None if args.store is None else Path(existing(args.store, key_of(args))),
        key=None if args.store is None else key_of(args),
        rows=ROWS if args.rows is None else args.rows,
        threads=args.threads,
        seconds=args.seconds,
        low_memory=args.low_memory,
    )


def _bundle_of(args: argparse.Namespace) -> Path:
    from edge_mrl.store import Store, find_bundle

    with Store.open(args.store, key=key_of(args)) as opened:
        return find_bundle(opened)


def _sample(args: argparse.Namespace) -> Sample:
    from edge_mrl.diagnose import built_in_sample, sample_of_file

    return built_in_sample() if args.texts is None else sample_of_file(args.texts)


def _measure(args: argparse.Namespace, setup: Setup, sample: Sample) -> Report:
    from edge_mrl.diagnose import ROUNDS, STEPS, measure

    now, cores = facts.load(), facts.cores()
    if facts.busy(now, cores):
        _warn(
            args,
            f"this machine is busy (load {now:.1f} on {cores} cores): figures will be worse, and vary "
            "more, than on an idle machine",
        )
    steps = ROUNDS * (1 + len(STEPS)) + 1 + (setup.store is None)
    with Progress("measuring", steps, quiet=args.quiet) as bar:
        done = 0

        def advance(note: str) -> None:
            nonlocal done
            bar.advance(
                1 if done else 0, note=note
            )  # it is called before a step: count the last one
            done += 1

        return measure(setup, sample, advance=advance)


def _warn(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(f"edge-mrl: warning: {text}", file=sys.stderr)


def _save(report: Report, path: Path) -> None:
    with replacing(path) as file:
        file.write(f"{json.dumps(report.as_json(), indent=1)}\n".encode("ascii"))


def _print_json(report: Report, changes: list[Change] | None, others: list[str]) -> None:
    result = report.as_json()
    if changes is not None:
        result["comparison"] = {
            "changes": [dataclasses.asdict(change) for change in changes],
            "differences": others,
        }
    print_json(result)


def _print_text(report: Report) -> None:
    print(table(_facts(report)))
    rows: list[tuple[str, ...]] = [("", "median", "least", "greatest", "samples")]
    for name, figure in sorted(report.figures.items(), key=lambda item: _place(item[0])):
        numbers = (_number(value) for value in (figure.value, figure.low, figure.high))
        rows.append((_label(name, figure), *numbers, f"{figure.samples:,}"))
    print(f"\n{_columns(rows)}")


def _facts(report: Report) -> list[tuple[str, str]]:
    machine, bundle, settings = report.machine, report.bundle, report.settings
    threads = settings["threads"]
    shown = "one thread per core" if threads is None else count(threads, "thread")
    cost = f"{settings['rounds']} rounds, {settings['seconds']:g} s per measurement"
    low = "; low memory" if settings["low_memory"] else ""
    texts = (
        f"{settings['texts']}: {count(settings['documents'], 'document')} of "
        f"{settings['document_words']:g} words on average, queries of {settings['query_words']:g} words"
    )
    contents = (
        f"{bundle['name']}, {bundle['weights']} weights, {size(bundle['size_bytes'])}, "
        f"{bundle['dim']} dimensions, space {bundle['space_id'][:12]}"
    )
    return [
        ("machine", _machine(machine)),
        ("versions", _versions(machine)),
        ("bundle", contents),
        ("texts", texts),
        ("store", f"{settings['store']}, {count(settings['passages'], 'passage')}"),
        ("settings", f"{shown}; {cost}{low}"),
    ]


def _machine(machine: dict[str, Any]) -> str:
    unknown = "unknown"
    features = machine["features"]
    flags = unknown if features is None else ", ".join(features) or "none that matter"
    cores = unknown if machine["cores"] is None else count(machine["cores"], "core")
    memory = unknown if machine["memory_bytes"] is None else size(machine["memory_bytes"])
    load = unknown if machine["load"] is None else f"{machine['load']:.1f}"
    board = f"{machine['board']}: " if machine["board"] else ""
    cpu = machine["cpu"] or f"{unknown} CPU"
    return (
        f"{board}{cpu} ({machine['architecture']}: {flags}), {cores}, {memory} of memory, "
        f"{machine['system']}, load {load}"
    )


def _versions(machine: dict[str, Any]) -> str:
    known = {"Python": machine["python"], **machine["versions"]}
    return ", ".join(f"{name} {version or 'unknown'}" for name, version in known.items())


def _comparison(changes: list[Change]) -> str:
    rows: list[tuple[str, ...]] = [("", "before", "now", "now/before", "verdict")]
    for change in sorted(changes, key=lambda change: _place(change.name)):
        ratio = "-" if change.ratio is None else f"{change.ratio:.2f}"
        numbers = (_number(change.before), _number(change.now), ratio)
        rows.append((f"{_label(change.name)} [{change.unit}]", *numbers, change.verdict))
    return _columns(rows)


def _label(name: str, figure: Figure | None = None) -> str:
    text = _LABELS.get(name, name)
    return text if figure is None else f"{text} [{figure.unit}]"


def _place(name: str) -> int:
    """The row of a figure: times first, then memory."""
    return list(_LABELS).index(name) if name in _LABELS else len(_LABELS)


def _number(value: float) -> str:
    """The value with three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _columns(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    )
