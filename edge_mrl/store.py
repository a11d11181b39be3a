"""Documents, passages and codes in one SQLite file: durable, and bound to one space and code.

Nothing here knows of models: the store takes and gives codes as arrays.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from edge_mrl.codetable import CodeTable, lengths
from edge_mrl.documents import Document, clean
from edge_mrl.errors import BindingError, StoreError, UsageError
from edge_mrl.passages import PassageRule
from edge_mrl.schema import Fill, connect, reporting, transaction

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Binding", "Counts", "Entry", "Store", "text_hash"]

#: How long a write waits for another process's; they last milliseconds, a large batch a second.
BUSY_TIMEOUT_S = 10.0
#: Values in one statement; builds of SQLite may allow no more than 999.
SQL_PARAMETERS = 500


@dataclass(frozen=True, slots=True)
class Binding:
    """What a store's codes are. Codes of another space or code never enter it.

    Attributes:
        space_id: The embedding space.
        code_id: Head, dimensions and scale.
        dim: Dimensions of a code.
        scale: The value that the code 127 stands for.
        bundle: Absolute path of the bundle that was last used.
    """

    space_id: str
    code_id: str
    dim: int
    scale: float
    bundle: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A document, ready to be stored.

    Attributes:
        document: The document.
        spans: Offsets (start, end) of its n passages in its text, in characters.
        codes: int8[n, dim], one for each passage.
    """

    document: Document
    spans: Sequence[tuple[int, int]]
    codes: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Counts:
    """What a store holds."""

    documents: int
    passages: int


def text_hash(text: str) -> bytes:
    """SHA-256 of the text in UTF-8: the same hash means that nothing need be embedded again."""
    return hashlib.sha256(clean(text).encode("utf-8")).digest()


