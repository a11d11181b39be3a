"""One JSON object per line on standard error, without texts, ids, vectors, tokens or invitations.

What a stranger can cause without end is written a few times a second; the next line of its kind says
how many were left out.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

__all__ = ["LOGGER", "LineLimit", "configure", "first_line", "report"]

LOGGER = logging.getLogger("edge_mrl_server")
#: Lines a second of one kind, where the record does not say; ten seconds' worth at once.
LINES_PER_S = 5.0
BURST_S = 10.0
#: Kinds that are remembered; the least recently used one is forgotten.
MAX_KINDS = 2_000
MAX_EVENT_CHARS = 200


def first_line(value: object) -> str:
    """The first line: what PostgreSQL writes below it may quote a row."""
    return (str(value).splitlines() or [""])[0][:MAX_EVENT_CHARS]


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": first_line(record.getMessage()),
        }
        fields |= getattr(record, "fields", {})
        if left_out := getattr(record, "left_out", 0):
            fields["left_out"] = left_out
        if record.exc_info and record.exc_info[1] is not None:
            fields["trace"] = "".join(_trace(record.exc_info[1]))
        return json.dumps(fields, default=str)


def _trace(error: BaseException | None) -> Iterator[str]:
    """Where errors were raised, the first one first: without what they say, which may quote a text."""
    seen: set[int] = set()
    chain: list[BaseException] = []
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        chain.append(error)
        error = error.__cause__ or error.__context__
    for link in reversed(chain):
        yield from traceback.format_tb(link.__traceback__)
        yield f"{type(link).__name__}\n"


class _Kind:
    """Lines of one kind: how many may be written now, how many were left out, and since when."""

    def __init__(self, tokens: float, now: float) -> None:
        self.tokens, self.at = tokens, now
        self.left_out, self.since = 0, 0.0


class LineLimit(logging.Filter):
    """Lets some lines of each kind through. Thread-safe.

    A record's kind is its logger, its message before anything is filled in, and its attribute ``kind``.
    Its attribute ``lines_per_s`` is how many a second are written.

    Args:
        clock: Gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: OrderedDict[tuple[str, str, str], _Kind] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written."""
        rate: float = getattr(record, "lines_per_s", LINES_PER_S)
        name = (record.name, str(record.msg)[:MAX_EVENT_CHARS], getattr(record, "kind", ""))
        with self._lock:
            now = self._clock()
            kind = self._kinds.setdefault(name, _Kind(rate * BURST_S, now))
            self._kinds.move_to_end(name)
            if len(self._kinds) > MAX_KINDS:
                self._kinds.popitem(last=False)
            kind.tokens = min(rate * BURST_S, kind.tokens + (now - kind.at) * rate)
            kind.at = now
            if kind.tokens < 1:
                kind.since = kind.since if kind.left_out else now
                kind.left_out += 1
                return False
            kind.tokens -= 1
            record.left_out, kind.left_out = kind.left_out, 0
            return True

    def overdue(self) -> int:
        """How many lines were left out that no later line of their kind has said; it forgets them."""
        with self._lock:
            now, count = self._clock(), 0
            for kind in self._kinds.values():
                if kind.left_out and now - kind.since >= BURST_S:
                    count += kind.left_out
                    kind.left_out = 0
            return count


_LIMIT = LineLimit()


def report() -> None:
    """Write how many lines were left out for some time, if any were."""
    if count := _LIMIT.overdue():
        LOGGER.warning("lines left out", extra={"fields": {"left_out": count}})


def configure(*, quiet: bool = False) -> None:
    """Write this server's events, and uvicorn's warnings, to standard error.

    Args:
        quiet: Whether only warnings and errors are written.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    handler.addFilter(_LIMIT)
    for name, level in (
        ("edge_mrl_server", logging.WARNING if quiet else logging.INFO),
        ("uvicorn", logging.WARNING),
        ("asyncio", logging.ERROR),
    ):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
