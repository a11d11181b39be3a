"""The handlers: what each route reads from a request, has done, and answers."""

from __future__ import annotations

import base64
import json
import re
from functools import partial
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from edge_mrl.wire import (
    CONTENT_TYPE,
    GROUPS,
    MAX_BODY_BYTES,
    MAX_IDS,
    MAX_ITEMS,
    MAX_PASSAGES,
    Message,
    check_id,
    decode_items,
    encode_items,
    format_stamp,
    now_ms,
)
from edge_mrl_server.errors import RestoredError
from edge_mrl_server.http.files import file_response
from edge_mrl_server.http.heads import CodeKey, read_packing
from edge_mrl_server.http.load.turns import WRITE
from edge_mrl_server.http.lost import lost_versions
from edge_mrl_server.http.making import Progress, preparing
from edge_mrl_server.http.openapi import DESCRIPTION
from edge_mrl_server.http.refusals import Refusal
from edge_mrl_server.http.service import (
    Reply,
    Service,
    bearer,
    held,
    is_space,
    json_reply,
    named_space,
    of,
    one_vector,
    space,
)
from edge_mrl_server.http.snapshot import coded
from edge_mrl_server.logs import LOGGER
from edge_mrl_server.storage import (
    Changes,
    IssuedToken,
    Principal,
    PullQuery,
    Push,
    accounts,
    changes_after,
    fill_sums,
    heads,
    note_pull,
    ranking,
    receipts,
)
from edge_mrl_server.storage import push as apply

__all__ = [
    "enroll",
    "healthz",
    "openapi",
    "pull",
    "push",
    "readyz",
    "register_head",
    "rerank",
    "rotate",
    "search",
    "snapshot",
]

#: An enrollment is an invitation and a name.
MAX_ENROLL_BYTES = 4_096
MAX_HEAD_BYTES = 16 << 20
#: A head is read, hashed, and written by the database: each has it once more.
HEAD_COPIES = 4
MAX_HITS = 1_000
MAX_LONG = 2**63 - 1
_NONCE = re.compile(r"[0-9a-f]{32,64}")


async def push(service: Service, request: Request) -> Reply:
    """POST /v1/push: store documents; a status for each."""
    principal = await service.admit(request)
    await service.meet(request, principal)
    space_id = space(request)
    batch = await service.frame(
        request, lambda message: _batch(space_id, message), most_header=MAX_BODY_BYTES
    )
    try:
        done = await service.work(
            apply, service.database, principal, batch, who=of(principal), kind=WRITE
        )
    except RestoredError as error:
        service.metrics.count_claim(error.claim)
        raise
    service.metrics.count_claim(done.claim)
    for result in done.results:
        service.metrics.items.labels(result.status).inc()
    service.metrics.vectors.inc(sum(len(item.vectors) for item in batch.items))
    reply: dict[str, Any] = {
        "now_ms": now_ms(),
        "results": [result.as_json() for result in done.results],
        "receipt": done.receipt,
        "changes": [done.first, done.last],
        "epoch": done.epoch,
    }
    if batch.number and not batch.items:
        reply["refused"] = done.refused
    return json_reply(reply)


