"""All codes of a store in one state, in the form that search reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.store.codefile.column import CodeFileError, Codes
from edge_mrl.store.codefile.compiled import take_rows
from edge_mrl.store.codefile.file import Layout, Segment, row_checks

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CodeBlock", "CodeTable"]

#: Reads rows [first, after) from SQLite: a segment, with zeros where a row is deleted.
Load = Callable[[int, int], Segment]
#: Ids of documents by key.
Names = Callable[[Sequence[int]], Mapping[int, str]]


@dataclass(slots=True)
class CodeBlock:
    """A block of consecutive rows.

    Attributes:
        first: The first row's number.
        segment: Their columns.
        checked: Whether the codes come from the file; then each is compared with its check value when
            it is used.
    """

    first: int
    segment: Segment
    checked: bool

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.segment.keys)


class CodeTable:
    """Rows of codes, addressed by their number in the store.

    Args:
        layout: Dimensions and layout of the rows.
        parts: Blocks of consecutive rows, from row 0 on.
        dead: int64, the numbers of deleted rows, ascending.
        load: Reads rows from SQLite where those in the file are damaged.
        names: Gives the ids of documents, which decide the order of equal scores.
    """

    def __init__(
        self,
        layout: Layout,
        parts: list[CodeBlock],
        dead: NDArray[np.int64],
        *,
        load: Load,
        names: Names,
    ) -> None:
        self.layout = layout
        self.parts = parts
        self.dead = dead
        self.names = names
        self.repaired = 0
        self._load = load

    @property
    def dim(self) -> int:
        """Dimensions of a code."""
        return self.layout.dim

    @property
    def rows(self) -> int:
        """Row numbers in use, those of deleted rows included."""
        return sum(part.rows for part in self.parts)

    @property
    def live(self) -> int:
        """Rows that are not deleted."""
        return self.rows - len(self.dead)

    def selected(self, keys: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[rows]: which rows belong to some documents and are not deleted."""
        top = max((int(part.segment.keys.max(initial=0)) for part in self.parts), default=0)
        wanted = np.zeros(top + 1, np.bool_)
        wanted[keys[keys <= top]] = True
        mask = np.empty(self.rows, np.bool_)
        for part in self.parts:
            wanted.take(part.segment.keys, out=mask[part.first : part.first + part.rows])
        mask[self.dead] = False
        return mask

    def gather(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8] | NDArray[np.uint64], NDArray[np.uint32]]:
        """Codes and keys of rows, compared with their checks.

        Args:
            rows: int64[n], ascending.

        Returns:
            The codes as ``codes.Scorer`` takes them, uint8[n, stride], or uint64[columns of bits, n] of
            codes that are kept as planes; and uint32[n].
        """
        layout = self.layout
        codes: NDArray[np.uint8] | NDArray[np.uint64]
        if layout.stride:
            codes = np.empty((len(rows), layout.stride), np.uint8)
        else:
            codes = np.empty((layout.planes * layout.words, len(rows)), np.uint64)
        keys = np.empty(len(rows), np.uint32)
        borders = np.searchsorted(rows, [part.first + part.rows for part in self.parts]).tolist()
        start = 0
        for number, stop in enumerate(borders):
            if start < stop:
                some = slice(start, stop)
                place = codes[some] if layout.stride else codes[:, some]
                self._gather_part(number, rows[some], place, keys[some])
            start = stop
        return codes, keys

    def gather_levels(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int8], NDArray[np.uint32]]:
        """Levels of codes (``codes.unpack``) and keys of rows, compared with their checks.

        Args:
            rows: int64[n], ascending.

        Returns:
            int8[n, dim] and uint32[n].
        """
        layout = self.layout
        codes, keys = self.gather(rows)
        return layout.packing.unpack(layout.stored(codes), layout.dim), keys

    def gather_bits(self, rows: NDArray[np.int64], words: int) -> NDArray[np.uint64]:
        """The first words of rows' 1-bit codes, as the columns hold them: uint64[words, n]."""
        bits = np.empty((words, len(rows)), np.uint64)
        start = 0
        for part in self.parts:
            stop = int(np.searchsorted(rows, part.first + part.rows))
            if start < stop:
                local = rows[start:stop] - part.first
                for word in range(words):
                    part.segment.bits[word].take(local, out=bits[word, start:stop])
            start = stop
        return bits

    def _gather_part(
        self,
        number: int,
        rows: NDArray[np.int64],
        codes: NDArray[np.uint8] | NDArray[np.uint64],
        keys: NDArray[np.uint32],
    ) -> None:
        part = self.parts[number]
        local = rows - part.first
        try:
            if self.layout.stride:
                _take_codes(part.segment.codes, local, codes)
            else:
                for word, column in zip(codes, part.segment.bits, strict=True):
                    column.take(local, out=word)
            take_rows(part.segment.keys, local, keys)
            sound = not part.checked or self._agrees(part, rows, codes, keys)
        except CodeFileError:  # cut short, or its medium fails
            sound = False
        if not sound:
            self.repair(number)
            self._gather_part(number, rows, codes, keys)

    def _agrees(
        self,
        part: CodeBlock,
        rows: NDArray[np.int64],
        codes: NDArray[np.uint8] | NDArray[np.uint64],
        keys: NDArray[np.uint32],
    ) -> bool:
        return bool((row_checks(codes, keys, rows) == part.segment.checks[rows - part.first]).all())

    def leave_out(self, rows: NDArray[np.int64]) -> None:
        """Treat rows as deleted: damage has lost them."""
        if len(rows):
            self.dead = np.union1d(self.dead, rows)

    def repair(self, number: int) -> None:
        """Take the rows of a part from SQLite instead of the file."""
        part = self.parts[number]
        part.segment = self._load(part.first, part.first + part.rows)
        part.checked = False
        self.repaired += 1


def _take_codes(codes: Codes, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Copy rows of a segment's codes, wherever they are."""
    if isinstance(codes, np.ndarray):
        take_rows(codes, rows, out)
    else:
        codes.take(rows, 0, out)
