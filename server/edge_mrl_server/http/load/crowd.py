"""How many requests of each name are being answered at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edge_mrl_server.http.refusals import Refusal

__all__ = ["Crowd"]

RETRY_S = 1


class Crowd:
    """Requests that are being answered, counted by name."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @contextmanager
    def enter(self, names: Sequence[tuple[str, int]], *, what: str) -> Iterator[None]:
        """Count a request while the context lasts.

        Args:
            names: Under which names it counts, and how many of each there may be at once.
            what: Whose requests they are, in the message.

        Raises:
            Refusal: There are as many as there may be.
        """
        for name, most in names:
            if self._counts[name] >= most:
                raise Refusal(
                    429,
                    "rate",
                    f"more than {most} requests of {what} at once: wait",
                    retry_after_s=RETRY_S,
                )
        for name, _ in names:
            self._counts[name] += 1
        try:
            yield
        finally:
            for name, _ in names:
                self._counts[name] -= 1
                if not self._counts[name]:
                    del self._counts[name]
