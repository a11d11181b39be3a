"""``edge-mrl delete``: documents out of a store."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edge_mrl.cli.common.output import count, print_json
from edge_mrl.cli.common.stores import (
    FILTER_HELP,
    add_filter,
    add_store,
    open_existing,
    parse_filter,
)
from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from edge_mrl.store import Store

__all__ = ["HELP", "add_arguments", "run"]

HELP = "delete documents from a store"
_EPILOG = f"""\
{FILTER_HELP}
--folder takes a name that `edge-mrl stats` shows, and forgets the folder with all its documents.

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
    parser.add_argument(
        "--folder", metavar="NAME", help="all documents of an indexed folder, and the folder itself"
    )
    add_store(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print no summary")


def run(args: argparse.Namespace) -> int:
    """Delete documents and print how many there were."""
    from edge_mrl.sources import ids_of_paths

    if [bool(args.ids), bool(args.filter), args.folder is not None].count(True) != 1:
        raise UsageError(
            "expected either ids or --filter, or --folder (see `edge-mrl delete --help`)"
        )
    with open_existing(args) as index:
        where = parse_filter(args.filter)
        if where == {}:
            raise UsageError("--filter {} matches every document: name a condition")
        if args.folder is not None:
            ids = _forget_folder(index.store, args.folder)
        elif where is None:
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


def _forget_folder(store: Store, name: str) -> list[str]:
    """Forget a folder; returns the ids of its documents.

    Raises:
        UsageError: No folder has this name.
    """
    from edge_mrl.store import forget_root, read_roots, sources_below

    roots = {root.name: root for root in read_roots(store)}
    if name not in roots:
        known = ", ".join(roots) or "none"
        raise UsageError(f"no folder {name!r} in {store.path}: expected one of {known}")
    prefix = roots[name].prefix
    inner = tuple(
        root.prefix
        for root in roots.values()
        if root.prefix != prefix and root.prefix.startswith(prefix)
    )
    found = [one for one, source in sources_below(store, prefix) if not source.startswith(inner)]
    forget_root(store, prefix)
    return found
