"""``edge-mrl bench``: what a bundle and a store cost on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from edge_mrl.diagnose import Change, Figure, Report, Sample, Setup

__all__ = ["HELP", "add_arguments", "run"]

HELP = "measure speed and memory on this machine"
SECONDS = 10.0
ROWS = 100_000
_LABELS = {
    "start": "start of a process to first embedding",
    "query_p50": "one query, p50",
    "query_p95": "one query, p95",
    "documents": "documents",
    "search_vector_p50": "search by a ready vector, p50",
    "search_vector_p95": "search by a ready vector, p95",
    "search_words_p50": "search from the words, p50",
    "search_words_p95": "search from the words, p95",
    "memory_query": "most memory, queries",
    "memory_documents": "most memory, documents",
    "memory_search": "most memory, search",
}
_EPILOG = """\
Five rounds, each measurement in a fresh process of its own. A figure is the median of the rounds;
least and greatest round say how far to trust it. Files are in the page cache. Memory is the peak
resident set (RSS) of the measuring process, mapped weights included.

The search runs in --store, which is only read, or else in a temporary store of --rows random codes.
Texts are those of --texts, one a line (at most 128, spread over the file; queries are the first words
of texts), or English prose from Python's own documentation.

--compare shows an earlier result beside this one: "better" and "worse" where the rounds' ranges do
not meet, "same" where they do.

examples:
  edge-mrl bench --bundle minilm
  edge-mrl bench --store notes.db --texts questions.txt --output before.json
  edge-mrl bench --store notes.db --texts questions.txt --compare before.json --fail-above 10

exit codes: 0 done; 1 something is worse than --fail-above allows; 2 wrong usage or input, or an
            unusable bundle or store
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("--bundle", metavar="DIR", help="the bundle (default: the store's)")
    parser.add_argument("--store", metavar="FILE", help="search in this store")
    parser.add_argument(
        "--rows",
        type=int,
        metavar="N",
        help=f"passages of the temporary store (default: {ROWS})",
    )
    parser.add_argument("--texts", metavar="FILE", help="measure with these texts, one a line")
    parser.add_argument(
        "--seconds",
        type=float,
        default=SECONDS,
        metavar="S",
        help=f"time for each measurement, over all rounds (default: {SECONDS:.0f})",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: one per core)")
    parser.add_argument("--low-memory", action="store_true", help="smallest memory, slower")
    parser.add_argument("--output", metavar="FILE", help="keep the result, for --compare")
    parser.add_argument("--compare", metavar="FILE", help="an earlier result to compare with")
    parser.add_argument(
        "--fail-above",
        type=float,
        metavar="PERCENT",
        help="exit with 1 if a figure is worse by more, beyond the spread",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress or warnings")


def run(args: argparse.Namespace) -> int:
    """Measure, print, and compare if asked to."""
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
        _warn(args, f"not the same as in {args.compare}: {line}")
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
            raise UsageError("--fail-above needs an earlier result: --compare FILE")
        return None
    if args.fail_above is not None and not args.fail_above >= 0:
        raise UsageError(f"--fail-above is {args.fail_above}, expected at least 0")
    path = Path(args.compare)
    if not path.is_file():
        raise UsageError(f"no file {args.compare}: `edge-mrl bench --output` makes one")
    return parse_report(path.read_bytes(), args.compare)


def _check_output(output: str | None) -> None:
    """Minutes later would be too late to say so."""
    if output is None:
        return
    if Path(output).is_dir() or not Path(output).absolute().parent.is_dir():
        raise UsageError(f"output {output}: expected a file in a folder that is there")


def _setup(args: argparse.Namespace) -> Setup:
    from edge_mrl.diagnose import Setup

    if args.store is None and args.bundle is None:
        raise UsageError("expected --bundle DIR, or --store FILE to measure a store with its own")
    if args.store is not None and args.rows is not None:
        raise UsageError("--rows is the size of the temporary store: leave it out with --store")
    return Setup(
        bundle=Path(args.bundle) if args.bundle is not None else _bundle_of(args.store),
        store=None if args.store is None else _existing(args.store),
        rows=ROWS if args.rows is None else args.rows,
        threads=args.threads,
        seconds=args.seconds,
        low_memory=args.low_memory,
    )


def _existing(store: str) -> Path:
    from edge_mrl.cli.stores import existing

    return Path(existing(store))


def _bundle_of(store: str) -> Path:
    from edge_mrl.store import Store, find_bundle

    with Store.open(store) as opened:
        return find_bundle(opened)


def _sample(args: argparse.Namespace) -> Sample:
    from edge_mrl.diagnose import built_in, own

    return built_in() if args.texts is None else own(args.texts)


def _measure(args: argparse.Namespace, setup: Setup, sample: Sample) -> Report:
    from edge_mrl.cli.progress import Progress
    from edge_mrl.diagnose import ROUNDS, STEPS, measure
    from edge_mrl.machine import facts as machine

    now, cores = machine.load(), machine.cores()
    if machine.busy(now, cores):
        _warn(
            args,
            f"this machine is busy (load {now:.1f} on {cores} cores): figures will be worse and "
            "vary more than on an idle one",
        )
    steps = ROUNDS * (1 + len(STEPS)) + 1 + (setup.store is None)
    with Progress("measuring", steps, quiet=args.quiet) as bar:
        done = 0

        def advance(note: str) -> None:
            nonlocal done
            bar.advance(1 if done else 0, note=note)  # called before a step: count the one before
            done += 1

        return measure(setup, sample, advance=advance)


def _warn(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(f"edge-mrl: warning: {text}", file=sys.stderr)


def _save(report: Report, path: Path) -> None:
    from edge_mrl.cli.vectors import replacing

    with replacing(path) as file:
        file.write(f"{json.dumps(report.as_json(), indent=1)}\n".encode("ascii"))


def _print_json(report: Report, changes: list[Change] | None, others: list[str]) -> None:
    from edge_mrl.cli.output import print_json

    facts = report.as_json()
    if changes is not None:
        facts["comparison"] = {
            "changes": [dataclasses.asdict(change) for change in changes],
            "differences": others,
        }
    print_json(facts)


def _print_text(report: Report) -> None:
    from edge_mrl.cli.output import table

    print(table(_facts(report)))
    rows: list[tuple[str, ...]] = [("", "median", "least", "greatest", "samples")]
    for name, figure in sorted(report.figures.items(), key=lambda item: _place(item[0])):
        numbers = (_number(value) for value in (figure.value, figure.low, figure.high))
        rows.append((_label(name, figure), *numbers, f"{figure.samples:,}"))
    print(f"\n{_columns(rows)}")


def _facts(report: Report) -> list[tuple[str, str]]:
    from edge_mrl.cli.output import count, size

    machine, bundle, settings = report.machine, report.bundle, report.settings
    threads = settings["threads"]
    shown = "one thread per core" if threads is None else count(threads, "thread")
    cost = f"{settings['rounds']} rounds, {settings['seconds']:g} s a measurement"
    low = "; low memory" if settings["low_memory"] else ""
    texts = (
        f"{settings['texts']}: {count(settings['documents'], 'document')} of "
        f"{settings['document_words']:g} words on average, queries of {settings['query_words']:g}"
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
    from edge_mrl.cli.output import count, size

    unknown = "unknown"
    features = machine["features"]
    flags = unknown if features is None else ", ".join(features) or "none of note"
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
    """Times first, then memory."""
    return list(_LABELS).index(name) if name in _LABELS else len(_LABELS)


def _number(value: float) -> str:
    """Three digits that matter."""
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
