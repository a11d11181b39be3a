"""A device's token: how it is made, confirmed, renewed, and how it comes back after it has expired.

**Made.** A token is an HMAC of the device, of what entitles to it (an invitation, or the present
token), and of a nonce that the device drew and keeps until it has the answer. So a request that comes
twice, late, or again after its answer was lost gives the same token, and the server need not keep it to
say it again. Nobody can make one without the tenant's secret, which never leaves the database; nor with
the database alone, which has neither nonces nor tokens.

**Confirmed.** A device may have several tokens that it has not used: of answers that were lost, or of
older clients, whose requests have no nonce. All are valid until one of them is used. That one the device
has, so the others end with it. This is the only moment at which a token is taken away from a device that
is not revoked; the device has written the new one to its disk before.

**Replays.** A request that is repeated by somebody else gives him nothing that he could not read already:
he needs the invitation or the token in it, and those are what the answer is worth. After the invitation's
token was used once, the invitation is gone; after a token was replaced, it is: both requests get 401 or
403 from then on, and change nothing. A late renewal that still counts makes a token that nobody uses.

**Expired.** A token lives for 90 days and is renewed by any sync in the last 14. A device that comes back
later is let in for one thing: to ask for a new token, up to ``grace_days`` after its last contact. So a
device that was in a drawer comes back by itself. The price: a token that was stolen, and whose device was
never reported, is worth something for so long. The operator chooses (0: never); what ends a token at
once, in any case, is to revoke the device, as its tokens are deleted with that.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass

from edge_mrl.wire import now_ms
from edge_mrl_server.errors import InvalidTokenError
from edge_mrl_server.storage.database import Transaction
from edge_mrl_server.storage.receipts import secret_of
from edge_mrl_server.storage.records import Principal, Row

__all__ = [
    "GRACE_DAYS",
    "TENANT_NAME",
    "IssuedToken",
    "authenticate",
    "bad_token",
    "confirm",
    "hash_of",
    "issue",
    "rotate",
]

TENANT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
TOKEN_PREFIX = "emrl"  # noqa: S105 - what a token starts with, so that leaked ones are recognised
DAY_MS = 86_400_000
TOKEN_LIFE_MS = 90 * DAY_MS
NONCE_BYTES = 16
#: Unused tokens of a device that stay: of older clients, each of whose requests makes another one.
MAX_UNUSED = 64
#: The limit of a tenant that stands instead of the server's own.
GRACE_DAYS = "grace_days"


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A device's new token, as it is shown.

    Attributes:
        tenant: Whose device it is.
        device: The device.
        token: The secret.
        expires_ms: When it expires, in milliseconds since 1970.
        space_id: The space of the tenant's vectors; None before the first.
        read_only: Whether the device may only pull.
    """

    tenant: str
    device: str
    token: str
    expires_ms: int
    space_id: str | None = None
    read_only: bool = False


def authenticate(
    transaction: Transaction, token: str, *, renewing_days: float | None = None
) -> tuple[Principal, bool]:
    """Who a token belongs to, and whether it is used for the first time.

    Args:
        transaction: Any.
        token: As it was sent.
        renewing_days: If it is sent for a new one: so many days after the device's last contact an
            expired one is good for that, unless the tenant has a limit of its own. None if it is not.

    Raises:
        InvalidTokenError: The token is unknown, has expired, or was revoked.
    """
    tenant = _tenant_of(token)
    rows = transaction.rows(
        "SELECT t.device, t.used, t.created_ms, t.expires_ms, d.revoked_ms, d.pushed_ms, d.pulled_ms, "
        "d.push, d.kept, d.marks, d.read_only, n.limits, n.secret FROM tokens t "
        "JOIN devices d ON d.tenant = t.tenant AND d.device = t.device "
        "JOIN tenants n ON n.tenant = t.tenant WHERE t.tenant = ? AND t.hash = ?",
        tenant,
        hash_of(token),
    )
    if not rows or rows[0]["revoked_ms"] is not None:
        raise bad_token()
    row = rows[0]
    limits = json.loads(row["limits"])
    if row["expires_ms"] <= now_ms() and not (
        renewing_days is not None and _in_grace(row, limits.get(GRACE_DAYS, renewing_days))
    ):
        raise bad_token()
    principal = Principal(
        tenant,
        row["device"],
        limits,
        row["push"],
        row["kept"],
        bool(row["read_only"]),
        row["marks"],
        None if row["secret"] is None else bytes(row["secret"]),
    )
    return principal, not row["used"]


