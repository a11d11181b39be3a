"""``edge-mrl list``: what is in a store."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

from edge_mrl.cli.common.output import count, print_json, snippet
from edge_mrl.cli.common.stores import (
    FILTER_HELP,
    add_filter,
    add_store,
    open_existing,
    parse_filter,
)
from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_mrl.documents import Document
    from edge_mrl.store import Root

__all__ = ["HELP", "add_arguments", "run"]

HELP = "list the documents of a store"
#: Characters of a title, or of the text where there is no title.
TITLE_CHARS = 80
_EPILOG = f"""\
One document a line, in the order in which they were first put: the path of its file, or its id, and its
title, or else the beginning of its text. The list shows one state of the store, whatever is written
meanwhile.
{FILTER_HELP}
examples:
  edge-mrl list --store notes.db
  edge-mrl list --store notes.db --filter folder=work --limit 20
  edge-mrl list --store notes.db --json | jq -r .id

exit codes: 0 done, even if there is nothing; 2 wrong usage, or the store cannot be used or is damaged
(all other documents were printed)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_store(parser)
    add_filter(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="print at most N documents")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object a document, with id, title, path, metadata and characters",
    )
    parser.add_argument("--quiet", action="store_true", help="print only the documents")


def run(args: argparse.Namespace) -> int:
    """Print the documents."""
    from edge_mrl.store import read_roots

    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit {args.limit}: expected at least 1")
    number = 0
    with open_existing(args) as index:
        roots, here = read_roots(index.store), os.path.realpath(".")
        with closing(index.documents(parse_filter(args.filter))) as documents:
            for document in islice(documents, args.limit):
                number += 1
                facts = _facts(document, roots, here)
                if args.json:
                    print_json(facts)
                else:
                    shown = facts["path"] or document.id
                    title = snippet(facts["title"] or document.text, chars=TITLE_CHARS)
                    print(f"{snippet(shown, chars=len(shown) + 1)}  {title}".rstrip())
    if not args.quiet:
        said = count(number, "document") if number else "nothing found"
        print(said, file=sys.stderr)
    return 0


def _facts(document: Document, roots: Sequence[Root], here: str) -> dict[str, Any]:
    from edge_mrl.sources import shown_path

    title = document.metadata.get("title")
    return {
        "id": document.id,
        "title": title if isinstance(title, str) else None,
        "path": shown_path(roots, document.source, folder=here)
        if document.source == document.id
        else None,
        "metadata": dict(document.metadata),
        "characters": len(document.text),
    }
