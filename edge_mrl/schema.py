"""The store's file: telling it from other files, its tables, and what SQLite's errors mean.

FORMAT.md, section "Store", is the specification.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_mrl.errors import (
    NotAStoreError,
    StoreBusyError,
    StoreError,
    StoreVersionError,
    UsageError,
)

__all__ = ["APPLICATION_ID", "MIGRATIONS", "Fill", "connect", "reporting", "transaction"]

#: "eMRL" in the database header: how a store is told from any other SQLite file.
APPLICATION_ID = 0x654D524C

#: Names and statements, in order. A released migration never changes; a new one goes at the end.
MIGRATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "0001-documents-passages-codes",
        (
            """CREATE TABLE binding (
                id INTEGER PRIMARY KEY CHECK (id = 1),
                space_id TEXT NOT NULL,
                code_id TEXT NOT NULL,
                dim INTEGER NOT NULL CHECK (dim > 0),
                scale REAL NOT NULL,
                bundle TEXT NOT NULL,
                bundle_relative TEXT NOT NULL,
                passage_tokens INTEGER NOT NULL,
                passage_overlap INTEGER NOT NULL,
                changes INTEGER NOT NULL DEFAULT 0
            )""",
            """CREATE TABLE documents (
                key INTEGER PRIMARY KEY,
                id TEXT NOT NULL UNIQUE,
                text TEXT NOT NULL,
                metadata TEXT NOT NULL,
                hash BLOB NOT NULL
            )""",
            """CREATE TABLE passages (
                document INTEGER NOT NULL REFERENCES documents(key) ON DELETE CASCADE,
                position INTEGER NOT NULL,
                start INTEGER NOT NULL,
                stop INTEGER NOT NULL,
                PRIMARY KEY (document, position)
            ) WITHOUT ROWID""",
            """CREATE TABLE codes (
                document INTEGER PRIMARY KEY REFERENCES documents(key) ON DELETE CASCADE,
                codes BLOB NOT NULL
            )""",
        ),
    ),
)

#: Fills the tables of a new store.
Fill = Callable[[sqlite3.Connection], None]

_MIGRATIONS_TABLE = """CREATE TABLE migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    applied_ms INTEGER NOT NULL
)"""
_WAL_RETRY_S = 0.02


def connect(
    path: Path, *, create: Callable[[], Fill] | None, timeout_s: float
) -> sqlite3.Connection:
    """Open a store's database, making or migrating it where needed.

    Args:
        path: The file.
        create: None if the store must exist. Else called if it does not; what it returns then
            fills the new tables, in the transaction that makes them.
        timeout_s: How long to wait for another process's write.

    Raises:
        UsageError: There is no store and none is to be made.
        NotAStoreError: The file is not ours; it is left as it is.
        StoreVersionError: A newer edge-mrl wrote it.
        StoreError: It is busy, damaged, or cannot be opened.
    """
    there = _recognise(path)
    if create is None:
        if not there:
            raise _no_store(path)
        fill: Fill | None = None
    else:
        # Called now where it can be, so that what it raises does not leave an empty file behind.
        fill = _later(create) if there else create()
    with reporting(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'rw' if create is None else 'rwc'}",
            uri=True,
            timeout=timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            _prepare(connection, path, fill)
            _use_wal(connection, timeout_s)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """Run a block in a transaction: IMMEDIATE to write, DEFERRED to read one state of the store."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors, such as a full disk, end the transaction themselves.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explain(error, path) from error


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 where the error is the Python module's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the higher bits are the extended code


def _explain(error: sqlite3.Error, path: Path) -> StoreError:
    code = _code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusyError(f"{path} is being written by another process: try again in a moment")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreError(f"{path} is damaged ({error}): restore a copy, or make the store again")
    if code == sqlite3.SQLITE_FULL:
        return StoreError(f"{path} cannot grow ({error}): free some space and try again")
    return StoreError(f"{path} cannot be used: {error}")


def _no_store(path: Path) -> UsageError:
    return UsageError(
        f"no store at {path}: `edge-mrl index PATHS... --bundle DIR --store {path}` makes one"
    )


def _foreign(path: Path) -> NotAStoreError:
    return NotAStoreError(f"{path} is no edge-mrl store; it was left as it is: name another file")


def _later(create: Callable[[], Fill]) -> Fill:
    def fill(connection: sqlite3.Connection) -> None:
        create()(connection)

    return fill


def _recognise(path: Path) -> bool:
    """Whether a store is there; False for no file or an empty one."""
    try:
        if path.is_dir():
            raise NotAStoreError(f"{path} is a folder, expected a store's file")
        if not path.exists() or path.stat().st_size == 0:
            return False
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    if _application(path) != APPLICATION_ID:
        raise _foreign(path)
    return True


def _application(path: Path) -> int:
    """The application id in the file's header; nothing is written, or made beside the file.

    It is read through SQLite and not with open(): closing any descriptor of a file drops the locks
    that this process holds on it, those of a store that is open already included.
    """
    try:
        probe = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            # Tolerates a file shorter than its header says: one whose making was interrupted is so
            # until its journal is played back.
            probe.execute("PRAGMA writable_schema = ON")
            return int(probe.execute("PRAGMA application_id").fetchone()[0])
        finally:
            probe.close()
    except sqlite3.Error as error:
        if _code(error) == sqlite3.SQLITE_NOTADB:
            raise _foreign(path) from error
        raise _explain(error, path) from error


def _prepare(connection: sqlite3.Connection, path: Path, fill: Fill | None) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # FULL syncs each commit: what was acknowledged survives a power cut, not only a crash.
    connection.execute("PRAGMA synchronous = FULL")
    if _version(connection, path) == len(MIGRATIONS):
        return
    with transaction(connection, "IMMEDIATE"):
        version = _version(connection, path)  # another process may have been faster
        if version == 0:
            if fill is None:
                raise _no_store(path)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(_MIGRATIONS_TABLE)
        _migrate(connection, version)
        if version == 0 and fill is not None:
            fill(connection)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Migrations applied; 0 for an empty database.

    Raises:
        NotAStoreError: Neither ours nor empty.
        StoreVersionError: From a newer edge-mrl.
        StoreError: The records of its migrations do not agree with its version.
    """
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise _foreign(path)
        return 0
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreVersionError(
            f"{path} has store version {version}, this edge-mrl reads up to {len(MIGRATIONS)}: "
            "update edge-mrl"
        )
    names = connection.execute("SELECT name FROM migrations ORDER BY version").fetchall()
    if names != [(name,) for name, _ in MIGRATIONS[:version]]:
        raise StoreError(f"{path} is damaged (its migrations are {names}): restore a copy")
    return version


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    for number, (name, statements) in enumerate(MIGRATIONS[version:], start=version + 1):
        for statement in statements:
            connection.execute(statement)
        applied_ms = time.time_ns() // 1_000_000
        row = (number, name, applied_ms)
        connection.execute("INSERT INTO migrations VALUES (?, ?, ?)", row)
        connection.execute(f"PRAGMA user_version = {number}")


def _use_wal(connection: sqlite3.Connection, timeout_s: float) -> None:
    """Switch to write-ahead logging, which needs the file to itself for a moment.

    SQLite does not wait by itself here, so that two processes that make a store at once would meet.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(_WAL_RETRY_S)
