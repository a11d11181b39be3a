"""What lies beside a plain store, and in the database of an encrypted one: its token, a partial snapshot.

The files of a plain store lie outside of it on purpose: a store that is copied is not a second device.
Of an encrypted store nothing may lie beside it in the clear.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.errors import DamagedError
from edge_mrl.machine import sync_path
from edge_mrl.store.engine.modes import create_private
from edge_mrl.store.engine.transactions import transaction

if TYPE_CHECKING:
    import sqlite3

    from edge_mrl.store.store import Store

__all__ = ["PrivateData", "PrivateStream", "carry_in", "carry_out", "private_data"]

_TABLE = """CREATE TABLE IF NOT EXISTS private (
    name TEXT NOT NULL,
    part INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (name, part)
)"""
#: A part of a file that is carried in: what a commit can write at once on a small device.
PART_BYTES = 1 << 20


def private_data(store: Store, name: str) -> Path | PrivateData:
    """Where a store has private data: a file beside a plain store, rows in an encrypted one.

    Args:
        store: An open store.
        name: "sync.json" or "sync.part".
    """
    if store.encrypted:
        return PrivateData(store, name)
    return store.path.with_name(f"{store.path.name}-{name}")


class PrivateData:
    """Named data in the database of an encrypted store. It has what is used of a ``Path``.

    Args:
        store: An open, encrypted store.
        name: What it is, such as "sync.json".
    """

    def __init__(self, store: Store, name: str) -> None:
        self.name = f"{store.path.name}, {name}"
        self._store = store
        self._name = name

    def read_bytes(self) -> bytes:
        """All of it.

        Raises:
            FileNotFoundError: There is none.
            DamagedError: It is not what was written.
        """
        with self._store.locked() as (connection, _):
            parts = _parts(connection, self._name) if _there(connection) else []
        if not parts:
            raise FileNotFoundError(self.name)
        return b"".join(parts)

    def write_bytes(self, data: bytes) -> None:
        """Replace all of it, in the transaction that is open, or in one of its own."""
        with self._writing() as connection:
            _replace(connection, self._name, data)

    def append(self, data: bytes) -> None:
        """Add a part to it, in one transaction."""
        with self._writing() as connection:
            connection.execute(_TABLE)
            query = "SELECT ifnull(max(part), -1) + 1 FROM private WHERE name = ?"
            (part,) = connection.execute(query, (self._name,)).fetchone()
            _insert(connection, self._name, part, data)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Delete it.

        Raises:
            FileNotFoundError: There is none.
        """
        with self._writing() as connection:
            connection.execute(_TABLE)
            query = "DELETE FROM private WHERE name = ?"
            if not connection.execute(query, (self._name,)).rowcount and not missing_ok:
                raise FileNotFoundError(self.name)

    def stream(self) -> PrivateStream:
        """Read it in order, and add to its end.

        Raises:
            FileNotFoundError: There is none.
        """
        with self._store.locked() as (connection, _):
            query = "SELECT part, length(data) FROM private WHERE name = ? ORDER BY part"
            there = _there(connection)
            sizes = connection.execute(query, (self._name,)).fetchall() if there else []
        if not sizes:
            raise FileNotFoundError(self.name)
        return PrivateStream(self, sizes)

    def part(self, number: int) -> bytes:
        """One part.

        Raises:
            DamagedError: It is not what was written.
        """
        with self._store.locked() as (connection, _):
            query = "SELECT crc, data FROM private WHERE name = ? AND part = ?"
            row = connection.execute(query, (self._name, number)).fetchone()
        if row is None or zlib.crc32(row[1]) != row[0]:
            raise DamagedError(f"its {self._name} cannot be trusted")
        data: bytes = row[1]
        return data

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._store.locked() as (connection, _):
            if connection.in_transaction:
                yield connection
                return
            with self._store.writing():
                yield connection


class PrivateStream:
    """Private data as a file: read from any place, written to its end alone.

    Args:
        data: The data.
        sizes: Numbers and sizes of its parts, in order.
    """

    def __init__(self, data: PrivateData, sizes: Sequence[tuple[int, int]]) -> None:
        self._data = data
        self._parts = list(sizes)
        self._at = 0
        self._kept: tuple[int, bytes] = (-1, b"")

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place; see ``io.IOBase.seek``."""
        self._at = offset + (self._size if whence == os.SEEK_END else 0)
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """Read so many bytes, or to the end."""
        left = self._size - self._at if size < 0 else size
        found, begin = [], 0
        for number, length in self._parts:
            start = self._at - begin
            if 0 <= start < length and left > 0:
                if self._kept[0] != number:
                    self._kept = number, self._data.part(number)
                some = self._kept[1][start : start + left]
                found.append(some)
                self._at, left = self._at + len(some), left - len(some)
            begin += length
        return b"".join(found)

    def write(self, data: bytes, /) -> int:
        """Add bytes to the end, durably."""
        self._data.append(data)
        number = self._parts[-1][0] + 1 if self._parts else 0
        self._parts.append((number, len(data)))
        self._at = self._size
        return len(data)

    def flush(self) -> None:
        """Do nothing: what was written is durable."""

    def close(self) -> None:
        """Forget what was read."""
        self._kept = (-1, b"")

    @property
    def _size(self) -> int:
        return sum(length for _, length in self._parts)


def carry_in(connection: sqlite3.Connection, store: Path) -> list[Path]:
    """Copy the files beside a store into its database, unless it has them; returns the files.

    Args:
        connection: The store's, which can write, outside a transaction.
        store: The store's file.
    """
    files = [file for file in _beside(store) if file.is_file()]
    if files:
        with transaction(connection, "IMMEDIATE"):
            connection.execute(_TABLE)
            for file in files:
                name = file.name.removeprefix(f"{store.name}-")
                if not _parts(connection, name):
                    _replace(connection, name, file.read_bytes())
    return files


def carry_out(connection: sqlite3.Connection, store: Path) -> None:
    """Write the private data of a store's database into files beside it, durably.

    Raises:
        OSError: They cannot be written.
    """
    if not _there(connection):
        return
    for file in _beside(store):
        parts = _parts(connection, file.name.removeprefix(f"{store.name}-"))
        if not parts:
            continue
        file.unlink(missing_ok=True)
        create_private(file)
        file.write_bytes(b"".join(parts))
        sync_path(file)
    sync_path(store.absolute().parent)


def _beside(store: Path) -> list[Path]:
    return [store.with_name(f"{store.name}-{name}") for name in ("sync.json", "sync.part")]


def _there(connection: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = 'private'"
    return connection.execute(query).fetchone() is not None


def _parts(connection: sqlite3.Connection, name: str) -> list[bytes]:
    query = "SELECT crc, data FROM main.private WHERE name = ? ORDER BY part"
    rows = connection.execute(query, (name,)).fetchall()
    if any(zlib.crc32(data) != crc for crc, data in rows):
        raise DamagedError(f"its {name} cannot be trusted")
    return [data for _, data in rows]


def _replace(connection: sqlite3.Connection, name: str, data: bytes) -> None:
    connection.execute(_TABLE)
    connection.execute("DELETE FROM private WHERE name = ?", (name,))
    for part, first in enumerate(range(0, max(len(data), 1), PART_BYTES)):
        _insert(connection, name, part, data[first : first + PART_BYTES])


def _insert(connection: sqlite3.Connection, name: str, part: int, data: bytes) -> None:
    values = (name, part, zlib.crc32(data), data)
    connection.execute("INSERT INTO private (name, part, crc, data) VALUES (?, ?, ?, ?)", values)
