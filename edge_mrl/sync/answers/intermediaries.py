"""Answers of what stands between a device and its server: proxies, gateways, login pages of networks.

An answer of the server repeats the request's sequence number. What does not was made on the way, and says
nothing about the server. Its status still says what a person can do about it.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_mrl.errors import IntermediaryError

__all__ = ["LASTING", "intermediary_error"]

#: Statuses that the same request gets again a second later: no reason to hurry.
LASTING = frozenset(
    {
        301,
        302,
        303,
        305,
        307,
        308,
        401,
        403,
        404,
        405,
        407,
        411,
        413,
        414,
        415,
        417,
        431,
        451,
        505,
        511,
    }
)  # fmt: skip
SHOWN_CHARS = 200
_MOVED = (
    "if that is the server's new address, name it with --server; the token is not sent there by itself. "
    "A network that wants a login redirects too: open a web page and sign in"
)
_WHO = "it wants a user and a password: if it is your proxy, HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
_LOGIN = "a network that wants a login does that: open a web page and sign in"
_TOO_LONG = (
    "the documents wait; ask who runs it to allow larger requests (the server takes 16 MiB), or connect "
    "past it"
)
_DOWN = "it cannot reach the server, or the server is being started: this is tried again"
#: What to do about a status.
_ADVICE: Mapping[int, str] = {
    301: _MOVED,
    302: _MOVED,
    303: _MOVED,
    307: _MOVED,
    308: _MOVED,
    400: "it could not read the request, which may have been damaged on the way: this is tried again",
    401: _WHO,
    403: "it does not allow this server or this device: ask who runs it to allow the server's address",
    404: "it knows no such path: check the address, with what comes before /v1 (--server URL)",
    405: "it does not allow this method: ask who runs it to pass on GET, POST and PUT",
    407: _WHO,
    408: "the request came too slowly for it: this is tried again, with less",
    411: "it wants the length of a body that it was given: ask who runs it, or connect past it",
    413: _TOO_LONG,
    414: "the address is too long for it: ask who runs it to allow 2,000 characters, or connect past it",
    429: "it allows fewer requests: this is tried again later",
    431: "the headers are too large for it: ask who runs it to allow 8 KiB, or connect past it",
    451: "it does not allow this server, by law or by its rules",
    500: "it failed: this is tried again",
    502: _DOWN,
    503: _DOWN,
    504: "the server did not answer it in time: this is tried again",
    505: "it does not speak HTTP/1.1: connect past it",
    511: _LOGIN,
}


def intermediary_error(
    server: str,
    status: int,
    headers: Mapping[str, str],
    *,
    sent_bytes: int,
    retry_after_s: float | None = None,
) -> IntermediaryError:
    """The error for an answer that the server did not give.

    Args:
        server: The server's address.
        status: The answer's HTTP status.
        headers: Its headers, by lower-case name.
        sent_bytes: Bytes of the request's body.
        retry_after_s: Seconds that it asks to wait.
    """
    request = f" to {sent_bytes:,} bytes" if sent_bytes else ""
    place = f", pointing to {headers['location']!r:.{SHOWN_CHARS}}" if "location" in headers else ""
    if 200 <= status < 300:
        advice = f"a page of its own: {_LOGIN}; or this is no edge-mrl server: check the address"
    else:
        advice = _ADVICE.get(status, "this is tried again")
    by = headers.get("server", headers.get("via", ""))
    named = f" ({by:.60})" if by.isprintable() and by else ""
    return IntermediaryError(
        f"something between this device and {server}{named} answers {status}{request}{place}: {advice}",
        status=status,
        sent_bytes=sent_bytes,
        retry_after_s=retry_after_s,
    )
