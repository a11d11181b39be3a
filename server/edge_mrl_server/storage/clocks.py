"""Stamps and this machine's clock: whether it is behind them, and bringing them back to it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from edge_mrl.wire import COUNTER_BITS, format_stamp, now_ms
from edge_mrl_server.storage.accounts import renew_epochs, require_tenant
from edge_mrl_server.storage.database import Database, Transaction
from edge_mrl_server.storage.pushes import MAX_AHEAD_MS

__all__ = ["Restamped", "clock_behind_ms", "restamp"]


@dataclass(frozen=True, slots=True)
class Restamped:
    """What bringing a tenant's stamps back changed, or would change.

    Attributes:
        documents: How many versions, deletions included, were ahead of the clock.
        before_ms: The time of the newest stamp before, in milliseconds since 1970.
        after_ms: The same after.
    """

    documents: int
    before_ms: int
    after_ms: int


def clock_behind_ms(database: Database) -> int:
    """Milliseconds that this clock is behind the newest stamp of any tenant; 0 where it is not.

    Up to five minutes are usual: devices' clocks may be ahead by that.
    """
    with database.read() as transaction:
        (row,) = transaction.rows("SELECT coalesce(max(newest), 0) AS newest FROM tenants")
    behind = (int(row["newest"]) >> COUNTER_BITS) - now_ms()
    return behind if behind > MAX_AHEAD_MS else 0


def restamp(database: Database, tenant_name: str, *, dry_run: bool = False) -> Restamped:
    """Bring the stamps of a tenant that are ahead of this clock back to it, in their order.

    A new epoch tells devices, which then take over the new stamps. Where no stamp is more than five
    minutes ahead, nothing is changed.

    Args:
        database: The database.
        tenant_name: Whose.
        dry_run: Only say what would be changed.

    Raises:
        UsageError: There is no such tenant.
    """
    with database.write() as transaction:
        transaction.lock_tenant(tenant_name)
        tenant = require_tenant(transaction, tenant_name)
        now, before_ms = now_ms(), tenant.newest >> COUNTER_BITS
        if before_ms <= now + MAX_AHEAD_MS:
            return Restamped(0, before_ms, before_ms)
        edge = now << COUNTER_BITS
        sql = "SELECT id FROM documents WHERE tenant = ? AND stamp > ? ORDER BY stamp, device, id"
        names = [row["id"] for row in transaction.rows(sql, tenant_name, edge)]
        # Above everything that was stamped by right clocks, and as little as can be ahead of this one.
        first = max(_newest_below(transaction, tenant_name, edge), edge - len(names))
        last = first + len(names)
        result = Restamped(len(names), before_ms, last >> COUNTER_BITS)
        if dry_run:
            return result
        for place, name in enumerate(names, 1):
            transaction.run(
                "UPDATE documents SET stamp = ? WHERE tenant = ? AND id = ?",
                first + place,
                tenant_name,
                name,
            )
        said = {"from": format_stamp(max(first, 1)), "to": format_stamp(last), "epochs": []}
        transaction.run(
            "UPDATE tenants SET newest = ?, restamped = ?, "
            "fence_stamp = CASE WHEN fence_stamp > ? THEN ? ELSE fence_stamp END WHERE tenant = ?",
            last,
            json.dumps(said),
            last,
            last,
            tenant_name,
        )
        # Their sums are of the former stamps; they are made again.
        transaction.run("DELETE FROM sums WHERE tenant = ?", tenant_name)
        renew_epochs(transaction, tenant_name)
        return result


def _newest_below(transaction: Transaction, tenant: str, edge: int) -> int:
    sql = "SELECT coalesce(max(stamp), 0) AS stamp FROM documents WHERE tenant = ? AND stamp <= ?"
    (row,) = transaction.rows(sql, tenant, edge)
    return int(row["stamp"])
