"""The store's file: telling it from other files, opening it, and what SQLite's errors mean."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_mrl.errors import (
    DamagedError,
    NoStoreError,
    NotAStoreError,
    StoreBusyError,
    StoreError,
    StoreKeyError,
    StoreVersionError,
    UsageError,
)
from edge_mrl.store.engine.cipher import (
    Key,
    database_errors,
    has_magic,
    key_bytes,
    looking,
)
from edge_mrl.store.engine.connecting import open_database
from edge_mrl.store.engine.explaining import error_code, explained, reporting
from edge_mrl.store.engine.making import has_rollback_journal, make_whole
from edge_mrl.store.engine.modes import create_private, tighten
from edge_mrl.store.engine.readonly import (
    UNWRITTEN,
    Look,
    alone,
    can_write,
    connect_to_read,
    obstacle_of,
)
from edge_mrl.store.engine.traces import clear_traces
from edge_mrl.store.engine.transactions import transaction
from edge_mrl.store.migrations import MIGRATIONS, MIGRATIONS_TABLE, apply
from edge_mrl.store.schema.tables import are_defined, mend_definitions_of, was_store

__all__ = [
    "APPLICATION_ID",
    "Fill",
    "Opened",
    "connect",
    "inode",
    "prepare",
    "transaction",
]

#: "eMRL" in the database header: how a store is told from any other SQLite file.
APPLICATION_ID = 0x654D524C

#: Fills the tables of a new store.
Fill = Callable[[sqlite3.Connection], None]

#: Codes of errors that damaged definitions of tables may be the cause of; 0 is Python's own.
_UNREADABLE = {0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT}
_WAL_RETRY_S = 0.02
#: How often a store may be replaced by another process while it is opened.
_MOST_REPLACED = 5


@dataclass(frozen=True, slots=True)
class Opened:
    """A store's open database.

    Attributes:
        connection: The connection.
        obstacle: Why it can only read, in words: a full card, read-only media; None if it can write.
        look: How the files looked, if nothing keeps others from writing while this reads; else None.
        encrypted: Whether the database is encrypted.
        other: Connects to another file, with the same key; or to this one once more.
        reader: Connects to this file once more, only to read it.
        again: Opens this file anew, as well as that can be done by then.
    """

    connection: sqlite3.Connection
    obstacle: str | None
    look: Look | None
    encrypted: bool
    other: Callable[[Path], sqlite3.Connection]
    reader: Callable[[], sqlite3.Connection]
    again: Callable[[], Opened]


def connect(path: Path, *, fill: Fill | None, timeout_s: float, key: Key | None = None) -> Opened:
    """Open a store's database; create or migrate it where needed.

    Args:
        path: The file.
        fill: Fills the tables of a new store, in the transaction that makes them. None: the store
            must exist.
        timeout_s: How long to wait for another process's write.
        key: Gives the key of an encrypted store, or of one that is made.

    Raises:
        UsageError: The path is one of SQLite's special names.
        NoStoreError: There is no store, and ``fill`` is None.
        StoreKeyError: The store is encrypted with another key, or is not encrypted.
        MissingDependencyError: The store is encrypted, and the extra ``encrypted`` is not installed.
        NotAStoreError: Another program wrote the file; it is left as it is.
        StoreVersionError: A newer edge-mrl wrote it.
        StoreError: The store is busy, damaged, or cannot be opened.
    """
    if str(path) == ":memory:" or str(path).startswith("file:"):
        raise UsageError(f"{path} is a name of SQLite's: a store is a file, so name one")
    for _ in range(_MOST_REPLACED):
        before = inode(path)
        try:
            opened = _connect(path, fill, timeout_s, key)
        except StoreError:
            if before in (None, inode(path)):
                raise
            continue
        if before in (None, inode(path)):
            return opened
        # It was encrypted, or got another key, while it was opened.
        opened.connection.close()
    raise StoreBusyError(f"{path} is being replaced by another process: try again in a moment")


def _connect(path: Path, fill: Fill | None, timeout_s: float, key: Key | None) -> Opened:
    kind = _recognise(path)
    if fill is None and kind is None:
        raise _no_store(path)
    secret = _secret(path, kind, key)
    if kind is None and fill is not None:
        with reporting(path):
            _make(path, fill, timeout_s, secret)
    return _opened(path, fill, timeout_s, secret)


def _opened(path: Path, fill: Fill | None, timeout_s: float, secret: bytes | None) -> Opened:
    """Open a store that is there: to write it, or where nothing can be written, to read it."""
    with reporting(path):
        if not can_write(path):
            return _opened_to_read(path, timeout_s, secret, obstacle_of(path) or "it is read-only")
        try:
            return _opened_to_write(path, fill, timeout_s, secret)
        except database_errors() as error:
            obstacle = obstacle_of(path, error)
            if obstacle is None:
                if error_code(error) not in UNWRITTEN:
                    raise
                return _opened_to_write(path, fill, timeout_s, secret)  # there is room again
        # Nobody else has it open, and it may have folded its log, which makes room.
        alone(path, timeout_s, secret)
        with suppress(*database_errors()):
            return _opened_to_write(path, fill, timeout_s, secret)
        return _opened_to_read(path, timeout_s, secret, obstacle)


def _opened_to_write(
    path: Path, fill: Fill | None, timeout_s: float, secret: bytes | None
) -> Opened:
    connection = _connect_to_write(path, fill, timeout_s, secret)
    tighten(path)
    if secret is not None:
        clear_traces(connection, path)
    return Opened(
        connection,
        obstacle=None,
        look=None,
        encrypted=secret is not None,
        other=partial(open_database, options="mode=rw", timeout_s=timeout_s, secret=secret),
        reader=partial(_connect_beside, path, timeout_s, secret),
        again=partial(_opened, path, None, timeout_s, secret),
    )


def _opened_to_read(path: Path, timeout_s: float, secret: bytes | None, obstacle: str) -> Opened:
    connect = partial(
        connect_to_read,
        path,
        timeout_s,
        secret,
        version_of=partial(_version, path=path),
        obstacle=obstacle,
    )
    look = Look.at(path)
    found = connect()
    return Opened(
        found.connection,
        obstacle=obstacle,
        look=None if found.shared else look,
        encrypted=secret is not None,
        other=partial(open_database, options="mode=rw", timeout_s=timeout_s, secret=secret),
        reader=lambda: connect().connection,
        again=partial(_opened, path, None, timeout_s, secret),
    )


def _secret(path: Path, kind: str | None, key: Key | None) -> bytes | None:
    """The bytes of the key, where the store is encrypted or is to be."""
    if kind == "encrypted" and key is None:
        raise StoreKeyError(
            f"{path} is encrypted, and no key was given: name it with --key-file or --key-fd, or with "
            "key= in Python"
        )
    if kind == "plain" and key is not None:
        raise StoreKeyError(
            f"{path} is not encrypted, and a key was given: leave the key out, or run "
            f"`edge-mrl encrypt --store {path}` first"
        )
    return None if key is None else key_bytes(key)


def inode(path: Path) -> tuple[int, int] | None:
    """Which file has a name: its device and number; None if there is none, or an empty one."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_size else None


