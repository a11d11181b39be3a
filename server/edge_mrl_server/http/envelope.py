"""What goes around every request: errors become answers, answers get their headers, all is counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_mrl.wire import SEEN, digest, seen_headers
from edge_mrl_server.errors import DamagedDatabaseError, RejectedError, UnavailableError
from edge_mrl_server.http.load.bodies import discard
from edge_mrl_server.http.refusals import Refusal, error_body, refusal_of
from edge_mrl_server.http.service import Reply, Service, held, sequence
from edge_mrl_server.logs import LOGGER, first_line

__all__ = ["Envelope", "Handler", "endpoint", "http_error"]

Handler = Callable[[Service, Request], Awaitable[Reply | Response]]
#: How long a device waits when the database is away.
UNAVAILABLE_RETRY_S = 2
#: How long it waits when the database is malformed: until somebody has restored it.
DAMAGED_RETRY_S = 600
#: Answered even where there are too many connections: else a process that is alive would seem dead.
HEALTH_PATHS = frozenset({"/healthz", "/readyz"})
#: Bytes of a body that are given to the connection at once.
PIECE_BYTES = 1 << 16
#: Lines a second of a tenant's requests that were refused, and of requests without a token.
REFUSED_LINES_PER_S = 5.0
#: Statuses after which a body may still be on its way: the connection ends with the answer.
_UNREAD = frozenset({400, 401, 403, 404, 405, 408, 413, 429, 503})


def endpoint(service: Service, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler as Starlette wants it; whatever it raises becomes an answer."""

    async def run(request: Request) -> Response:
        request.state.route = request.scope["route"].path
        try:
            reply = await handler(service, request)
            _hold_answer(service, request, reply)
        except (Refusal, RejectedError) as error:
            refusal = error if isinstance(error, Refusal) else refusal_of(error)
            reply = await _refuse(request, refusal)
        except UnavailableError as error:
            LOGGER.error("database unavailable", extra={"fields": {"error": first_line(error)}})
            reply = await _refuse(request, _BUSY)
        except DamagedDatabaseError:  # logged once, where it was found
            reply = await _refuse(request, _DAMAGED)
        except Exception:  # noqa: BLE001 - it becomes an answer, and its trace is logged
            LOGGER.exception("internal error", extra={"fields": {"path": request.state.route}})
            reply = await _refuse(request, _FAILED)
        return respond(request, reply)

    return run


def _hold_answer(service: Service, request: Request, reply: Reply | Response) -> None:
    """Count a long answer as long as it is in memory: whoever reads slowly waits behind itself."""
    principal = getattr(request.state, "principal", None)
    if isinstance(reply, Reply) and len(reply.body) > PIECE_BYTES and principal is not None:
        held(request).enter_context(service.in_flight.hold(principal.tenant))(len(reply.body))


async def _refuse(request: Request, refusal: Refusal) -> Reply:
    request.state.code = refusal.code
    reply = _refused(refusal)
    # A device that is to come again should read when: it first sends all of its body.
    known = getattr(request.state, "principal", None) is not None
    if known and refusal.status in (429, 503) and await discard(request):
        headers = {name: value for name, value in reply.headers.items() if name != "Connection"}
        return replace(reply, headers=headers)
    return reply


def respond(request: Request, reply: Reply | Response) -> Response:
    """Add what every answer has: the request's sequence and a digest; to refusals, what was refused."""
    if isinstance(reply, Reply):
        response = Response(reply.body, reply.status, media_type=reply.media_type)
        response.headers["Content-Digest"] = digest(reply.body)
        for name, value in reply.headers.items():
            response.headers[name] = value
    else:
        response = reply
    number = sequence(request)
    if number is not None:
        response.headers["Edge-MRL-Sequence"] = number
    if response.status_code >= 400:
        response.headers[SEEN] = seen_headers(request.headers)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


async def http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors, in our words."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refusal = Refusal(405, "method", f"{request.method} is not for this path")
    else:
        refusal = Refusal(404, "not_found", "there is nothing at this path")
    request.state.code = refusal.code
    return respond(request, _refused(refusal))


