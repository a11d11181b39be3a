"""Versions of other devices that this store does not hold though it knows of them, and why.

One that cannot be stored here must not stop the others, and must not be forgotten either: it is said, and
it is asked for again when there is hope.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_mrl._version import __version__
from edge_mrl.documents import Document, clean
from edge_mrl.store.records import checksum, decode_metadata
from edge_mrl.store.replica.agreement import add_pending
from edge_mrl.store.statements import insert_into, select_rows
from edge_mrl.wire import Version, group_of, now_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_mrl.store.store import Store

__all__ = [
    "DETAIL_CHARS",
    "LOST",
    "UNREADABLE",
    "WITHHELD_COLUMNS",
    "Withheld",
    "ask_again",
    "ask_for_unreadable",
    "count_withheld",
    "damaged_withheld",
    "drop_withheld",
    "forget_withheld",
    "list_withheld",
    "write_withheld",
]

#: The reason of what arrived, and cannot be read or stored.
UNREADABLE = "unreadable"
#: The reason of what a server has lost, and this device could not send for the one that wrote it.
LOST = "lost"
_COLUMNS = (
    "id", "stamp", "device", "deleted", "reason", "detail", "since_ms", "program", "metadata", "text",
    "again", "crc",
)  # fmt: skip
#: What the checksum of a row covers.
WITHHELD_COLUMNS = ", ".join(_COLUMNS[:-1])
#: Characters of a detail that are kept.
DETAIL_CHARS = 500


@dataclass(frozen=True, slots=True)
class Withheld:
    """A version of another device that is not here.

    Attributes:
        id: The document.
        version: The version.
        deleted: Whether it is a deletion.
        reason: Why it is not here: ``dead_letters`` has the words.
        detail: What is wrong, for people.
        since_ms: Since when, in milliseconds since 1970; 0 for now.
        program: The version of the program that could not store it; "" for this one.
        document: What was here of it, if it is kept.
        again: Whether it is to be asked for again.
    """

    id: str
    version: Version
    deleted: bool
    reason: str
    detail: str = ""
    since_ms: int = 0
    program: str = ""
    document: Document | None = None
    again: bool = False


def write_withheld(
    connection: sqlite3.Connection,
    letters: Iterable[Withheld],
    *,
    kept: Mapping[str, tuple[str, str]] | None = None,
) -> None:
    """Write what is withheld; it replaces what was withheld of the same documents.

    Args:
        connection: In a transaction that writes.
        letters: What; ``document`` is not read.
        kept: Metadata, as it is stored, and text of what was here, by id.
    """
    rows = []
    for one in letters:
        metadata, text = (kept or {}).get(one.id, (None, None))
        values = (
            one.id, one.version.stamp, one.version.device, int(one.deleted), one.reason,
            clean(one.detail)[:DETAIL_CHARS], one.since_ms or now_ms(), one.program or __version__,
            metadata, text, int(one.again),
        )  # fmt: skip
        rows.append((*values, checksum(*values)))
    connection.executemany(insert_into("withheld", _COLUMNS, replace=True), rows)


def list_withheld(
    connection: sqlite3.Connection, ids: Sequence[str] | None = None
) -> list[Withheld]:
    """What is withheld, ordered by id, without rows that are damaged.

    Args:
        connection: The store's connection.
        ids: Of which documents; None for all.
    """
    found = (_read(row) for row in _rows(connection, ids))
    return [one for one in found if one is not None]


def damaged_withheld(connection: sqlite3.Connection) -> list[str]:
    """Ids of rows that are not what was written, as they are now."""
    return [clean(str(row[0])) for row in _rows(connection, None) if _read(row) is None]


def _rows(connection: sqlite3.Connection, ids: Sequence[str] | None) -> list[tuple[object, ...]]:
    columns = ", ".join(_COLUMNS)
    if ids is None:
        return connection.execute(f"SELECT {columns} FROM withheld ORDER BY id").fetchall()  # noqa: S608
    found = select_rows(connection, columns, "id", ids, "withheld")
    return sorted(found, key=lambda row: str(row[0]))


def _read(row: Sequence[object]) -> Withheld | None:
    """What a row says; None if it is not what was written."""
    *values, crc = row
    if checksum(*values) != crc:  # type: ignore[arg-type]  # what the columns hold
        return None
    name, stamp, device, deleted, reason, detail, since_ms, program, metadata, text, again = values
    assert isinstance(name, str)
    document = None
    if isinstance(text, str):
        document = Document(name, text, decode_metadata(str(metadata)))
    return Withheld(
        name,
        Version(int(str(stamp)), str(device)),
        bool(deleted),
        str(reason),
        str(detail),
        int(str(since_ms)),
        str(program),
        document,
        bool(again),
    )


def count_withheld(connection: sqlite3.Connection) -> int:
    """How many versions are withheld."""
    (count,) = connection.execute("SELECT count(*) FROM withheld").fetchone()
    return int(count)


def forget_withheld(connection: sqlite3.Connection, versions: Mapping[str, Version]) -> None:
    """Forget what is not withheld any more: versions that are here now, or newer ones, by id."""
    connection.executemany(
        "DELETE FROM withheld WHERE id = ? AND (stamp, device) <= (?, ?)",
        [(name, version.stamp, version.device) for name, version in versions.items()],
    )


def drop_withheld(connection: sqlite3.Connection, ids: Collection[str] | None) -> int:
    """Forget what is withheld of some documents, or of all; returns how many versions."""
    if ids is None:
        return connection.execute("DELETE FROM withheld").rowcount
    query = "DELETE FROM withheld WHERE id = ?"
    return sum(connection.execute(query, (name,)).rowcount for name in sorted(ids))


def ask_again(connection: sqlite3.Connection, ids: Sequence[str]) -> None:
    """Have the next sync ask for versions that are withheld."""
    _mark(connection, list_withheld(connection, ids), again=True)


def ask_for_unreadable(store: Store) -> None:
    """Have the groups pulled again of what could not be stored here, where there is hope.

    A person asked for it, or another version of the program failed, and this one may not.
    """
    with store.locked() as (connection, _):
        query = "SELECT id FROM withheld WHERE reason = ? AND (again OR program <> ?)"
        names = [name for (name,) in connection.execute(query, (UNREADABLE, __version__))]
    if not names:
        return
    with store.writing(), store.locked() as (connection, _):
        letters = [replace(one, program=__version__) for one in list_withheld(connection, names)]
        _mark(connection, letters, again=False)
        add_pending(connection, {group_of(name) for name in names})


def _mark(connection: sqlite3.Connection, letters: Iterable[Withheld], *, again: bool) -> None:
    for one in letters:
        query = "SELECT metadata, text FROM withheld WHERE id = ?"
        metadata, text = connection.execute(query, (one.id,)).fetchone()
        kept = {} if text is None else {one.id: (metadata, text)}
        write_withheld(connection, [replace(one, again=again)], kept=kept)
