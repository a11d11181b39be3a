"""``edge-mrl index``: documents into a store."""

from __future__ import annotations

import argparse
import glob
import hashlib
import os
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mrl.cli.common.output import count, duration, print_json, size, table
from edge_mrl.cli.common.progress import Progress
from edge_mrl.cli.common.stores import add_threads
from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from edge_mrl.documents import Document
    from edge_mrl.index import Index
    from edge_mrl.ingest import Stored
    from edge_mrl.sources import SourceFile

__all__ = ["HELP", "add_arguments", "run"]

HELP = "add documents to a store"
_EPILOG = """\
PATHS are files, folders (read recursively: .txt, .md, .jsonl), patterns in quotes ("notes/**/*.md"),
or - for JSON Lines on standard input. A text file is one document; its id is its path, as given. A JSON
Lines file has one object a line, with the keys "text" and, optionally, "id" or "_id", "title", and
"metadata".

A document replaces the stored one with the same id, and unchanged text is not embedded again. So run the
same command again to bring a store up to date; with --prune it also deletes documents that an earlier run
read from PATHS and that are gone now. Documents are saved in batches: you can interrupt the command at
any time and run it again to go on. A store remembers its bundle: --bundle is only needed to create a
store, or if the bundle has moved.

examples:
  edge-mrl index notes/ --bundle minilm --store notes.db
  edge-mrl index notes/ --store notes.db --prune
  grep -v '"draft"' all.jsonl | edge-mrl index - --store notes.db --json

exit codes: 0 done; 2 wrong usage or input, or the bundle or store cannot be used; 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("paths", nargs="+", metavar="PATHS", help="files, folders, patterns, or -")
    parser.add_argument(
        "--store", required=True, metavar="FILE", help="the store; created if it does not exist"
    )
    parser.add_argument(
        "--bundle", metavar="DIR", help="the bundle's folder; needed to create a store"
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="longest passage, in tokens (default: what the model reads, at most 247)",
    )
    parser.add_argument(
        "--overlap",
        type=int,
        metavar="N",
        help="tokens that neighbouring passages share (default: an eighth of the longest passage)",
    )
    parser.add_argument(
        "--keep-full",
        choices=("until-synced", "fp16", "int8"),
        help="also keep full vectors on disk, to rescore the best hits with them (fixed when the store "
        "is created)",
    )
    parser.add_argument(
        "--prune", action="store_true", help="delete documents that are gone from PATHS"
    )
    add_threads(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.add_argument(
        "--quiet", action="store_true", help="print no progress, warnings or summary"
    )


def run(args: argparse.Namespace) -> int:
    """Index documents and print a summary."""
    from edge_mrl.index import Index
    from edge_mrl.sources import find_sources

    started = time.monotonic()
    if args.prune:
        _require_no_pattern(args.paths)
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
        keep_full=args.keep_full,
        threads=args.threads,
        low_memory=args.low_memory,
    ) as index:
        stored, run_ = _put(index, sources, quiet=args.quiet)
        pruned = _prune(index, args.paths, run_) if args.prune else None
        facts = _facts(index, stored, len(run_.skipped), pruned)
    # Closing folds the log into the file, so its size is known only now.
    facts["store"]["size_bytes"] = Path(args.store).stat().st_size
    facts["seconds"] = round(time.monotonic() - started, 3)
    _print(args, facts)
    return 0


class _Run:
    """What one run has read: hashes of ids, 8 bytes each, and sources that could not be read."""

    def __init__(self) -> None:
        self.skipped: set[str] = set()
        self._seen = array("Q")

    def note(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Pass documents on."""
        for document in documents:
            self._seen.append(_hash(document.id))
            yield document

    def unseen(self, ids: list[str]) -> list[str]:
        """Those of the ids that were not read."""
        import numpy as np

        there = np.isin([_hash(name) for name in ids], np.frombuffer(self._seen, np.uint64))
        return [name for name, seen in zip(ids, there.tolist(), strict=True) if not seen]


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _put(index: Index, sources: list[SourceFile], *, quiet: bool) -> tuple[Stored, _Run]:
    """Put all documents; returns what was stored and what was read."""
    from edge_mrl.sources import read_documents

    run_ = _Run()
    committed = 0
    total = sum(source.size_bytes for source in sources)
    with Progress("indexing", total, quiet=quiet) as bar:

        def skip(source: str, why: str) -> None:
            run_.skipped.add(source)
            bar.write(f"edge-mrl: warning: {source}: skipped, {why}")

        def commit(stored: Stored) -> None:
            nonlocal committed
            committed = stored.documents
            bar.advance(0, note=count(committed, "document"))

        documents = run_.note(read_documents(sources, skipped=skip, advance=bar.advance))
        try:
            return index.put(documents, committed=commit), run_
        except KeyboardInterrupt:
            done = count(committed, "document")
            bar.write(f"edge-mrl: {done} done and safe: run the same command again to go on")
            raise


def _require_no_pattern(paths: list[str]) -> None:
    for path in paths:
        if glob.has_magic(path) and not Path(path).exists():
            raise UsageError(f"--prune works with files and folders, not with the pattern {path}")


def _prune(index: Index, paths: list[str], run_: _Run) -> int:
    """Delete documents that an earlier run read from the paths and that are gone now."""
    whole = {os.path.normpath(path).replace(os.sep, "/") for path in paths}
    folders = tuple("" if path == "." else f"{path.rstrip('/')}/" for path in whole)

    def covered(source: str) -> bool:
        inside = source.startswith(folders) and not (
            source.startswith(("/", "../")) and "" in folders
        )
        return source not in run_.skipped and (source in whole or inside)

    candidates = [name for name, source in index.ids_of_sources() if covered(source)]
    return index.delete(run_.unseen(candidates))


def _facts(index: Index, stored: Stored, skipped: int, pruned: int | None) -> dict[str, Any]:
    counts = index.count()
    return {
        "added": stored.added,
        "updated": stored.updated,
        "unchanged": stored.unchanged,
        "pruned": pruned or 0,
        "skipped_files": skipped,
        "passages": stored.passages,
        "max_tokens": index.rule.max_tokens,
        "overlap": index.rule.overlap,
        "store": {
            "path": str(index.path),
            "documents": counts.documents,
            "passages": counts.passages,
            "code_bytes": counts.passages * index.binding.packing.bytes(index.binding.dim),
        },
    }


def _print(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    if args.json:
        print_json(facts)
        return
    if args.quiet:
        return
    store, seconds = facts["store"], facts["seconds"]
    done = facts["added"] + facts["updated"] + facts["unchanged"]
    kinds = ", ".join(f"{facts[key]:,} {key}" for key in ("added", "updated", "unchanged"))
    skipped = f"; {count(facts['skipped_files'], 'file')} skipped" if facts["skipped_files"] else ""
    pruned = f"; {count(facts['pruned'], 'document')} pruned" if facts["pruned"] else ""
    rate = f", {facts['passages'] / seconds:.0f} passages/s" if facts["passages"] else ""
    rule = f"up to {facts['max_tokens']} tokens, {facts['overlap']} shared"
    held = [count(store["documents"], "document"), count(store["passages"], "passage")]
    held.append(f"{size(store['code_bytes'])} of codes")
    rows = [
        ("documents", f"{done:,}: {kinds}{pruned}{skipped}"),
        ("passages", f"{facts['passages']:,} embedded ({rule})"),
        ("store", f"{store['path']}, {size(store['size_bytes'])}: {', '.join(held)}"),
        ("took", f"{duration(seconds)}{rate}"),
    ]
    print(table(rows))