def _connect_to_write(
    path: Path, fill: Fill | None, timeout_s: float, secret: bytes | None
) -> sqlite3.Connection:
    connection = open_database(path, "mode=rw", timeout_s, secret)
    try:
        try:
            prepare(connection, path, fill)
        except _damage_errors() as error:
            if error_code(error) not in _UNREADABLE or not mend_definitions_of(connection):
                raise
            prepare(connection, path, fill)
        if not are_defined(connection):
            mend_definitions_of(connection)
        _use_wal(connection, timeout_s)
    except BaseException:
        connection.close()
        raise
    return connection


def _damage_errors() -> tuple[type[Exception], ...]:
    return (DamagedError, *database_errors())


def _make(path: Path, fill: Fill, timeout_s: float, secret: bytes | None) -> None:
    """Make a store, whole or not at all; an empty file where that needs SQLite's own locks."""

    def make(temporary: Path) -> None:
        with reporting(path):
            _connect_to_write(temporary, fill, timeout_s, secret).close()

    try:
        if not make_whole(path, make, timeout_s=timeout_s):
            create_private(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be made: {error.strerror}") from error


def _connect_beside(path: Path, timeout_s: float, secret: bytes | None) -> sqlite3.Connection:
    """Connect once more to a store that is open to be written; this connection only reads."""
    connection = open_database(path, "mode=rw", timeout_s, secret)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _no_store(path: Path) -> NoStoreError:
    return NoStoreError(
        f"no store at {path}: `edge-mrl index PATHS... --bundle DIR --store {path}` makes one"
    )


def _foreign(path: Path) -> NotAStoreError:
    return NotAStoreError(
        f"{path} is not an edge-mrl store, and was left as it is: name another file"
    )


def _recognise(path: Path) -> str | None:
    """Which store is there, "plain" or "encrypted"; None for no file or an empty one."""
    try:
        if path.is_dir():
            raise NotAStoreError(f"{path} is a folder, expected a store's file")
        if not path.exists() or path.stat().st_size == 0:
            return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    with looking(path) as held:
        if held:
            return "encrypted"
        found = _application(path)
        if found is None and has_magic(path):
            return "encrypted"
        if found != APPLICATION_ID and has_rollback_journal(path) and can_write(path):
            _roll_back(path)
            if path.stat().st_size == 0:
                return None
            found = _application(path)
    if found != APPLICATION_ID:
        if found is not None and was_store(path):
            raise _lost_application(path)
        raise _foreign(path)
    return "plain"


def _lost_application(path: Path) -> DamagedError:
    return DamagedError(
        f"{path} is damaged (its header does not say any more that it is a store): restore a copy, or "
        "make the store again"
    )


def _roll_back(path: Path) -> None:
    """Let SQLite undo the transaction of a database whose first page is not a database's."""
    with reporting(path), closing(open_database(path, "mode=rw", 0.0, None)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _application(path: Path) -> int | None:
    """The application id in the file's header, None if it is no database's.

    Nothing is written. It is read through SQLite and not with open(): closing any descriptor of a file
    drops the locks that this process holds on it, those of a store that is open already included.
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
        if error_code(error) == sqlite3.SQLITE_NOTADB:
            return None
        raise explained(error, path) from error


def prepare(connection: sqlite3.Connection, path: Path, fill: Fill | None) -> None:
    """Set up a connection; make the tables where there are none, or bring them up to date."""
    connection.execute("PRAGMA foreign_keys = ON")
    # FULL syncs each commit: what was acknowledged survives a power cut, not only a crash.
    connection.execute("PRAGMA synchronous = FULL")
    # What was deleted is overwritten with zeros. Python's SQLite may be built without.
    connection.execute("PRAGMA secure_delete = ON")
    if _version(connection, path) == len(MIGRATIONS):
        return
    with transaction(connection, "IMMEDIATE"):
        version = _version(connection, path)  # another process may have been faster
        if version == 0:
            if fill is None:
                raise _no_store(path)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(MIGRATIONS_TABLE)
        _migrate(connection, version)
        if version == 0 and fill is not None:
            fill(connection)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Migrations applied; 0 for an empty database.

    Raises:
        NotAStoreError: The database is neither a store nor empty.
        StoreVersionError: A newer edge-mrl wrote it.
        DamagedError: The records of its migrations do not agree with its version.
    """
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise _foreign(path)
        return 0
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    (noted,) = connection.execute("SELECT max(version) FROM migrations").fetchone()
    if version != noted:
        raise DamagedError(
            f"{path} is damaged (its header says version {version}, its migrations {noted}): open it "
            "where it can be written, which mends that, or restore a copy"
        )
    if version > len(MIGRATIONS):
        raise StoreVersionError(
            f"{path} has store version {version}, this edge-mrl reads up to {len(MIGRATIONS)}: "
            "update edge-mrl"
        )
    names = connection.execute("SELECT name FROM migrations ORDER BY version").fetchall()
    if names != [(name,) for name, _ in MIGRATIONS[:version]]:
        raise DamagedError(f"{path} is damaged (its migrations are {names}): restore a copy")
    return version


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    for number, (name, steps) in enumerate(MIGRATIONS[version:], start=version + 1):
        apply(connection, number, steps)
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
        except database_errors() as error:
            if error_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(_WAL_RETRY_S)
