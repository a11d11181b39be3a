"""Keeps a store's code file in sync with its database, and makes code tables from both.

New rows wait in SQLite and are written to the file many at a time. So a commit of documents costs what
SQLite alone would, which spares SD cards. The database holds how many rows of which file count, and the
checksums of its columns; a file that does not agree is made again from the database.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.errors import DamagedError, OutOfMemoryError, StoreError
from edge_mrl.store.codefile.column import CodeFileError
from edge_mrl.store.codefile.file import (
    GENERATION_BYTES,
    SEGMENT_ROWS,
    CodeFile,
    ForeignFileError,
    Layout,
    Segment,
    code_path,
    require_ours,
)
from edge_mrl.store.codefile.kept import KeptRows
from edge_mrl.store.codefile.state import State, read_dead, read_state, write_state
from edge_mrl.store.codefile.table import CodeBlock, CodeTable
from edge_mrl.store.engine.explaining import reporting
from edge_mrl.store.engine.transactions import transaction
from edge_mrl.store.records import Binding, passage_check
from edge_mrl.store.statements import insert_row

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CodeCache"]

#: Rows that wait in SQLite before they go to the file. Reading them again after a commit takes some
#: 3 ms; filing them costs two syncs, once for so many rows.
STAGE_ROWS = 4_096


def _sound(first: int, key: Any, rows: Any, crc: Any, spans: Any, codes: Any, *, size: int) -> bool:
    """Whether a row of ``passages`` is what was stored; ``size`` is the bytes of a code."""
    if not isinstance(spans, bytes) or not isinstance(codes, bytes):
        return False
    if not isinstance(rows, int) or not isinstance(key, int):
        return False
    return passage_check(first, key, rows, spans, codes) == crc and len(codes) == rows * size


class CodeCache:
    """The code file of one open store.

    Args:
        store: The store's file.
        connection: The store's connection, used under the store's lock.
        binding: What the codes are.
        names: Gives the ids of documents by key.
        writable: Whether the file may be created or changed.
    """

    def __init__(
        self,
        store: Path,
        connection: sqlite3.Connection,
        binding: Binding,
        names: Callable[[Sequence[int]], Mapping[int, str]],
        *,
        writable: bool,
    ) -> None:
        self.path = code_path(store)
        self.layout = Layout(binding.dim, SEGMENT_ROWS, binding.packing)
        #: Why the file is not read or written, in words; None if it is.
        self.problem: str | None = None
        self._store = store
        self._connection = connection
        self._names = names
        self._writable = writable
        self._file: CodeFile | None = None
        self._verified: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._state: State | None = None
        self._table: CodeTable | None = None
        self._dead = np.empty(0, np.int64)
        self._lost = np.empty(0, np.int64)
        self._unsound: set[int] = set()
        self._damaged = False
        self._retry_at = 0
        #: Rows that are not in the file, and those among them that were lost to damage.
        self._kept = KeptRows(self.layout, self.load)
        self._missed = np.empty(0, np.int64)
        #: The blocks of the file of a generation, up to a row.
        self._blocks: tuple[bytes, int, list[CodeBlock]] = (b"", 0, [])

    def table(self, state: State) -> CodeTable:
        """The codes at a state that a transaction shows.

        Raises:
            DamagedError: The database's own rows cannot be trusted.
        """
        self._damaged = self.damaged
        if self._table is not None and self._state == state:
            return self._table
        self._table = None
        self._dead = read_dead(self._connection)
        if not self._kept.keeps(state, state.filed):
            self._missed = np.empty(0, np.int64)
        self._lost, self._unsound = self._missed, set()
        waiting = self._kept.read(state)
        self._missed = np.setdiff1d(self._lost, self._dead)  # without those that are deleted
        parts = [*self._filed(state), *waiting]
        if len(self._dead) and self._dead[-1] >= state.next_row:
            raise DamagedError("rows are deleted that were never there")
        self._state = state
        return self._make_table(parts)

    def _make_table(self, parts: list[CodeBlock]) -> CodeTable:
        """A table of all rows but those that damage has lost, whose documents are found."""
        if np.setdiff1d(self._lost, self._dead).size:
            self._unsound.update(key for key in self.damaged_keys() if isinstance(key, int))
        table = CodeTable(self.layout, parts, self._dead, load=self.load, names=self._names)
        table.leave_out(self._lost)
        self._table = table
        return table

    @property
    def damaged(self) -> bool:
        """Whether damage was found in the file."""
        return self._damaged or (self._table is not None and self._table.repaired > 0)

    def heal(self) -> None:
        """Make the file again if it does not agree with the database. Call outside a transaction."""
        self._damaged = self.damaged
        state = read_state(self._connection)
        if state.filed and not self._damaged and not self._usable(state):
            self._damaged = True
        if self._damaged or state.next_row - state.filed >= 2 * STAGE_ROWS:
            self.roll()

    def keep_up(self, state: State) -> None:
        """Write waiting rows to the file if there are enough of them. Call outside a transaction."""
        if state.next_row - state.filed >= STAGE_ROWS:
            self.roll()

    def roll(self) -> bool:
        """Write all rows to the file, if that is possible now; the store works without it.

        Returns:
            Whether all rows are in the file.
        """
        if not self._writable:
            return False
        state = read_state(self._connection)
        if state.next_row < self._retry_at:
            return False
        try:
            with reporting(self._store), transaction(self._connection, "IMMEDIATE"):
                self._roll()
        except (OSError, CodeFileError, OutOfMemoryError, StoreError) as error:
            # A cache that cannot be written now: the rows stay where they are, in SQLite, and a put
            # that was committed has succeeded. Damaged rows are an error to whoever needs them.
            self.problem = f"{self.path.name}: {error}"
            self._retry_at = state.next_row + STAGE_ROWS
            self._forget()
            return False
        self.problem = None
        self._damaged = False
        return True

    def remove(self) -> None:
        """Remove the file, because rows got new numbers; who has it open can read it."""
        self._forget()
        self._retry_at = 0
        try:
            require_ours(self.path)
            self.path.unlink(missing_ok=True)
        except (OSError, ForeignFileError) as error:
            self.problem = f"{self.path.name}: {error}"

    def inspect(self, state: State) -> str | None:
        """Why the file is not in use, in words; None if it is in use or not needed yet."""
        if state.filed and self._usable(state):
            return None
        return self.problem if state.filed or self.problem else None

    def read_dead(self) -> None:
        """Read which rows are deleted. ``load`` needs it where ``table`` was not called before."""
        self._dead = read_dead(self._connection)
        self._lost, self._unsound = np.empty(0, np.int64), set()

    def damaged_keys(self) -> list[int]:
        """Keys of documents whose passages are not what was stored."""
        query = "SELECT first_row, document, rows, crc, spans, codes FROM passages"
        size = self.layout.code_bytes
        return [row[1] for row in self._connection.execute(query) if not _sound(*row, size=size)]

    def verify(self, state: State) -> list[str]:
        """Compare every row of the file with the database; returns what is wrong."""
        if not state.filed:
            return []
        if not self._usable(state) or self._file is None:
            return []  # it is behind: the next write makes it again
        self._dead = read_dead(self._connection)
        problems = []
        for first in range(0, state.filed, self.layout.rows):
            count = min(self.layout.rows, state.filed - first)
            try:
                filed = self._file.segment(first // self.layout.rows, count)
                codes = filed.all_codes(self.layout.stride)
            except CodeFileError as error:
                return [f"{self.path.name}: {error}"]
            wanted = self.load(first, first + count)
            live = np.ones(count, np.bool_)
            live[self._dead[(self._dead >= first) & (self._dead < first + count)] - first] = False
            wrong = (codes != wanted.all_codes(self.layout.stride)).any(axis=1)
            wrong |= filed.keys != wanted.keys
            wrong |= (filed.bits != wanted.bits).any(axis=0) | (filed.checks != wanted.checks)
            live[self._lost[(self._lost >= first) & (self._lost < first + count)] - first] = False
            if (wrong & live).any():
                rows = int((wrong & live).sum())
                problems.append(f"{self.path.name}: {rows} rows from {first} on are damaged")
        self._damaged = self._damaged or bool(problems)
        return problems

    def load(self, first: int, after: int) -> Segment:
        """Read rows from SQLite; deleted ones are zeros, and so are those that damage has lost.

        Raises:
            DamagedError: Two documents have the same row, or one has a deleted row.
        """
        starts, counts, keys_of, blobs = self._passages(first, after)
        numbers = np.arange(counts.sum()) + np.repeat(starts - np.cumsum(counts) + counts, counts)
        inside = (numbers >= first) & (numbers < after)
        places = numbers[inside] - first
        covered = np.bincount(places, minlength=after - first)
        if (covered > 1).any():
            raise DamagedError(f"two documents have row {first + int(np.argmax(covered))}")
        codes = np.zeros((after - first, self.layout.code_bytes), np.uint8)
        keys = np.zeros(after - first, np.uint32)
        codes[places] = blobs[inside]
        keys[places] = np.repeat(keys_of, counts)[inside]
        dead = self._dead[(self._dead >= first) & (self._dead < after)] - first
        if covered[dead].any():
            raise DamagedError(
                f"row {first + int(dead[covered[dead] > 0][0])} is deleted and is not"
            )
        covered[dead] = 1
        self._lost = np.union1d(self._lost, np.flatnonzero(covered == 0) + first)
        return self.layout.pack(codes, keys, first)

    @property
    def lost(self) -> NDArray[np.int64]:
        """int64: rows read so far that belong to no sound document, though they are not deleted."""
        return self._lost

    @property
    def unsound(self) -> set[int]:
        """Keys of documents whose passages were read and are not what was stored."""
        return self._unsound

    def close(self) -> None:
        """Close the file."""
        self.undone()
        self._forget()

    def _passages(
        self, first: int, after: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        """First rows, numbers of rows and keys of the documents in some rows, and all their codes.

        Documents whose passages are not what was stored are left out, and noted.
        """
        query = (
            "SELECT first_row, document, rows, crc, spans, codes FROM passages WHERE first_row < ? "
            "AND first_row >= ifnull((SELECT max(first_row) FROM passages WHERE first_row <= ?), 0) "
            "ORDER BY first_row"
        )
        size = self.layout.code_bytes
        found = []
        for row in self._connection.execute(query, (after, first)):
            if _sound(*row, size=size):
                found.append(row)
            elif isinstance(row[1], int):
                self._unsound.add(row[1])
        starts, keys, counts = (
            np.array([row[column] for row in found], np.int64) for column in range(3)
        )
        codes = np.frombuffer(b"".join([row[5] for row in found]), np.uint8)
        return starts, counts, keys, codes.reshape(-1, size)

    def _filed(self, state: State) -> list[CodeBlock]:
        generation, filed, blocks = self._blocks
        if (generation, filed) == (state.generation, state.filed) and self._file is not None:
            return blocks
        blocks = self._filed_anew(state)
        if all(block.checked for block in blocks):
            self._blocks = state.generation, state.filed, blocks
        return blocks

    def _filed_anew(self, state: State) -> list[CodeBlock]:
        usable = bool(state.filed) and self._usable(state)
        parts = []
        for first in range(0, state.filed, self.layout.rows):
            count = min(self.layout.rows, state.filed - first)
            segment = self._read(first // self.layout.rows, count) if usable else None
            if segment is None:
                self._damaged = True
                parts.append(CodeBlock(first, self.load(first, first + count), checked=False))
            else:
                parts.append(CodeBlock(first, segment, checked=True))
        return parts

    def _read(self, number: int, rows: int) -> Segment | None:
        """A segment of the file whose columns have the right checksums, or None."""
        if self._file is None:
            return None
        try:
            segment = self._file.segment(number, rows)
        except CodeFileError:
            return None
        done, sums = self._verified.get(number, (0, (0,) * self.layout.columns))
        if done > rows:  # an older state than the one seen before: start over
            done, sums = 0, (0,) * self.layout.columns
        if done < rows:
            sums = segment.checksums(done, rows, sums)
            if sums != self._checksums(number):
                self._file.forget(number)
                return None
            self._verified[number] = (rows, sums)
        return segment

    def _checksums(self, number: int) -> tuple[int, ...]:
        query = "SELECT checksums FROM segments WHERE segment = ?"
        row = self._connection.execute(query, (number,)).fetchone()
        (sums,) = row or (b"",)
        if len(sums) != 4 * self.layout.columns:
            return ()
        return struct.unpack(f"<{self.layout.columns}I", sums)

    def _usable(self, state: State) -> bool:
        """Whether the file of the state's generation is open or could be opened."""
        if self._file is not None and self._file.generation == state.generation:
            return True
        self._forget_file()
        try:
            self._file = CodeFile.open(self.path, self.layout, state.generation)
        except CodeFileError as error:
            self.problem = f"{self.path.name}: {error}"
            return False
        return True

    def _roll(self) -> None:
        bound = self._connection.execute("SELECT dim, stored FROM binding").fetchone()
        if bound != (self.layout.dim, self.layout.packing.kind):
            return  # another process has just changed the bundle; its codes are its own to file
        state = read_state(self._connection)
        self._dead = read_dead(self._connection)
        if self._damaged or not state.filed or not self._intact(state):
            self._rebuild(state)
            return
        file = CodeFile.open(self.path, self.layout, state.generation, write=True)
        try:
            self._append(file, state.filed, state.next_row)
            file.sync()
        finally:
            file.close()
        write_state(self._connection, replace(state, filed=state.next_row))

    def _intact(self, state: State) -> bool:
        """Whether the rows of the last segment, which are added to, have the right checksums."""
        number, rows = divmod(state.filed, self.layout.rows)
        return self._usable(state) and (not rows or self._read(number, rows) is not None)

    def _rebuild(self, state: State) -> None:
        generation = os.urandom(GENERATION_BYTES)
        file = CodeFile.create(self.path, self.layout, generation)
        try:
            self._connection.execute("DELETE FROM segments")
            self._append(file, 0, state.next_row)
            self._forget()
            file.install(self.path)
        except BaseException:
            file.discard()
            raise
        write_state(self._connection, replace(state, filed=state.next_row, generation=generation))

    def _append(self, file: CodeFile, first: int, after: int) -> None:
        size = self.layout.rows
        while first < after:
            number, done = divmod(first, size)
            stop = min(after, (number + 1) * size)
            sums = self._checksums(number) if done else (0,) * self.layout.columns
            rows = self.load(first, stop)
            if len(self._lost) and self._lost[-1] >= first:
                raise DamagedError("some of its passages are not what was stored")
            file.append(rows, first)
            sums = rows.checksums(0, stop - first, sums)
            data = struct.pack(f"<{self.layout.columns}I", *sums)
            row = {"segment": number, "checksums": data}
            insert_row(self._connection, "segments", row, replace=True)
            first = stop

    def _forget(self) -> None:
        self._table = None
        self._state = None
        self._forget_file()

    def undone(self) -> None:
        """Forget what was read: a transaction that wrote, and may have read it back, was undone."""
        self._table = self._state = None
        self._kept.forget()
        self._missed = np.empty(0, np.int64)

    def _forget_file(self) -> None:
        self._verified.clear()
        self._blocks = (b"", 0, [])
        if self._file is not None:
            self._file.close()
            self._file = None