async def pull(service: Service, request: Request) -> Reply:
    """GET /v1/pull: the documents that changed after a change."""
    principal = await service.admit(request)
    await service.meet(request, principal)
    query = request.query_params
    since = _number(query.get("since"), "since", 0, MAX_LONG)
    limit = _number(query.get("limit", str(MAX_ITEMS)), "limit", 1, MAX_ITEMS)
    fence = _number(query["fence"], "fence", 0, MAX_LONG) if "fence" in query else None
    vectors = query.get("vectors", "coarse")
    if vectors not in ("coarse", "full", "none"):
        raise Refusal(400, "malformed", "vectors: expected coarse, full or none")
    code = _code(request) if vectors == "coarse" else None
    epoch = query.get("epoch")
    groups = _groups(query.get("groups"))
    _note_differences(principal, _number(query.get("differs", "0"), "differs", 0, GROUPS))
    text, with_vectors = query.get("text") == "1", vectors != "none"
    wanted = PullQuery(since, limit, with_vectors, text, fence, epoch, named_space(request), groups)
    if _number(query.get("push", "0"), "push", 0, MAX_LONG) > principal.push:
        raise RestoredError

    def load() -> Reply:
        changes = changes_after(service.database, principal.tenant, wanted)
        items = changes.items
        like: NDArray[Any] = np.zeros((0, changes.full_dim or 1), np.float16)
        if code is not None:
            head = service.heads.get(service.database, principal.tenant, code, changes.full_dim)
            items = [coded(item, code, head) for item in items]
            like = code.none
        header: dict[str, Any] = {
            "since": since,
            "cursor": changes.cursor,
            "more": changes.more,
            "fence": changes.fence,
            "epoch": changes.epoch,
            "kept": principal.kept,
            "now_ms": now_ms(),
            **_agreement(service, principal.tenant, changes, sums=query.get("sums") == "1"),
        }
        if changes.restamped:
            header["restamped"] = changes.restamped
        if items:
            header |= _named(principal, changes, code)
        note_pull(service.database, principal, changes)
        return Reply(encode_items(header, items, like=like), CONTENT_TYPE)

    return await service.work(load, who=of(principal))


async def snapshot(service: Service, request: Request) -> Response:
    """GET /v1/snapshot/coarse: all live documents in one file, whole or in part; or a word to wait."""
    principal = await service.admit(request)
    await service.meet(request, principal)
    who, cache = of(principal), service.snapshots
    code, text = _code(request), request.query_params.get("text") == "1"
    about = (service.database, service.heads, principal.tenant, code)
    find = partial(cache.find, *about, space_id=named_space(request), text=text)
    found = await service.work(
        find, etag=request.headers.get("if-range") or request.headers.get("if-match"), who=who
    )
    if found is None:
        make = partial(cache.make, *about, text=text)
        made = await service.making.wait(
            (principal.tenant, code, text), lambda progress: make(progress=progress)
        )
        # Its tag says which, even where the documents have changed again.
        found = await service.work(find, etag=made.etag, who=who)
        if found is None:  # it is behind a fence by now, or was deleted to make room
            raise preparing(Progress())
    held(request).callback(found.close)
    return await service.work(file_response, found, request, who=who)


async def rerank(service: Service, request: Request) -> Reply:
    """POST /v1/rerank: the cosines of documents that the device names."""
    principal = await service.admit(request)
    space_id = space(request)
    names, query = await service.frame(
        request, lambda message: (_ids(message), one_vector(message)), most_header=MAX_BODY_BYTES
    )

    def score() -> Reply:
        scores = ranking.rerank(service.database, principal.tenant, space_id, names, query)
        missing = [name for name, score in zip(names, scores, strict=True) if score is None]
        return json_reply({"scores": scores, "missing": missing})

    return await service.work(score, who=of(principal))


async def search(service: Service, request: Request) -> Reply:
    """POST /v1/search: the nearest documents of the tenant."""
    principal = await service.admit(request)
    space_id = space(request)
    k, text, query = await service.frame(request, _wanted)

    def find() -> Reply:
        hits = ranking.search(service.database, principal.tenant, space_id, query, k, text=text)
        return json_reply({"hits": hits})

    return await service.work(find, who=of(principal))


async def register_head(service: Service, request: Request) -> Reply:
    """PUT /v1/heads/ID: register the matrix that makes a code."""
    principal = await service.admit(request)
    name = request.path_params["head"]
    matrix, layer_norm = await service.frame(
        request, _head, most=MAX_HEAD_BYTES, copies=HEAD_COPIES
    )
    new = await service.work(
        heads.register,
        service.database,
        principal.tenant,
        name,
        matrix,
        layer_norm=layer_norm,
        who=of(principal),
        kind=WRITE,
    )
    return json_reply({"head": name}, status=201 if new else 200)


