"""``edge-mrl delete``: documents out of a store."""

from __future__ import annotations

import argparse

from edge_mrl.cli.common.output import count, print_json
from edge_mrl.cli.common.stores import (
    FILTER_HELP,
    add_filter,
    add_store,
    open_existing,
    parse_filter,
)
from edge_mrl.errors import UsageError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "delete documents from a store"
_EPILOG = f"""\
{FILTER_HELP}
examples:
  edge-mrl delete notes/old.md --store notes.db
  edge-mrl delete --filter 'year<2010' --store notes.db

The file keeps its size until `edge-mrl compact` frees the space.

exit codes: 0 done, even if nothing was found; 2 wrong usage, or the store cannot be used
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("ids", nargs="*", metavar="ID", help="a document's id, or its file's path")
    add_filter(parser)
    add_store(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print no summary")


def run(args: argparse.Namespace) -> int:
    """Delete documents and print how many there were."""
    from edge_mrl.sources import ids_of_paths

    if bool(args.ids) == bool(args.filter):
        raise UsageError("expected either ids or --filter (see `edge-mrl delete --help`)")
    with open_existing(args) as index:
        where = parse_filter(args.filter)
        if where == {}:
            raise UsageError("--filter {} matches every document: name a condition")
        if where is None:
            paths = ids_of_paths(index.store, args.ids)
            ids = [paths.get(name, name) for name in args.ids]
        else:
            ids = index.select(where)
        deleted = index.delete(ids)
    if args.json:
        print_json({"deleted": deleted, "not_found": len(set(ids)) - deleted})
    elif not args.quiet:
        missing = len(set(ids)) - deleted
        print(
            f"{count(deleted, 'document')} deleted"
            + (f", {missing:,} not found" if missing else "")
        )
    return 0
