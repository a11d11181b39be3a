"""Sums of the live versions here, by which this store and its server see whether they hold the same.

They are kept up to date in the transactions that write versions, so comparing costs no reading.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from edge_mrl.store.records import checksum
from edge_mrl.store.statements import insert_into, select_rows
from edge_mrl.wire import GROUPS, Sums

__all__ = [
    "Agreement",
    "add_pending",
    "make_sums",
    "move_sums",
    "read_agreement",
    "write_agreement",
]

_COLUMNS = ("sums", "pending", "there", "here", "tries", "next_ms", "differs", "crc")
_VERSION = "id, stamp, device, deleted, acknowledged, sent"
#: A version as it counts in sums: id, stamp, device, whether it is a deletion.
Counted = tuple[str, int, str, int]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far this store agrees with its server.

    Attributes:
        sums: The sums of the live versions here.
        pending: Groups whose documents are to be pulled again.
        there: The server's sum when the difference was explained by what waits here; 0 for none.
        here: The sum here, then.
        tries: How often in a row groups that differ were pulled again, in vain.
        next_ms: When they may be pulled again, in milliseconds since 1970.
        differs: How many groups differed after the last try.
    """

    sums: Sums
    pending: frozenset[int] = frozenset()
    there: int = 0
    here: int = 0
    tries: int = 0
    next_ms: int = 0
    differs: int = 0


def read_agreement(connection: sqlite3.Connection) -> Agreement:
    """How far this store agrees with its server; with sums made again if they cannot be trusted."""
    query = f"SELECT {', '.join(_COLUMNS)} FROM agreement"  # noqa: S608 - own names
    row = connection.execute(query).fetchone()
    if row is None or checksum(*row[:-1]) != row[-1]:
        return Agreement(make_sums(connection))
    sums, pending, there, here, tries, next_ms, differs, _ = row
    return Agreement(
        Sums.read(sums), frozenset(pending), int(there, 16), int(here, 16), tries, next_ms, differs
    )


def write_agreement(connection: sqlite3.Connection, now: Agreement) -> None:
    """Write how far this store agrees with its server."""
    values = (
        bytes(now.sums), bytes(sorted(now.pending)), f"{now.there:016x}", f"{now.here:016x}",
        now.tries, now.next_ms, now.differs,
    )  # fmt: skip
    statement = insert_into("agreement", ("id", *_COLUMNS), replace=True)
    connection.execute(statement, (1, *values, checksum(*values)))


def make_sums(connection: sqlite3.Connection) -> Sums:
    """The sums of the live versions, from those versions that are what was written."""
    sums = Sums()
    query = f"SELECT {_VERSION}, crc FROM versions"  # noqa: S608 - own names
    for *values, crc in connection.execute(query):
        name, stamp, device, deleted, *_ = values
        if not deleted and checksum(*values) == crc:
            sums.add(name, stamp, device)
    return sums


def move_sums(
    connection: sqlite3.Connection, names: Sequence[str], after: Iterable[Counted]
) -> None:
    """Count other versions of documents. Call before they are written.

    Args:
        connection: In a transaction that writes.
        names: The documents.
        after: Their versions from now on; a document without one has none.
    """
    rows = select_rows(connection, f"{_VERSION}, crc", "id", names, "versions")
    if any(checksum(*values) != crc for *values, crc in rows):
        connection.execute("DELETE FROM agreement")  # nobody knows what was counted for it
        return
    before = {row[:4] for row in rows}
    later = set(after)
    gone = [row for row in before - later if not row[3]]
    come = [row for row in later - before if not row[3]]
    if not gone and not come:
        return
    now = read_agreement(connection)
    for name, stamp, device, _ in gone:
        now.sums.remove(name, stamp, device)
    for name, stamp, device, _ in come:
        now.sums.add(name, stamp, device)
    write_agreement(connection, now)


def add_pending(connection: sqlite3.Connection, groups: Collection[int]) -> None:
    """Have the next sync pull groups again."""
    assert all(0 <= group < GROUPS for group in groups)
    now = read_agreement(connection)
    if not now.pending.issuperset(groups):
        write_agreement(connection, replace(now, pending=now.pending | frozenset(groups)))
