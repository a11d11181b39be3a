"""SQLite's errors, said as errors of edge-mrl: what is wrong with which file, and what to do."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_mrl.errors import DamagedError, StoreBusyError, StoreError, UnwritableStoreError
from edge_mrl.machine import advice_about, obstacle_to_writing, reporting_memory
from edge_mrl.store.engine.cipher import database_errors

__all__ = [
    "LostBindingError",
    "error_code",
    "explained",
    "named_damage",
    "others_file",
    "reporting",
    "unwritable",
]


class LostBindingError(DamagedError):
    """What a store is bound to cannot be read; nothing else in it says that."""


_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NOT_AS_WRITTEN = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH)


@contextmanager
def reporting(path: Path, connection: sqlite3.Connection | None = None) -> Iterator[None]:
    """Turn errors of SQLite, and those of memory that ran out meanwhile, into errors of edge-mrl.

    Args:
        path: The store's file, for messages.
        connection: Forgets its pages when one of them is damaged: SQLite checks a page only when it reads
            it, and would go on with what it then has.
    """
    with reporting_memory():
        try:
            yield
        except database_errors() as error:
            if connection is not None and error_code(error) in _DAMAGE:
                connection.execute("PRAGMA shrink_memory")
            raise explained(error, path) from error


def error_code(error: Exception) -> int:
    """SQLite's primary result code; 0 where the error is the Python module's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the higher bits are the extended code


def explained(error: Exception, path: Path) -> StoreError:
    """An error of SQLite as an error of edge-mrl about a file."""
    code = error_code(error)
    if isinstance(error, sqlite3.ProgrammingError) and "closed database" in str(error):
        return StoreError(f"the store {path} is closed: open it again")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusyError(f"{path} is being written by another process: try again in a moment")
    if isinstance(error, UnicodeDecodeError) or code in _DAMAGE:
        return StoreError(f"{path} is damaged ({error}): restore a copy, or make the store again")
    if code in _NOT_AS_WRITTEN and not isinstance(error, sqlite3.ProgrammingError):
        # No statement of ours is wrong: a table is not there, or a row is not what it was.
        return StoreError(
            f"{path} is damaged ({error}): `edge-mrl check --repair --store {path}` repairs what can be; "
            "else restore a copy, or make the store again"
        )
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY):
        return _unwritten(error, path)
    if code == sqlite3.SQLITE_CANTOPEN and path.exists() and not os.access(path, os.R_OK):
        error = PermissionError("it may not be read by this user: a store is its owner's alone")
    return StoreError(f"{path} cannot be used: {error}")


def _unwritten(error: Exception, path: Path) -> StoreError:
    obstacle = obstacle_to_writing(path.absolute().parent)
    other = others_file(path)
    if other is not None:
        obstacle = f"{other.name} is not this user's to write"
    if obstacle is not None:
        return unwritable(path, obstacle)
    if error_code(error) == sqlite3.SQLITE_READONLY and os.access(path, os.W_OK):
        return StoreError(
            f"{path} cannot be written ({error}): the beginning of the file is damaged: keep it and what "
            "lies beside it, and restore a copy, or make the store again under another name"
        )
    if error_code(error) == sqlite3.SQLITE_FULL:  # there is some room, and more is needed
        return UnwritableStoreError(f"{path} cannot grow ({error}): free some space and try again")
    return StoreError(
        f"{path} cannot be used ({error}): its card or disk may be failing: copy the store, and "
        f"{path.name}-wal if there is one, to another one before anything else"
    )


def others_file(path: Path) -> Path | None:
    """A file beside a store that SQLite writes and this user may not; None if there is none."""
    files = (path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-shm"))
    return next((one for one in files if one.exists() and not os.access(one, os.W_OK)), None)


def unwritable(path: Path, obstacle: str) -> UnwritableStoreError:
    """What a write says where nothing can be written: nothing is lost, and reading works."""
    return UnwritableStoreError(
        f"{path} cannot be written: {obstacle}; what it holds is kept, and can be searched: "
        f"{advice_about(obstacle) or 'make it writable for this user'}, and try again"
    )


def named_damage(path: Path, error: DamagedError) -> DamagedError:
    """The error with the name of the file and what to do; as it is if it has them."""
    text = str(error)
    if text.startswith(str(path)):
        return error
    if isinstance(error, LostBindingError):
        return DamagedError(
            f"{path} is damaged ({text}): which bundle its codes are of is lost, and no repair can make "
            "that again: restore a copy; without one, move the file away and run `edge-mrl index` anew, "
            "which embeds the files again (what a server has comes back with `edge-mrl enroll` and "
            "`edge-mrl sync`)"
        )
    return DamagedError(
        f"{path} is damaged ({text}): `edge-mrl check --repair --store {path}` repairs what can be, and "
        "names the documents that have to be put again or deleted"
    )
