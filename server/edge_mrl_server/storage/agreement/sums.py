"""Sums of a tenant's live documents, by which devices see whether they hold the same (wire.agreement).

They are written in the transaction that writes the documents. A row counts for one change of the tenant
alone: where anything else has written documents meanwhile, such as an older server beside this one, the
sums are made again from the documents.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from edge_mrl.wire import Sums, now_ms
from edge_mrl_server.errors import UnavailableError
from edge_mrl_server.storage.database import Database, Transaction
from edge_mrl_server.storage.records import Row, Tenant

__all__ = ["fill_sums", "move_sums", "read_sums"]

#: Sums that are out of date are made again no sooner than this after the last time: that reads all ids.
AGAIN_MS = 60_000
#: Rows that are read at once.
ROWS = 4_096


def read_sums(transaction: Transaction, tenant: Tenant) -> Sums | None:
    """The sums of a tenant as this transaction sees it; None where they are not there."""
    row = _row(transaction, tenant.name)
    if row is None or row["change"] != tenant.change:
        return None
    return Sums.read(bytes(row["sums"]))


def move_sums(
    transaction: Transaction,
    tenant: Tenant,
    *,
    change: int,
    gone: Iterable[tuple[str, int, str]],
    come: Iterable[tuple[str, int, str]],
) -> None:
    """Take over what a push has changed, in its transaction.

    Args:
        transaction: Has the tenant's row locked.
        tenant: As it was before the push.
        change: The last change of the push.
        gone: Id, stamp and device of versions that were live before.
        come: Those of versions that are live now.
    """
    sums = read_sums(transaction, tenant)
    if sums is None:
        return
    for version in gone:
        sums.remove(*version)
    for version in come:
        sums.add(*version)
    transaction.run(
        "UPDATE sums SET change = ?, sums = ? WHERE tenant = ?", change, bytes(sums), tenant.name
    )


def fill_sums(database: Database, name: str) -> None:
    """Make the sums of a tenant that has none, or none that count, from its documents."""
    with database.read() as transaction:
        row = _row(transaction, name)
        if row is not None and now_ms() - row["made_ms"] < AGAIN_MS:
            return
    # The tenant's row may be held by a push that waits for a standby: a pull does not wait for that too.
    with suppress(UnavailableError), database.write(lazily=True) as transaction:
        tenant = transaction.lock_tenant(name)
        if tenant is None or read_sums(transaction, tenant) is not None:
            return
        sums = Sums()
        at = ""
        while rows := transaction.rows(
            "SELECT id, stamp, device, deleted FROM documents WHERE tenant = ? AND id > ? "
            "ORDER BY id LIMIT ?",
            name,
            at,
            ROWS,
        ):
            for found in rows:
                if not found["deleted"]:
                    sums.add(found["id"], found["stamp"], found["device"])
            at = rows[-1]["id"]
        transaction.run("DELETE FROM sums WHERE tenant = ?", name)
        transaction.run(
            "INSERT INTO sums (tenant, change, sums, made_ms) VALUES (?, ?, ?, ?)",
            name,
            tenant.change,
            bytes(sums),
            now_ms(),
        )


def _row(transaction: Transaction, name: str) -> Row | None:
    rows = transaction.rows("SELECT change, sums, made_ms FROM sums WHERE tenant = ?", name)
    return rows[0] if rows else None
