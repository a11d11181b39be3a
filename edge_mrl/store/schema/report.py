"""How far a migration is, as records of Python's ``logging``: commands show them, programs may."""

from __future__ import annotations

import logging
import sqlite3
import time

__all__ = ["Report"]

_LOGGER = logging.getLogger("edge_mrl.store")

#: Seconds between two records; a migration that is shorter says nothing.
_REPORT_S = 2.0


class Report:
    """Says how far one migration is, where it takes long.

    Each record has the attributes ``path`` (the store's file), ``version`` (which it is brought to), and
    ``done`` and ``total`` (rows). In the last one, if there was one before, they are equal.

    Args:
        connection: To the store that is migrated.
        version: The migration's number.
    """

    def __init__(self, connection: sqlite3.Connection, version: int) -> None:
        self._connection = connection
        self._version = version
        self._done = self._total = 0
        self._last = time.monotonic()
        self._said = False

    def expect(self, *tables: str) -> None:
        """Count the rows of tables to what is to be done; a table may be named twice."""
        for table in tables:
            query = f"SELECT count(*) FROM {table}"  # noqa: S608 - own names
            self._total += self._connection.execute(query).fetchone()[0]

    def add(self, rows: int) -> None:
        """Count rows that are done."""
        self._done += rows
        if time.monotonic() - self._last > _REPORT_S:
            self._last = time.monotonic()
            self._say()

    def end(self) -> None:
        """Say that all is done, if anything was said before."""
        if self._said and self._done != self._total:
            self._done = self._total
            self._say()

    def _say(self) -> None:
        self._said = True
        path = self._connection.execute("PRAGMA database_list").fetchone()[2]
        _LOGGER.info(
            "bringing the store to version %d: %s of %s rows",
            self._version,
            f"{self._done:,}",
            f"{self._total:,}",
            extra={
                "path": path,
                "version": self._version,
                "done": self._done,
                "total": self._total,
            },
        )
