"""The marks of this copy of a store, as requests carry them.

A server sees by them that two machines go on from one copied store (FORMAT.md, "Copies").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.store import replica

if TYPE_CHECKING:
    from edge_mrl.store import Store

__all__ = ["Marks"]


class Marks:
    """A store's marks during one run. For one thread at a time.

    Args:
        store: The store.

    Attributes:
        header: What requests carry: the newest mark first.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._marks = replica.draw_mark(store)
        self._known = False
        self.receipt: str | None = None

    @property
    def header(self) -> str:
        """The marks as a header's value."""
        return "-".join(self._marks)

    def answered(self) -> None:
        """Note that the server has the newest mark: an answer came to a request that had it."""
        self._known = True

    def step(self) -> None:
        """Draw another mark: the server has the newest one, and is not sure what to make of it."""
        self._marks = replica.draw_mark(self._store, known=self._marks[0])

    def keep(self) -> None:
        """Write down what this run has learned."""
        if self._known or self.receipt is not None:
            known = self._marks[0] if self._known else None
            replica.keep_receipt(self._store, self.receipt, known=known)
            self._known, self.receipt = False, None
