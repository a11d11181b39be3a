"""Options and functions that the commands on texts and stores share."""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import TYPE_CHECKING, Any

from edge_mrl.errors import UsageError
from edge_mrl.machine import advice_about

if TYPE_CHECKING:
    from edge_mrl.index import Index
    from edge_mrl.store import Key, Store

__all__ = [
    "FILTER_HELP",
    "add_bundle",
    "add_filter",
    "add_key",
    "add_new_store",
    "add_store",
    "add_threads",
    "add_trust",
    "existing",
    "key_of",
    "new_key_of",
    "open_existing",
    "parse_filter",
    "say_obstacle",
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
    parser.add_argument(
        "--store",
        metavar="FILE",
        help="the store (default: that of EDGE_MRL_STORE or the settings)",
    )
    parser.set_defaults(fills_store=True)
    add_key(parser)
    if bundle:
        parser.add_argument("--bundle", metavar="DIR", help="the bundle's folder, if it has moved")


def add_new_store(parser: argparse.ArgumentParser) -> None:
    """Add --store and --bundle, for commands that make a store where there is none."""
    parser.add_argument(
        "--store",
        metavar="FILE",
        help="the store, created if it does not exist (default: that of EDGE_MRL_STORE or the settings)",
    )
    add_key(parser)
    parser.add_argument(
        "--bundle",
        metavar="DIR",
        help="the bundle of a new store: a folder, a .zip of one, hf://OWNER/NAME, or the name of an "
        "installed one (default: that of EDGE_MRL_BUNDLE or the settings, or the only installed one)",
    )
    parser.set_defaults(fills_store=True)


def add_bundle(parser: argparse.ArgumentParser, *, option: bool = False) -> None:
    """Add a bundle, as an argument or as --bundle, for commands that need one and no store."""
    shown = (
        "a bundle's folder, a .zip of one, hf://OWNER/NAME, or the name of an installed one (default: "
        "that of EDGE_MRL_BUNDLE or the settings, or the only one that is installed)"
    )
    if option:
        parser.add_argument("--bundle", metavar="DIR", help=shown)
    else:
        parser.add_argument("bundle", nargs="?", metavar="DIR", help=shown)
    parser.set_defaults(fills_bundle=True)


def add_key(parser: argparse.ArgumentParser, *, new: bool = False) -> None:
    """Add --key-file and --key-fd, or --new-key-file and --new-key-fd."""
    prefix, what = (
        ("--new-key", "the new key") if new else ("--key", "the key of an encrypted store")
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        f"{prefix}-file",
        metavar="FILE",
        help=f"read {what} from this file: 32 random bytes or 64 hexadecimal digits; not in the "
        "store's folder",
    )
    group.add_argument(
        f"{prefix}-fd", type=int, metavar="N", help=f"read {what} from this open file descriptor"
    )


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


def key_of(args: argparse.Namespace) -> Key | None:
    """The key that the options name, or a systemd credential, or EDGE_MRL_KEY; None without any.

    A descriptor is read once, and the key kept in the arguments.

    Raises:
        UsageError: It is no key, or lies beside the store.
    """
    if not hasattr(args, "key"):
        from edge_mrl.store import key_from_environment

        found = _named_key(args.store, args.key_file, args.key_fd)
        args.key = key_from_environment(args.store) if found is None else found
    key: Key | None = args.key
    return key


def new_key_of(args: argparse.Namespace) -> Key:
    """The key that --new-key-file or --new-key-fd names.

    Raises:
        UsageError: There is none, it is no key, or lies beside the store.
    """
    key = _named_key(args.store, args.new_key_file, args.new_key_fd)
    if key is None:
        raise UsageError("no new key was given: name it with --new-key-file or --new-key-fd")
    return key


def _named_key(store: str, file: str | None, descriptor: int | None) -> Key | None:
    if file is None and descriptor is None:
        return None
    from edge_mrl.store import key_from_descriptor, key_from_file

    if descriptor is not None:
        return key_from_descriptor(descriptor)
    return key_from_file(str(file), store)


def existing(path: str, key: Key | None) -> str:
    """Check that a store exists; commands that only read a store never create one.

    Args:
        path: The store's file.
        key: Gives its key; None for a plain store.

    Returns:
        The path.

    Raises:
        UsageError: There is no file at the path.
        StoreError: The file is not a store, or the store cannot be used.
    """
    from edge_mrl.store import Store

    Store.open(path, key=key).close()
    return path


def open_existing(args: argparse.Namespace, **options: Any) -> Index:
    """Open the store that --store names; it must exist."""
    from edge_mrl.index import Index

    bundle = getattr(args, "bundle", None)
    if bundle is not None:
        existing(args.store, key_of(args))
    index = Index.open(args.store, bundle, key=key_of(args), **options)
    say_obstacle(index.store, args)
    return index


def say_obstacle(store: Store, args: argparse.Namespace) -> None:
    """Say on standard error why a store can only be read, where nobody will have wanted that."""
    advice = None if store.obstacle is None else advice_about(store.obstacle)
    if advice is not None and not getattr(args, "quiet", False):
        text = f"{store.path} can only be read: {store.obstacle}: {advice}"
        print(f"edge-mrl: {text}", file=sys.stderr, flush=True)


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
