"""``edge-mrl index``: documents into a store."""

from __future__ import annotations

import argparse
import glob
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.cli.common.defaults import bundle_of_new
from edge_mrl.cli.common.output import count
from edge_mrl.cli.common.progress import Progress
from edge_mrl.cli.common.stores import add_new_store, add_threads, key_of
from edge_mrl.errors import GateError, NoStoreError, UsageError

if TYPE_CHECKING:
    from edge_mrl.cli.index.reading import Run
    from edge_mrl.index import Index
    from edge_mrl.ingest import Stored
    from edge_mrl.sources import Places, Pruning, Scan
    from edge_mrl.store import Moved, Store

__all__ = ["HELP", "add_arguments", "run"]

HELP = "add documents to a store"
#: Some input was left out; everything else was stored.
LEFT_OUT = 5
_EPILOG = """\
PATHS are files, folders (read recursively), patterns in quotes ("notes/**/*.md"), or - for JSON Lines on
standard input. Folders are searched for text (.txt, .md, .rst, .org), JSON Lines (.jsonl) and mail
(.mbox, .eml), and with the extra "files" for .html, .pdf, .docx and .epub. A text file is one document.
A JSON Lines file has one object a line, with the keys "text" and, optionally, "id" or "_id", "title", and
"metadata"; a .csv or .tsv, which is read if you name or include it, has one a row.

The id of a text file's document is the name of its folder, an @ and letters that only this store has, and
the path inside the folder: notes@k3v9q2xw/garden.md. It stays the same however you name the folder, and
from whichever folder you run the command. NAME=PATH gives a folder a name of your own; use it if the
folder has moved, or if several devices hold the same files and should share their documents. `edge-mrl
stats` shows the names. A line without "id" gets an id that is made of its content.

A document replaces the stored one with the same id, and unchanged text is not embedded again. So run the
same command again to bring a store up to date. With --prune it also deletes documents that an earlier run
read from PATHS and whose files are gone now. What is only out of reach (a drive that is not mounted, a
folder without permission) is kept and named, and large deletions have to be confirmed with --yes.
--dry-run shows what would happen. Documents are saved in batches: you can interrupt the command at any
time and run it again to go on. A store remembers its bundle: --bundle is only needed to create a store
(without one, the bundle that is installed is taken), or if the bundle has moved.

examples:
  edge-mrl index notes/ --store notes.db
  edge-mrl index notes/ --store notes.db --bundle my-model/
  edge-mrl index notes/ --store notes.db --prune
  edge-mrl index shared=/mnt/team/notes --store notes.db
  edge-mrl index --sql "SELECT id, body AS text, tag FROM note" --database app.db --store notes.db
  grep -v '"draft"' all.jsonl | edge-mrl index - --store notes.db --json

exit codes: 0 done; 1 --prune would delete much, which needs --yes (all documents were indexed); 2 wrong
usage or input, or the bundle or store cannot be used; 5 done, but lines (--skip-bad), texts, or files
that you named were left out, which is said; 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the sub-command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "paths", nargs="*", metavar="PATHS", help="files, folders, patterns, or -; or NAME=PATH"
    )
    add_new_store(parser)
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
        "--headings",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="embed the headings above a passage of Markdown with it (fixed when the store is created; "
        "default: no)",
    )
    parser.add_argument(
        "--keep-full",
        choices=("until-synced", "fp16", "int8"),
        help="also keep full vectors on disk, to rescore the best hits with them (fixed when the store "
        "is created)",
    )
    _add_reading(parser)
    _add_rows(parser)
    _add_pruning(parser)
    add_threads(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.add_argument(
        "--quiet", action="store_true", help="print no progress, warnings or summary"
    )


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is read, and how."""
    parser.add_argument(
        "--include",
        action="append",
        default=[],
        metavar="PATTERN",
        help='also read files with such names from folders, as text, as in "*.rst" or "README*"; may be '
        "given several times",
    )
    parser.add_argument(
        "--as-text",
        action="store_true",
        help="read files with markup (.html, .pdf, .csv and others) as they are, if they are named or "
        "included",
    )
    parser.add_argument(
        "--encoding",
        metavar="NAME",
        help="the encoding of files that are not UTF-8, such as latin-1 (default: skip them; UTF-16 with "
        "a byte order mark is always read)",
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="name lines of JSON Lines that are no documents, and go on (default: stop at the first one)",
    )


