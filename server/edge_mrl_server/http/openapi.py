"""The description of the routes for programs (OpenAPI 3.1); FORMAT.md, "Wire", is the specification.

It is exact: tests compare its routes, statuses and words with the handlers', and send requests that
are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_mrl import __version__
from edge_mrl.wire import CONTENT_TYPE, GROUPS, MAX_IDS, MAX_ITEMS, MAX_PASSAGES, STATUSES

__all__ = ["CODES", "DESCRIPTION"]

#: The words for programs, by status.
CODES: Mapping[str, tuple[str, ...]] = {
    "400": ("malformed", "digest", "protocol"),
    "401": ("token",),
    "403": ("forbidden",),
    "404": ("not_found", "head_unknown"),
    "405": ("method",),
    "408": ("timeout",),
    "409": ("space", "fenced", "restored", "superseded", "copy_unsure", "cloned"),
    "413": ("too_large",),
    "429": ("rate",),
    "500": ("internal",),
    "503": ("busy", "damaged", "preparing"),
}
_WORDS = {
    "400": "what was sent is not what the specification says",
    "401": "no valid token",
    "403": "the invitation is not valid, or a limit of the tenant is reached",
    "404": "there is nothing at this path; head_unknown: register the head",
    "405": "the path has another method",
    "408": "the body came too slowly: send it again",
    "409": "another space, or another state of the server than the device knows",
    "413": "the body, or the JSON at its beginning, is too long",
    "429": "too many requests: wait",
    "500": "the server failed; its log says where",
    "503": "the server is busy: wait; damaged: its operator has to restore its database",
}
_JSON = "application/json"
_LONG = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_TEXT = {"type": "string"}
_HEX = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def _header(
    name: str, schema: Mapping[str, Any], text: str, *, required: bool = True
) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": required,
        "description": text,
        "schema": schema,
    }


def _query(
    name: str, schema: Mapping[str, Any], text: str, *, required: bool = False
) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": text,
        "schema": schema,
    }


def _body(kind: str, text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"required": True, "description": text, "content": {kind: {"schema": schema}}}


def _frame(vectors: str, /, **header: str) -> dict[str, Any]:
    """A body that is a frame; ``x-frame`` says what its JSON has."""
    content = {CONTENT_TYPE: {"x-frame": header}}
    return {"required": True, "description": f"frame: {vectors}", "content": content}


def _object(required: Mapping[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
    }


def _answer(
    text: str, kind: str | None = None, schema: Mapping[str, Any] | None = None, **headers: Any
) -> dict[str, Any]:
    named = {name.replace("_", "-"): words for name, words in headers.items()}
    every = {"Content-Digest": "sha-256 of the body (RFC 9530)", **named}
    answer: dict[str, Any] = {
        "description": text,
        "headers": {
            name: {"required": True, "description": words, "schema": {"type": "string"}}
            for name, words in every.items()
        },
    }
    if kind is not None:
        answer["content"] = {kind: {"schema": schema} if schema else {}}
    return answer


def _refused(status: str) -> dict[str, Any]:
    code = {"type": "string", "enum": list(CODES[status])}
    error = _object({"code": code, "message": _TEXT})
    headers: dict[str, Any] = {"401": {"WWW_Authenticate": "Bearer"}}.get(status, {})
    if status in ("429", "503"):
        headers = {"Retry_After": "seconds to wait"}
    headers |= {"Edge_MRL_Seen": "of the request's headers: whether they came as they were sent"}
    return _answer(_WORDS[status], _JSON, _object({"error": error}), **headers)


def _answers(good: Mapping[str, Any], *refused: str) -> dict[str, Any]:
    """The answers of a route: those of its own, and those that any route gives."""
    named = sorted({*refused, "400", "500", "503"})
    return {**good, **{status: {"$ref": f"#/components/responses/{status}"} for status in named}}


_ALWAYS = [
    _header("Edge-MRL-Protocol", {"type": "string", "const": "1"}, "the protocol's version"),
    _header(
        "Edge-MRL-Sequence",
        {"type": "string", "pattern": "^[0-9A-Za-z]{1,64}$"},
        "new for each request; the answer repeats it",
    ),
]
_DIGEST = _header("Content-Digest", _TEXT, "sha-256 of the body (RFC 9530)")
_SPACE = _header("Edge-MRL-Space", _HEX, "space_id of the device's store")
_OWN_SPACE = _header("Edge-MRL-Space", _HEX, "space_id of the device's store", required=False)
_COPY = _header("Edge-MRL-Copy", _TEXT, "marks of the store's copy, newest first", required=False)
_NONCE = {"type": "string", "pattern": "^[0-9a-f]{32,64}$"}
_FLAG = {"type": "integer", "enum": [0, 1]}
_CODE = [
    _query("head", _HEX, "id of the head"),
    _query("dim", {"type": "integer", "minimum": 1, "maximum": MAX_PASSAGES}, "of the code"),
    _query(
        "scale",
        {"type": "number", "minimum": 1e-6, "maximum": 1e6},
        "the value that 127 stands for",
    ),
    _query(
        "stored",
        {"type": "string", "enum": ["int8", "int4", "2bit", "1bit"]},
        "how the codes are packed (default: int8)",
    ),
    _query("step", {"type": "number", "exclusiveMinimum": 0}, "the step of packed codes"),
    _query(
        "centre",
        {"type": "string", "pattern": "^[A-Za-z0-9_-]*$"},
        "the centre of packed codes: int8 values in base64url",
    ),
    _query("text", _FLAG, "1: with text and metadata"),
]
_OPEN: list[dict[str, Any]] = []
_TOKEN: list[dict[str, list[str]]] = [{"token": []}]
_WITH_TOKEN = ("401", "429")
_WITH_BODY = ("408", "413")

_RESULT = _object({"status": {"type": "string", "enum": list(STATUSES)}}, v=_TEXT, reason=_TEXT)
_PUSHED = _object(
    {"now_ms": _LONG, "results": {"type": "array", "items": _RESULT}},
    refused={"type": ["array", "null"], "items": _TEXT},
    receipt=_TEXT,
    changes={"type": "array", "items": _LONG, "minItems": 2, "maxItems": 2},
    epoch=_TEXT,
)
_SCORED = _object(
    {
        "scores": {"type": "array", "items": {"type": ["number", "null"]}},
        "missing": {"type": "array", "items": _TEXT},
    }
)
_HIT = _object({"id": _TEXT, "score": {"type": "number"}}, text=_TEXT, meta={"type": "object"})
_FOUND = _object({"hits": {"type": "array", "items": _HIT}})
_ISSUED = {"token": _TEXT, "expires_ms": _LONG, "now_ms": _LONG}
_ALIVE = _object({"status": {"type": "string", "const": "ok"}}, now_ms=_LONG)

_PULL = [
    *_ALWAYS,
    _query("since", _LONG, "the change pulled to; 0: none", required=True),
    _query("limit", {"type": "integer", "minimum": 1, "maximum": MAX_ITEMS}, "documents at most"),
    _query("vectors", {"type": "string", "enum": ["coarse", "full", "none"]}, "default: coarse"),
    _query("fence", _LONG, "the fence when pulling from 0 began"),
    _query("epoch", _TEXT, "the epoch of since; empty: not known"),
    _query("push", _LONG, "the last push of which it is known if it arrived"),
    _query("sums", _FLAG, "1: with the sums of all groups of ids"),
    _query("groups", _TEXT, "numbers with commas: documents of these groups of ids alone"),
    _query("differs", {"type": "integer", "minimum": 0, "maximum": GROUPS}, "groups that differ"),
    *_CODE,
    _OWN_SPACE,
    _COPY,
]
_RANGES = [
    {"name": name, "in": "header", "required": False, "schema": _TEXT, "description": "RFC 9110"}
    for name in ("Range", "If-Range", "If-Match", "If-None-Match")
]
_FILE = {"ETag": "names the bytes", "Repr_Digest": "sha-256 of the whole file"}


def _sent(text: str, kind: str | None = CONTENT_TYPE, **headers: str) -> dict[str, Any]:
    return _answer(text, kind, None, **_FILE, **headers)


_PATHS: dict[str, Any] = {
    "/v1/push": {
        "post": {
            "summary": f"store at most {MAX_ITEMS} documents",
            "security": _TOKEN,
            "parameters": [*_ALWAYS, _DIGEST, _SPACE, _COPY],
            "requestBody": _frame(
                "documents",
                items="the documents; their vectors follow",
                cursor="the change pulled to; 0: none",
                push="the push's number",
                epoch="the epoch of cursor; empty: not known",
                receipt="the last one received; may be absent",
                lost="versions that a restored server lacks; may be absent",
            ),
            "responses": _answers(
                {
                    "200": _answer(
                        "a result for each document; without any: refused", _JSON, _PUSHED
                    )
                },
                *_WITH_TOKEN,
                *_WITH_BODY,
                "409",
            ),
        }
    },
    "/v1/pull": {
        "get": {
            "summary": "documents that changed after a change",
            "security": _TOKEN,
            "parameters": _PULL,
            "responses": _answers(
                {
                    "200": _answer(
                        "frame: since, cursor, more, fence, epoch, kept, now_ms, items; where there are "
                        "items also receipt, space, code",
                        CONTENT_TYPE,
                    )
                },
                *_WITH_TOKEN,
                "404",
                "409",
            ),
        }
    },
    "/v1/snapshot/coarse": {
        "get": {
            "summary": "all live documents with coarse codes",
            "security": _TOKEN,
            "parameters": [*_ALWAYS, *_CODE, *_RANGES, _OWN_SPACE, _COPY],
            "responses": _answers(
                {
                    "200": _sent("frames, each behind its length"),
                    "206": _sent("a part of it", Content_Range="which part, of how much"),
                    "304": _sent("If-None-Match has its tag", None),
                    "412": _sent("If-Match has not"),
                    "416": _sent("nothing in that range", Content_Range="how much there is"),
                },
                *_WITH_TOKEN,
                "404",
                "409",
            ),
        }
    },
    "/v1/rerank": {
        "post": {
            "summary": f"score at most {MAX_IDS} documents with their full vectors",
            "security": _TOKEN,
            "parameters": [*_ALWAYS, _DIGEST, _SPACE],
            "requestBody": _frame("one vector", ids=f"at most {MAX_IDS}"),
            "responses": _answers(
                {"200": _answer("a score for each id, null where unknown", _JSON, _SCORED)},
                *_WITH_TOKEN,
                *_WITH_BODY,
                "409",
            ),
        }
    },
    "/v1/search": {
        "post": {
            "summary": "the nearest documents",
            "security": _TOKEN,
            "parameters": [*_ALWAYS, _DIGEST, _SPACE],
            "requestBody": _frame(
                "one vector", k="documents at most", text="whether with text and metadata"
            ),
            "responses": _answers(
                {"200": _answer("the documents, nearest first", _JSON, _FOUND)},
                *_WITH_TOKEN,
                *_WITH_BODY,
                "409",
            ),
        }
    },
    "/v1/heads/{head}": {
        "put": {
            "summary": "register a head",
            "security": _TOKEN,
            "parameters": [
                *_ALWAYS,
                _DIGEST,
                {"name": "head", "in": "path", "required": True, "schema": _HEX},
            ],
            "requestBody": _frame(
                "the matrix in rows", layer_norm="whether vectors are centred first"
            ),
            "responses": _answers(
                {
                    "200": _answer("it was there", _JSON, _object({"head": _TEXT})),
                    "201": _answer("it is registered", _JSON, _object({"head": _TEXT})),
                },
                *_WITH_TOKEN,
                *_WITH_BODY,
                "403",
            ),
        }
    },
    "/v1/enroll": {
        "post": {
            "summary": "a token for an invitation",
            "security": _OPEN,
            "parameters": [*_ALWAYS, _DIGEST],
            "requestBody": _body(
                _JSON,
                "code: the invitation; name: the device's, for people; nonce: drawn for this request; "
                "space: the space_id of the device's store",
                _object({"code": _TEXT, "name": _TEXT}, nonce=_NONCE, space=_HEX),
            ),
            "responses": _answers(
                {
                    "200": _answer(
                        "the device and its first token",
                        _JSON,
                        _object(
                            {"tenant": _TEXT, "device": _TEXT, **_ISSUED},
                            space={"type": ["string", "null"]},
                            read_only={"type": "boolean"},
                        ),
                    )
                },
                *_WITH_BODY,
                "403",
                "409",
                "429",
            ),
        }
    },
    "/v1/token": {
        "post": {
            "summary": "another token; the present one ends when that is first used",
            "security": _TOKEN,
            "parameters": [*_ALWAYS, {**_DIGEST, "required": False}],
            "requestBody": {
                **_body(_JSON, "nonce: drawn for this request", _object({}, nonce=_NONCE)),
                "required": False,
            },
            "responses": _answers(
                {"200": _answer("the token", _JSON, _object(_ISSUED))}, *_WITH_TOKEN, *_WITH_BODY
            ),
        }
    },
    "/healthz": {
        "get": {
            "summary": "the process runs",
            "security": _OPEN,
            "responses": _answers({"200": _answer("it does", _JSON, _ALIVE)}),
        }
    },
    "/readyz": {
        "get": {
            "summary": "the database answers",
            "security": _OPEN,
            "responses": _answers({"200": _answer("it does", _JSON, _ALIVE)}),
        }
    },
    "/openapi.json": {
        "get": {
            "summary": "this description",
            "security": _OPEN,
            "responses": _answers({"200": _answer("OpenAPI", _JSON, {"type": "object"})}),
        }
    },
}

DESCRIPTION: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "edge-mrl", "version": __version__},
    "components": {
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        "responses": {status: _refused(status) for status in CODES},
    },
    "paths": _PATHS,
}
