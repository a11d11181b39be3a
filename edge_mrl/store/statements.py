"""Statements made from the names of tables and columns; values never become part of a statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["SQL_PARAMETERS", "insert_into", "insert_row", "select_rows"]

#: Values in one statement; builds of SQLite may allow no more than 999.
SQL_PARAMETERS = 500


def select_rows(
    connection: sqlite3.Connection,
    columns: str,
    by: str,
    values: Sequence[Any],
    table: str = "documents",
) -> list[tuple[Any, ...]]:
    """Read the rows whose column ``by`` has one of the values, however many values there are.

    Args:
        connection: The store's connection.
        columns: Names of columns, with commas between them; a row has its values in this order.
        by: A column's name.
        values: What that column is compared with.
        table: A table's name.
    """
    rows: list[tuple[Any, ...]] = []
    for first in range(0, len(values), SQL_PARAMETERS):
        some = values[first : first + SQL_PARAMETERS]
        marks = ",".join("?" * len(some))
        query = f"SELECT {columns} FROM {table} WHERE {by} IN ({marks})"  # noqa: S608 - own names
        rows += connection.execute(query, some).fetchall()
    return rows


def insert_into(table: str, columns: Iterable[str], *, replace: bool = False) -> str:
    """A statement that inserts one row with values for these columns, in this order.

    Args:
        table: A table's name.
        columns: Names of its columns.
        replace: Whether the row takes the place of one with the same key.
    """
    names = tuple(columns)
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    marks = ", ".join("?" * len(names))
    return f"{verb} INTO {table} ({', '.join(names)}) VALUES ({marks})"


def insert_row(
    connection: sqlite3.Connection, table: str, values: Mapping[str, Any], *, replace: bool = False
) -> None:
    """Insert one row: values by the names of its columns."""
    connection.execute(insert_into(table, values, replace=replace), tuple(values.values()))
