"""How much one device, one tenant, and all of them together may ask for."""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edge_mrl_server.http.refusals import Refusal

__all__ = ["Buckets", "InFlight", "cost_of_json"]


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """Token buckets by name: a rate of requests, and a burst of some seconds' worth at once.

    Args:
        rate: Requests a second of each name.
        what: The noun for what is counted, in the message.
        burst_s: How many seconds' worth may come at once.
        most: Names that are remembered; the least recently used one is forgotten, and its bucket is full.
        clock: Gives seconds.
    """

    def __init__(
        self,
        rate: float,
        *,
        what: str = "requests",
        burst_s: float = 5.0,
        most: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._what = what
        self._burst_s = burst_s
        self._most = most
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, name: str, *, rate: float | None = None, count: int = 1) -> None:
        """Count a request.

        Args:
            name: Whose request.
            rate: Requests a second of that name; None for everyone's rate.
            count: Requests to count; 0 only checks whether there may be another one.

        Raises:
            Refusal: There are too many requests; it says when to try again.
        """
        rate = rate or self._rate
        full, now = max(rate * self._burst_s, 1.0), self._clock()
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(full, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        bucket.tokens = min(full, bucket.tokens + (now - bucket.at) * rate)
        bucket.at = now
        if bucket.tokens < 1:
            wait = math.ceil((1 - bucket.tokens) / rate)
            raise Refusal(
                429, "rate", f"more than {rate:g} {self._what} a second: wait", retry_after_s=wait
            )
        bucket.tokens -= count


class InFlight:
    """Bytes of requests and answers that are in memory at once.

    Args:
        most: How many there may be.
        share: The part of them that one group may hold. What a group has alone may be larger, as nobody
            could ever send it otherwise.
    """

    def __init__(self, most: int, *, share: float = 0.5) -> None:
        self.most = most
        self.bytes = 0
        self._share = int(most * share)
        self._groups: Counter[str] = Counter()

    @contextmanager
    def hold(self, group: str = "") -> Iterator[Callable[[int], None]]:
        """Gives a function that counts bytes; they are given back at the end.

        The function raises ``Refusal`` when there are too many.

        Args:
            group: Whose they are: a tenant's name.
        """
        held = 0

        def add(count: int) -> None:
            nonlocal held
            others, siblings = self.bytes - held, self._groups[group] - held
            if (others and self.bytes + count > self.most) or (
                siblings and self._groups[group] + count > self._share
            ):
                raise Refusal(503, "busy", "too much is being sent at once: wait", retry_after_s=1)
            self.bytes += count
            self._groups[group] += count
            held += count

        try:
            yield add
        finally:
            self.bytes -= held
            self._groups[group] -= held
            if not self._groups[group]:
                del self._groups[group]


def cost_of_json(text: bytes | memoryview) -> int:
    """Bytes that JSON takes when it is parsed, about, and rather more than less.

    An empty object is 2 bytes of text and 64 in memory, beside 8 in its list; what a text has between
    its quotes counts as well, since finding out would cost more.

    Args:
        text: JSON in UTF-8, whether it is valid or not.
    """
    data = bytes(text)
    return len(data) + sum(data.count(sign) * size for sign, size in _COSTS)


#: Bytes of CPython's objects (3.11 to 3.14, 64 bits): a dict with one key, a list, and an element of
#: either with its place.
_COSTS = ((b"{", 232), (b"[", 72), (b",", 64))
