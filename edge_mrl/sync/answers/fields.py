"""What a server answered, checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_mrl.errors import NetworkError, WireError
from edge_mrl.wire import STATUSES, now_ms, parse_stamp

__all__ = [
    "content_range",
    "is_number",
    "offset_of",
    "refused_of",
    "result_of",
]


def result_of(row: object) -> tuple[str, int, str]:
    """What became of a document: its status, a stamp that the server named, or 0, and a reason."""
    if not isinstance(row, dict) or row.get("status") not in STATUSES:
        raise NetworkError(f"a push result has an unknown status: {row!r:.80}")
    status, said = str(row["status"]), row.get("reason", "")
    message = said if isinstance(said, str) else ""
    if "v" not in row:
        return status, 0, message
    try:
        return status, parse_stamp(row["v"]), message
    except WireError as error:
        raise NetworkError(f"a push result: {error}") from error


def refused_of(answer: Mapping[str, Any]) -> list[str] | None:
    """The ids of the last push that were refused; None if it did not arrive."""
    names = answer.get("refused")
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise NetworkError("refused: expected a list of ids")
    return names


def offset_of(clock: object, started: int) -> int:
    """The server's clock minus ours: it was read between the request and the response."""
    if not isinstance(clock, int) or isinstance(clock, bool) or clock < 0:
        raise NetworkError("now_ms: expected the server's clock in milliseconds")
    return clock - (started + now_ms()) // 2


def content_range(text: str) -> tuple[int, int]:
    """The first byte and the whole size that a Content-Range names."""
    kind, _, rest = text.partition(" ")
    place, _, size = rest.partition("/")
    first, _, _ = place.partition("-")
    if kind != "bytes" or not (first.isdecimal() and size.isdecimal()):
        raise NetworkError(f"Content-Range {text!r:.60}: expected bytes FIRST-LAST/SIZE")
    return int(first), int(size)


def is_number(value: object) -> bool:
    """Whether a value of JSON is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
