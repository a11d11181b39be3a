"""How much is embedded before it is committed, on machines of any speed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

__all__ = ["COMMIT_S", "FIRST_CHARS", "MOST_CHARS", "Pace"]

#: About how long a machine embeds before it commits: what an interruption costs at most.
COMMIT_S = 10.0
#: Characters before the first commit, when the machine's speed is not known: about ten passages, which
#: take the slowest boards some seconds.
FIRST_CHARS = 8_000
#: The most characters before a commit, which limits memory: some 100 passages.
MOST_CHARS = 100_000

_Sized = TypeVar("_Sized")


class Pace:
    """Cuts work into parts that take about ``COMMIT_S`` each, by how long the parts before took.

    A board whose supply breaks down after some seconds under load then still gets on, part by part. A
    part has one document at least, however long that takes.

    Attributes:
        chars: Characters of the next part.
    """

    def __init__(self) -> None:
        self.chars = FIRST_CHARS

    def parts(self, work: Sequence[_Sized], sizes: Sequence[int]) -> Iterator[list[_Sized]]:
        """Cut work into parts. Each is timed until the next is asked for.

        Args:
            work: What is to be done.
            sizes: The characters of each.
        """
        part: list[_Sized] = []
        given = 0
        for one, size in zip(work, sizes, strict=True):
            part.append(one)
            given += size
            if given >= self.chars:
                yield from self._timed(part, given)
                part, given = [], 0
        if part:
            yield from self._timed(part, given)

    def _timed(self, part: list[_Sized], given: int) -> Iterator[list[_Sized]]:
        started = time.monotonic()
        yield part
        took = max(time.monotonic() - started, 1e-6)
        # A tenth at a time downwards, ten times upwards: one odd document says little.
        wanted = given / took * COMMIT_S
        self.chars = int(min(max(wanted, self.chars / 10, 1), self.chars * 10, MOST_CHARS))