class Store:
    """A store's file, open. Safe to share between threads; processes share the file.

    Attributes:
        path: The file.
        binding: What its codes are.
        rule: How its documents are cut into passages.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.RLock()
        self._table: tuple[int, CodeTable] | None = None
        self.binding, self.rule, self._bundle_relative = self._read_binding()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        create: Callable[[], tuple[Binding, PassageRule]] | None = None,
        timeout_s: float = BUSY_TIMEOUT_S,
    ) -> Store:
        """Open a store.

        Args:
            path: The file.
            create: Called for what a new store is bound to, only if there is none. None: it must
                exist.
            timeout_s: How long to wait for another process's write.

        Raises:
            UsageError: There is no store and none is to be made.
            StoreError: The file cannot be used; see the classes below it.
        """
        file = Path(path)
        fill = None if create is None else partial(_fill, file, create)
        connection = connect(file, create=fill, timeout_s=timeout_s)
        try:
            return cls(file, connection)
        except BaseException:
            connection.close()
            raise

    def require(self, binding: Binding) -> None:
        """Check that codes of a bundle belong in this store, and remember where the bundle is.

        Raises:
            BindingError: They do not; the message names both bundles.
        """
        mine = self.binding
        if (binding.space_id, binding.code_id) != (mine.space_id, mine.code_id):
            what = "embedding space" if binding.space_id != mine.space_id else "code"
            raise BindingError(
                f"{self.path} was made with another {what}: its bundle is {mine.bundle} "
                f"({_describe(mine)}), not {binding.bundle} ({_describe(binding)}): "
                "use that bundle, or another --store"
            )
        if binding.bundle != mine.bundle:
            relative = _relative(binding.bundle, self.path)
            query = "UPDATE binding SET bundle = ?, bundle_relative = ?"
            with self._writing():
                self._connection.execute(query, (clean(binding.bundle), relative))
            self.binding, self._bundle_relative = binding, relative

    def bundle_candidates(self) -> list[Path]:
        """Where the bundle may be: where it was, seen from the store's folder, then absolutely."""
        known = Path(self.binding.bundle)
        if not self._bundle_relative:
            return [known]
        return [self.path.absolute().parent / self._bundle_relative, known]

    def put(
        self, entries: Sequence[Entry], *, unchanged: Sequence[Document] = ()
    ) -> list[Document]:
        """Store documents with their passages and codes, all in one transaction.

        Args:
            entries: Each replaces the document of its id, if there is one.
            unchanged: Documents whose text is stored already: only the metadata is written.

        Returns:
            Those of ``unchanged`` whose text is not stored any more, because another process has
            replaced or deleted it: they must be embedded after all.

        Raises:
            UsageError: Codes of the wrong type or shape, or metadata that JSON cannot carry.
            StoreError: Nothing was stored.
        """
        rows = [(entry, _metadata(entry.document), self._blob(entry)) for entry in entries]
        kept = [(document, _metadata(document)) for document in unchanged]
        stale = []
        with self._writing():
            for entry, metadata, blob in rows:
                self._put_entry(entry, metadata, blob)
            for document, metadata in kept:
                if not self._put_metadata(document, metadata):
                    stale.append(document)
            if rows:
                self._count_change()
        return stale

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents with their passages and codes; returns how many were there."""
        with self._writing():
            rows = [(i,) for i in _strings(ids)]
            query = "DELETE FROM documents WHERE id = ?"
            deleted = self._connection.executemany(query, rows).rowcount if rows else 0
            if deleted:
                self._count_change()
        return deleted

    def hashes(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Text hashes of those documents that are there."""
        return {row[0]: row[1] for row in self._select("id, hash", "id", ids)}

    def get(self, ids: Iterable[str]) -> dict[str, Document]:
        """Those of the documents that are there, by id."""
        rows = self._select("id, text, metadata", "id", list(_strings(ids)))
        return {row[0]: Document(row[0], row[1], json.loads(row[2])) for row in rows}

    def documents(self, keys: Sequence[int]) -> dict[int, Document]:
        """Those of the documents that are there, by key."""
        rows = self._select("key, id, text, metadata", "key", keys)
        return {row[0]: Document(row[1], row[2], json.loads(row[3])) for row in rows}

    def span(self, key: int, position: int) -> tuple[int, int]:
        """Offsets (start, end) of a document's passage."""
        query = "SELECT start, stop FROM passages WHERE document = ? AND position = ?"
        with self._lock, reporting(self.path):
            row = self._connection.execute(query, (key, position)).fetchone()
        if row is None:
            raise self._damaged(f"passage {position} of document {key} is missing")
        return row[0], row[1]

    def count(self) -> Counts:
        """Count documents and passages."""
        query = "SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM passages)"
        with self._lock, reporting(self.path):
            return Counts(*self._connection.execute(query).fetchone())

    def codes(self) -> CodeTable:
        """All codes; read again only after a change, whichever process made it."""
        with self.reading():
            changes = self._connection.execute("SELECT changes FROM binding").fetchone()[0]
            if self._table is None or self._table[0] != changes:
                self._table = None  # the old codes make room for the new ones
                self._table = (changes, self._read_codes())
            return self._table[1]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Show one state of the store throughout a block, whatever other processes write."""
        with self._lock, reporting(self.path):
            if self._connection.in_transaction:  # a block within a block
                yield
                return
            with transaction(self._connection, "DEFERRED"):
                yield

    def close(self) -> None:
        """Close the file; the last one to do so folds the write-ahead log into it."""
        with self._lock, reporting(self.path):
            self._table = None
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        # IMMEDIATE takes the write lock first: a transaction that starts by reading could not wait.
        with self._lock, reporting(self.path), transaction(self._connection, "IMMEDIATE"):
            yield

    def _count_change(self) -> None:
        self._connection.execute("UPDATE binding SET changes = changes + 1")

    def _put_entry(self, entry: Entry, metadata: str, blob: bytes) -> None:
        document, execute = entry.document, self._connection.execute
        execute(
            "INSERT INTO documents (id, text, metadata, hash) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET "
            "text = excluded.text, metadata = excluded.metadata, hash = excluded.hash",
            (document.id, document.text, metadata, text_hash(document.text)),
        )
        key = execute("SELECT key FROM documents WHERE id = ?", (document.id,)).fetchone()[0]
        execute("DELETE FROM passages WHERE document = ?", (key,))
        self._connection.executemany(
            "INSERT INTO passages VALUES (?, ?, ?, ?)",
            [(key, position, *span) for position, span in enumerate(entry.spans)],
        )
        execute("INSERT OR REPLACE INTO codes VALUES (?, ?)", (key, blob))

    def _put_metadata(self, document: Document, metadata: str) -> bool:
        """Write the metadata of a document if its text is still this one."""
        where = (document.id, text_hash(document.text))
        query = "SELECT metadata FROM documents WHERE id = ? AND hash = ?"
        row = self._connection.execute(query, where).fetchone()
        if row is not None and row[0] != metadata:
            update = "UPDATE documents SET metadata = ? WHERE id = ? AND hash = ?"
            self._connection.execute(update, (metadata, *where))
        return row is not None

    def _blob(self, entry: Entry) -> bytes:
        shape = (len(entry.spans), self.binding.dim)
        if entry.codes.dtype != np.int8 or entry.codes.shape != shape:
            raise UsageError(
                f"codes of document {entry.document.id!r} are "
                f"{entry.codes.dtype}{list(entry.codes.shape)}, expected int8{list(shape)}"
            )
        return entry.codes.tobytes()

    def _select(self, columns: str, by: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        with self._lock, reporting(self.path):
            for first in range(0, len(values), SQL_PARAMETERS):
                some = values[first : first + SQL_PARAMETERS]
                marks = ",".join("?" * len(some))
                query = f"SELECT {columns} FROM documents WHERE {by} IN ({marks})"  # noqa: S608 - own names
                rows += self._connection.execute(query, some).fetchall()
        return rows

    def _read_codes(self) -> CodeTable:
        dim, buffer = self.binding.dim, bytearray()
        keys, starts = [], []
        query = "SELECT document, codes FROM codes ORDER BY document"
        for key, blob in self._connection.execute(query):
            if len(blob) % dim:
                raise self._damaged(f"{len(blob)} bytes of codes, no multiple of {dim}")
            if blob:
                keys.append(key)
                starts.append(len(buffer) // dim)
                buffer += blob
        codes = np.frombuffer(buffer, np.int8).reshape(-1, dim)
        key_array = np.array(keys, np.int64)
        ranks = self._read_ranks(key_array)
        return CodeTable(codes, lengths(codes), np.array(starts, np.int64), key_array, ranks)

    def _read_ranks(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64: the place of each key's document in the order of ids."""
        rows = self._connection.execute("SELECT key FROM documents ORDER BY id").fetchall()
        by_id = np.array([row[0] for row in rows], np.int64)
        order = np.argsort(by_id)
        places = np.searchsorted(by_id, keys, sorter=order)
        ranks = order[np.minimum(places, len(order) - 1)] if len(order) else places
        if len(keys) and (not len(order) or (by_id[ranks] != keys).any()):
            raise self._damaged("there are codes without a document")
        return ranks

    def _read_binding(self) -> tuple[Binding, PassageRule, str]:
        query = (
            "SELECT space_id, code_id, dim, scale, bundle, passage_tokens, passage_overlap, "
            "bundle_relative FROM binding"
        )
        with reporting(self.path):
            row = self._connection.execute(query).fetchone()
        if row is None:
            raise self._damaged("its binding is missing")
        return Binding(*row[:5]), PassageRule(*row[5:7]), row[7]

    def _damaged(self, what: str) -> StoreError:
        return StoreError(f"{self.path} is damaged ({what}): restore a copy, or make it again")


