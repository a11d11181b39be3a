"""``edge-mrl doctor``: find problems with this machine, a bundle or a store, and say what to do."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.cli.common.output import print_json
from edge_mrl.cli.common.progress import Progress
from edge_mrl.cli.common.stores import add_key, add_threads, key_of
from edge_mrl.machine import describe

if TYPE_CHECKING:
    from edge_mrl.diagnose import Diagnosis, Finding, Subjects

__all__ = ["HELP", "add_arguments", "run"]

HELP = "find problems with this machine, a bundle or a store"
#: Longer steps: machine, packages, verifying, timing with its rounds, comparing, store.
STEPS = 9
#: The longest name of a subject: findings are printed one by one, before all are known.
SUBJECT_CHARS = 13
_EPILOG = """\
Checks the CPU, the installed packages, memory, disks, SQLite, the systemd units of edge-mrl and, if they
are named, a bundle and a store. Each finding is printed once it is there. Nothing is changed.

good      works              warning   works, but read the advice
note      good to know       problem   does not work, or soon will not
unknown   cannot be known on this machine

--bundle verifies the bundle as `edge-mrl verify` does, and measures its speed. --against compares it with
another precision of the same model on this CPU: speed, and cosine of the vectors. --store checks the
store as `edge-mrl check` does, which reads all of it.

examples:
  edge-mrl doctor
  edge-mrl doctor --bundle minilm --store notes.db
  edge-mrl doctor --bundle minilm --against minilm-fp32 --json

exit codes: 0 no problem; 1 a problem was found; 2 wrong usage
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("--bundle", metavar="DIR", help="a bundle to verify and measure")
    parser.add_argument(
        "--against",
        metavar="DIR",
        help="another bundle of the same model to compare with, such as one in fp32",
    )
    parser.add_argument("--store", metavar="FILE", help="a store to check")
    add_key(parser)
    add_threads(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--quiet", action="store_true", help="print no progress, and omit findings that are good"
    )


def run(args: argparse.Namespace) -> int:
    """Check, and print the findings."""
    from edge_mrl.diagnose import diagnose

    subjects = _subjects(args)
    with Progress("checking", STEPS, quiet=args.quiet) as bar:
        done = 0

        def advance(note: str) -> None:
            nonlocal done
            bar.advance(1 if done else 0, note=note)
            done += 1

        def found(finding: Finding) -> None:
            if not args.json and not (args.quiet and finding.level == "good"):
                bar.print("\n".join(_lines(finding)))

        diagnosis = diagnose(subjects, advance=advance, found=found)
    if args.json:
        _print_json(diagnosis)
    elif not args.quiet:
        problems = sum(finding.level == "problem" for finding in diagnosis.findings)
        warnings = sum(finding.level == "warning" for finding in diagnosis.findings)
        print(f"\n{_plural(problems, 'problem')}, {_plural(warnings, 'warning')}")
    return 0 if diagnosis.healthy else 1


def _subjects(args: argparse.Namespace) -> Subjects:
    from edge_mrl.bundle import bundle_folder
    from edge_mrl.diagnose import Subjects

    def folder(value: str | None) -> Path | None:
        return None if value is None else bundle_folder(Path(value))

    return Subjects(
        bundle=folder(args.bundle),
        against=folder(args.against),
        store=None if args.store is None else Path(args.store),
        key=None if args.store is None else key_of(args),
        threads=args.threads,
        low_memory=args.low_memory,
    )


def _print_json(diagnosis: Diagnosis) -> None:
    print_json(
        {
            "healthy": diagnosis.healthy,
            "findings": [dataclasses.asdict(finding) for finding in diagnosis.findings],
            "figures": diagnosis.figures,
            "machine": describe(),
        }
    )


def _lines(finding: Finding) -> list[str]:
    head = f"{finding.level:<9}{finding.subject:<{SUBJECT_CHARS}}  "
    lines = [f"{head}{finding.text}"]
    if finding.advice:
        lines.append(f"{'':{len(head)}}-> {finding.advice}")
    return lines


def _plural(number: int, noun: str) -> str:
    return f"{'no' if number == 0 else number} {noun}{'' if number == 1 else 's'}"
