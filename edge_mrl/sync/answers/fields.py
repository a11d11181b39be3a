"""What a server answered, checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard, cast

from edge_mrl.documents import clean
from edge_mrl.errors import NetworkError, WireError
from edge_mrl.store import replica
from edge_mrl.wire import STATUSES, now_ms, parse_stamp

__all__ = [
    "content_range",
    "is_count",
    "is_number",
    "is_word",
    "offset_of",
    "refused_of",
    "result_of",
    "span_of",
]

#: A store keeps integers of 64 bits with a sign.
MAX_COUNT = 2**63 - 1
MAX_WORD_CHARS = 1_000
_MAX_FLOAT = 1e300


def result_of(row: object) -> tuple[str, int, str]:
    """What became of a document: its status, a stamp that the server named, or 0, and a reason."""
    if not isinstance(row, dict) or row.get("status") not in STATUSES:
        raise NetworkError(f"a push result has an unknown status: {row!r:.80}")
    status, said = str(row["status"]), row.get("reason", "")
    message = clean(said) if isinstance(said, str) else ""
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
    return [clean(name) for name in names]


def span_of(answer: Mapping[str, Any]) -> replica.Span | None:
    """The changes that are a push; None from a server that does not say."""
    changes, epoch = answer.get("changes"), answer.get("epoch")
    if not isinstance(changes, list) or len(changes) != 2 or not is_word(epoch):
        return None
    first, last = changes
    if not is_count(first) or not is_count(last) or last < first:
        return None
    return replica.Span(first, last, epoch)


def offset_of(clock: object, started: int) -> int:
    """The server's clock minus ours: it was read between the request and the response."""
    if not is_count(clock):
        raise NetworkError("now_ms: expected the server's clock in milliseconds")
    return clock - (started + now_ms()) // 2


def content_range(text: str) -> tuple[int, int]:
    """The first byte and the whole size that a Content-Range names."""
    kind, _, rest = text.partition(" ")
    place, _, size = rest.partition("/")
    first, _, _ = place.partition("-")
    good = all(n.isascii() and n.isdecimal() and len(n) <= 19 for n in (first, size))
    if kind != "bytes" or not good:
        raise NetworkError(f"Content-Range {text!r:.60}: expected bytes FIRST-LAST/SIZE")
    return int(first), int(size)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of JSON is a number that is one as a float: its integers have any size."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -_MAX_FLOAT <= cast("float", value) <= _MAX_FLOAT


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value of JSON is a number from 0 on that a store can keep."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def is_word(value: object) -> TypeGuard[str]:
    """Whether a value of JSON is a word that goes into headers and files: printable ASCII, not empty."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_WORD_CHARS:
        return False
    return value.isascii() and value.isprintable() and value == value.strip()
