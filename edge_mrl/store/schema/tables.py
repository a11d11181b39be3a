"""The definitions of all tables and indexes, as a store of the present version has them."""

from __future__ import annotations

import difflib
import re
import sqlite3
import zlib
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from edge_mrl.store.engine.transactions import transaction
from edge_mrl.store.migrations import MIGRATIONS, MIGRATIONS_TABLE, apply

__all__ = [
    "are_defined",
    "mend_definitions",
    "mend_definitions_of",
    "was_store",
    "wrong_definitions",
]

#: Beside the tables of the migrations: encrypted ones, and those that pulled everything.
_BESIDE = ("private", "swept")
#: What FTS5 and SQLite define, whose version says how.
_OTHERS = re.compile(r"keywords_|sqlite_")
_RENAMED = re.compile(r'^CREATE TABLE "(\w+)"')
_LIST = "SELECT rowid, type, name, tbl_name, sql FROM sqlite_master"
#: Of each definition of the present version but SQLite's own: a store is compared with them at opening.
CHECKSUMS = frozenset(
    {
        0x0006088D,
        0x0C8E5EFA,
        0x11AE9B49,
        0x20732AC4,
        0x2376BF54,
        0x30905367,
        0x3E367E15,
        0x49EB8076,
        0x580D183B,
        0x5CCB3605,
        0x7339BD2F,
        0x89BB85EB,
        0x9B86366C,
        0xA601E95D,
        0xABFFB7DD,
        0xB4F0EA49,
        0xB5523FCD,
        0xCB0016FD,
        0xCC339478,
        0xD490F99C,
        0xE12F4261,
        0xF56A5BB3,
    }
)
_MEND = "UPDATE sqlite_master SET type = ?, name = ?, tbl_name = ?, sql = ? WHERE rowid = ?"


@dataclass(frozen=True, slots=True)
class Definition:
    """A row of SQLite's list of tables and indexes.

    Attributes:
        kind: "table" or "index".
        name: Its name.
        table: The table that it is of.
        sql: The statement that makes it; None for an index that SQLite makes by itself.
    """

    kind: str
    name: str
    table: str
    sql: str | None

    @property
    def plain(self) -> tuple[str, str, str, str | None]:
        """The definition without the quotes that a table's name gets when it was renamed."""
        sql = self.sql and _RENAMED.sub(r"CREATE TABLE \1", self.sql)
        return self.kind, self.name, self.table, sql

    @property
    def crc(self) -> int:
        """CRC-32 of the plain definition."""
        return zlib.crc32("\0".join(value or "" for value in self.plain).encode("utf-8", "replace"))


@lru_cache(maxsize=1)
def definitions() -> tuple[Definition, ...]:
    """What a store of the present version has."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(MIGRATIONS_TABLE)
        for number, (_, steps) in enumerate(MIGRATIONS, start=1):
            apply(connection, number, steps)
        return tuple(one for _, one in _present(connection))


def are_defined(connection: sqlite3.Connection) -> bool:
    """Whether all tables and indexes of the present version are defined as they were."""
    return {one.crc for _, one in _present(connection)} >= CHECKSUMS


def wrong_definitions(connection: sqlite3.Connection) -> list[str]:
    """Names of tables and indexes that are missing, or not defined as they were."""
    there = {one.plain for _, one in _present(connection)}
    wanted = [one for one in definitions() if not _OTHERS.match(one.name)]
    return [one.name for one in wanted if one.plain not in there]


def mend_definitions(connection: sqlite3.Connection) -> None:
    """Define again what is not defined as it was, by the definition that is most like it.

    Args:
        connection: In a transaction, with ``writable_schema``; it has to read the schema again.
    """
    there = dict(_present(connection))
    known = {one.plain for one in there.values()}
    expected = {one.plain for one in definitions()}
    odd = {rowid: str(one) for rowid, one in there.items() if one.plain not in expected}
    for wanted in definitions():
        if wanted.plain in known or not odd:
            continue
        text = str(wanted)
        likest = max(odd, key=lambda rowid: _likeness(odd[rowid], text))
        del odd[likest]
        row = (wanted.kind, wanted.name, wanted.table, wanted.sql, likest)
        connection.execute(_MEND, row)


def was_store(path: Path) -> bool:
    """Whether a plain database has been a store, whatever its header says."""
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as probe:
            row = probe.execute("SELECT name FROM migrations WHERE version = 1").fetchone()
    except sqlite3.Error:
        return False
    return bool(row == (MIGRATIONS[0][0],))


def mend_definitions_of(connection: sqlite3.Connection) -> bool:
    """Define again what is not defined as it was, and write again which migrations there were.

    Such a definition may keep SQLite from reading tables, or may only give a column another meaning.

    Returns:
        Whether that was possible: only in a store of the present version, which its header or its
        list of migrations says.
    """
    connection.execute("PRAGMA writable_schema = ON")
    try:
        if not _is_present(connection):
            return False
        with transaction(connection, "IMMEDIATE"):
            if _version(connection) != len(MIGRATIONS):
                connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            mend_definitions(connection)
            connection.execute("PRAGMA writable_schema = RESET")
            rows = [(name, number) for number, (name, _) in enumerate(MIGRATIONS, start=1)]
            query = "UPDATE migrations SET name = ? WHERE version = ? AND name IS NOT ?"
            connection.executemany(query, [(name, number, name) for name, number in rows])
    finally:
        connection.execute("PRAGMA writable_schema = RESET")
    return True


def _is_present(connection: sqlite3.Connection) -> bool:
    """Whether a store is of the present version, by its header or by the list of its migrations."""
    if _version(connection) == len(MIGRATIONS):
        return True
    names = connection.execute("SELECT name FROM migrations ORDER BY version").fetchall()
    return names == [(name,) for name, _ in MIGRATIONS]


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _present(connection: sqlite3.Connection) -> list[tuple[int, Definition]]:
    rows = connection.execute(_LIST).fetchall()
    found = [
        (rowid, Definition(str(kind), str(name), str(table), None if sql is None else str(sql)))
        for rowid, kind, name, table, sql in rows
    ]
    return [(rowid, one) for rowid, one in found if one.table not in _BESIDE]


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()
