"""Tenants, devices, tokens and enrollment codes, in either database.

A token and a code name their tenant, so that every look-up has the tenant in its key. What is secret is
256 random bits (160 in a code, which people type) and is kept as its SHA-256 alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_mrl.errors import UsageError
from edge_mrl.wire import now_ms
from edge_mrl_server.errors import Refusal
from edge_mrl_server.storage.database import Session
from edge_mrl_server.storage.records import COLUMNS, Principal, Tenant

__all__ = [
    "TENANT_NAME",
    "Enrolled",
    "authenticate",
    "confirm",
    "create_code",
    "create_tenant",
    "enroll",
    "ensure_tenant",
    "get_tenant",
    "list_devices",
    "list_tenants",
    "renew_epochs",
    "require_tenant",
    "revoke",
    "rotate",
    "set_limits",
    "totals",
]

TENANT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
TOKEN_PREFIX = "emrl"  # noqa: S105 - what a token starts with, so that leaked ones are recognised
TOKEN_BYTES = 32
TOKEN_LIFE_MS = 90 * 86_400_000
CODE_BYTES = 20
CODE_LIFE_MS = 86_400_000
MAX_NAME_CHARS = 100
#: An epoch's changes are numbered from its first millisecond times this: above those of earlier epochs,
#: also of ones that the copy does not know, unless a tenant makes a million changes a second.
EPOCH_CHANGES_MS = 1_000
#: What a tenant may be limited in: numbers above 0.
LIMITS = ("documents", "devices", "device_requests_per_s", "tenant_requests_per_s")


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A device's new token."""

    tenant: str
    device: str
    token: str
    expires_ms: int


def create_tenant(session: Session, name: str) -> None:
    """Make a tenant.

    Raises:
        UsageError: The name is taken, or is none.
    """
    if not TENANT_NAME.fullmatch(name):
        raise UsageError(
            f"tenant {name!r}: expected 1 to 40 lower-case letters, digits and inner dashes"
        )
    if not ensure_tenant(session, name):
        raise UsageError(f"there is a tenant {name} already")


def ensure_tenant(session: Session, name: str) -> bool:
    """Make a tenant where there is none of that name; returns whether it was made."""
    return bool(
        session.run(
            "INSERT INTO tenants (tenant, created_ms, epoch) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            name,
            now_ms(),
            _new_epoch(),
        )
    )


def renew_epochs(session: Session, tenant: str | None = None) -> int:
    """Begin a new epoch: the database is an older copy of what devices have seen.

    Args:
        session: In a transaction that writes.
        tenant: Whose; None for all.

    Returns:
        How many tenants there are.
    """
    where, args = ("", ()) if tenant is None else (" WHERE tenant = ?", (tenant,))
    session.run(f"UPDATE devices SET kept = push{where}", *args)  # noqa: S608
    first = now_ms() * EPOCH_CHANGES_MS
    return session.run(
        "UPDATE tenants SET epoch = ?, "  # noqa: S608
        f"change = CASE WHEN change < ? THEN ? ELSE change END{where}",
        _new_epoch(),
        first,
        first,
        *args,
    )


def _new_epoch() -> str:
    return secrets.token_hex(8)


def get_tenant(session: Session, name: str) -> Tenant | None:
    """A tenant, or None."""
    rows = session.rows(f"SELECT {COLUMNS} FROM tenants WHERE tenant = ?", name)  # noqa: S608
    return Tenant(*rows[0]) if rows else None


def require_tenant(session: Session, name: str) -> Tenant:
    """The tenant that a token named: none is ever deleted.

    Raises:
        UsageError: There is none; someone typed it.
    """
    tenant = get_tenant(session, name)
    if tenant is None:
        raise UsageError(f"no tenant {name}: `edge-mrl admin tenants list` lists them")
    return tenant


def list_tenants(session: Session, *, limit: int = 1_000) -> list[Tenant]:
    """The tenants by name, ``limit`` at most."""
    sql = f"SELECT {COLUMNS} FROM tenants ORDER BY tenant LIMIT ?"  # noqa: S608
    return [Tenant(*row) for row in session.rows(sql, limit)]


