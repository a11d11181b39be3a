"""Documents that came from a server of another embedding space, before spaces were compared."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_mrl.store.binding import forget_bootstrap, read_setting, write_setting
from edge_mrl.store.replica.enrollment import require
from edge_mrl.store.replica.names import own_names
from edge_mrl.store.replica.outbox import read_enrollment, write_enrollment

if TYPE_CHECKING:
    import sqlite3

    from edge_mrl.store.store import Store

__all__ = ["foreign_problem", "forget_received", "note_foreign", "note_remade", "received_from"]

#: Settings: the space of the server that what was received came from; whether this store's codes were
#: all made anew from texts since (both go when the store is bound to a bundle anew).
FOREIGN = "foreign"
REMADE = "remade"


def note_foreign(store: Store, space_id: str) -> int:
    """Note that the server's vectors are of another space than the store's.

    Args:
        store: The store.
        space_id: The server's space.

    Returns:
        How many documents here have codes that came from a server.
    """
    with store.writing(), store.locked() as (connection, _):
        found = _count(connection)
        write_setting(connection, FOREIGN, space_id if found else None)
        return found


def note_remade(connection: sqlite3.Connection) -> None:
    """Note that all codes that can be made from texts were. Call in the transaction that did so."""
    write_setting(connection, REMADE, "1")


def received_from(connection: sqlite3.Connection) -> str | None:
    """The other embedding space that documents here are known to come from; None if none is known."""
    return read_setting(connection, FOREIGN)


def foreign_problem(connection: sqlite3.Connection) -> str | None:
    """What `edge-mrl check` says of them, or None."""
    space = read_setting(connection, FOREIGN)
    found = 0 if space is None else _count(connection)
    if not found:
        return None
    return (
        f"{found} documents were received from a server of another embedding space ({space}): their "
        "codes cannot be compared with this store's. Run `edge-mrl reindex` with a bundle of that "
        "space, or delete them here with `edge-mrl sync --forget-received`"
    )


def forget_received(store: Store) -> int:
    """Delete here what other devices wrote, and tell no server. The next sync pulls everything again.

    Returns:
        How many documents were deleted.
    """
    with store.taking() as taking:
        connection = taking.connection
        now = require(connection, store)
        own = own_names(connection, now)
        query = "SELECT id, device FROM versions WHERE id NOT IN (SELECT id FROM outbox)"
        names = [name for name, device in connection.execute(query) if device not in own]
        there = {name for (name,) in connection.execute("SELECT id FROM documents")}
        gone = [name for name in names if name in there]
        connection.executemany("DELETE FROM versions WHERE id = ?", [(name,) for name in names])
        write_enrollment(connection, replace(now, cursor=0))
        forget_bootstrap(connection)
        write_setting(connection, FOREIGN, None)
        taking.delete(gone)
        return len(gone)


def _count(connection: sqlite3.Connection) -> int:
    """Documents with codes that another device wrote; those whose codes were made here do not count."""
    now = read_enrollment(connection)
    if now is None:
        return 0
    made_here = " AND text = ''" if read_setting(connection, REMADE) else ""
    own = sorted(own_names(connection, now))
    marks = ",".join("?" * len(own))
    (found,) = connection.execute(
        "SELECT count(*) FROM versions JOIN documents USING (id) "  # noqa: S608 - own words
        f"JOIN passages ON document = key WHERE device NOT IN ({marks}){made_here}",
        own,
    ).fetchone()
    return int(found)