class Envelope:
    """Counts, times and logs each request, and lets no client take for ever."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reply one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        metrics, began = self.service.metrics, time.perf_counter()
        state: dict[str, Any] = scope.setdefault("state", {})
        state["held"] = ExitStack()
        sent: dict[str, int] = {"status": 0, "bytes": 0, "received": 0}

        async def count_in() -> Message:
            message = await receive()
            sent["received"] += len(message.get("body", b""))
            return message

        async def count_out(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
            for piece in _pieces(message):
                sent["bytes"] += len(piece.get("body", b""))
                async with asyncio.timeout(self.service.settings.body_timeout_s):
                    await send(piece)

        metrics.in_flight.inc()
        try:
            await self._answer(scope, count_in, count_out)
        except TimeoutError:
            # The client does not read; uvicorn closes the connection of an answer that is not complete.
            state["code"] = "slow_reader"
        except Exception:  # noqa: BLE001 - it becomes an answer, and its trace is logged
            LOGGER.exception("internal error", extra={"fields": {"path": state.get("route")}})
            state["code"] = "internal"
            if not sent["status"]:
                request = Request(scope)
                await respond(request, _refused(_FAILED))(scope, receive, count_out)
        finally:
            state["held"].close()
            metrics.in_flight.dec()
            self._note(scope, state, sent, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["state"].get("crowded") or scope["path"] in HEALTH_PATHS:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        scope["state"]["code"] = "busy"
        await discard(request)
        await respond(request, _refused(_CROWDED))(scope, receive, send)

    def _note(
        self, scope: Scope, state: Mapping[str, Any], sent: Mapping[str, int], seconds: float
    ) -> None:
        metrics = self.service.metrics
        route, code = state.get("route", "none"), state.get("code", "")
        metrics.requests.labels(route, str(sent["status"]), code).inc()
        metrics.seconds.labels(route).observe(seconds)
        metrics.received.inc(sent["received"])
        metrics.sent.inc(sent["bytes"])
        principal = state.get("principal")
        tenant = getattr(principal, "tenant", None)
        fields = {
            "method": scope["method"][:16],
            "route": route,
            "status": sent["status"],
            "code": code,
            "tenant": tenant,
            "device": getattr(principal, "device", None),
            "ms": round(seconds * 1000, 1),
            "bytes_in": sent["received"],
            "bytes_out": sent["bytes"],
        }
        # A tenant has lines of its own, and those without a token share some: nobody fills the disk.
        kind = f"{tenant or ''} {code and 'refused'}"
        lines_per_s = self.service.settings.log_rate if tenant and not code else REFUSED_LINES_PER_S
        LOGGER.info("request", extra={"fields": fields, "kind": kind, "lines_per_s": lines_per_s})


def _pieces(message: Message) -> Iterator[Message]:
    """A long body in pieces: each is sent when the ones before are on their way."""
    body = message.get("body", b"")
    if len(body) <= PIECE_BYTES:
        yield message
        return
    last = len(body) - 1 - (len(body) - 1) % PIECE_BYTES
    for start in range(0, len(body), PIECE_BYTES):
        more = start < last or message.get("more_body", False)
        yield {**message, "body": body[start : start + PIECE_BYTES], "more_body": more}


_BUSY = Refusal(
    503, "busy", "the database is not available just now: wait", retry_after_s=UNAVAILABLE_RETRY_S
)
_DAMAGED = Refusal(
    503,
    "damaged",
    "the server's database is damaged, and takes nothing until its operator has restored it: what waits "
    "on this device stays there",
    retry_after_s=DAMAGED_RETRY_S,
)
_FAILED = Refusal(500, "internal", "the server failed; its log says where")
_CROWDED = Refusal(
    503, "busy", "there are too many connections: wait", retry_after_s=UNAVAILABLE_RETRY_S
)


def _refused(refusal: Refusal) -> Reply:
    headers = {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.status in _UNREAD:
        headers["Connection"] = "close"
    return Reply(error_body(refusal), status=refusal.status, headers=headers)
