"""Taking over that a server has brought stamps back to the time, after its clock was ahead once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_mrl.store.replica.enrollment import require
from edge_mrl.store.replica.outbox import (
    Queued,
    known_versions,
    restamp,
    write_queue,
    write_versions,
)
from edge_mrl.store.statements import select_rows
from edge_mrl.wire import Version

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from edge_mrl.store.replica.outbox import Known
    from edge_mrl.store.store import Store

__all__ = ["Restamp", "take_restamp"]


@dataclass(frozen=True, slots=True)
class Restamp:
    """How a server has brought back the stamps that were ahead of its clock.

    Attributes:
        first: Below every stamp that was given anew.
        last: The largest of them; whatever this device has of before and is above, has another stamp now.
        epochs: The epochs since then: a device that comes from one of them knows of it.
    """

    first: int
    last: int
    epochs: tuple[str, ...]


def take_restamp(store: Store, said: Restamp) -> int:
    """Lower what this device has from before, so that what the server has now is the newer version.

    Call before everything is pulled. Taken twice, it changes nothing more.

    Returns:
        How many documents' versions were lowered.

    Raises:
        NotEnrolledError: The store is not enrolled.
    """
    with store.writing(), store.locked() as (connection, _):
        now = require(connection, store)
        query = "SELECT id FROM versions WHERE stamp > ? OR acknowledged > ?"
        names = [name for (name,) in connection.execute(query, (said.last, said.last))]
        known = known_versions(connection, names)
        waiting = {name for (name,) in select_rows(connection, "id", "id", names, "outbox")}
        lowered = {}
        for name, one in known.items():
            seen = min(one.acknowledged, said.first)
            mine = name in waiting and one.version.device == now.device
            # What waits here was never accepted as this version: it gets a stamp of now, below.
            version = one.version if mine else Version(said.first, one.version.device)
            lowered[name] = replace(one, version=version, acknowledged=seen)
        write_versions(connection, lowered)
        _requeue(connection, {name: lowered[name] for name in waiting}, now.device)
        connection.execute(
            "DELETE FROM withheld WHERE stamp > ? AND reason = 'unreadable'", (said.last,)
        )
        after = replace(now, last=min(now.last, said.last), floor=min(now.floor, said.last))
        restamp(connection, after)
        return len(lowered)


def _requeue(connection: sqlite3.Connection, lowered: Mapping[str, Known], device: str) -> None:
    """The same for versions of other devices that wait to be offered: they keep their place in order."""
    rows = []
    columns = "id, deleted, queued_ms, bytes"
    for name, deleted, queued_ms, size in select_rows(
        connection, columns, "id", list(lowered), "outbox"
    ):
        version = lowered[name].version
        if version.device != device:
            rows.append(Queued(name, version.stamp, bool(deleted), queued_ms, size))
    write_queue(connection, rows)
