"""``edge-mrl index``: documents into a store."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from edge_mrl.documents import Source
    from edge_mrl.index import Index, Stored

__all__ = ["HELP", "add_arguments", "run"]

HELP = "put documents into a store"
_EPILOG = """\
PATHS are files, folders (read recursively: .txt, .md, .jsonl), quoted patterns ("notes/**/*.md"),
or - for JSON Lines on standard input. A text file is one document, its id the path as given. A JSON
Lines file holds one object a line: "text"; "id" or "_id"; "title" and "metadata" if you like.

A document replaces the one of its id; unchanged text is not embedded again, so the same command
brings a store up to date. Documents are committed in batches: interrupt it at any time and run it
again to go on. A store remembers its bundle: --bundle is needed to make it, or if the bundle moved.

examples:
  edge-mrl index notes/ --bundle minilm --store notes.db
  edge-mrl index corpus.jsonl --store notes.db
  grep -v '"draft"' all.jsonl | edge-mrl index - --store notes.db --json

exit codes: 0 done; 2 wrong usage or input, or an unusable bundle or store; 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("paths", nargs="+", metavar="PATHS", help="files, folders, patterns, or -")
    parser.add_argument(
        "--store", required=True, metavar="FILE", help="the store; made if not there"
    )
    parser.add_argument("--bundle", metavar="DIR", help="the bundle's folder")
    parser.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="most tokens in a passage (default: by the model, <= 247)",
    )
    parser.add_argument(
        "--overlap", type=int, metavar="N", help="tokens that passages share (default: an eighth)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: one per core)")
    parser.add_argument("--low-memory", action="store_true", help="smallest memory, slower")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress, warnings or summary")


def run(args: argparse.Namespace) -> int:
    """Index and print a summary."""
    from edge_mrl.documents import find_sources
    from edge_mrl.index import Index

    started = time.monotonic()
    sources = find_sources(args.paths)
    if not sources:
        raise UsageError(
            f"nothing to read in {', '.join(args.paths)}: expected .txt, .md or .jsonl"
        )
    with Index.open(
        args.store,
        args.bundle,
        max_tokens=args.max_tokens,
        overlap=args.overlap,
        threads=args.threads,
        low_memory=args.low_memory,
    ) as index:
        stored, skipped = _put(index, sources, quiet=args.quiet)
        facts = _facts(index, stored, skipped)
    # Closing folds the log into the file, so its size is known only now.
    facts["store"]["size_bytes"] = Path(args.store).stat().st_size
    facts["seconds"] = round(time.monotonic() - started, 3)
    _print(args, facts)
    return 0


def _put(index: Index, sources: list[Source], *, quiet: bool) -> tuple[Stored, int]:
    """Put everything; returns what was stored and how many files were skipped."""
    from edge_mrl.cli.output import count
    from edge_mrl.documents import read_documents
    from edge_mrl.progress import Progress

    skipped: list[str] = []
    committed = 0
    total = sum(source.size_bytes for source in sources)
    with Progress("indexing", total, quiet=quiet) as bar:

        def skip(message: str) -> None:
            skipped.append(message)
            bar.write(f"edge-mrl: warning: {message}")

        def commit(stored: Stored) -> None:
            nonlocal committed
            committed = stored.documents
            bar.advance(0, note=count(committed, "document"))

        documents = read_documents(sources, skipped=skip, advance=bar.advance)
        try:
            return index.put(documents, committed=commit), len(skipped)
        except KeyboardInterrupt:
            done = count(committed, "document")
            bar.write(f"edge-mrl: {done} done and safe: run the same command again to go on")
            raise


def _facts(index: Index, stored: Stored, skipped: int) -> dict[str, Any]:
    counts = index.count()
    return {
        "added": stored.added,
        "updated": stored.updated,
        "unchanged": stored.unchanged,
        "skipped_files": skipped,
        "passages": stored.passages,
        "max_tokens": index.rule.max_tokens,
        "overlap": index.rule.overlap,
        "store": {
            "path": str(index.path),
            "documents": counts.documents,
            "passages": counts.passages,
            "code_bytes": counts.passages * index.binding.dim,
        },
    }


def _print(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    from edge_mrl.cli.output import count, duration, print_json, size, table

    if args.json:
        print_json(facts)
        return
    if args.quiet:
        return
    store, seconds = facts["store"], facts["seconds"]
    done = facts["added"] + facts["updated"] + facts["unchanged"]
    kinds = ", ".join(f"{facts[key]:,} {key}" for key in ("added", "updated", "unchanged"))
    skipped = f"; {count(facts['skipped_files'], 'file')} skipped" if facts["skipped_files"] else ""
    rate = f", {facts['passages'] / seconds:.0f} passages/s" if facts["passages"] else ""
    rule = f"up to {facts['max_tokens']} tokens, {facts['overlap']} shared"
    held = [count(store["documents"], "document"), count(store["passages"], "passage")]
    held.append(f"{size(store['code_bytes'])} of codes")
    rows = [
        ("documents", f"{done:,}: {kinds}{skipped}"),
        ("passages", f"{facts['passages']:,} embedded ({rule})"),
        ("store", f"{store['path']}, {size(store['size_bytes'])}: {', '.join(held)}"),
        ("took", f"{duration(seconds)}{rate}"),
    ]
    print(table(rows))
