"""The counters of a store that change with each write, and the numbers of its deleted rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.errors import DamagedError
from edge_mrl.store.records import checksum
from edge_mrl.store.statements import insert_into, insert_row

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["State", "add_tombstones", "read_dead", "read_state", "write_state"]

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
            bits = _tombstone_bits(block, *found)
        bits[np.concatenate(rows)] = True
        data = np.packbits(bits, bitorder="little").tobytes()
        row = {"block": block, "crc": checksum(block, data), "bits": data}
        insert_row(connection, "tombstones", row, replace=True)


def read_dead(connection: sqlite3.Connection) -> NDArray[np.int64]:
    """int64: the numbers of deleted rows, ascending."""
    parts = [np.empty(0, np.int64)]
    query = "SELECT block, bits, crc FROM tombstones ORDER BY block"
    for block, data, crc in connection.execute(query):
        parts.append(np.flatnonzero(_tombstone_bits(block, data, crc)) + block * BLOCK_ROWS)
    return np.concatenate(parts)


def _tombstone_bits(block: int, data: bytes, crc: int) -> NDArray[np.bool_]:
    if checksum(block, data) != crc or len(data) * 8 != BLOCK_ROWS:
        raise DamagedError(f"its list of deleted rows, block {block}, cannot be trusted")
    return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").astype(np.bool_)