def confirm(transaction: Transaction, principal: Principal, token: str) -> None:
    """A new token was used: from now on it is the device's only one."""
    where = "tenant = ? AND device = ? AND hash"
    args = (principal.tenant, principal.device, hash_of(token))
    if transaction.run(f"UPDATE tokens SET used = TRUE WHERE {where} = ?", *args):  # noqa: S608
        transaction.run(f"DELETE FROM tokens WHERE {where} <> ?", *args)  # noqa: S608
        transaction.run("DELETE FROM codes WHERE tenant = ? AND device = ?", *args[:2])


def rotate(
    transaction: Transaction, principal: Principal, *, present: str = "", nonce: str | None = None
) -> IssuedToken:
    """Another token for a device; the present one stays valid until the new one is first used.

    Args:
        transaction: One that writes.
        principal: The device.
        present: The token that it has.
        nonce: What it drew for this request, and keeps; None from older clients.
    """
    return issue(transaction, principal.tenant, principal.device, nonce=nonce, grant=present)


def issue(
    transaction: Transaction, tenant: str, device: str, *, nonce: str | None, grant: str
) -> IssuedToken:
    """A token for a device, the same for the same nonce and grant.

    Args:
        transaction: One that writes.
        tenant: Whose.
        device: The device.
        nonce: What the device drew; None to draw one for it.
        grant: What entitles it: an invitation, or its present token.
    """
    drawn = secrets.token_hex(NONCE_BYTES) if nonce is None else nonce
    text = b"\0".join((b"token", device.encode(), hash_of(grant), drawn.encode()))
    code = hmac.new(secret_of(transaction, tenant), text, hashlib.sha256).digest()
    token = f"{TOKEN_PREFIX}_{tenant}_{base64.urlsafe_b64encode(code).decode().rstrip('=')}"
    now = now_ms()
    _forget_oldest(transaction, tenant, device)
    transaction.run(
        "INSERT INTO tokens (tenant, hash, device, used, created_ms, expires_ms) "
        "VALUES (?, ?, ?, FALSE, ?, ?) ON CONFLICT (tenant, hash) DO NOTHING",
        tenant,
        hash_of(token),
        device,
        now,
        now + TOKEN_LIFE_MS,
    )
    sql = "SELECT expires_ms FROM tokens WHERE tenant = ? AND hash = ?"
    rows = transaction.rows(sql, tenant, hash_of(token))
    return IssuedToken(tenant, device, token, rows[0]["expires_ms"])


def hash_of(secret: str) -> bytes:
    """What the database has of a secret: its SHA-256."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _in_grace(row: Row, days: float) -> bool:
    """Whether a device's last contact is not longer ago than so many days."""
    contact = max(row["created_ms"], row["pushed_ms"] or 0, row["pulled_ms"] or 0)
    return bool(now_ms() <= contact + days * DAY_MS)


def _forget_oldest(transaction: Transaction, tenant: str, device: str) -> None:
    """Keep the newest of the tokens that were never used, and room for one more."""
    transaction.run(
        "DELETE FROM tokens WHERE tenant = ? AND device = ? AND NOT used AND hash NOT IN ("
        "SELECT hash FROM tokens WHERE tenant = ? AND device = ? AND NOT used "
        "ORDER BY created_ms DESC, hash LIMIT ?)",
        *(tenant, device) * 2,
        MAX_UNUSED - 1,
    )


def _tenant_of(token: str) -> str:
    prefix, _, rest = token.partition("_")
    tenant = rest.partition("_")[0]
    if prefix != TOKEN_PREFIX or not TENANT_NAME.fullmatch(tenant) or not token.isascii():
        raise bad_token()
    return tenant


def bad_token() -> InvalidTokenError:
    """The one answer to tokens that are not valid, and to tenants that are gone."""
    # One answer for all reasons: it tells nothing about which tokens there are or were.
    return InvalidTokenError("no valid token: enroll this device again with `edge-mrl enroll`")
