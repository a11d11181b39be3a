"""The counters of a store that change with each write, and the numbers of its deleted rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.errors import DamagedError
from edge_mrl.store.records import checksum
from edge_mrl.store.statements import insert_into, insert_row

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "State",
    "add_tombstones",
    "damaged_tombstones",
    "read_dead",
    "read_state",
    "rewrite_tombstones",
    "write_state",
]

#: Rows whose deletion is noted in one row of ``tombstones``: 1 KiB, which a commit can rewrite.
BLOCK_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class State:
    """The counters of a store that change with each write.

    Attributes:
        changes: Grows with every transaction that changes codes.
        next_key: The key of the next new document.
        next_row: The number of the next passage's row.
        filed: Rows below this number are in the code file.
        generation: 16 bytes that name the code file.
    """

    changes: int
    next_key: int
    next_row: int
    filed: int
    generation: bytes


_STATE = tuple(field.name for field in fields(State))


def read_state(connection: sqlite3.Connection) -> State:
    """Read the store's state.

    Raises:
        DamagedError: The state is not what was written.
    """
    row = connection.execute(
        f"SELECT {', '.join(_STATE)}, crc FROM state"  # noqa: S608 - own names
    ).fetchone()
    if row is None:
        raise DamagedError("its state is missing")
    *values, crc = row
    if checksum(*values) != crc:
        raise DamagedError("its state cannot be trusted")
    return State(**dict(zip(_STATE, values, strict=True)))


def write_state(connection: sqlite3.Connection, state: State) -> None:
    """Write the store's state."""
    values = astuple(state)
    statement = insert_into("state", ("id", *_STATE, "crc"), replace=True)
    connection.execute(statement, (1, *values, checksum(*values)))


def add_tombstones(connection: sqlite3.Connection, ranges: Sequence[tuple[int, int]]) -> None:
    """Mark rows as deleted.

    Args:
        connection: In a transaction that writes.
        ranges: The first row of each range, and how many rows it has.
    """
    by_block: dict[int, list[NDArray[np.int64]]] = {}
    for first, count in ranges:
        for block in range(first // BLOCK_ROWS, (first + count - 1) // BLOCK_ROWS + 1):
            start = max(first - block * BLOCK_ROWS, 0)
            stop = min(first + count - block * BLOCK_ROWS, BLOCK_ROWS)
            by_block.setdefault(block, []).append(np.arange(start, stop))
    for block, rows in by_block.items():
        bits = np.zeros(BLOCK_ROWS, np.bool_)
        found = connection.execute(
            "SELECT bits, crc FROM tombstones WHERE block = ?", (block,)
        ).fetchone()
        if found is not None:
            bits = _tombstone_bits(connection, block, *found)
        bits[np.concatenate(rows)] = True
        _write_block(connection, block, bits)


def read_dead(connection: sqlite3.Connection) -> NDArray[np.int64]:
    """int64: the numbers of deleted rows, ascending."""
    parts = [np.empty(0, np.int64)]
    query = "SELECT block, bits, crc FROM tombstones ORDER BY block"
    for block, data, crc in connection.execute(query):
        bits = _tombstone_bits(connection, block, data, crc)
        parts.append(np.flatnonzero(bits) + block * BLOCK_ROWS)
    return np.concatenate(parts)


def damaged_tombstones(connection: sqlite3.Connection) -> list[int]:
    """Blocks of tombstones that are not what was written."""
    query = "SELECT block, bits, crc FROM tombstones ORDER BY block"
    return [block for block, *row in connection.execute(query) if not _sound(block, *row)]


def rewrite_tombstones(connection: sqlite3.Connection, next_row: int) -> None:
    """Make all tombstones again: the rows below ``next_row`` that no document has."""
    connection.execute("DELETE FROM tombstones")
    for block in range((next_row + BLOCK_ROWS - 1) // BLOCK_ROWS):
        bits = _unused(connection, block)
        bits[max(next_row - block * BLOCK_ROWS, 0) :] = False
        if bits.any():
            _write_block(connection, block, bits)


def _sound(block: int, data: Any, crc: Any) -> bool:
    right = isinstance(data, bytes) and len(data) * 8 == BLOCK_ROWS
    return right and checksum(block, data) == crc


def _tombstone_bits(
    connection: sqlite3.Connection, block: int, data: Any, crc: Any
) -> NDArray[np.bool_]:
    """bool[BLOCK_ROWS]: which rows are deleted; where damage has lost that, those that nobody has."""
    if not _sound(block, data, crc):
        (next_row,) = connection.execute("SELECT next_row FROM state").fetchone()
        bits = _unused(connection, block)
        bits[max(next_row - block * BLOCK_ROWS, 0) :] = False
        return bits
    return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").astype(np.bool_)


def _unused(connection: sqlite3.Connection, block: int) -> NDArray[np.bool_]:
    """bool[BLOCK_ROWS]: which rows no document has."""
    bits = np.ones(BLOCK_ROWS, np.bool_)
    start = block * BLOCK_ROWS
    query = "SELECT first_row, rows FROM passages WHERE first_row < ? AND first_row + rows > ?"
    for first, rows in connection.execute(query, (start + BLOCK_ROWS, start)):
        bits[max(first - start, 0) : max(first + rows - start, 0)] = False
    return bits


def _write_block(connection: sqlite3.Connection, block: int, bits: NDArray[np.bool_]) -> None:
    data = np.packbits(bits, bitorder="little").tobytes()
    row = {"block": block, "crc": checksum(block, data), "bits": data}
    insert_row(connection, "tombstones", row, replace=True)
