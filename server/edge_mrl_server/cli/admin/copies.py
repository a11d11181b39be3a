"""``edge-mrl admin backup``, ``restore`` and ``restored``: copies of the database."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mrl.errors import UsageError
from edge_mrl_server.cli.admin.common import Actions, FileActions, Outcome, Subjects, in_percent

if TYPE_CHECKING:
    from edge_mrl_server.storage import Copied

__all__ = ["ACTIONS", "FILE_ACTIONS", "add"]


def add(subjects: Subjects) -> None:
    """Describe the nouns' arguments."""
    backup = subjects.alone("backup", "copy the database, also while a server runs (SQLite)")
    backup.add_argument("copy", type=Path, metavar="DEST", help="file that the copy is written to")
    backup.add_argument("--force", action="store_true", help="replace a file of that name")
    restore = subjects.alone(
        "restore",
        "put a copy in the database's place; every server process must be stopped (SQLite)",
    )
    restore.add_argument(
        "copy", type=Path, metavar="COPY", help="file that `edge-mrl admin backup` made"
    )
    restore.add_argument(
        "--force",
        action="store_true",
        help="take a copy whose counts disagree: a mixture of several moments",
    )
    for parser in (backup, restore):
        parser.add_argument("--quiet", action="store_true", help="show no progress")
    restored = subjects.alone(
        "restored",
        "tell the server that you put back a copy by other means (PostgreSQL, or a snapshot of the disk)",
    )
    restored.add_argument(
        "--with-log",
        action="store_true",
        help="the log beside the database (-wal) was put back together with it",
    )


def _backup(args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import backup

    database = _file(
        args.database,
        "`pg_dump --format=custom --file DEST URL` makes a copy, and pg_basebackup with archived WAL one "
        "of the whole cluster",
    )
    with in_percent("copied", quiet=args.quiet, unit=_size) as note:
        copied = backup(database, args.copy, force=args.force, progress=note)
    result = {"database": str(database), "copy": str(args.copy), **_as_json(copied)}
    lines = [f"{args.copy}: {_words(copied)}", *_doubts(copied)]
    return 0, result, lines


def _restore(args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import restore

    database = _file(
        args.database,
        "stop every server process, `pg_restore --clean --if-exists --dbname URL COPY`, then "
        "`edge-mrl admin restored --database URL`",
    )
    with in_percent("taken in", quiet=args.quiet, unit=_size) as note:
        done = restore(database, args.copy, force=args.force, progress=note)
    kept = None if done.kept is None else str(done.kept)
    result = {
        "database": str(database),
        "copy": str(args.copy),
        **_as_json(done.copied),
        "with_log": done.with_log,
        "kept": kept,
    }
    lines = [f"{database}: {_words(done.copied)}, restored from {args.copy}", *_doubts(done.copied)]
    if done.with_log:
        lines.append(f"commits in the log beside {args.copy} were taken over")
    if kept is not None:
        lines.append(f"the former database is kept as {kept}; delete it when all is well")
    lines.append("each device will pull everything once, and send what the server lacks")
    return 0, result, lines


def _restored(args: argparse.Namespace) -> Outcome:
    from edge_mrl_server.storage import accounts, check_restored, is_file, open_database

    path = Path(args.database)
    if is_file(args.database) and path.exists() and path.stat().st_size:
        check_restored(path, with_log=args.with_log)
    with (
        open_database(args.database, connections=1, create=False) as database,
        database.write() as transaction,
    ):
        count = accounts.renew_epochs(transaction)
    words = (
        f"{count:,} tenants: each device will pull everything once, and send what the server lacks"
    )
    return 0, {"tenants": count}, [words]


def _file(url: str, instead: str) -> Path:
    from edge_mrl_server.storage import is_file

    if not is_file(url):
        raise UsageError(f"PostgreSQL copies itself: {instead}")
    return Path(url)


def _as_json(copied: Copied) -> dict[str, Any]:
    return {
        "bytes": copied.size_bytes,
        "tenants": copied.tenants,
        "documents": copied.documents,
        "newest_ms": copied.newest_ms,
        "doubts": list(copied.doubts),
    }


def _size(count: int) -> str:
    from edge_mrl.cli import size

    return size(count)


def _words(copied: Copied) -> str:
    newest = "nothing written yet"
    if copied.newest_ms:
        moment = datetime.fromtimestamp(min(copied.newest_ms, 253_402_300_799_000) / 1000, UTC)
        newest = f"the newest of {moment:%Y-%m-%d %H:%M:%S} UTC"
    counts = f"{copied.tenants:,} tenants, {copied.documents:,} documents"
    return f"{_size(copied.size_bytes)}, {counts}, {newest}"


def _doubts(copied: Copied) -> list[str]:
    return [f"warning: counts disagree: {text}" for text in copied.doubts]


ACTIONS: Actions = {}
FILE_ACTIONS: FileActions = {
    ("backup", None): _backup,
    ("restore", None): _restore,
    ("restored", None): _restored,
}
