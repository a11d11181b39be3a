"""``edge-mrl get``: documents by id."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from edge_mrl.cli.common.output import print_json
from edge_mrl.cli.common.stores import add_store, open_existing

if TYPE_CHECKING:
    from edge_mrl.documents import Document

__all__ = ["HELP", "add_arguments", "run"]

HELP = "print documents of a store"
_EPILOG = """\
examples:
  edge-mrl get notes/garden.md --store notes.db
  edge-mrl get a b c --store notes.db --json

exit codes: 0 all found; 1 some not found; 2 wrong usage, or the store cannot be used
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("ids", nargs="+", metavar="ID", help="a document's id, or its file's path")
    add_store(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a document")


def run(args: argparse.Namespace) -> int:
    """Print the documents in the order of their ids on the command line."""
    from edge_mrl.sources import ids_of_paths

    with open_existing(args) as index:
        paths = ids_of_paths(index.store, args.ids)
        found = index.get([paths.get(name, name) for name in args.ids])
        here = index.store.hashes(list(found))
    missing = False
    for name in dict.fromkeys(args.ids):
        document = found.get(paths.get(name, name))
        missing = missing or document is None
        if document is None:
            print(f"edge-mrl: no document {name!r}", file=sys.stderr)
        elif args.json:
            print_json(_facts(document))
        else:
            print(document.text)
        if document is not None and not document.text and document.id not in here:
            print(f"edge-mrl: note: the text of {name!r} is on another device", file=sys.stderr)
    return 1 if missing else 0


def _facts(document: Document) -> dict[str, Any]:
    return {
        "id": document.id,
        "text": document.text,
        "metadata": dict(document.metadata),
        "source": document.source,
    }
