"""The application: routes of the protocol (FORMAT.md, "Wire"), and what every answer goes through."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_mrl.errors import WireError
from edge_mrl.wire import frames as wire
from edge_mrl.wire import now_ms
from edge_mrl_server.errors import Refusal
from edge_mrl_server.http.envelope import Envelope, Handler, endpoint, http_error
from edge_mrl_server.http.files import file_answer
from edge_mrl_server.http.heads import MAX_HEAD_BYTES, Code, put_head
from edge_mrl_server.http.openapi import DESCRIPTION
from edge_mrl_server.http.service import Answer, Service, json_answer, one_vector, space
from edge_mrl_server.http.snapshot import coded
from edge_mrl_server.storage import (
    Enrolled,
    Push,
    Wanted,
    accounts,
    changes_after,
    note_pull,
    ranking,
    restored,
)
from edge_mrl_server.storage import push as apply

__all__ = ["create_app"]

#: An enrollment is a code and a name.
MAX_ENROLL_BYTES = 4_096
MAX_HITS = 1_000


def create_app(service: Service) -> Envelope:
    """The ASGI application of a process."""
    routes = [
        Route(path, endpoint(service, handler), methods=[method])
        for path, method, handler in ROUTES
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: http_error})
    app.router.redirect_slashes = False
    return Envelope(app, service)


async def push(service: Service, request: Request) -> Answer:
    principal = await service.admit(request)
    space_id = space(request)
    async with AsyncExitStack() as stack:
        message = await service.frame(request, stack)
        if message.vectors.dtype != np.float16:
            raise Refusal(400, "malformed", "expected vectors of float16")
        header = message.header
        cursor, number, epoch = header.get("cursor"), header.get("push", 0), header.get("epoch", "")
        if not _is_long(cursor):
            raise Refusal(400, "malformed", "cursor: expected the change pulled to, 0 for none")
        if not _is_long(number) or not isinstance(epoch, str):
            raise Refusal(400, "malformed", "push, epoch: expected a number and text")
        batch = Push(space_id, _items(message), message.vectors.shape[1], cursor, number, epoch)
        done = await service.work(apply, service.database, principal, batch, writes=True)
    for result in done.results:
        service.metrics.items.labels(result.status).inc()
    service.metrics.vectors.inc(len(message.vectors))
    answer: dict[str, Any] = {
        "now_ms": now_ms(),
        "results": [result.as_json() for result in done.results],
    }
    if number and not batch.items:
        answer["refused"] = done.refused
    return json_answer(answer)


async def pull(service: Service, request: Request) -> Answer:
    principal = await service.admit(request)
    query = request.query_params
    since = _number(query.get("since"), "since", 0, 2**63 - 1)
    limit = _number(query.get("limit", str(wire.MAX_ITEMS)), "limit", 1, wire.MAX_ITEMS)
    fence = _number(query["fence"], "fence", 0, 2**63 - 1) if "fence" in query else None
    vectors = query.get("vectors", "coarse")
    if vectors not in ("coarse", "full", "none"):
        raise Refusal(400, "malformed", "vectors: expected coarse, full or none")
    code = _code(request) if vectors == "coarse" else None
    epoch = query.get("epoch")
    wanted = Wanted(since, limit, vectors != "none", query.get("text") == "1", fence, epoch)
    if _number(query.get("push", "0"), "push", 0, 2**63 - 1) > principal.push:
        raise restored()

    def load() -> Answer:
        changes = changes_after(service.database, principal.tenant, wanted)
        items = changes.items
        like: NDArray[Any] = np.zeros((0, changes.full_dim or 1), np.float16)
        if code is not None:
            head = service.heads.get(service.database, principal.tenant, code, changes.full_dim)
            items = [coded(item, code, head) for item in items]
            like = np.zeros((0, code.dim), np.int8)
        header = {
            "since": since,
            "cursor": changes.cursor,
            "more": changes.more,
            "fence": changes.fence,
            "epoch": changes.epoch,
            "kept": principal.kept,
            "now_ms": now_ms(),
        }
        note_pull(service.database, principal, since)
        return Answer(wire.encode_items(header, items, like=like), wire.CONTENT_TYPE)

    return await service.work(load)


async def snapshot(service: Service, request: Request) -> Response:
    principal = await service.admit(request)
    found = await service.work(
        service.snapshots.get,
        service.database,
        service.heads,
        principal.tenant,
        _code(request),
        text=request.query_params.get("text") == "1",
        etag=request.headers.get("if-range") or request.headers.get("if-match"),
    )
    return await service.work(file_answer, found, request)


async def rerank(service: Service, request: Request) -> Answer:
    principal = await service.admit(request)
    space_id = space(request)
    async with AsyncExitStack() as stack:
        message = await service.frame(request, stack)
        ids = message.header.get("ids")
        if not isinstance(ids, list) or len(ids) > wire.MAX_IDS:
            raise Refusal(400, "malformed", f"ids: expected a list of at most {wire.MAX_IDS}")
        try:
            names = [wire.check_id(name) for name in ids]
        except WireError as error:
            raise Refusal(400, "malformed", str(error)) from error
        query = one_vector(message)
        scores = await service.work(
            ranking.rerank, service.database, principal.tenant, space_id, names, query
        )
    missing = [name for name, score in zip(names, scores, strict=True) if score is None]
    return json_answer({"scores": scores, "missing": missing})


async def search(service: Service, request: Request) -> Answer:
    principal = await service.admit(request)
    space_id = space(request)
    async with AsyncExitStack() as stack:
        message = await service.frame(request, stack)
        k, text = message.header.get("k", 10), message.header.get("text", False)
        if not isinstance(k, int) or isinstance(k, bool) or not 0 < k <= MAX_HITS:
            raise Refusal(400, "malformed", f"k: expected a number from 1 to {MAX_HITS}")
        if not isinstance(text, bool):
            raise Refusal(400, "malformed", "text: expected true or false")
        query = one_vector(message)
        hits = await service.work(
            ranking.search, service.database, principal.tenant, space_id, query, k, text=text
        )
    return json_answer({"hits": hits})


async def register_head(service: Service, request: Request) -> Answer:
    principal = await service.admit(request)
    name = request.path_params["head"]
    async with AsyncExitStack() as stack:
        message = await service.frame(request, stack, most=MAX_HEAD_BYTES)
        layer_norm = message.header.get("layer_norm")
        if not isinstance(layer_norm, bool):
            raise Refusal(400, "malformed", "layer_norm: expected true or false")
        if message.vectors.dtype != np.float32:
            raise Refusal(400, "malformed", "expected a matrix of float32")
        new = await service.work(
            put_head,
            service.database,
            principal.tenant,
            name,
            message.vectors,
            layer_norm=layer_norm,
            writes=True,
        )
    return json_answer({"head": name}, status=201 if new else 200)


async def enroll(service: Service, request: Request) -> Answer:
    service.admit_stranger(request)
    async with AsyncExitStack() as stack:
        body = await service.body(request, stack, most=MAX_ENROLL_BYTES)
        try:
            given = json.loads(body)
            code, name = given["code"], given["name"]
            name.encode()
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise Refusal(400, "malformed", "expected a JSON object with code and name") from error
        if not isinstance(code, str) or not isinstance(name, str) or "\0" in name:
            raise Refusal(400, "malformed", "code, name: expected text")

        def add() -> Enrolled:
            with service.database.write() as session:
                return accounts.enroll(session, code, name)

        made = await service.work(add, writes=True)
    return json_answer(
        {
            "tenant": made.tenant,
            "device": made.device,
            "token": made.token,
            "expires_ms": made.expires_ms,
            "now_ms": now_ms(),
        }
    )


async def rotate(service: Service, request: Request) -> Answer:
    principal = await service.admit(request)

    def add() -> Enrolled:
        with service.database.write() as session:
            return accounts.rotate(session, principal)

    made = await service.work(add, writes=True)
    return json_answer({"token": made.token, "expires_ms": made.expires_ms, "now_ms": now_ms()})


async def healthz(service: Service, request: Request) -> Answer:  # noqa: ARG001
    return json_answer({"status": "ok", "now_ms": now_ms()})


async def readyz(service: Service, request: Request) -> Answer:  # noqa: ARG001
    def ask() -> None:
        with service.database.read() as session:
            session.rows("SELECT 1 FROM tenants LIMIT 1")

    await service.work(ask)
    return json_answer({"status": "ok"})


async def openapi(service: Service, request: Request) -> Answer:  # noqa: ARG001
    return json_answer(DESCRIPTION)


#: Path, method and handler of everything there is.
ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("/v1/push", "POST", push),
    ("/v1/pull", "GET", pull),
    ("/v1/snapshot/coarse", "GET", snapshot),
    ("/v1/rerank", "POST", rerank),
    ("/v1/search", "POST", search),
    ("/v1/heads/{head}", "PUT", register_head),
    ("/v1/enroll", "POST", enroll),
    ("/v1/token", "POST", rotate),
    ("/healthz", "GET", healthz),
    ("/readyz", "GET", readyz),
    ("/openapi.json", "GET", openapi),
)


def _items(message: wire.Message) -> list[wire.Item]:
    try:
        return wire.decode_items(message)
    except WireError as error:
        raise Refusal(400, "malformed", str(error)) from error


def _is_long(value: object) -> TypeGuard[int]:
    """Whether a value of JSON is a number that a database can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _number(text: str | None, name: str, least: int, most: int) -> int:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 19:
        raise Refusal(400, "malformed", f"{name}: expected a number from {least} to {most}")
    value = int(text)
    if not least <= value <= most:
        raise Refusal(400, "malformed", f"{name}: expected a number from {least} to {most}")
    return value


def _code(request: Request) -> Code:
    query: Any = request.query_params
    head = query.get("head", "")
    dim = _number(query.get("dim"), "dim", 1, wire.MAX_PASSAGES)
    try:
        scale = float(query.get("scale", "1"))
    except ValueError as error:
        raise Refusal(400, "malformed", "scale: expected a number") from error
    if not 1e-6 <= scale <= 1e6:
        raise Refusal(400, "malformed", "scale: expected a number above 0")
    if "\0" in head:
        raise Refusal(400, "malformed", "head: expected 64 hex digits")
    return Code(head, dim, scale)
