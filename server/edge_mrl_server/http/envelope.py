"""What goes around every request: errors become answers, answers get their headers, all is counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_mrl.wire import digest
from edge_mrl_server.errors import DamagedDatabaseError, RejectedError, UnavailableError
from edge_mrl_server.http.refusals import Refusal, refusal_of
from edge_mrl_server.http.service import Reply, Service, json_reply, sequence
from edge_mrl_server.logs import LOGGER

__all__ = ["Envelope", "Handler", "endpoint", "http_error"]

Handler = Callable[[Service, Request], Awaitable[Reply | Response]]
#: How long a device waits when the database is away.
UNAVAILABLE_RETRY_S = 2
#: How long it waits when the database is malformed: until somebody has restored it.
DAMAGED_RETRY_S = 600
#: Statuses after which a body may still be on its way: the connection ends with the answer.
_UNREAD = frozenset({400, 401, 403, 404, 405, 408, 413, 429, 503})


def endpoint(service: Service, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler as Starlette wants it; whatever it raises becomes an answer."""

    async def run(request: Request) -> Response:
        request.state.route = request.scope["route"].path
        try:
            reply = await handler(service, request)
        except (Refusal, RejectedError) as error:
            refusal = error if isinstance(error, Refusal) else refusal_of(error)
            reply = _refused(refusal)
            request.state.code = refusal.code
        except UnavailableError as error:
            LOGGER.error("database unavailable", extra={"fields": {"error": str(error)}})
            request.state.code = "busy"
            reply = _refused(_BUSY)
        except DamagedDatabaseError:  # logged once, where it was found
            request.state.code = "damaged"
            reply = _refused(_DAMAGED)
        return respond(request, reply)

    return run


def respond(request: Request, reply: Reply | Response) -> Response:
    """Add what every answer has: the request's sequence and a digest."""
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
        sent: dict[str, int] = {"status": 0, "bytes": 0, "received": 0}

        async def count_in() -> Message:
            message = await receive()
            sent["received"] += len(message.get("body", b""))
            return message

        async def count_out(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
            sent["bytes"] += len(message.get("body", b""))
            async with asyncio.timeout(self.service.settings.body_timeout_s):
                await send(message)

        metrics.in_flight.inc()
        try:
            await self._app(scope, count_in, count_out)
        except TimeoutError:
            # The client does not read; uvicorn closes the connection of an answer that is not complete.
            state["code"] = "slow_reader"
        except Exception:  # noqa: BLE001 - it becomes an answer, and its trace is logged
            LOGGER.exception("internal error", extra={"fields": {"path": state.get("route")}})
            state["code"] = "internal"
            if not sent["status"]:
                request = Request(scope)
                failed = _refused(Refusal(500, "internal", "the server failed; its log says why"))
                await respond(request, failed)(scope, receive, count_out)
        finally:
            metrics.in_flight.dec()
            self._note(scope, state, sent, time.perf_counter() - began)

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
        fields = {
            "method": scope["method"],
            "route": route,
            "status": sent["status"],
            "code": code,
            "tenant": getattr(principal, "tenant", None),
            "device": getattr(principal, "device", None),
            "ms": round(seconds * 1000, 1),
            "bytes_in": sent["received"],
            "bytes_out": sent["bytes"],
        }
        LOGGER.info("request", extra={"fields": fields})


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


def _refused(refusal: Refusal) -> Reply:
    error = {"code": refusal.code, "message": str(refusal), **refusal.extra}
    headers = {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.status in _UNREAD:
        headers["Connection"] = "close"
    reply = json_reply({"error": error}, status=refusal.status)
    return replace(reply, headers=headers)
