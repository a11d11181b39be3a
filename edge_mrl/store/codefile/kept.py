"""Rows that were read from the database, kept in memory: after a commit only its rows are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.store.codefile.file import Layout, Segment
from edge_mrl.store.codefile.table import CodeBlock

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.store.codefile.state import State

__all__ = ["KeptRows"]


class KeptRows:
    """Rows from some number on. Rows only ever come behind those that are there.

    What gives rows other numbers, gives the state another generation, at random.

    Args:
        layout: Dimensions and layout of the rows.
        load: Reads rows [first, after) from SQLite: a segment, with zeros where a row is deleted.
    """

    def __init__(self, layout: Layout, load: Callable[[int, int], Segment]) -> None:
        self._layout = layout
        self._load = load
        self._segments: list[Segment] = []
        self._generation, self._first, self._after = b"", 0, 0

    def keeps(self, state: State, first: int) -> bool:
        """Whether what is kept is of this state, and begins with this row; all is forgotten if not."""
        same = (self._generation, self._first) == (state.generation, first)
        if same and self._after <= state.next_row:
            return True
        self.forget(state.generation, first)
        return False

    def read(self, state: State) -> list[CodeBlock]:
        """All rows from the first to the state's last; what is not kept yet is read."""
        size = self._layout.rows
        while self._after < state.next_row:
            number, place = divmod(self._after - self._first, size)
            after = min(self._first + (number + 1) * size, state.next_row)
            rows = self._load(self._after, after)
            if not place:
                self._segments.append(rows)
            else:
                self._segments[-1] = _with_room(
                    self._layout, self._segments[-1], place, place + len(rows.keys)
                )
                _copy(rows, self._segments[-1], place)
            self._after = after
        starts = range(self._first, self._after, size)
        return [
            CodeBlock(first, segment.first(min(size, self._after - first)), checked=False)
            for first, segment in zip(starts, self._segments, strict=True)
        ]

    def forget(self, generation: bytes = b"", first: int = 0) -> None:
        """Keep nothing, and begin with a row."""
        self._segments = []
        self._generation, self._first, self._after = generation, first, first


def _with_room(layout: Layout, segment: Segment, used: int, wanted: int) -> Segment:
    """A segment with room for some rows: the same, or a larger one with the rows that are used."""
    if len(segment.keys) >= wanted:
        return segment
    size = min(max(wanted, used + used // 2), layout.rows)
    bits = np.empty((layout.columns - 2, size), np.uint64)
    checks, keys = np.empty(size, np.uint32), np.empty(size, np.uint32)
    grown = Segment(bits, checks, keys, np.empty((size, layout.stride), np.uint8))
    _copy(segment.first(used), grown, 0)
    return grown


def _copy(rows: Segment, target: Segment, start: int) -> None:
    some = slice(start, start + len(rows.keys))
    target.bits[:, some] = rows.bits
    target.checks[some], target.keys[some] = rows.checks, rows.keys
    codes: Any = target.codes
    into: NDArray[np.uint8] = codes[some]
    into[:] = rows.all_codes(into.shape[1])