def totals(session: Session) -> dict[str, int]:
    """How many tenants, devices that are not revoked, documents and passages there are."""
    tenants, documents, passages = session.rows(
        "SELECT count(*), coalesce(sum(documents), 0), coalesce(sum(passages), 0) FROM tenants"
    )[0]
    devices = session.rows("SELECT count(*) FROM devices WHERE revoked_ms IS NULL")[0][0]
    counts = {"tenants": tenants, "devices": devices, "documents": documents, "passages": passages}
    return {name: int(value) for name, value in counts.items()}


def set_limits(session: Session, name: str, limits: Mapping[str, float | None]) -> Tenant:
    """Change a tenant's limits; None takes one away.

    Raises:
        UsageError: There is no such tenant or limit.
    """
    session.lock_tenant(name)
    tenant = require_tenant(session, name)
    for key, value in limits.items():
        if key not in LIMITS or (value is not None and not value > 0):
            raise UsageError(
                f"limit {key}={value}: expected a number above 0 for {', '.join(LIMITS)}"
            )
    merged = json.loads(tenant.limits) | dict(limits)
    kept = {key: value for key, value in merged.items() if value is not None}
    session.run("UPDATE tenants SET limits = ? WHERE tenant = ?", json.dumps(kept), name)
    return require_tenant(session, name)


def create_code(session: Session, tenant: str, *, life_ms: int = CODE_LIFE_MS) -> str:
    """A code that enrolls one device.

    Raises:
        UsageError: There is no such tenant.
    """
    require_tenant(session, tenant)
    secret = base64.b32encode(secrets.token_bytes(CODE_BYTES)).decode().lower()
    code = f"{tenant}_{secret}"
    now = now_ms()
    session.run("DELETE FROM codes WHERE tenant = ? AND expires_ms <= ?", tenant, now)
    session.run(
        "INSERT INTO codes (tenant, hash, created_ms, expires_ms) VALUES (?, ?, ?, ?)",
        tenant,
        _hash(code),
        now,
        now + life_ms,
    )
    return code


def enroll(session: Session, code: str, name: str) -> Enrolled:
    """Make a device out of a code. The code ends when the device's token is first used.

    Before that the same code gives the same device another token: the answer was lost on the way.

    Raises:
        Refusal: The code is none, was used, or has expired; or the tenant has all devices it may have.
    """
    code = code.strip()
    tenant = code.partition("_")[0]
    # Its row is locked: whoever sends the same code at the same time comes after us.
    found = session.lock_tenant(tenant) if TENANT_NAME.fullmatch(tenant) else None
    if found is None:
        raise _bad_code()
    where = "tenant = ? AND hash = ?"
    rows = session.rows(
        f"SELECT device FROM codes WHERE {where} AND expires_ms > ?",  # noqa: S608
        tenant,
        _hash(code),
        now_ms(),
    )
    if not rows:
        raise _bad_code()
    device = rows[0][0]
    if device is None:
        device = _add_device(session, found, name)
        session.run(
            f"UPDATE codes SET device = ? WHERE {where}",  # noqa: S608
            device,
            tenant,
            _hash(code),
        )
    return _add_token(session, tenant, device)


def authenticate(session: Session, token: str) -> tuple[Principal, bool]:
    """Who a token belongs to, and whether it is used for the first time.

    Raises:
        Refusal: It is none, has expired, or was revoked.
    """
    tenant = _token_tenant(token)
    rows = session.rows(
        "SELECT t.device, t.used, t.expires_ms, d.revoked_ms, n.limits, d.push, d.kept "
        "FROM tokens t "
        "JOIN devices d ON d.tenant = t.tenant AND d.device = t.device "
        "JOIN tenants n ON n.tenant = t.tenant WHERE t.tenant = ? AND t.hash = ?",
        tenant,
        _hash(token),
    )
    if not rows:
        raise _bad_token()
    device, used, expires_ms, revoked_ms, limits, *pushes = rows[0]
    if revoked_ms is not None or expires_ms <= now_ms():
        raise _bad_token()
    return Principal(tenant, device, json.loads(limits), *pushes), not used


