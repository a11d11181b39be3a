"""Reading a table that a migration changes, a few rows in memory at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from edge_mrl.store.schema.report import Report

__all__ = ["bound", "pages", "raw"]

#: Rows that are read and written together.
_ROWS = 64


def pages(
    connection: sqlite3.Connection, table: str, key: str, columns: str, report: Report
) -> Iterator[tuple[Any, ...]]:
    """A table's rows in the order of its key, the key first; they may be changed meanwhile."""
    select = f"SELECT {key}, {columns} FROM {table}"  # noqa: S608 - own names
    rows = connection.execute(f"{select} ORDER BY {key} LIMIT {_ROWS}").fetchall()
    while rows:
        yield from rows
        report.add(len(rows))
        last = rows[-1][0]
        query = f"{select} WHERE {key} > {bound(last)} ORDER BY {key} LIMIT {_ROWS}"
        rows = connection.execute(query, (raw(last),)).fetchall()


def bound(value: Any) -> str:
    """A parameter's place; text goes in as its bytes, since damaged text is no UTF-8."""
    return "CAST(? AS TEXT)" if isinstance(value, str) else "?"


def raw(value: Any) -> Any:
    """The value for ``bound``."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
