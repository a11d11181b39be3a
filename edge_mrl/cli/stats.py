"""``edge-mrl stats``: what a store holds, and how much space it takes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edge_mrl.cli.common.output import count, print_json, size, table
from edge_mrl.cli.common.stores import add_store, open_existing
from edge_mrl.native import kernel_version

if TYPE_CHECKING:
    from edge_mrl.store import Stats

__all__ = ["HELP", "add_arguments", "run"]

HELP = "show how many documents a store holds, and its size"
_EPILOG = """\
exit codes: 0 done; 2 wrong usage, or the store cannot be used
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    add_store(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the figures."""
    with open_existing(args) as index:
        facts = index.stats()
    if args.json:
        print_json({**facts.as_dict(), "kernels": kernel_version()})
    else:
        print(table([*_rows(facts), ("engine", _engine())]))
    return 0


def _kind(facts: Stats) -> str:
    kinds = ["encrypted"] if facts.encrypted else []
    kinds += [] if facts.writable else [f"read-only now: {facts.obstacle}"]
    return f" ({', '.join(kinds)})" if kinds else ""


def _engine() -> str:
    """What searches codes on this machine."""
    found = kernel_version()
    return "numpy" if found is None else f"kernels {found}"


_SPLITTERS = {
    "markdown": "; Markdown by structure",
    "markdown+headings": "; Markdown by structure, embedded with its headings",
}


def _rows(facts: Stats) -> list[tuple[str, str]]:
    deleted = facts.deleted_passages
    rows = [
        ("store", facts.path + _kind(facts)),
        ("bundle", facts.bundle),
        ("codes", f"{facts.dim} dimensions {facts.code}, {facts.code_bytes} B a passage"),
        ("space", facts.space_id[:12] + f", code {facts.code_id[:12]}"),
        ("documents", f"{facts.documents:,}"),
        (
            "passages",
            f"{facts.passages:,} of up to {facts.max_tokens} tokens, {facts.overlap} shared"
            + _SPLITTERS.get(facts.splitter, "")
            + (f"; {deleted:,} deleted (`edge-mrl compact` drops them)" if deleted else ""),
        ),
        ("full", facts.keep_full or "not kept"),
        ("disk", ", ".join(f"{name} {size(value)}" for name, value in facts.bytes.items())),
        (
            "code file",
            "none: codes are in memory alone"
            if facts.encrypted
            else f"{count(facts.filed_passages, 'row')}, {facts.waiting_passages:,} waiting"
            + (f"; not in use: {facts.problem}" if facts.problem else ""),
        ),
    ]
    rows += [("folder", f"{name} = {path}") for name, path in facts.roots.items()]
    if facts.stages:
        rows.append(("stages", facts.stages))
    if facts.engines:
        rows.append(("embedded by", " and ".join(facts.engines)))
    if facts.server:
        rows.append(("synced", f"with {facts.server}; {facts.queued:,} queued"))
    if facts.reindexing:
        rows.append(("reindexing", f"interrupted, to {facts.reindexing}: run it again to go on"))
    return rows