def _add_rows(parser: argparse.ArgumentParser) -> None:
    """Add the options that read a database."""
    parser.add_argument(
        "--sql",
        metavar="QUERY",
        help="index the rows of a SELECT instead of files: the columns id and text are needed, title is "
        "put before the text, and all others are metadata",
    )
    parser.add_argument(
        "--database",
        metavar="FILE",
        help="with --sql, the SQLite database, or NAME=FILE; it is opened to be read only",
    )


def _add_pruning(parser: argparse.ArgumentParser) -> None:
    """Add the options that delete documents or change their ids."""
    parser.add_argument(
        "--prune", action="store_true", help="delete documents whose files are gone from PATHS"
    )
    parser.add_argument(
        "--yes",
        action="store_true",
        help="with --prune, delete even more than 25 documents and a third of those from PATHS",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="go on until the command is ended: look for changes, and index them",
    )
    parser.add_argument(
        "--interval",
        type=float,
        default=2.0,
        metavar="S",
        help="with --watch, look after S seconds, unless watchfiles is installed and tells of changes at "
        "once (default: 2)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be added, updated and deleted, and write nothing",
    )
    parser.add_argument(
        "--move-ids",
        action="store_true",
        help="give documents from PATHS the ids that a new store would give them, or those of NAME=PATH; "
        "nothing is embedded again",
    )


def run(args: argparse.Namespace) -> int:
    """Index documents and print a summary."""
    from edge_mrl.sources import check_encoding

    _check_paths(args)
    if args.watch and not args.interval > 0:
        raise UsageError(f"--interval {args.interval:g}: expected more than 0 seconds")
    if args.watch and args.dry_run:
        raise UsageError("--watch and --dry-run do not go together")
    if args.prune:
        _require_no_pattern(args.paths)
    check_encoding(args.encoding)
    if args.dry_run:
        from edge_mrl.cli.index.rehearsal import rehearse

        return rehearse(args)
    if args.watch:
        from edge_mrl.cli.index.watching import watch

        return watch(args, _once)
    return _once(args)


def _once(args: argparse.Namespace, only: Collection[str] | None = None) -> int:
    """Index the files of the paths, or only those of some paths, and print a summary."""
    from edge_mrl.cli.index.reading import Run

    started = time.monotonic()
    places, scan = _find(args)
    if only is not None:
        scan.files = [file for file in scan.files if file.path in only]
    with _open(args) as index:
        # Made or migrated by now: the same paths once more, against what the store holds.
        if places.store is None:
            places.store = index.store
        moved = _prepare(index.store, places, args)
        run_ = Run(places, scan, skip_bad=args.skip_bad, encoding=args.encoding, query=args.sql)
        stored = _put(index, run_, args)
        pruning = _prune(index, run_, args) if args.prune and only is None else None
        from edge_mrl.cli.index.report import facts_of, print_report

        facts = facts_of(index, stored, run_, pruning, moved)
    # Closing folds the log into the file, so its size is known only now.
    facts["store"]["size_bytes"] = Path(args.store).stat().st_size
    facts["seconds"] = round(time.monotonic() - started, 3)
    print_report(args, facts)
    if pruning is not None and pruning.is_large and not args.yes:
        raise GateError(_refusal(pruning))
    left_out = run_.bad_lines or stored.refused or run_.named_and_skipped()
    return LEFT_OUT if left_out else 0


def _check_paths(args: argparse.Namespace) -> None:
    """Take the database as the path, where rows are read.

    Raises:
        UsageError: Nothing is named that could be read, or too much.
    """
    from edge_mrl.sources import split_name
    from edge_mrl.store import check_query

    if args.sql is None and args.database is None:
        if not args.paths:
            raise UsageError("expected files or folders, or --sql with --database")
        return
    if args.sql is None or args.database is None:
        raise UsageError("--sql and --database go together")
    if args.paths:
        raise UsageError(
            f"--sql reads a database, not {args.paths[0]}: index that with a command of its own"
        )
    args.paths = [args.database]
    path = split_name(args.database)[1]
    if not Path(path).is_file():
        raise UsageError(f"--database {args.database}: expected a file that is there")
    check_query(path, args.sql)


