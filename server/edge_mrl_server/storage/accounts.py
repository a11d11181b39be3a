"""Tenants, devices, tokens and invitations, in either database.

A token and an invitation name their tenant, so that every look-up has the tenant in its key. What is
secret is 256 random bits (160 in an invitation, which people type) and is kept as its SHA-256 alone.
How tokens are made, end and come back is in ``tokens``.

Invitations are rows of the table ``codes``: the table kept its first name.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edge_mrl.errors import UsageError
from edge_mrl.wire import now_ms
from edge_mrl_server.errors import InvalidInvitationError, LimitReachedError
from edge_mrl_server.storage.database import Transaction
from edge_mrl_server.storage.receipts import SECRET_BYTES
from edge_mrl_server.storage.records import TENANT_COLUMNS, Tenant, tenant_of
from edge_mrl_server.storage.spaces import require_space
from edge_mrl_server.storage.tokens import (
    GRACE_DAYS,
    TENANT_NAME,
    IssuedToken,
    authenticate,
    bad_token,
    confirm,
    hash_of,
    issue,
    rotate,
)

__all__ = [
    "MOST_BEHIND",
    "IssuedToken",
    "authenticate",
    "confirm",
    "create_invitation",
    "create_tenant",
    "enroll",
    "ensure_tenant",
    "get_tenant",
    "list_devices",
    "list_tenants",
    "present_tenant",
    "renew_epochs",
    "require_tenant",
    "revoke",
    "rotate",
    "set_limits",
    "totals",
]

INVITATION_BYTES = 20
INVITATION_LIFE_MS = 86_400_000
MAX_NAME_CHARS = 100
#: No limit is this high; days and rates of infinity are no numbers in JSON.
MOST = 1e15
#: An epoch's changes are numbered from its first millisecond times this: above those of earlier epochs,
#: also of ones that the copy does not know, unless a tenant makes a million changes a second.
EPOCH_CHANGES_MS = 1_000
#: Up to here it is counted how many documents a device is behind.
MOST_BEHIND = 10_000
#: Epochs since stamps were brought back that are remembered.
MAX_EPOCHS = 100
#: What a tenant may be limited in: numbers above 0, and ``grace_days``, which may be 0.
LIMITS = ("documents", "devices", "device_requests_per_s", "tenant_requests_per_s", GRACE_DAYS)
_DEVICE_COLUMNS = (
    "device", "name", "created_ms", "revoked_ms", "pushed_ms", "pulled_ms", "pulled", "cloned_ms",
    "doubts", "space_id", "read_only",
)  # fmt: skip


def create_tenant(transaction: Transaction, name: str) -> None:
    """Make a tenant.

    Raises:
        UsageError: The name is taken, or is not a valid name.
    """
    if not TENANT_NAME.fullmatch(name):
        raise UsageError(
            f"tenant {name!r}: expected 1 to 40 lower-case letters, digits and inner dashes"
        )
    if not ensure_tenant(transaction, name):
        raise UsageError(f"there is a tenant {name} already")


def ensure_tenant(transaction: Transaction, name: str) -> bool:
    """Make a tenant unless there is one of that name; returns whether it was made."""
    return bool(
        transaction.run(
            "INSERT INTO tenants (tenant, created_ms, epoch, secret) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            name,
            now_ms(),
            _new_epoch(),
            secrets.token_bytes(SECRET_BYTES),
        )
    )


def renew_epochs(transaction: Transaction, tenant: str | None = None) -> int:
    """Begin a new epoch: the database is an older copy of what devices have seen.

    Args:
        transaction: In a transaction that writes.
        tenant: Whose; None for all, by an operator's word: then devices may claim again what they
            cannot prove (``receipts``).

    Returns:
        How many tenants there are.
    """
    where, args = ("", ()) if tenant is None else (" WHERE tenant = ?", (tenant,))
    # Marks of stores (``marks``) that the copy does not have would look like another store's.
    transaction.run(f"UPDATE devices SET kept = push, marks = ''{where}", *args)  # noqa: S608
    if tenant is None:
        transaction.run("UPDATE devices SET doubts = 0 WHERE doubts > 0")
        transaction.run("UPDATE tenants SET doubt_ms = 0 WHERE doubt_ms > 0")
    now, epoch = now_ms(), _new_epoch()
    first = now * EPOCH_CHANGES_MS
    sql = "SELECT tenant, restamped FROM tenants WHERE restamped <> '{}'"
    for row in transaction.rows(sql + where.replace("WHERE", "AND"), *args):
        # Devices that come from an epoch of this list know of the restamp already.
        said = json.loads(row["restamped"])
        said["epochs"] = [*said["epochs"], epoch][-MAX_EPOCHS:]
        transaction.run(
            "UPDATE tenants SET restamped = ? WHERE tenant = ?", json.dumps(said), row["tenant"]
        )
    # The documents are the same, only the numbers of changes leap.
    transaction.run(
        "UPDATE sums SET change = ? WHERE change < ? AND change = (SELECT change FROM tenants "  # noqa: S608
        f"WHERE tenants.tenant = sums.tenant){where.replace('WHERE', 'AND')}",
        first,
        first,
        *args,
    )
    return transaction.run(
        "UPDATE tenants SET epoch = ?, restored_ms = ?, "  # noqa: S608
        f"change = CASE WHEN change < ? THEN ? ELSE change END{where}",
        epoch,
        now,
        first,
        first,
        *args,
    )


def _new_epoch() -> str:
    return secrets.token_hex(8)


def get_tenant(transaction: Transaction, name: str) -> Tenant | None:
    """A tenant, or None."""
    rows = transaction.rows(f"SELECT {TENANT_COLUMNS} FROM tenants WHERE tenant = ?", name)  # noqa: S608
    return tenant_of(rows[0]) if rows else None


def present_tenant(transaction: Transaction, name: str) -> Tenant:
    """The tenant of a device whose token was found.

    Raises:
        InvalidTokenError: It was deleted since.
    """
    tenant = get_tenant(transaction, name)
    if tenant is None:
        raise bad_token()
    return tenant


def require_tenant(transaction: Transaction, name: str) -> Tenant:
    """A tenant that somebody typed.

    Raises:
        UsageError: There is no tenant of that name.
    """
    tenant = get_tenant(transaction, name)
    if tenant is None:
        raise UsageError(f"no tenant {name}: `edge-mrl admin tenants list` lists them")
    return tenant


def list_tenants(transaction: Transaction, *, limit: int = 1_000) -> list[Tenant]:
    """The tenants by name, ``limit`` at most."""
    sql = f"SELECT {TENANT_COLUMNS} FROM tenants ORDER BY tenant LIMIT ?"  # noqa: S608
    return [tenant_of(row) for row in transaction.rows(sql, limit)]


def totals(transaction: Transaction) -> dict[str, int]:
    """How many tenants, devices that are not revoked, documents and passages there are."""
    (sums,) = transaction.rows(
        "SELECT count(*) AS tenants, coalesce(sum(documents), 0) AS documents, "
        "coalesce(sum(passages), 0) AS passages FROM tenants"
    )
    return {
        "tenants": int(sums["tenants"]),
        "devices": _count_devices(transaction),
        "documents": int(sums["documents"]),
        "passages": int(sums["passages"]),
    }


def set_limits(transaction: Transaction, name: str, limits: Mapping[str, float | None]) -> Tenant:
    """Change a tenant's limits; None takes one away.

    Raises:
        UsageError: There is no such tenant or limit.
    """
    transaction.lock_tenant(name)
    tenant = require_tenant(transaction, name)
    for key, value in limits.items():
        none = key == GRACE_DAYS and value == 0
        if key not in LIMITS or (value is not None and not (none or 0 < value < MOST)):
            raise UsageError(
                f"limit {key}={value}: expected a number above 0 for {', '.join(LIMITS)}"
                f" (0, for never, for {GRACE_DAYS} alone)"
            )
    merged = json.loads(tenant.limits) | dict(limits)
    kept = {key: value for key, value in merged.items() if value is not None}
    transaction.run("UPDATE tenants SET limits = ? WHERE tenant = ?", json.dumps(kept), name)
    return require_tenant(transaction, name)


def create_invitation(
    transaction: Transaction,
    tenant: str,
    *,
    life_ms: int = INVITATION_LIFE_MS,
    read_only: bool = False,
) -> str:
    """Make an invitation: a secret that enrolls one device, once.

    Args:
        transaction: One that writes.
        tenant: Whose device it will be.
        life_ms: How long it is valid, in milliseconds.
        read_only: Whether that device may only pull.

    Raises:
        UsageError: There is no such tenant.
    """
    require_tenant(transaction, tenant)
    secret = base64.b32encode(secrets.token_bytes(INVITATION_BYTES)).decode().lower()
    invitation = f"{tenant}_{secret}"
    now = now_ms()
    transaction.run("DELETE FROM codes WHERE tenant = ? AND expires_ms <= ?", tenant, now)
    transaction.run(
        "INSERT INTO codes (tenant, hash, created_ms, expires_ms, read_only) VALUES (?, ?, ?, ?, ?)",
        tenant,
        hash_of(invitation),
        now,
        now + life_ms,
        read_only,
    )
    return invitation


def enroll(
    transaction: Transaction,
    invitation: str,
    name: str,
    *,
    nonce: str | None = None,
    space_id: str | None = None,
) -> IssuedToken:
    """Make the device of an invitation, which ends when the device's token is first used.

    Before that the same invitation gives the same device a token again: the answer was lost on the way,
    or the request came twice. With the same nonce it is the same token.

    Args:
        transaction: One that writes.
        invitation: The secret.
        name: The device's name for people.
        nonce: What the device drew for this request, and keeps; None from older clients.
        space_id: The space of the device's store; None where it does not say.

    Raises:
        InvalidInvitationError: The invitation is unknown, was used, or has expired.
        LimitReachedError: The tenant has as many devices as it may have.
        SpaceMismatchError: The tenant's vectors are of another space; the invitation stays valid.
    """
    invitation = invitation.strip()
    tenant = invitation.partition("_")[0]
    # Its row is locked: whoever sends the same invitation at the same time comes after us.
    found = transaction.lock_tenant(tenant) if TENANT_NAME.fullmatch(tenant) else None
    if found is None:
        raise _bad_invitation()
    where = "tenant = ? AND hash = ?"
    key = (tenant, hash_of(invitation))
    rows = transaction.rows(
        f"SELECT device, read_only FROM codes WHERE {where} AND expires_ms > ?",  # noqa: S608
        *key,
        now_ms(),
    )
    if not rows:
        raise _bad_invitation()
    require_space(found, space_id)
    device, read_only = rows[0]["device"], bool(rows[0]["read_only"])
    if device is None:
        device = _add_device(transaction, found, name, space_id=space_id, read_only=read_only)
        transaction.run(
            f"UPDATE codes SET device = ? WHERE {where}",  # noqa: S608
            device,
            *key,
        )
    # What the nonce is for: an invitation that two machines were given, each with a nonce of its own.
    made = issue(transaction, tenant, device, nonce=nonce, grant=invitation)
    return replace(made, space_id=found.space_id, read_only=read_only)


def revoke(transaction: Transaction, tenant: str, device: str) -> bool:
    """End a device's tokens for good; returns whether there is such a device, not revoked before."""
    for table in ("tokens", "codes"):
        transaction.run(f"DELETE FROM {table} WHERE tenant = ? AND device = ?", tenant, device)  # noqa: S608
    return bool(
        transaction.run(
            "UPDATE devices SET revoked_ms = ? WHERE tenant = ? AND device = ? "
            "AND revoked_ms IS NULL",
            now_ms(),
            tenant,
            device,
        )
    )


