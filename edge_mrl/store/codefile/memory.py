"""The codes of an encrypted store: read from its database into memory, never written to a file.

Bits of codes tell what texts are about, so they must not be on a disk in the clear. What was read stays
until rows get new numbers; after a commit only its rows are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.errors import DamagedError
from edge_mrl.store.codefile.cache import CodeCache
from edge_mrl.store.codefile.file import Segment
from edge_mrl.store.codefile.state import State, read_dead
from edge_mrl.store.codefile.table import CodeBlock, CodeTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MemoryCache"]


class MemoryCache(CodeCache):
    """The codes of one open encrypted store. See ``CodeCache``."""

    _columns: tuple[list[Segment], bytes, int] = ([], b"", 0)
    #: Rows that were lost to damage when they were read.
    _missed: NDArray[np.int64] = np.empty(0, np.int64)

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
        segments, generation, done = self._columns
        if generation != state.generation or done > state.next_row:  # rows were numbered anew
            segments, done, self._missed = [], 0, np.empty(0, np.int64)
        self._lost, self._unsound = self._missed, set()
        self._columns = segments, state.generation, done
        size = self.layout.rows
        while done < state.next_row:
            after = min((done // size + 1) * size, state.next_row)
            rows = self.load(done, after)
            if done % size == 0:
                segments.append(self._empty())
            _copy(rows, segments[-1], done % size)
            done = after
            self._columns, self._missed = (segments, state.generation, done), self._lost
        parts = [
            CodeBlock(first, segment.first(min(size, done - first)), checked=False)
            for first, segment in zip(range(0, done, size), segments, strict=True)
        ]
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

    def close(self) -> None:
        """Forget the codes."""
        self._columns, self._missed = ([], b"", 0), np.empty(0, np.int64)
        super().close()

    def _empty(self) -> Segment:
        layout = self.layout
        bits = np.empty((layout.columns - 2, layout.rows), np.uint64)
        checks, keys = np.empty(layout.rows, np.uint32), np.empty(layout.rows, np.uint32)
        return Segment(bits, checks, keys, np.empty((layout.rows, layout.stride), np.uint8))


def _copy(rows: Segment, target: Segment, start: int) -> None:
    some = slice(start, start + len(rows.keys))
    target.bits[:, some] = rows.bits
    target.checks[some], target.keys[some] = rows.checks, rows.keys
    codes: Any = target.codes
    into: NDArray[np.uint8] = codes[some]
    into[:] = rows.all_codes(into.shape[1])