def _fill(path: Path, create: Callable[[], tuple[Binding, PassageRule]]) -> Fill:
    binding, rule = create()
    return lambda connection: _bind(connection, path, binding, rule)


def _bind(connection: sqlite3.Connection, path: Path, binding: Binding, rule: PassageRule) -> None:
    bound = (binding.space_id, binding.code_id, binding.dim, binding.scale, clean(binding.bundle))
    row = (1, *bound, _relative(binding.bundle, path), rule.max_tokens, rule.overlap, 0)
    connection.execute("INSERT INTO binding VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def _relative(bundle: str, path: Path) -> str:
    """The bundle seen from the store's folder, so that both can move together; "" if it is far."""
    try:
        return clean(os.path.relpath(bundle, path.absolute().parent))
    except ValueError:  # another drive
        return ""


def _describe(binding: Binding) -> str:
    return f"space {binding.space_id[:12]}, code {binding.code_id[:12]}, {binding.dim} dimensions"


def _metadata(document: Document) -> str:
    values = dict(document.metadata)
    try:
        return clean(json.dumps(values, ensure_ascii=False, allow_nan=False, sort_keys=True))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"metadata of document {document.id!r} is not JSON: {error}") from error


def _strings(values: Iterable[str]) -> Iterator[str]:
    if isinstance(values, str | bytes):
        raise TypeError("ids is a single string: pass a list of strings, e.g. [id]")
    yield from values
