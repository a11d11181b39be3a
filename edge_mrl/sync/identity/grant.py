"""Asking a server for a device and its first token."""

from __future__ import annotations

import json
from dataclasses import dataclass

from edge_mrl.errors import NetworkError
from edge_mrl.sync.answers.fields import is_count, is_word, offset_of
from edge_mrl.sync.transport import Transport
from edge_mrl.wire import now_ms

__all__ = ["request_enrollment"]


@dataclass(frozen=True, slots=True)
class Grant:
    """What a server gives a new device.

    Attributes:
        tenant: The tenant whose documents the device syncs.
        device: The device's id.
        token: The secret that the device sends with each request.
        expires_ms: When the token expires, in milliseconds since 1970; None if it does not.
        offset_ms: The server's clock minus this machine's.
    """

    tenant: str
    device: str
    token: str
    expires_ms: int | None
    offset_ms: int


def request_enrollment(
    transport: Transport,
    invitation: str,
    name: str,
    *,
    nonce: str | None = None,
    space_id: str | None = None,
) -> Grant:
    """Ask a server to enroll a device with a tenant.

    Args:
        transport: The connection to the server.
        invitation: The one-time secret from the server's administrator.
        name: A name of the device for people.
        nonce: Drawn for this request, and kept: with it, the same request again gives the same token.
        space_id: The embedding space of the store; None to have it compared later.

    Raises:
        ServerError: The invitation is wrong, used or expired; or the tenant is of another space.
    """
    asked = {"code": invitation, "name": name}
    asked |= {k: v for k, v in (("nonce", nonce), ("space", space_id)) if v is not None}
    body = json.dumps(asked, ensure_ascii=False).encode("utf-8")
    headers = {"Content-Type": "application/json"}
    started = now_ms()
    answer = transport.request(
        "POST", "/v1/enroll", body=body, headers=headers, repeatable=False
    ).json()
    texts = [answer.get(key) for key in ("tenant", "device", "token")]
    if not all(is_word(text) for text in texts):
        raise NetworkError(f"{transport.server}: expected tenant, device and token")
    tenant, device, token = map(str, texts)
    expires = answer.get("expires_ms")
    return Grant(
        tenant,
        device,
        token,
        expires if is_count(expires) else None,
        offset_of(answer.get("now_ms"), started),
    )
