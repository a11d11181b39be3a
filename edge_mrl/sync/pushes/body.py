"""How much is sent in one request."""

from __future__ import annotations

from edge_mrl.wire import MAX_BODY_BYTES, MAX_ITEMS

__all__ = ["BodySize"]

#: Bodies shrink to this when larger ones time out on a slow uplink.
LEAST_BODY_BYTES = 1 << 14


class BodySize:
    """How much is sent in one request: less after failures, because the uplink may be too slow for more.

    What a proxy refused as too large is remembered, so that each run does not find it out anew.

    Attributes:
        size_bytes: Most bytes of a body.
        items: Most documents in a body.
    """

    def __init__(self) -> None:
        self.size_bytes = self._ceiling = MAX_BODY_BYTES
        self.items = self._most_items = MAX_ITEMS

    def begin(self) -> None:
        """A run begins: allow twice what was let through the last time."""
        self._ceiling = min(self._ceiling * 2, MAX_BODY_BYTES)
        self._most_items = min(self._most_items * 2, MAX_ITEMS)
        self.grow()

    def shrink(self) -> None:
        """Halve the size after a body that was not answered."""
        self.size_bytes = min(max(self.size_bytes // 2, LEAST_BODY_BYTES), self._ceiling)

    def grow(self) -> None:
        """Double the size after a body that was answered."""
        self.size_bytes = min(self.size_bytes * 2, self._ceiling)
        self.items = min(self.items * 2, self._most_items)

    def refuse(self, size_bytes: int, items: int) -> None:
        """Send half of what was refused as a whole, and no more in this run."""
        self.size_bytes = self._ceiling = max(size_bytes // 2, 1)
        self.items = self._most_items = max(items // 2, 1)
