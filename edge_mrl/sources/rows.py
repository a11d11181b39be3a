"""Rows of a SQLite database of the user's own as documents: opened to be read, and let go at once.

The rows of a query are copied to a temporary file first, in one transaction that reads. So the database
is not held while they are embedded, which may take minutes.
"""

from __future__ import annotations

import json
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from edge_mrl.documents import Document, id_problem, metadata_problem, shorten
from edge_mrl.errors import UsageError
from edge_mrl.sources.lines import BadLineError

__all__ = ["check_query", "namespace_of", "read_rows"]

#: Rows of a temporary file in memory, in bytes.
IN_MEMORY = 4 << 20
#: How long another program's write is waited for, in seconds.
TIMEOUT_S = 10.0
#: The table that a query reads, which tells the rows of several queries apart.
_TABLE = re.compile(r"\bFROM\s+(?:[\"`\[]([^\"`\]]+)[\"`\]]|(?:\w+\s*\.\s*)?(\w+))", re.IGNORECASE)
#: What a query may not do, though the file is opened to be read: make or read other files.
_DENIED = (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)


def namespace_of(source: str, query: str) -> str:
    """What the ids of a query's rows begin with: the database, and the first table that it reads."""
    found = _TABLE.search(query)
    table = "rows" if found is None else found[1] or found[2]
    return f"{source}#{table}/"


def read_rows(
    database: str, query: str, *, source: str, bad: Callable[[BadLineError], None] | None = None
) -> Iterator[Document]:
    """Read the rows that a query gives.

    Args:
        database: The path of the file.
        query: One SELECT. Its columns "id" and "text" are needed; "title" is put before the text as in
            JSON Lines, and all others are metadata. NULL is no metadata.
        source: The source of the documents, which begins their ids.
        bad: Called with the error for each row that is no document; None raises it.

    Raises:
        UsageError: It is no SQLite database, it is locked, or the query cannot be run or lacks a column.
        BadLineError: A row is no document, and ``bad`` is None.
    """
    with tempfile.SpooledTemporaryFile(IN_MEMORY, "w+", encoding="utf-8") as copy:
        names = _copy(database, query, copy)
        copy.seek(0)
        for number, line in enumerate(copy, start=1):
            values = dict(zip(names, json.loads(line), strict=True))
            try:
                yield _document(values, f"{database}: row {number}", source, query)
            except BadLineError as error:
                if bad is None:
                    raise
                bad(error)


def check_query(database: str, query: str) -> None:
    """Check that a query can be run, before anything is made for its rows; see ``read_rows``."""
    with _reading(database, query):
        pass


def _copy(database: str, query: str, into: Any) -> list[str]:
    """Copy a query's rows as lines of JSON; returns the names of the columns."""
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


def _document(values: dict[str, Any], where: str, source: str, query: str) -> Document:
    key, text = values.pop("id"), values.pop("text")
    if type(key) not in (str, int) or key == "":
        raise BadLineError(f"{where}: id is {_called(key)}, expected a text or an integer")
    if not isinstance(text, str):
        raise BadLineError(f"{where} (id {key}): text is {_called(text)}, expected a text")
    title = values.get("title")
    facts = {name: value for name, value in values.items() if value is not None}
    problem = metadata_problem(facts)
    held = next((name for name, value in facts.items() if isinstance(value, dict)), None)
    if held is not None:
        problem = f"the column {held!r} holds bytes: leave it out of the query"
    name = f"{namespace_of(source, query)}{key}"
    problem = problem or id_problem(name)
    if problem is not None:
        raise BadLineError(f"{where} (id {key}): {problem}")
    whole = f"{title}\n{text}" if isinstance(title, str) and title else text
    return Document(name, whole.replace("\0", ""), facts, source)


def _called(value: object) -> str:
    if value is None:
        return "NULL"
    return "bytes" if isinstance(value, dict) else shorten(value)


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
