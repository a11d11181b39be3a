"""Who may ask: programs of this machine, or whoever has the token; and how much they may send."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

__all__ = ["LOOPBACK", "Guard", "Guarded"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Names of this machine, as a request's Host has them.
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:]*)(?::\d+)?")
_ORIGIN = re.compile(r"https?://([^/]*)", re.IGNORECASE)
#: Answers anybody, so that supervisors can ask whether it runs.
OPEN_PATHS = ("/health",)
#: How many times the most bytes are read of a request, before its connection is closed.
DROPPED = 4


@dataclass(frozen=True, slots=True)
class Guard:
    """Which requests are let in.

    Without a token, only those that name this machine as their host and come from no web page of another
    one: else a page whose name is made to lead here could ask (DNS rebinding).

    Attributes:
        token: What a request must carry as ``Authorization: Bearer``; None if none is needed.
        body_bytes: Most bytes of a request.
    """

    token: str | None = None
    body_bytes: int = 4 << 20

    def refusal(self, headers: dict[bytes, bytes], path: str) -> tuple[int, str, str] | None:
        """Status, word and sentence if a request is refused."""
        if self.token is not None:
            if path in OPEN_PATHS or self._has_token(headers):
                return None
            return (
                401,
                "invalid_api_key",
                "wrong or missing token: send Authorization: Bearer TOKEN",
            )
        if _name(headers.get(b"host", b"")) not in LOOPBACK:
            return 421, "wrong_host", "this address answers as localhost or 127.0.0.1 only"
        origin = headers.get(b"origin")
        if origin is not None and _name_of_origin(origin) not in LOOPBACK:
            return 403, "wrong_origin", "web pages of other machines may not ask"
        return None

    def _has_token(self, headers: dict[bytes, bytes]) -> bool:
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        right = (self.token or "").encode()
        return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), right)


class Guarded:
    """An ASGI application behind a guard.

    Args:
        app: The application.
        guard: Which requests are let in.
    """

    def __init__(self, app: App, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        refused = self._guard.refusal(headers, scope["path"])
        body = None
        if refused is None:
            body = await self._read(receive)
            most = self._guard.body_bytes
            refused = 413, "too_large", f"the request has more than {most:,} bytes"
        if body is None:
            await _refuse(send, *refused)
        else:
            await self._app(scope, _once(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The whole body; None if it is too large, or never came.

        Of one that is too large some more is read, and dropped: a client that still sends would not see
        the answer.
        """
        body, size, more = bytearray(), 0, True
        while more and size <= DROPPED * self._guard.body_bytes:
            message = await receive()
            if message["type"] != "http.request":  # the client is gone
                return None
            part = message.get("body", b"")
            size += len(part)
            if size <= self._guard.body_bytes:
                body += part
            more = message.get("more_body", False)
        return bytes(body) if size <= self._guard.body_bytes else None


def _once(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, and then whatever comes."""
    given = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _name(host: bytes) -> str:
    match = _HOST.fullmatch(host.decode("latin-1"))
    return "" if match is None else match[1].strip("[]").lower()


def _name_of_origin(origin: bytes) -> str:
    match = _ORIGIN.fullmatch(origin.decode("latin-1"))
    return "" if match is None else _name(match[1].encode("latin-1"))


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:  # RFC 9110 wants it
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 413:  # what is still on its way is not read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
