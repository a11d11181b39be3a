"""What is counted once for each state of a store, since counting anew costs more the more there is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from edge_mrl.store.statements import select_rows

__all__ = ["Counting"]

#: Numbers that are kept at a time; some 150 bytes each.
MOST_KNOWN = 10_000


class Counting:
    """Numbers of an open store's present state, kept while nobody writes to it.

    Args:
        connection: The store's connection, used under the store's lock.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._state: tuple[int, int] | None = None
        self._known: dict[str, int] = {}
        self._written: tuple[int, int] | None = None

    def documents(self) -> int:
        """How many documents there are."""
        return self._count("documents", "SELECT count(*) FROM documents")

    @contextmanager
    def queueing(self, ids: Sequence[str], most: int | None) -> Iterator[int | None]:
        """Run a block that queues these documents and no others, within ``following``.

        The bytes of vectors that wait are kept up with what the block changed: a put costs the same
        however many documents wait.

        Args:
            ids: Documents.
            most: How many bytes may wait; None if that does not matter.

        Returns:
            The room for their vectors, in bytes; None for any.
        """
        if most is None:
            yield None
            return
        waiting = self._count("queued", "SELECT ifnull(sum(bytes), 0) FROM outbox")
        before = self._queued_bytes_of(ids)
        yield most - waiting
        self._written = (self._others(), waiting - before + self._queued_bytes_of(ids))

    def _queued_bytes_of(self, ids: Sequence[str]) -> int:
        return sum(size for (size,) in select_rows(self._connection, "bytes", "id", ids, "outbox"))

    @contextmanager
    def following(self, undone: Callable[[], None]) -> Iterator[None]:
        """Run a transaction that writes; what ``queueing`` found holds if it succeeds.

        Args:
            undone: Called if it does not.
        """
        try:
            yield
        except BaseException:
            self._state = self._written = None
            undone()
            raise
        written, self._written = self._written, None
        if written is not None:
            # FTS5 writes when a transaction ends; of other connections, what came after is seen later.
            others, waiting = written
            self._state = (others, self._connection.total_changes)
            self._known = {"queued": waiting}

    def with_words(self, expression: str, most: int) -> int:
        """How many documents match an expression of FTS5; ``most`` if there are at least as many.

        Counting matches costs a tenth of ranking them, or less.
        """
        query = "SELECT count(*) FROM (SELECT 1 FROM keywords WHERE keywords MATCH ? LIMIT ?)"
        return self._count(f"{most} {expression}", query, expression, most)

    def _count(self, name: str, query: str, *values: object) -> int:
        self._look()
        if name not in self._known:
            (found,) = self._connection.execute(query, values).fetchone()
            self._known[name] = int(found)
        return self._known[name]

    def _look(self) -> None:
        """Forget everything if the store has been written to, by this connection or another."""
        state = (self._others(), self._connection.total_changes)
        if state != self._state or len(self._known) > MOST_KNOWN:
            self._state = state
            self._known.clear()

    def _others(self) -> int:
        """A number that another one follows when another connection has written."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)