def confirm(session: Session, principal: Principal, token: str) -> None:
    """A new token was used: from now on it is the device's only one."""
    where = "tenant = ? AND device = ? AND hash"
    args = (principal.tenant, principal.device, _hash(token))
    if session.run(f"UPDATE tokens SET used = TRUE WHERE {where} = ?", *args):  # noqa: S608
        session.run(f"DELETE FROM tokens WHERE {where} <> ?", *args)  # noqa: S608
        session.run("DELETE FROM codes WHERE tenant = ? AND device = ?", *args[:2])


def rotate(session: Session, principal: Principal) -> Enrolled:
    """Another token for a device; the present one goes on until that is used."""
    return _add_token(session, principal.tenant, principal.device)


def revoke(session: Session, tenant: str, device: str) -> bool:
    """End a device's tokens for good; returns whether there is such a device, not revoked before."""
    for table in ("tokens", "codes"):
        session.run(f"DELETE FROM {table} WHERE tenant = ? AND device = ?", tenant, device)  # noqa: S608
    return bool(
        session.run(
            "UPDATE devices SET revoked_ms = ? WHERE tenant = ? AND device = ? "
            "AND revoked_ms IS NULL",
            now_ms(),
            tenant,
            device,
        )
    )


def list_devices(session: Session, tenant: str, *, limit: int = 1_000) -> list[dict[str, Any]]:
    """The devices of a tenant, last seen first, ``limit`` at most."""
    rows = session.rows(
        "SELECT device, name, created_ms, revoked_ms, pushed_ms, pulled_ms, pulled FROM devices "
        "WHERE tenant = ? ORDER BY coalesce(pulled_ms, pushed_ms, created_ms) DESC, device LIMIT ?",
        tenant,
        limit,
    )
    names = ("device", "name", "created_ms", "revoked_ms", "pushed_ms", "pulled_ms", "pulled")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _add_device(session: Session, tenant: Tenant, name: str) -> str:
    most = tenant.limit("devices")
    sql = "SELECT count(*) FROM devices WHERE tenant = ? AND revoked_ms IS NULL"
    if most is not None and session.rows(sql, tenant.name)[0][0] >= most:
        raise Refusal(403, "forbidden", f"the tenant may have {most:.0f} devices: revoke one first")
    device = secrets.token_hex(8)
    session.run(
        "INSERT INTO devices (tenant, device, name, created_ms) VALUES (?, ?, ?, ?)",
        tenant.name,
        device,
        name[:MAX_NAME_CHARS],
        now_ms(),
    )
    return device


def _add_token(session: Session, tenant: str, device: str) -> Enrolled:
    # Others that were never used belong to answers that were lost.
    session.run("DELETE FROM tokens WHERE tenant = ? AND device = ? AND NOT used", tenant, device)
    secret = base64.urlsafe_b64encode(secrets.token_bytes(TOKEN_BYTES)).decode().rstrip("=")
    token = f"{TOKEN_PREFIX}_{tenant}_{secret}"
    now = now_ms()
    session.run(
        "INSERT INTO tokens (tenant, hash, device, used, created_ms, expires_ms) "
        "VALUES (?, ?, ?, FALSE, ?, ?)",
        tenant,
        _hash(token),
        device,
        now,
        now + TOKEN_LIFE_MS,
    )
    return Enrolled(tenant, device, token, now + TOKEN_LIFE_MS)


def _token_tenant(token: str) -> str:
    prefix, _, rest = token.partition("_")
    tenant = rest.partition("_")[0]
    if prefix != TOKEN_PREFIX or not TENANT_NAME.fullmatch(tenant) or not token.isascii():
        raise _bad_token()
    return tenant


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _bad_token() -> Refusal:
    # One answer for all reasons: it tells nothing about which tokens there are or were.
    return Refusal(401, "token", "no valid token: enroll this device again with `edge-mrl enroll`")


def _bad_code() -> Refusal:
    return Refusal(
        403,
        "forbidden",
        "no valid enrollment code: ask for another (`edge-mrl admin codes create`)",
    )
