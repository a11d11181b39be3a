"""Reading a store where nothing can be written: a full card, read-only media, somebody else's files.

SQLite's write-ahead log needs a file that all processes share (``-shm``), which it makes when the first
one opens the store. Where it cannot, there are two ways to read without it: a database whose log is empty
is read as it is, and one whose log has commits is read with an index of the log in this process's memory
(sqlite.org/wal.html, "Use of WAL Without Shared-Memory"). Neither has locks. So both are for the time
during which nobody else has the store open, which ``alone`` makes sure of, and ``Look`` notices the end.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from edge_mrl.errors import DamagedError, StoreBusyError, StoreError
from edge_mrl.machine import obstacle_to_writing
from edge_mrl.store.engine.cipher import database_errors
from edge_mrl.store.engine.connecting import open_database
from edge_mrl.store.engine.explaining import error_code, others_file
from edge_mrl.store.engine.lockless import LOCKLESS
from edge_mrl.store.migrations import MIGRATIONS
from edge_mrl.store.schema.tables import are_defined

__all__ = [
    "UNWRITTEN",
    "Look",
    "Reading",
    "alone",
    "can_write",
    "connect_to_read",
    "obstacle_of",
]

#: Errors that SQLite gives where it cannot write, among other causes.
UNWRITTEN = (
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
)


@dataclass(frozen=True, slots=True)
class Look:
    """How a database and its log looked: another look differs once somebody has written."""

    seen: tuple[tuple[int, int, int] | None, ...]

    @classmethod
    def at(cls, path: Path) -> Self:
        """Look at a store's database and log."""
        return cls((_seen(path), _seen(_log_of(path))))


class Reading(NamedTuple):
    """A connection that reads; ``shared`` if SQLite's locks let others write meanwhile."""

    connection: sqlite3.Connection
    shared: bool


def _seen(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    if not status.st_size:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def can_write(path: Path) -> bool:
    """Whether this process may write the file and those beside it, as far as their owners say."""
    places = (path, path.absolute().parent)
    return all(os.access(one, os.W_OK) for one in places) and others_file(path) is None


def obstacle_of(path: Path, error: Exception | None = None) -> str | None:
    """Why a store can be read but not written, in words; None if it can, or if that is not why.

    Args:
        path: The store's file, which exists.
        error: What SQLite said when it was opened to be written; None if that was not tried.
    """
    if not os.access(path, os.W_OK):
        return obstacle_to_writing(path.absolute().parent) or "its file is read-only"
    if error is not None and error_code(error) not in UNWRITTEN:
        return None
    other = others_file(path)
    if other is not None:
        return f"{other.name} is not this user's to write"
    return obstacle_to_writing(path.absolute().parent)


def alone(path: Path, timeout_s: float, secret: bytes | None) -> None:
    """Make sure that nobody has a store open that cannot be written as usual.

    Its locks are taken for a moment. When they are let go, SQLite folds the log into the database, if
    there is room within the database's own pages; then nothing is lost or made.

    Raises:
        StoreBusyError: Another process has it open.
    """
    connection = None
    try:
        connection = open_database(path, "mode=rw", timeout_s, secret, alone=True)
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("ROLLBACK")
    except database_errors() as error:
        if error_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreBusyError(
                f"{path} is being used by another process, and cannot be shared with it now: try again "
                "in a moment"
            ) from error
        # Whatever else is wrong, reading it says so.
    finally:
        if connection is not None:
            with suppress(*database_errors()):
                connection.close()


def connect_to_read(
    path: Path,
    timeout_s: float,
    secret: bytes | None,
    *,
    version_of: Callable[[sqlite3.Connection], int],
    obstacle: str,
) -> Reading:
    """Open a store that cannot be written.

    Where a log holds commits that are not in the file yet, SQLite must be able to read it: a store
    opened without its log would show an older state.

    Args:
        path: The store's file.
        timeout_s: How long to wait for another process.
        secret: The key of an encrypted store; None for a plain one.
        version_of: Reads the store's version.
        obstacle: Why it cannot be written, in words.

    Raises:
        StoreError: It cannot be read without being written: it is of an older version, or damaged.
    """
    reading, version = _readable(path, timeout_s, secret, version_of, obstacle)
    connection = reading.connection
    if version == len(MIGRATIONS) and not are_defined(connection):
        connection.close()
        raise DamagedError(
            f"{path} is damaged (a table is not defined as it was) and cannot be written here "
            f"({obstacle}): open it where it can be written, which mends that, or restore a copy"
        )
    if version < len(MIGRATIONS):
        connection.close()
        raise StoreError(
            f"{path} is of store version {version} and cannot be written ({obstacle}): open it once "
            f"where it can be, to bring it to version {len(MIGRATIONS)}"
        )
    return reading


def _readable(
    path: Path,
    timeout_s: float,
    secret: bytes | None,
    version_of: Callable[[sqlite3.Connection], int],
    obstacle: str,
) -> tuple[Reading, int]:
    """A connection that reads, in the first way that works, and the store's version."""
    pending = _seen(_log_of(path)) is not None
    # The first shares the log with a process that has the store open now.
    ways = ("mode=ro", f"mode=ro&{LOCKLESS}") if pending else ("mode=ro&immutable=1",)
    failed: BaseException | None = None
    for options in ways:
        connection = None
        try:
            connection = open_database(path, options, timeout_s, secret, alone=LOCKLESS in options)
            # Sorting must not need a file either.
            connection.execute("PRAGMA temp_store = MEMORY")
            return Reading(connection, options == "mode=ro"), version_of(connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if not pending or type(error).__name__ != "OperationalError":
                raise
            failed = error
    raise StoreError(
        f"{path} cannot be written ({obstacle}) and has commits in {_log_of(path).name} that cannot be "
        "read here: copy both to where they can be written"
    ) from failed


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")
