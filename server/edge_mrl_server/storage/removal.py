"""Taking away: tenants with all they have, devices, invitations, documents of a device, tombstones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from edge_mrl.errors import UsageError
from edge_mrl.wire import COUNTER_BITS, now_ms
from edge_mrl_server.storage.accounts import require_tenant
from edge_mrl_server.storage.database import Database, Transaction
from edge_mrl_server.storage.records import Row, Tenant

__all__ = [
    "delete_documents",
    "delete_tenant",
    "documents_of",
    "list_invitations",
    "purge",
    "remove_device",
    "reset_space",
    "revoke_invitations",
]

#: Documents of one page, or one transaction.
PAGE = 256
#: Tombstones that are forgotten in one transaction.
PURGED = 5_000


def delete_tenant(database: Database, name: str) -> int:
    """Delete a tenant with its documents, vectors, devices, tokens, invitations and heads.

    Returns:
        How many documents it had.

    Raises:
        UsageError: There is no such tenant.
    """
    with database.write() as transaction:
        transaction.lock_tenant(name)
        count = require_tenant(transaction, name).documents
        kept = ("tokens", "codes", "devices", "heads", "sums")
        tables = ("documents", transaction.vector_table, *kept)
        for table in (*tables, "tenants"):
            transaction.run(f"DELETE FROM {table} WHERE tenant = ?", name)  # noqa: S608
    database.erase()
    return count


def reset_space(transaction: Transaction, name: str) -> str | None:
    """Let a tenant without live documents be bound anew by its next vectors; returns its former space.

    Raises:
        UsageError: There is no such tenant, or it has documents.
    """
    transaction.lock_tenant(name)
    tenant = require_tenant(transaction, name)
    if tenant.documents:
        raise UsageError(
            f"tenant {name} has {tenant.documents:,} documents: delete them first "
            "(`edge-mrl admin documents delete`), or the tenant"
        )
    transaction.run("UPDATE tenants SET space_id = NULL, full_dim = NULL WHERE tenant = ?", name)
    return tenant.space_id


def remove_device(transaction: Transaction, tenant: str, device: str) -> bool:
    """Forget a device and its tokens; its documents stay. Returns whether there was one."""
    require_tenant(transaction, tenant)
    for table in ("tokens", "codes"):
        transaction.run(f"DELETE FROM {table} WHERE tenant = ? AND device = ?", tenant, device)  # noqa: S608
    return bool(
        transaction.run("DELETE FROM devices WHERE tenant = ? AND device = ?", tenant, device)
    )


def list_invitations(transaction: Transaction, tenant: str) -> list[dict[str, Any]]:
    """The invitations that can be used still, oldest first. Their secrets are not kept."""
    require_tenant(transaction, tenant)
    rows = transaction.rows(
        "SELECT hash, device, created_ms, expires_ms FROM codes WHERE tenant = ? AND expires_ms > ? "
        "ORDER BY created_ms, hash",
        tenant,
        now_ms(),
    )
    return [
        {
            "id": bytes(row["hash"]).hex()[:16],
            "device": row["device"],
            "created_ms": row["created_ms"],
            "expires_ms": row["expires_ms"],
        }
        for row in rows
    ]


def revoke_invitations(transaction: Transaction, tenant: str, ids: list[str]) -> int:
    """End invitations, by the ids that ``list_invitations`` gives; returns how many there were."""
    require_tenant(transaction, tenant)
    rows = transaction.rows("SELECT hash FROM codes WHERE tenant = ?", tenant)
    chosen = [row["hash"] for row in rows if bytes(row["hash"]).hex()[:16] in ids]
    for secret in chosen:
        transaction.run("DELETE FROM codes WHERE tenant = ? AND hash = ?", tenant, secret)
    return len(chosen)


def documents_of(database: Database, tenant: str, device: str | None) -> Iterator[dict[str, Any]]:
    """The live documents of a tenant, or those that a device wrote last, by change."""
    since = 0
    chosen, args = ("", ()) if device is None else (" AND device = ?", (device,))
    while True:
        with database.read() as transaction:
            require_tenant(transaction, tenant)
            rows = transaction.rows(
                "SELECT id, stamp, device, change, passages, text, metadata FROM documents "  # noqa: S608
                f"WHERE tenant = ? AND change > ? AND NOT deleted{chosen} ORDER BY change LIMIT ?",
                tenant,
                since,
                *args,
                PAGE,
            )
        for row in rows:
            since = row["change"]
            text, metadata = row["text"], row["metadata"]
            yield {
                "id": row["id"],
                "device": row["device"],
                "written_ms": row["stamp"] >> COUNTER_BITS,
                "passages": row["passages"],
                "text": None if text is None else bytes(text).decode(),
                "metadata": None if metadata is None else json.loads(bytes(metadata)),
            }
        if len(rows) < PAGE:
            return


def delete_documents(database: Database, tenant: str, device: str) -> int:
    """Delete the documents that a device wrote last, so that every device learns of it.

    Returns:
        How many.
    """
    total = 0
    while count := _delete_some(database, tenant, device):
        total += count
    return total


def _delete_some(database: Database, tenant: str, device: str) -> int:
    with database.write() as transaction:
        transaction.lock_tenant(tenant)
        found = require_tenant(transaction, tenant)
        rows = transaction.rows(
            "SELECT id, stamp, passages FROM documents WHERE tenant = ? AND device = ? "
            "AND NOT deleted ORDER BY change LIMIT ?",
            tenant,
            device,
            PAGE,
        )
        stamp = newest = now_ms() << COUNTER_BITS
        for place, row in enumerate(rows, 1):
            stamp = max(now_ms() << COUNTER_BITS, row["stamp"] + 1)
            newest = max(newest, stamp)
            transaction.run(
                "UPDATE documents SET stamp = ?, change = ?, deleted = TRUE, passages = 0, "
                "text = NULL, spans = NULL, metadata = NULL WHERE tenant = ? AND id = ?",
                stamp,
                found.change + place,
                tenant,
                row["id"],
            )
        transaction.replace_vectors(tenant, [], [row["id"] for row in rows])
        transaction.run(
            "UPDATE tenants SET change = change + ?, documents = documents - ?, "
            "tombstones = tombstones + ?, passages = passages - ?, "
            "newest = CASE WHEN newest < ? THEN ? ELSE newest END WHERE tenant = ?",
            len(rows),
            len(rows),
            len(rows),
            sum(row["passages"] for row in rows),
            newest,
            newest,
            tenant,
        )
        return len(rows)


def purge(database: Database, tenant_name: str, *, before_ms: int) -> tuple[int, int]:
    """Forget tombstones of before a time, and raise the fence to the last of them.

    In pieces, each a transaction of its own between which devices go on. What is forgotten is behind the
    fence after each of them.

    Returns:
        How many were forgotten, and the fence.
    """
    with database.read() as transaction:
        end = require_tenant(transaction, tenant_name).change
    forgotten, change = 0, 0
    while True:
        with database.write() as transaction:
            transaction.lock_tenant(tenant_name)
            tenant = require_tenant(transaction, tenant_name)
            stamp = max(before_ms, 0) << COUNTER_BITS
            rows = transaction.rows(
                "SELECT change, stamp, device FROM documents WHERE tenant = ? AND change > ? "
                "AND change <= ? AND deleted AND stamp < ? ORDER BY change LIMIT ?",
                tenant_name,
                change,
                end,
                stamp,
                PURGED,
            )
            fence = _forget(transaction, tenant, rows, stamp) if rows else tenant.fence
        forgotten += len(rows)
        if len(rows) < PURGED:
            return forgotten, fence
        change = rows[-1]["change"]


def _forget(transaction: Transaction, tenant: Tenant, rows: Sequence[Row], stamp: int) -> int:
    """Forget some tombstones; returns the fence that they are behind."""
    transaction.run(
        "DELETE FROM documents WHERE tenant = ? AND change >= ? AND change <= ? AND deleted "
        "AND stamp < ?",
        tenant.name,
        rows[0]["change"],
        rows[-1]["change"],
        stamp,
    )
    fence = max(tenant.fence, rows[-1]["change"])
    newest = max((row["stamp"], row["device"]) for row in rows)
    newest = max(newest, (tenant.fence_stamp, tenant.fence_device))
    transaction.run(
        "UPDATE tenants SET fence = ?, fence_stamp = ?, fence_device = ?, "
        "tombstones = tombstones - ? WHERE tenant = ?",
        fence,
        *newest,
        len(rows),
        tenant.name,
    )
    return int(fence)