def _require_no_pattern(paths: list[str]) -> None:
    from edge_mrl.sources import split_name

    for path in (split_name(path)[1] for path in paths):
        if glob.has_magic(path) and not Path(path).exists():
            raise UsageError(f"--prune works with files and folders, not with the pattern {path}")


def _open(args: argparse.Namespace) -> Index:
    from edge_mrl.index import Index

    return Index.open(
        args.store,
        bundle_of_new(args),
        max_tokens=args.max_tokens,
        overlap=args.overlap,
        headings=args.headings,
        keep_full=args.keep_full,
        key=key_of(args),
        threads=args.threads,
        low_memory=args.low_memory,
    )


def _find(args: argparse.Namespace) -> tuple[Places, Scan]:
    """The places of the paths and the files there; nothing is written.

    Raises:
        UsageError: A path does not exist, or cannot be read as it was asked for.
    """
    from edge_mrl.sources import Places, Search, find_in_roots
    from edge_mrl.store import Store

    search = Search(include=args.include, as_text=args.as_text or args.sql is not None)
    try:
        store: Store | None = Store.open(args.store, key=key_of(args))
    except NoStoreError:
        store = None  # made, or missed, once it is known that the paths are right
    try:
        places = Places(store, move_ids=args.move_ids)
        places.resolve(args.paths)
        scan = find_in_roots(places, search)
    finally:
        if store is not None:
            store.close()
    places.store = None
    if not args.prune and all(place.kind == "missing" for place in places.places):
        given = ", ".join(place.given for place in places.places)
        raise UsageError(
            f"{given} is not there, though documents were read from it: is a drive not mounted?"
        )
    return places, scan


def _prepare(store: Store, places: Places, args: argparse.Namespace) -> Moved | None:
    """Write what was learned of roots, and move ids; returns what was moved."""
    from edge_mrl.sources import move_ids, note_roots
    from edge_mrl.store import Moved

    for root in places.roots_in_use():
        if root.numbered:
            places.notes.append(
                f"ids of documents from {root.path} are those of an earlier version; --move-ids gives "
                "them ids that other devices do not share"
            )
    for note in [] if args.quiet else places.notes:
        print(f"edge-mrl: note: {note}", file=sys.stderr)
    note_roots(store, places)
    if not places.moves:
        return None
    total = Moved()
    with Progress("moving ids", quiet=args.quiet) as bar:
        for move in places.moves:

            def advance(moved: Moved) -> None:
                bar.advance(0, note=count(moved.moved, "document"))

            others = list(places.roots.values())
            total += move_ids(store, move, others=others, advance=advance)
    return total


def _put(index: Index, run_: Run, args: argparse.Namespace) -> Stored:
    """Put all documents."""
    from edge_mrl.sources import BadLineError

    with Progress("indexing", run_.total_bytes, quiet=args.quiet) as bar:
        run_.watch(bar)
        if not run_.scan.files:
            given = ", ".join(args.paths)
            bar.write(
                f"edge-mrl: note: nothing to read in {given}: expected .txt, .md, .jsonl or the like"
            )
        try:
            return index.put(
                run_.documents(),
                committed=run_.commit,
                advance=run_.embedded,
                on_error="skip",
            )
        except KeyboardInterrupt:
            done = count(run_.committed, "document")
            bar.write(f"edge-mrl: {done} done and safe: run the same command again to go on")
            raise
        except BadLineError as error:
            done = count(run_.committed, "document")
            raise BadLineError(
                f"{error}; {done} done and safe; --skip-bad leaves such lines out"
            ) from error


def _prune(index: Index, run_: Run, args: argparse.Namespace) -> Pruning:
    """Delete documents that an earlier run read from the paths and that are gone now."""
    from edge_mrl.sources import what_is_gone

    pruning = what_is_gone(index.store, run_.places, run_.facts())
    if not pruning.is_large or args.yes:
        index.delete(pruning.gone)
    return pruning


def _refusal(pruning: Pruning) -> str:
    gone, total = len(pruning.gone), pruning.total
    return (
        f"--prune would delete {gone:,} of {total:,} documents from these paths ({gone / total:.0%}): "
        "nothing was deleted; look with --dry-run, and confirm with --yes"
    )
