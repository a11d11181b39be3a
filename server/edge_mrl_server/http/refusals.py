"""Answers other than success: a status, a word for programs, a message for people (FORMAT.md, "Wire")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edge_mrl.wire import digest
from edge_mrl_server.errors import (
    ClonedError,
    FencedError,
    InvalidHeadError,
    InvalidInvitationError,
    InvalidTokenError,
    LimitReachedError,
    RejectedError,
    RestoredError,
    SpaceMismatchError,
    SupersededPushError,
    UnsureCopyError,
    WrongDimensionsError,
)

__all__ = ["Refusal", "error_body", "malformed_request", "refusal_of"]

#: What storage rejects, as it goes over the wire.
_ANSWERS: Mapping[type[RejectedError], tuple[int, str]] = {
    InvalidTokenError: (401, "token"),
    InvalidInvitationError: (403, "forbidden"),
    LimitReachedError: (403, "forbidden"),
    InvalidHeadError: (400, "malformed"),
    WrongDimensionsError: (400, "malformed"),
    SpaceMismatchError: (409, "space"),
    FencedError: (409, "fenced"),
    RestoredError: (409, "restored"),
    SupersededPushError: (409, "superseded"),
    UnsureCopyError: (409, "copy_unsure"),
    ClonedError: (409, "cloned"),
}


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """An answer other than success.

    Args:
        status: The HTTP status.
        code: The word that programs go by.
        message: What people read: what, expected, got, what to do next.
        retry_after_s: Seconds after which it may be tried again.
        **extra: Further keys of the answer's ``error`` object.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after_s: int | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        self.extra: Mapping[str, Any] = extra


def refusal_of(error: RejectedError) -> Refusal:
    """The answer to a request that storage has rejected."""
    status, code = _ANSWERS[type(error)]
    return Refusal(status, code, str(error), **error.details)


def error_body(refusal: Refusal) -> bytes:
    """The JSON of an answer."""
    error = {"code": refusal.code, "message": str(refusal), **refusal.extra}
    return json.dumps({"error": error}, ensure_ascii=False, separators=(",", ":")).encode()


def malformed_request() -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the answer to what is no HTTP/1.1, or has too long a head."""
    refusal = Refusal(400, "malformed", "this is no request of HTTP/1.1, or its head is too long")
    body = error_body(refusal)
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Content-Digest": digest(body),
        "Connection": "close",
    }
    return refusal.status, [(n.encode(), v.encode()) for n, v in headers.items()], body
