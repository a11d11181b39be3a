"""Receipts: what this server has told a device, in words that only the server can have written.

A device that says "I have seen change 900" to a database whose last change is 700 either knew it before
it was restored from a copy, or lies. A receipt tells which: it names epoch, change and push, and has a
code (HMAC-SHA256, RFC 2104) made with the tenant's secret, which is in the copy as well.

A claim without a receipt (of an older client, or where the secret is younger than the copy) may begin a
new epoch too, since a restore must be noticed by itself. But a new epoch has every device of the tenant
pull everything, so one device alone must not be able to have that again and again: each device once, and
two devices an hour in a tenant. After that it takes an operator's word (``edge-mrl admin restored``).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from edge_mrl.wire import now_ms
from edge_mrl_server.storage.database import Transaction
from edge_mrl_server.storage.records import Tenant

__all__ = ["SECRET_BYTES", "Receipt", "issue", "may_doubt", "read", "secret_of"]

#: Claims without a receipt that begin an epoch: one of a tenant in this time, and two at once.
DOUBT_MS = 1_800_000
SECRET_BYTES = 32
_CODE_CHARS = 32


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a server has told a device.

    Attributes:
        epoch: The tenant's epoch then.
        change: The change that the device had pulled, or the tenant's last one.
        push: The device's last push that the server had.
    """

    epoch: str
    change: int
    push: int


def secret_of(transaction: Transaction, tenant: str) -> bytes:
    """A tenant's secret, made where there is none yet. In a transaction that writes."""
    sql = "SELECT secret FROM tenants WHERE tenant = ?"
    rows = transaction.rows(sql, tenant)
    if rows and rows[0]["secret"] is None:
        fresh = secrets.token_bytes(SECRET_BYTES)
        # Another process may be faster: whichever is there then counts.
        transaction.run(
            "UPDATE tenants SET secret = ? WHERE tenant = ? AND secret IS NULL", fresh, tenant
        )
        rows = transaction.rows(sql, tenant)
    return bytes(rows[0]["secret"]) if rows else b""


def issue(secret: bytes, device: str, receipt: Receipt) -> str:
    """A receipt as a device keeps it: text that it does not need to understand."""
    said = f"{receipt.epoch}.{receipt.change}.{receipt.push}"
    return f"{said}.{_code(secret, device, said)}"


def read(secret: bytes | None, device: str, text: str) -> Receipt | None:
    """What a receipt says; None where this server has not given it to this device."""
    said, _, code = text.rpartition(".")
    if not secret or not hmac.compare_digest(
        _code(secret, device, said).encode(), code.encode("utf-8", "surrogatepass")
    ):
        return None
    epoch, change, push = said.split(".")
    return Receipt(epoch, int(change), int(push))


def may_doubt(transaction: Transaction, tenant: Tenant, device: str) -> bool:
    """Whether a claim without a receipt may begin an epoch; it is counted in any case.

    Call with the tenant's row locked.
    """
    where = "WHERE tenant = ? AND device = ?"
    rows = transaction.rows(f"SELECT doubts FROM devices {where}", tenant.name, device)  # noqa: S608
    first = not rows or not rows[0]["doubts"]
    transaction.run(f"UPDATE devices SET doubts = doubts + 1 {where}", tenant.name, device)  # noqa: S608
    now = now_ms()
    rows = transaction.rows("SELECT doubt_ms FROM tenants WHERE tenant = ?", tenant.name)
    # The time at which all claims so far are worked off. One further ahead than two of them comes of a
    # clock that was ahead, and is no reason to wait.
    until = rows[0]["doubt_ms"]
    until = until if now < until <= now + 2 * DOUBT_MS else now
    if not first or until > now + DOUBT_MS:
        return False
    transaction.run(
        "UPDATE tenants SET doubt_ms = ? WHERE tenant = ?", until + DOUBT_MS, tenant.name
    )
    return True


def _code(secret: bytes, device: str, said: str) -> str:
    text = f"receipt\0{device}\0{said}".encode("utf-8", "surrogatepass")
    return hmac.new(secret, text, hashlib.sha256).hexdigest()[:_CODE_CHARS]
