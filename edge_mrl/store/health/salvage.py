"""Reading the rows of a damaged table, as far as its pages can be read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from edge_mrl.store.engine.cipher import database_errors

__all__ = ["Row", "Source", "is_damage"]

Row = tuple[Any, ...]
#: How often rows between two that can be read are looked for. A page that cannot be read hides all of its
#: keys, so that this bounds the time that looking for others among them takes.
_TRIES = 4_000
#: What SQLite says of a database that is not as it was written: not that it is busy or full.
_DAMAGE = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_SCHEMA,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_NOTADB,
}


def is_damage(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that what is stored is not as it was written."""
    while error is not None:
        if isinstance(error, database_errors()):
            code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            return code & 0xFF in _DAMAGE
        error = error.__cause__
    return False


class Source:
    """A table of a damaged store.

    Args:
        connection: In a transaction.
        table: The table's name.
        columns: Names of the columns that are read.
        key: The columns of its key; None where that is the rowid.
    """

    def __init__(
        self, connection: sqlite3.Connection, table: str, columns: str, key: str | None
    ) -> None:
        self.broken = False
        self._connection = connection
        self._key = "rowid" if key is None else key
        self._by_number = key is None
        at = self._key if self._by_number else "1"
        # Not by an index: that has damage of its own.
        self._select = f"SELECT {at}, {columns} FROM {table} NOT INDEXED"  # noqa: S608 - own names

    def rows(self) -> Iterator[Row]:
        """Each row, as they lie there; ``broken`` says afterwards if some may be missing."""
        last = None
        for at, row in self._scan("", ()):
            last = at
            yield row
        if not self.broken:
            return
        highest, tail = None, []
        for at, row in self._scan("", (), descending=True):
            if self._by_number and last is not None and at <= last:
                break
            highest = at
            tail.append(row)
        yield from tail
        if self._by_number:
            first = -(2**63) if last is None else last + 1
            yield from self._between(first, 2**63 - 1 if highest is None else highest - 1)

    def _between(self, first: int, last: int) -> Iterator[Row]:
        """Rows with keys in a range, around pages that cannot be read: wide ranges first."""
        ranges, tries = [(first, last)], 0
        while ranges and tries < _TRIES:
            ranges.sort(key=lambda pair: pair[1] - pair[0])
            low, high = ranges.pop()
            if low > high:
                continue
            tries += 1
            where = " WHERE rowid BETWEEN ? AND ?"
            before, self.broken = self.broken, False
            for at, row in self._scan(where, (low, high)):
                low = at + 1
                yield row
            if self.broken:
                for at, row in self._scan(where, (low, high), descending=True):
                    high = at - 1
                    yield row
                middle = (low + high) // 2
                if low < high:
                    ranges += [(low, middle), (middle + 1, high)]
            self.broken = before

    def _scan(
        self, where: str, values: tuple[int, ...], *, descending: bool = False
    ) -> Iterator[tuple[Any, Row]]:
        order = " DESC" if descending else ""
        keys = ", ".join(f"{part}{order}" for part in self._key.split(", "))
        try:
            query = f"{self._select}{where} ORDER BY {keys}"
            for at, *row in self._connection.execute(query, values):
                yield at, tuple(row)
        except database_errors() as error:
            if not is_damage(error):
                raise
            self.broken = True