def list_devices(
    transaction: Transaction, tenant: str, *, limit: int = 1_000
) -> list[dict[str, Any]]:
    """The devices of a tenant, last seen first, ``limit`` at most.

    ``behind`` counts the documents of other devices that it has not been given, ``MOST_BEHIND`` at most;
    all of them where it has to pull everything, because the database was restored since.
    """
    rows = transaction.rows(
        f"SELECT {', '.join(_DEVICE_COLUMNS)}, pulled_epoch FROM devices "  # noqa: S608
        "WHERE tenant = ? ORDER BY coalesce(pulled_ms, pushed_ms, created_ms) DESC, device LIMIT ?",
        tenant,
        limit,
    )
    found, devices = require_tenant(transaction, tenant), []
    for row in rows:
        device = {name: row[name] for name in _DEVICE_COLUMNS}
        device["anew"] = row["pulled_epoch"] not in ("", found.epoch)
        since = 0 if device["anew"] else row["pulled"]
        device["behind"] = _count_behind(transaction, found, row["device"], since)
        devices.append(device)
    return devices


def _count_behind(transaction: Transaction, tenant: Tenant, device: str, since: int) -> int:
    if since >= tenant.change:
        return 0
    sql = (
        "SELECT count(*) AS n FROM (SELECT 1 FROM documents WHERE tenant = ? AND change > ? "
        "AND device <> ? LIMIT ?) AS others"
    )
    return int(transaction.rows(sql, tenant.name, since, device, MOST_BEHIND)[0]["n"])


def _count_devices(transaction: Transaction, tenant: str | None = None) -> int:
    where, args = ("", ()) if tenant is None else (" AND tenant = ?", (tenant,))
    sql = f"SELECT count(*) AS n FROM devices WHERE revoked_ms IS NULL{where}"  # noqa: S608
    return int(transaction.rows(sql, *args)[0]["n"])


def _add_device(
    transaction: Transaction, tenant: Tenant, name: str, *, space_id: str | None, read_only: bool
) -> str:
    most = tenant.limit("devices")
    if most is not None and _count_devices(transaction, tenant.name) >= most:
        raise LimitReachedError(f"the tenant may have {most:.0f} devices: revoke one first")
    device = secrets.token_hex(8)
    transaction.run(
        "INSERT INTO devices (tenant, device, name, created_ms, space_id, read_only) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        tenant.name,
        device,
        name[:MAX_NAME_CHARS],
        now_ms(),
        space_id,
        read_only,
    )
    return device


def _bad_invitation() -> InvalidInvitationError:
    return InvalidInvitationError(
        "this is not a valid invitation: each enrolls one device and expires; ask for another one "
        "(`edge-mrl admin invitations create TENANT`)"
    )
