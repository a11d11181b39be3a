"""What devices say of versions that a restored database has lost, and what is believed.

A token lets a device write as itself. After a restore it may also offer versions that others wrote, as
they were: the database that would prove them is gone, and their writers may be gone too. So the offer is
bounded by time: only versions from before the epoch began, which every writer that is still there would
send again under the same version. What a device writes as itself can overwrite as much, so an offer adds
one power alone: to name another device as the writer of an old version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edge_mrl.wire import COUNTER_BITS, MAX_AHEAD_MS, Item, Version, now_ms
from edge_mrl_server.storage.database import Transaction
from edge_mrl_server.storage.records import Tenant

__all__ = ["MAX_LOST", "lacks", "not_offerable", "offer_limit", "writer_of"]

#: A device's id, as this server gives them (``accounts``).
_DEVICE = re.compile(r"[0-9a-f]{16}")
#: Lost versions that a device names at most, so that the server looks for them.
MAX_LOST = 16
#: A device that names lost versions begins a new epoch at most this often in a tenant: all devices pull
#: everything then.
CLAIM_MS = 3_600_000


def offer_limit(tenant: Tenant) -> int:
    """The largest stamp of other devices' versions that a device may offer; 0 for none."""
    if not tenant.restored_ms:
        return 0
    return (tenant.restored_ms + MAX_AHEAD_MS) << COUNTER_BITS


def writer_of(item: Item, device: str) -> str:
    """The device that wrote an item of a push: the one that sends it, unless it offers another's."""
    return item.device or device


def _may_offer(tenant: Tenant, item: Item, device: str) -> bool:
    """Whether a device may send this item, as far as its writer goes."""
    writer = writer_of(item, device)
    return writer == device or (
        item.stamp <= offer_limit(tenant) and bool(_DEVICE.fullmatch(writer))
    )


def not_offerable(tenant: Tenant, device: str, items: Mapping[int, Item]) -> list[int]:
    """The places of items of other devices that may not be offered."""
    return [place for place, item in items.items() if not _may_offer(tenant, item, device)]


def lacks(transaction: Transaction, tenant: Tenant, lost: Sequence[tuple[str, Version]]) -> bool:
    """Whether a device names versions that this database should have, and does not.

    It cannot be proved that it had them. So this counts seldom, and never for what may have been
    forgotten, or what no right clock has stamped.
    """
    now = now_ms()
    if not lost or now - tenant.restored_ms < CLAIM_MS:
        return False
    names = [name for name, _ in lost]
    found = transaction.documents(tenant.name, "id, stamp, device", names)
    there = {row["id"]: Version(row["stamp"], row["device"]) for row in found}
    latest = (now + MAX_AHEAD_MS) << COUNTER_BITS
    forgotten = Version(tenant.fence_stamp, tenant.fence_device)
    return any(
        forgotten < version and version.stamp <= latest and there.get(name, forgotten) < version
        for name, version in lost
    )
