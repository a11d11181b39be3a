"""Rows of a SQLite database of the user's own as documents.

They are copied to a temporary file first. So the database is not held while they are embedded, which may
take minutes.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from edge_mrl.documents import Document, id_problem, metadata_problem, shorten
from edge_mrl.sources.lines import BadLineError
from edge_mrl.store import copy_rows

__all__ = ["namespace_of", "read_rows"]

#: Rows of a temporary file in memory, in bytes.
IN_MEMORY = 4 << 20
#: The table that a query reads, which tells the rows of several queries apart.
_TABLE = re.compile(r"\bFROM\s+(?:[\"`\[]([^\"`\]]+)[\"`\]]|(?:\w+\s*\.\s*)?(\w+))", re.IGNORECASE)


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
        names = copy_rows(database, query, copy)
        copy.seek(0)
        for number, line in enumerate(copy, start=1):
            values = dict(zip(names, json.loads(line), strict=True))
            try:
                yield _document(values, f"{database}: row {number}", source, query)
            except BadLineError as error:
                if bad is None:
                    raise
                bad(error)


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