async def enroll(service: Service, request: Request) -> Reply:
    """POST /v1/enroll: a device and its first token for an invitation."""
    who = service.admit_stranger(request)
    body = await service.body(request, most=MAX_ENROLL_BYTES)
    try:
        given = json.loads(body)
        invitation, name = given["code"], given["name"]
        nonce, space_id = _nonce(given.get("nonce")), given.get("space")
        name.encode()
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise Refusal(400, "malformed", "expected a JSON object with code and name") from error
    if not isinstance(invitation, str) or not isinstance(name, str) or "\0" in name:
        raise Refusal(400, "malformed", "code, name: expected text")
    if space_id is not None and not is_space(space_id):
        raise Refusal(400, "malformed", "space: expected 64 lower-case hex digits")

    def add() -> IssuedToken:
        with service.database.write() as transaction:
            return accounts.enroll(transaction, invitation, name, nonce=nonce, space_id=space_id)

    made = await service.work(add, who=who, kind=WRITE)
    return json_reply(
        {
            "tenant": made.tenant,
            "device": made.device,
            "token": made.token,
            "expires_ms": made.expires_ms,
            "space": made.space_id,
            "read_only": made.read_only,
            "now_ms": now_ms(),
        }
    )


async def rotate(service: Service, request: Request) -> Reply:
    """POST /v1/token: another token for the device; also for one that has expired not long ago."""
    principal = await service.admit(request, renewing=True)
    body = await service.body(request, most=MAX_ENROLL_BYTES, optional=True)
    try:
        nonce = _nonce(json.loads(body or b"{}").get("nonce"))
    except (ValueError, RecursionError, AttributeError) as error:
        raise Refusal(400, "malformed", "expected nothing, or a JSON object") from error
    present = bearer(request)

    def add() -> IssuedToken:
        with service.database.write() as transaction:
            return accounts.rotate(transaction, principal, present=present, nonce=nonce)

    made = await service.work(add, who=of(principal), kind=WRITE)
    return json_reply({"token": made.token, "expires_ms": made.expires_ms, "now_ms": now_ms()})


async def healthz(service: Service, request: Request) -> Reply:  # noqa: ARG001
    """GET /healthz: the process runs."""
    return json_reply({"status": "ok", "now_ms": now_ms()})


