"""Connecting to a store's database, plain or encrypted."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge_mrl.errors import StoreKeyError
from edge_mrl.store.engine.cipher import database_errors, open_encrypted
from edge_mrl.store.engine.explaining import error_code
from edge_mrl.store.engine.lockless import counted, counting

__all__ = ["open_database"]

#: Before the log is read: SQLite then makes no file for its index (sqlite.org/wal.html, section 8).
_ALONE = "PRAGMA locking_mode = EXCLUSIVE"
_Connection = counting(sqlite3.Connection)


def open_database(
    path: Path, options: str, timeout_s: float, secret: bytes | None, *, alone: bool = False
) -> sqlite3.Connection:
    """Connect to a store's database.

    Args:
        path: The file.
        options: Of the URI, such as "mode=rw".
        timeout_s: How long to wait for another process.
        secret: The key of an encrypted store, 32 bytes; None for a plain one.
        alone: Keep the index of the log in this process's memory, instead of sharing a file.

    Raises:
        StoreKeyError: It was encrypted with another key.
        Exception: One of ``database_errors``; of a plain store only when it is read.
    """
    if secret is not None:
        connection = _open_with_key(path, options, timeout_s, secret, alone=alone)
    else:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{options}",
            uri=True,
            timeout=timeout_s,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )
        if alone:
            connection.execute(_ALONE)
    counted(connection, path, options)
    connection.text_factory = _text
    # A page whose header does not fit its cells is an error: else its rows would only not be found.
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def _open_with_key(
    path: Path, options: str, timeout_s: float, secret: bytes, *, alone: bool
) -> sqlite3.Connection:
    connection = open_encrypted(path, options, timeout_s, secret)
    try:
        if alone:
            connection.execute(_ALONE)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except database_errors() as error:
        connection.close()
        if error_code(error) != sqlite3.SQLITE_NOTADB:
            raise
        raise StoreKeyError(
            f"{path} cannot be opened with this key: it was encrypted with another one, or its "
            "beginning is damaged: give the other key, or restore a copy"
        ) from error
    return connection


def _text(data: bytes) -> str:
    """Text as it was written; bytes that damage made no UTF-8 become surrogates, which no text has."""
    return data.decode("utf-8", "surrogateescape")
