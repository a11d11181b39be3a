"""Databases of the user's own: opened to be read, asked one query, and let go at once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

from edge_mrl.documents import shorten
from edge_mrl.errors import UsageError

__all__ = ["check_query", "copy_rows"]

#: How long another program's write is waited for, in seconds.
TIMEOUT_S = 10.0
#: What a query may not do, though the file is opened to be read: make or read other files.
_DENIED = (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)


def check_query(database: str, query: str) -> None:
    """Check that a query can be run, before anything is made for its rows; see ``copy_rows``."""
    with _reading(database, query):
        pass


def copy_rows(database: str, query: str, into: IO[str]) -> list[str]:
    """Copy a query's rows, in one transaction that reads.

    Args:
        database: The path of the file.
        query: One SELECT, with columns "id" and "text".
        into: A text file, which gets a list of JSON for each row; bytes are an object with their number.

    Returns:
        The names of the columns.

    Raises:
        UsageError: It is no SQLite database, it is locked, or the query cannot be run or lacks a column.
    """
    with _reading(database, query) as (names, cursor):
        for row in cursor:
            json.dump([_kept(value) for value in row], into)
            into.write("\n")
        return names


@contextmanager
def _reading(database: str, query: str) -> Iterator[tuple[list[str], sqlite3.Cursor]]:
    """The names of a query's columns, and its rows, in one transaction."""
    if not query.strip():
        raise UsageError("--sql is empty: expected a SELECT with the columns id and text")
    try:
        with closing(_opened(database)) as connection:
            connection.execute("BEGIN")
            cursor = connection.execute(query)
            names = _names(cursor.description)
            _require_single(connection, query)
            yield names, cursor
    except sqlite3.Warning as error:  # two statements
        raise UsageError(f"--sql: {error}: expected one SELECT") from error
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise UsageError(_why(database, error)) from error


def _opened(database: str) -> sqlite3.Connection:
    uri = f"{Path(database).absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    connection.set_authorizer(_authorized)
    return connection


def _authorized(action: int, *_: object) -> int:
    return sqlite3.SQLITE_DENY if action in _DENIED else sqlite3.SQLITE_OK


def _names(description: Sequence[Sequence[Any]] | None) -> list[str]:
    """The names of the columns; those that are needed in small letters.

    Raises:
        UsageError: One of them is missing, or a name comes twice.
    """
    given = [str(column[0]) for column in description or ()]
    names = [name.lower() if name.lower() in ("id", "text", "title") else name for name in given]
    for needed in ("id", "text"):
        if needed not in names:
            raise UsageError(
                f'--sql gives no column "{needed}", but {", ".join(names) or "nothing"}: name one '
                "with AS, as in: rowid AS id, body AS text"
            )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f'--sql gives the column "{twice}" twice: name one of them with AS')
    return names


def _require_single(connection: sqlite3.Connection, query: str) -> None:
    """Check that no id comes twice.

    Raises:
        UsageError: One does; a document would replace the other.
    """
    inner = query.strip().rstrip(";")
    doubled = f"SELECT id, count(*) FROM ({inner}\n) GROUP BY 1 HAVING count(*) > 1 LIMIT 1"  # noqa: S608 - the user's own
    row = connection.execute(doubled).fetchone()
    if row is not None and row[0] is not None:
        raise UsageError(f"--sql gives the id {shorten(row[0])} {row[1]} times: expected each once")


def _kept(value: object) -> object:
    return {"bytes": len(value)} if isinstance(value, bytes) else value


def _why(database: str, error: Exception) -> str:
    text = str(error)
    if "not a database" in text or "malformed" in text:
        return f"{database} is not a SQLite database that can be read ({text})"
    if "locked" in text or "busy" in text:
        return (
            f"{database} is locked by another program: try again when that has finished its write"
        )
    if "unable to open" in text:
        return f"{database} cannot be opened to be read ({text})"
    if "not authorized" in text or "readonly" in text:
        return f"--sql: {text}: expected one SELECT, which only reads"
    return f"--sql: {text}"
