"""The codes of an encrypted store: read from its database into memory, never written to a file.

Bits of codes tell what texts are about, so they must not be on a disk in the clear. What was read stays
until rows get new numbers; after a commit only its rows are read.
"""

from __future__ import annotations

import numpy as np

from edge_mrl.errors import DamagedError
from edge_mrl.store.codefile.cache import CodeCache
from edge_mrl.store.codefile.state import State, read_dead
from edge_mrl.store.codefile.table import CodeTable

__all__ = ["MemoryCache"]


class MemoryCache(CodeCache):
    """The codes of one open encrypted store. See ``CodeCache``."""

    def table(self, state: State) -> CodeTable:
        """The codes at a state that a transaction shows.

        Raises:
            DamagedError: The database's rows cannot be trusted.
        """
        if self._table is not None and self._state == state:
            return self._table
        self._table = None
        self._dead = read_dead(self._connection)
        if len(self._dead) and self._dead[-1] >= state.next_row:
            raise DamagedError("rows are deleted that were never there")
        if not self._kept.keeps(state, 0):
            self._missed = np.empty(0, np.int64)
        self._lost, self._unsound = self._missed, set()
        parts = self._kept.read(state)
        self._missed = self._lost
        self._state = state
        self._missed = np.setdiff1d(self._missed, self._dead)  # healed, or deleted
        return self._make_table(parts)

    def heal(self) -> None:
        """Nothing can disagree with the database."""

    def roll(self) -> bool:
        """Write nothing.

        Returns:
            True: no rows wait to be written.
        """
        return True

    def keep_up(self, state: State) -> None:
        """Write nothing."""

    def remove(self) -> None:
        """Forget the codes, because rows got new numbers."""
        self.close()

    def inspect(self, state: State) -> str | None:  # noqa: ARG002 - as ``CodeCache`` has it
        """Nothing is wrong with a file that is not there."""
        return None

    def verify(self, state: State) -> list[str]:  # noqa: ARG002 - as ``CodeCache`` has it
        """Nothing is wrong with a file that is not there."""
        return []
