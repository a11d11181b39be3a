"""The description of the routes for programs (OpenAPI 3.1); FORMAT.md, "Wire", is the specification."""

from __future__ import annotations

from typing import Any

from edge_mrl import __version__
from edge_mrl.wire import CONTENT_TYPE, MAX_IDS, MAX_ITEMS

__all__ = ["DESCRIPTION"]


def _header(name: str, text: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": True,
        "description": text,
        "schema": {"type": "string"},
    }


def _query(name: str, kind: str, text: str, *, required: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": text,
        "schema": {"type": kind},
    }


def _body(kind: str, text: str) -> dict[str, Any]:
    return {"required": True, "description": text, "content": {kind: {}}}


def _answers(kind: str, text: str, **others: str) -> dict[str, Any]:
    good = {"200": {"description": text, "content": {kind: {}}}}
    named = {status.lstrip("_"): {"description": words} for status, words in others.items()}
    wrong = {"description": "an error", "content": {"application/json": {"schema": _ERROR}}}
    return {**good, **named, "default": wrong}


_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}
_ALWAYS = [
    _header("Edge-MRL-Protocol", "1"),
    _header("Edge-MRL-Sequence", "1 to 64 letters and digits, new for each request; repeated"),
]
_DIGEST = _header("Content-Digest", "sha-256 of the body (RFC 9530)")
_SPACE = _header("Edge-MRL-Space", "space_id of the vectors")
_CODE = [
    _query("head", "string", "id of the head"),
    _query("dim", "integer", "dimensions of the code"),
    _query("scale", "number", "the value that 127 stands for"),
    _query("text", "integer", "1: with text and metadata"),
]
_JSON = "application/json"
_OPEN: list[dict[str, Any]] = []
_TOKEN: list[dict[str, list[str]]] = [{"token": []}]

DESCRIPTION: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "edge-mrl", "version": __version__},
    "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    "paths": {
        "/v1/push": {
            "post": {
                "summary": f"store at most {MAX_ITEMS} documents",
                "security": _TOKEN,
                "parameters": [*_ALWAYS, _DIGEST, _SPACE],
                "requestBody": _body(CONTENT_TYPE, "frame of documents, cursor, push, epoch"),
                "responses": _answers(
                    _JSON, "now_ms, and a result for each document; without any: refused"
                ),
            }
        },
        "/v1/pull": {
            "get": {
                "summary": "documents that changed after a change",
                "security": _TOKEN,
                "parameters": [
                    *_ALWAYS,
                    _query("since", "integer", "the change pulled to; 0: none", required=True),
                    _query("limit", "integer", f"documents, at most {MAX_ITEMS}"),
                    _query("vectors", "string", "coarse, full or none"),
                    _query("fence", "integer", "the fence when pulling from 0 began"),
                    _query("epoch", "string", "the epoch of since; empty: not known"),
                    _query("push", "integer", "the last push of which it is known if it arrived"),
                    *_CODE,
                ],
                "responses": _answers(
                    CONTENT_TYPE, "frame: since, cursor, more, fence, epoch, kept, now_ms, items"
                ),
            }
        },
        "/v1/snapshot/coarse": {
            "get": {
                "summary": "all live documents with coarse codes",
                "security": _TOKEN,
                "parameters": [*_ALWAYS, *_CODE],
                "responses": _answers(
                    CONTENT_TYPE,
                    "frames, each behind its length",
                    _206="a part of it",
                    _304="If-None-Match has its tag",
                    _412="If-Match has not",
                    _416="nothing in that range",
                ),
            }
        },
        "/v1/rerank": {
            "post": {
                "summary": f"score at most {MAX_IDS} documents with their full vectors",
                "security": _TOKEN,
                "parameters": [*_ALWAYS, _DIGEST, _SPACE],
                "requestBody": _body(CONTENT_TYPE, "frame: ids; one vector"),
                "responses": _answers(_JSON, "scores, missing"),
            }
        },
        "/v1/search": {
            "post": {
                "summary": "the nearest documents",
                "security": _TOKEN,
                "parameters": [*_ALWAYS, _DIGEST, _SPACE],
                "requestBody": _body(CONTENT_TYPE, "frame: k, text; one vector"),
                "responses": _answers(_JSON, "hits"),
            }
        },
        "/v1/heads/{head}": {
            "put": {
                "summary": "register a head",
                "security": _TOKEN,
                "parameters": [
                    *_ALWAYS,
                    _DIGEST,
                    {"name": "head", "in": "path", "required": True, "schema": {"type": "string"}},
                ],
                "requestBody": _body(CONTENT_TYPE, "frame: layer_norm; the matrix in rows"),
                "responses": _answers(_JSON, "it was there", _201="it is registered"),
            }
        },
        "/v1/enroll": {
            "post": {
                "summary": "a token for an invitation",
                "security": _OPEN,
                "parameters": [*_ALWAYS, _DIGEST],
                "requestBody": _body(_JSON, "code: the invitation; name"),
                "responses": _answers(_JSON, "tenant, device, token, expires_ms, now_ms"),
            }
        },
        "/v1/token": {
            "post": {
                "summary": "another token; the present one ends when that is first used",
                "security": _TOKEN,
                "parameters": _ALWAYS,
                "responses": _answers(_JSON, "token, expires_ms, now_ms"),
            }
        },
        "/healthz": {
            "get": {
                "summary": "the process runs",
                "security": _OPEN,
                "responses": _answers(_JSON, "status"),
            }
        },
        "/readyz": {
            "get": {
                "summary": "the database answers",
                "security": _OPEN,
                "responses": _answers(_JSON, "status"),
            }
        },
        "/openapi.json": {
            "get": {
                "summary": "this description",
                "security": _OPEN,
                "responses": _answers(_JSON, "OpenAPI"),
            }
        },
    },
}
