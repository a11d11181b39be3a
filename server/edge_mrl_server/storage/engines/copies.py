"""Copies of a SQLite database: made while a server runs, and put back whole, whatever is killed when."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_mrl.errors import UsageError
from edge_mrl_server.errors import (
    DamagedDatabaseError,
    DatabaseError,
    DatabaseInUseError,
    UnavailableError,
)
from edge_mrl_server.storage.accounts import renew_epochs
from edge_mrl_server.storage.bits import BitCache
from edge_mrl_server.storage.engines.guard import (
    Files,
    alone,
    aside_of,
    check_log,
    finish,
    hold,
    hold_alone,
    sync_file,
    sync_folder,
)
from edge_mrl_server.storage.engines.soundness import (
    check_structure,
    count_problems,
    identify,
    is_damage,
)
from edge_mrl_server.storage.engines.sqlite import SqliteTransaction, migrate

__all__ = ["Copied", "Restored", "backup", "check_restored", "restore"]

#: Pages, or bytes, between two reports of progress.
PAGES = 2_048
CHUNK_BYTES = 8 << 20
#: Called with what is done and what there is in all, in bytes.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds.

    Attributes:
        size_bytes: Of the file.
        tenants: How many.
        documents: How many live ones.
        newest_ms: When the newest version was written, by its stamp; 0 if there is none.
        doubts: Counts that disagree, in words.
    """

    size_bytes: int
    tenants: int
    documents: int
    newest_ms: int
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did.

    Attributes:
        copied: What is in place now.
        kept: Where the former database is; None if there was none.
        with_log: Whether the copy had commits in a log of its own, which were taken over.
    """

    copied: Copied
    kept: Path | None
    with_log: bool


def backup(database: Path, target: Path, *, force: bool, progress: Progress) -> Copied:
    """Copy a database that may be in use, as one state of it; the copy is whole, checked and flushed.

    Args:
        database: The database.
        target: The copy's file; it gets its name when it is complete.
        force: Replace a file of that name.
        progress: Told how far it is.

    Raises:
        UsageError: There is a file of that name.
        DatabaseError: The database is not a server's, or is malformed: no copy is made.
        UnavailableError: It cannot be read, or the copy not be written.
    """
    _check_target(database, target, force=force)
    part = target.with_name(f"{target.name}.part-{secrets.token_hex(4)}")
    with hold(Files(database)), _cleaning(Files(part)), _said(database):
        _make_private(part)
        with (
            closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True)) as source,
            closing(sqlite3.connect(part, isolation_level=None)) as made,
        ):
            identify(source, database)
            # One snapshot for all: otherwise each commit of a server would begin the copy anew.
            source.isolation_level = None
            source.execute("BEGIN")
            (size,) = source.execute("PRAGMA page_size").fetchone()

            def note(_: int, left: int, all_: int) -> None:
                progress((all_ - left) * size, all_ * size)

            source.backup(made, pages=PAGES, progress=note)
            source.execute("ROLLBACK")
            check_structure(made, database)
            # A copy is one file: no log may lie beside it, and be forgotten.
            made.execute("PRAGMA journal_mode = DELETE")
            copied = _describe(made, part)
        sync_file(part)
        _name(part, target, force=force)
        sync_folder(target)
    return copied


def restore(database: Path, copy: Path, *, force: bool, progress: Progress) -> Restored:
    """Put a copy in the place of a database, with a new epoch for every tenant: whole, or not at all.

    The copy is taken beside the database, checked, brought up to date and flushed first. Then one rename
    decides; whoever opens the database next finishes what a kill cut short after it (``guard.finish``).

    Args:
        database: The database; there may be none.
        copy: The copy, which is not changed. Commits in a log of its own (``COPY-wal``) are taken over.
        force: Take a copy whose counts disagree.
        progress: Told how far it is.

    Raises:
        DatabaseInUseError: A server, or another process, has the database or the copy open.
        DatabaseError: The copy is no whole database of this server; nothing was changed.
        UnavailableError: The disk is full, or a file cannot be read or written; nothing was changed.
    """
    if not copy.is_file():
        raise UsageError(f"no copy at {copy}: expected a file that `edge-mrl admin backup` made")
    if database.exists() and copy.samefile(database):
        raise UsageError(f"{copy} is the database itself: name a copy of it")
    files = Files(database)
    with hold_alone(files):
        if files.incoming.exists():  # an earlier restore was decided, and cut short
            finish(files)
        with _cleaning(Files(files.part)):
            with _said(database):
                with_log = _take_in(copy, Files(files.part), progress)
                copied = _adopt(files.part, copy, force=force)
                _fold(files)
            with alone(database):
                with _said(database):
                    _decide(files)
                kept = finish(files)
    return Restored(copied, kept, with_log)


def check_restored(database: Path, *, with_log: bool = False) -> None:
    """Check a database that somebody copied into its place, before a new epoch is begun in it.

    Args:
        database: The database.
        with_log: Whether the log beside it was put back together with it.

    Raises:
        DatabaseError: It is malformed, its counts disagree, or a log lies beside it that nobody has open:
            SQLite would replay that into the copy.
    """
    files = Files(database)
    if files.has_log and not with_log and not files.incoming.exists():
        with contextlib.suppress(DatabaseInUseError), hold_alone(files), alone(database):
            raise DatabaseError(
                f"{files.log.name} lies beside {database}, and no process has it open: SQLite would "
                "replay it into the copy. Nothing was changed. Run `edge-mrl admin restore COPY` with "
                "the copy where you keep it. If database and log were put back together (a snapshot of "
                "the disk), pass --with-log"
            )
    with hold(files), _said(database), closing(sqlite3.connect(database)) as connection:
        identify(connection, database)
        check_structure(connection, database)
        _doubt(count_problems(connection), database, force=False)


def _check_target(database: Path, target: Path, *, force: bool) -> None:
    if not database.exists() or not database.stat().st_size:
        raise DatabaseError(
            f"no database at {database}: name the server's with --database (a path)"
        )
    if target.exists() and target.samefile(database):
        raise UsageError(f"{target} is the database itself: name another file for the copy")
    if target.exists() and not force:
        raise UsageError(f"{target} exists: name another file, or pass --force to replace it")
    if Files(target).has_log:
        raise UsageError(
            f"{Files(target).log.name} lies beside {target}, and would be replayed into a new copy "
            "of that name: name another file"
        )
    if not target.absolute().parent.is_dir():
        raise UsageError(f"{target.absolute().parent}: no such folder")


def _make_private(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _name(part: Path, target: Path, *, force: bool) -> None:
    if force:
        part.replace(target)
        return
    try:
        os.link(part, target)  # never in the place of another file, whatever happened meanwhile
    except FileExistsError as error:
        raise UsageError(f"{target} exists: name another file, or pass --force") from error
    except OSError:  # a file system without second names
        part.rename(target)
        return
    part.unlink()


def _take_in(copy: Path, part: Files, progress: Progress) -> bool:
    """Copy a database and its log to where they may be changed; returns whether it had a log."""
    source = Files(copy)
    check_log(source)
    pairs = [(copy, part.database), (source.log, part.log), (source.journal, part.journal)]
    pairs = [(old, new) for old, new in pairs if old.exists() and old.stat().st_size]
    if not pairs or pairs[0][0] != copy:
        raise DatabaseError(f"{copy} is an empty file, no copy of a database: name another")
    whole = sum(old.stat().st_size for old, _ in pairs)
    done = 0
    with alone(copy):
        for old, new in pairs:
            _make_private(new)
            with old.open("rb") as reading, new.open("wb") as writing:
                while chunk := reading.read(CHUNK_BYTES):
                    writing.write(chunk)
                    done += len(chunk)
                    progress(done, whole)
    return len(pairs) > 1


def _adopt(part: Path, copy: Path, *, force: bool) -> Copied:
    """Check a copy where it was taken, bring it up to date, and begin new epochs in it."""
    try:
        with closing(sqlite3.connect(part, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous = FULL")
            identify(connection, copy)
            check_structure(connection, copy)
            _doubt(count_problems(connection), copy, force=force)
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("BEGIN IMMEDIATE")
            migrate(connection, copy)
            renew_epochs(SqliteTransaction(connection, BitCache()))
            connection.execute("COMMIT")
            copied = _describe(connection, part)
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise DamagedDatabaseError(f"{copy} is damaged ({error}): name another copy") from error
        raise
    sync_file(part)
    return copied


def _doubt(problems: list[str], path: Path, *, force: bool) -> None:
    if problems and not force:
        raise DamagedDatabaseError(
            f"{path} is a mixture of several moments ({'; '.join(problems[:3])}): it was copied while a "
            "server wrote, or without its log. Name another copy (`edge-mrl admin backup` makes whole "
            "ones)"
        )


def _describe(connection: sqlite3.Connection, path: Path) -> Copied:
    (tenants, documents) = connection.execute(
        "SELECT count(*), coalesce(sum(documents), 0) FROM tenants"
    ).fetchone()
    (newest,) = connection.execute(
        "SELECT coalesce(max(stamp), 0) / 65536 FROM documents"
    ).fetchone()
    doubts = tuple(count_problems(connection))
    return Copied(path.stat().st_size, tenants, documents, newest, doubts)


def _fold(files: Files) -> None:
    """Bring a sound database's log into its file, so that what is kept is one file."""
    if not files.database.exists() or not files.database.stat().st_size:
        return
    connection = sqlite3.connect(files.database, isolation_level=None, timeout=1.0)
    try:
        (found,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        identify(connection, files.database) if found or tables else None
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        # Then both files are kept as they are.
    finally:
        connection.close()


def _decide(files: Files) -> None:
    """The moment of a restore: before it nothing has happened, after it the copy is the database."""
    at = int(time.time())
    while aside_of(files.database, at).exists():  # two restores in one second
        at += 1
    os.utime(files.part, (at, at))
    sync_file(files.part)
    files.part.replace(files.incoming)
    sync_folder(files.incoming)


@contextmanager
def _cleaning(part: Files) -> Iterator[None]:
    """Leave nothing unfinished behind, and none of what a killed process left."""
    names = (part.database, part.log, part.journal, part.shared)
    for path in names:
        path.unlink(missing_ok=True)
    try:
        yield
    finally:
        for path in names:
            path.unlink(missing_ok=True)


@contextmanager
def _said(database: Path) -> Iterator[None]:
    """Errors of files and of SQLite, in words."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise DamagedDatabaseError(f"{database} is damaged ({error})") from error
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise DatabaseInUseError(
                f"another process has {database} open: stop it, and try again"
            ) from error
        raise UnavailableError(f"{database}: {error}; nothing was changed") from error
    except OSError as error:
        where = error.filename or database
        raise UnavailableError(
            f"{where}: {error.strerror or error}; nothing was changed"
        ) from error