async def readyz(service: Service, request: Request) -> Reply:  # noqa: ARG001
    """GET /readyz: the database answers; and how far this clock is behind the newest stamp, if much."""
    behind_ms = await service.check()
    return json_reply({"status": "ok", "clock_behind_s": behind_ms // 1000})


async def openapi(service: Service, request: Request) -> Reply:  # noqa: ARG001
    """GET /openapi.json: the description of the routes."""
    return _DESCRIPTION


_DESCRIPTION = json_reply(DESCRIPTION)


def _batch(space_id: str, message: Message) -> Push:
    """The documents of a push, and what it says about itself."""
    if message.vectors.dtype != np.float16:
        raise Refusal(400, "malformed", "expected vectors of float16")
    header = message.header
    cursor, number, epoch = header.get("cursor"), header.get("push", 0), header.get("epoch", "")
    if not _is_long(cursor):
        raise Refusal(400, "malformed", "cursor: expected the change pulled to, 0 for none")
    if not _is_long(number) or not isinstance(epoch, str):
        raise Refusal(400, "malformed", "push, epoch: expected a number and text")
    receipt = header.get("receipt", "")
    if not isinstance(receipt, str):
        raise Refusal(400, "malformed", "receipt: expected text")
    items, dim = decode_items(message), message.vectors.shape[1]
    lost = lost_versions(header.get("lost", []))
    return Push(space_id, items, dim, cursor, number, epoch, receipt, lost)


def _ids(message: Message) -> list[str]:
    ids = message.header.get("ids")
    if not isinstance(ids, list) or len(ids) > MAX_IDS:
        raise Refusal(400, "malformed", f"ids: expected a list of at most {MAX_IDS}")
    return [check_id(name) for name in ids]


def _wanted(message: Message) -> tuple[int, bool, NDArray[np.float32]]:
    """How many hits, whether with text, and the query of a search."""
    k, text = message.header.get("k", 10), message.header.get("text", False)
    if not isinstance(k, int) or isinstance(k, bool) or not 0 < k <= MAX_HITS:
        raise Refusal(400, "malformed", f"k: expected a number from 1 to {MAX_HITS}")
    if not isinstance(text, bool):
        raise Refusal(400, "malformed", "text: expected true or false")
    return k, text, one_vector(message)


def _head(message: Message) -> tuple[NDArray[np.float32], bool]:
    """A head's matrix, and whether vectors are centred before it."""
    layer_norm = message.header.get("layer_norm")
    if not isinstance(layer_norm, bool):
        raise Refusal(400, "malformed", "layer_norm: expected true or false")
    if message.vectors.dtype != np.float32:
        raise Refusal(400, "malformed", "expected a matrix of float32")
    return message.vectors, layer_norm


def _nonce(value: object) -> str | None:
    """What a device drew for a request for a token; None from older clients."""
    if value is not None and not (isinstance(value, str) and _NONCE.fullmatch(value)):
        raise Refusal(400, "malformed", "nonce: expected 32 to 64 lower-case hex digits")
    return value if isinstance(value, str) else None


def _named(principal: Principal, changes: Changes, code: CodeKey | None) -> dict[str, Any]:
    """What the documents of a page are, which the device compares, and what it is told by them.

    An empty page has nothing to compare, and tells nothing that was not told before.
    """
    named: dict[str, Any] = {"space": changes.space_id}
    named["code"] = None if code is None else code.as_json()
    if principal.secret is not None:
        told = receipts.Receipt(changes.epoch, changes.cursor, principal.push)
        named["receipt"] = receipts.issue(principal.secret, principal.device, told)
    return named


def _agreement(service: Service, tenant: str, changes: Changes, *, sums: bool) -> dict[str, str]:
    """What a page says of the tenant's documents as a whole."""
    said = {"offers": format_stamp(changes.offers)}
    if changes.more:
        return said
    if changes.sums is None:
        fill_sums(service.database, tenant)  # the next page has them
        return said
    said["sum"] = f"{changes.sums.total:016x}"
    if sums:
        said["sums"] = base64.b64encode(bytes(changes.sums)).decode()
    return said


def _note_differences(principal: Principal, differs: int) -> None:
    """Tell the operator that a device held other documents than this database, in some groups."""
    if differs:
        fields = {"tenant": principal.tenant, "device": principal.device, "groups": differs}
        LOGGER.warning("diverged", extra={"fields": fields})


def _groups(text: str | None) -> frozenset[int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) > GROUPS:
        raise Refusal(400, "malformed", f"groups: expected at most {GROUPS} numbers")
    return frozenset(_number(part, "groups", 0, GROUPS - 1) for part in parts)


def _is_long(value: object) -> TypeGuard[int]:
    """Whether a value of JSON is a number that a database can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_LONG


def _number(text: str | None, name: str, least: int, most: int) -> int:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 19:
        raise Refusal(400, "malformed", f"{name}: expected a number from {least} to {most}")
    value = int(text)
    if not least <= value <= most:
        raise Refusal(400, "malformed", f"{name}: expected a number from {least} to {most}")
    return value


def _code(request: Request) -> CodeKey:
    query: Any = request.query_params
    head = query.get("head", "")
    dim = _number(query.get("dim"), "dim", 1, MAX_PASSAGES)
    try:
        scale = float(query.get("scale", "1"))
    except ValueError as error:
        raise Refusal(400, "malformed", "scale: expected a number") from error
    if not 1e-6 <= scale <= 1e6:
        raise Refusal(400, "malformed", "scale: expected a number above 0")
    if "\0" in head:
        raise Refusal(400, "malformed", "head: expected 64 hex digits")
    return CodeKey(
        head,
        dim,
        scale,
        read_packing(query.get("stored", "int8"), query.get("step"), query.get("centre"), dim),
    )
