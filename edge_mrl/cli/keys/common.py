"""What the commands on a store's key share: running the change, and saying what was done."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from edge_mrl.cli.common.output import print_json, size

if TYPE_CHECKING:
    from edge_mrl.store import Key

__all__ = ["EXIT_CODES", "add_output", "change"]

EXIT_CODES = """
exit codes: 0 done; 2 wrong usage, the wrong key, or the store cannot be used; 3 a package is missing
"""


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add --json and --quiet."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print no summary")


def change(args: argparse.Namespace, *, key: Key | None, new_key: Key | None, done: str) -> int:
    """Write the store anew, and print what was done."""
    from edge_mrl.store import convert

    result = convert(args.store, key=key, new_key=new_key)
    if args.json:
        print_json(dataclasses.asdict(result))
    elif not args.quiet:
        wiped = "; the former file was overwritten" if result.wiped else ""
        print(f"{args.store} {done}, {size(result.size_bytes)}{wiped}")
    return 0
