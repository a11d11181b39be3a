"""Documents that get new ids: their versions, and what a server must be told."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from edge_mrl.store.replica.names import own_names
from edge_mrl.store.replica.outbox import (
    NEVER,
    Change,
    Known,
    known_versions,
    note,
    read_enrollment,
)

__all__ = ["note_moved"]


def note_moved(
    connection: sqlite3.Connection, names: Mapping[str, str], *, dropped: Sequence[str] = ()
) -> set[str]:
    """Queue documents under their new ids, and the deletion of old ids that a server may have.

    Call in the transaction that changes the ids. In a store that is not enrolled this does nothing.

    Args:
        connection: In a transaction that writes.
        names: New ids by old ones.
        dropped: Old ids of documents that go, because one with the new id and the same text is there.

    Returns:
        The old ids of documents that keep them, because their present version is another device's.
    """
    enrollment = read_enrollment(connection)
    if enrollment is None:
        return set()
    known = known_versions(connection, [*names, *dropped])
    own = {"", *own_names(connection, enrollment)}
    others = {name for name, one in known.items() if one.version.device not in own}
    mine = {old: new for old, new in names.items() if old not in others}
    query = (
        "SELECT ifnull(max(length(vectors)), 0) FROM fulls JOIN documents ON key = document "
        "WHERE id = ?"
    )
    changes = []
    for old, new in mine.items():
        (size,) = connection.execute(query, (old,)).fetchone()
        changes.append(Change(new, deleted=False, size_bytes=size))
    note(connection, changes)
    old_ids = [*mine, *(name for name in dropped if name not in others)]
    unsent = [old for old in old_ids if old not in known or _never_left(known[old])]
    for table in ("outbox", "versions", "dead"):
        connection.executemany(
            f"DELETE FROM {table} WHERE id = ?",  # noqa: S608 - own names
            [(old,) for old in unsent],
        )
    note(connection, [Change(old, deleted=True) for old in old_ids if old not in set(unsent)])
    return others


def _never_left(one: Known) -> bool:
    return one.acknowledged == NEVER and not one.is_open
