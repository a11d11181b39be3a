"""Options and functions that the commands on texts and stores share."""

from __future__ import annotations

import argparse
import json
import re
from typing import TYPE_CHECKING, Any

from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from edge_mrl.index import Index

__all__ = [
    "FILTER_HELP",
    "add_filter",
    "add_store",
    "add_threads",
    "add_trust",
    "existing",
    "open_existing",
    "parse_filter",
]

FILTER_HELP = """\
--filter takes NAME=VALUE, or !=, <, <=, >, >= (numbers are compared as numbers), or a JSON object with
the operators of MongoDB and Chroma. Given several times, all of them must match:
  --filter lang=en --filter 'year>=2020'
  --filter '{"$or": [{"lang": "en"}, {"tags": {"$in": ["a", "b"]}}]}'
"""
_COMPARISON = re.compile(r"([^=!<>]+)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_OPERATORS = {"!=": "$ne", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}


def add_store(parser: argparse.ArgumentParser, *, bundle: bool = False) -> None:
    """Add --store and, if asked for, --bundle for a bundle that has moved."""
    parser.add_argument("--store", required=True, metavar="FILE", help="the store")
    if bundle:
        parser.add_argument("--bundle", metavar="DIR", help="the bundle's folder, if it has moved")


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Add --filter."""
    parser.add_argument(
        "--filter",
        action="append",
        metavar="EXPR",
        help="only documents whose metadata match; may be given several times",
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add --threads and --low-memory, for commands that embed text."""
    parser.add_argument(
        "--threads", type=int, metavar="N", help="use N threads (default: one per core)"
    )
    parser.add_argument("--low-memory", action="store_true", help="use less memory; slower")
    add_trust(parser)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add --trust, for commands that open a bundle; the command line passes it on by EDGE_MRL_TRUST."""
    parser.add_argument(
        "--trust",
        metavar="KEYS",
        help="refuse a bundle that no public key in this file has signed (default: the file that "
        "EDGE_MRL_TRUST names, if it is set)",
    )


def parse_filter(expressions: list[str] | None) -> dict[str, Any] | None:
    """Combine the --filter options into one filter; None if there are none.

    Raises:
        UsageError: An expression is neither a comparison nor a JSON object.
    """
    if not expressions:
        return None
    parts = [_parse(expression) for expression in expressions]
    return parts[0] if len(parts) == 1 else {"$and": parts}


def existing(path: str) -> str:
    """Check that a store exists; commands that only read a store never create one.

    Returns:
        The path.

    Raises:
        UsageError: There is no file at the path.
        StoreError: The file is not a store, or the store cannot be used.
    """
    from edge_mrl.store import Store

    Store.open(path).close()
    return path


def open_existing(args: argparse.Namespace, **options: Any) -> Index:
    """Open the store that --store names; it must exist."""
    from edge_mrl.index import Index

    bundle = getattr(args, "bundle", None)
    if bundle is not None:
        existing(args.store)
    return Index.open(args.store, bundle, **options)


def _parse(expression: str) -> dict[str, Any]:
    if expression.lstrip().startswith("{"):
        try:
            value = json.loads(expression)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--filter {expression!r} is not valid JSON ({error})") from error
        if isinstance(value, dict):
            return value
    match = _COMPARISON.fullmatch(expression)
    if match is None or not match[1].strip():
        raise UsageError(
            f"--filter {expression!r}: expected NAME=VALUE, NAME>=VALUE, ... or a JSON object"
        )
    name, operator, text = match[1].strip(), match[2], match[3].strip()
    value = _value(text)
    return {name: value if operator == "=" else {_OPERATORS[operator]: value}}


def _value(text: str) -> Any:
    """The value of a JSON string, number, true, false or null; any other text stays as it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, list | dict) else value
