"""Documents, passages and codes in one SQLite file: durable, and bound to one space and code.

Nothing here knows of models: the store takes and gives codes as arrays.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge_mrl.documents import Document, PassageRule, clean
from edge_mrl.errors import (
    BindingError,
    DamagedError,
    StoreBusyError,
    StoreError,
    UsageError,
)
from edge_mrl.search import Funnel
from edge_mrl.store.codefile.cache import CodeCache, State, bury, read_dead, read_state, write_state
from edge_mrl.store.file import Fill, connect, reporting, transaction
from edge_mrl.store.filters import field_rows
from edge_mrl.store.records import (
    KEEP_FULL,
    Binding,
    Counts,
    Entry,
    checksum,
    decode_metadata,
    decode_packing,
    document_check,
    encode_codes,
    encode_full,
    encode_metadata,
    encode_packing,
    encode_spans,
    text_hash,
)
from edge_mrl.store.replica.outbox import Change, note, queue_bytes, read_enrollment
from edge_mrl.store.view import DOCUMENT_COLUMNS, FUNNEL, View, read_document, select_rows

__all__ = ["Binding", "Counts", "Entry", "Store", "bind", "text_hash"]

#: How long a write waits for another process's; they last milliseconds, a large batch a second.
BUSY_TIMEOUT_S = 10.0
_NO_TEXT = text_hash("")
#: Keys are 32-bit in the code file. A key is used once: this is four billion changed documents.
MAX_KEY = 2**32 - 1


class Store:
    """A store's file, open. Safe to share between threads; processes share the file.

    Attributes:
        path: The file.
        binding: What its codes are.
        rule: How its documents are cut into passages.
        keep_full: What it keeps of full vectors: None, "until-synced", "fp16" or "int8".
        writable: False for a store on a medium that cannot be written.
    """

    binding: Binding
    rule: PassageRule
    keep_full: str | None

    def __init__(self, path: Path, connection: sqlite3.Connection, *, writable: bool) -> None:
        self.path = path
        self.writable = writable
        self._connection = connection
        self._log = path.with_name(f"{path.name}-wal")
        self._had_log = _has_bytes(self._log)
        self._lock = threading.RLock()
        self._bundle_relative = ""
        self._read_binding()
        self._cache = self._new_cache()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        create: Callable[[], tuple[Binding, PassageRule]] | None = None,
        keep_full: str | None = None,
        timeout_s: float = BUSY_TIMEOUT_S,
    ) -> Store:
        """Open a store.

        A store that this process may not write, or that lies on a read-only medium, is opened to
        be read.

        Args:
            path: The file.
            create: Called for what a new store is bound to, only if there is none. None: it must
                exist.
            keep_full: What a new store keeps of full vectors.
            timeout_s: How long to wait for another process's write.

        Raises:
            UsageError: There is no store and none is to be made, or it cannot keep full vectors.
            StoreError: The file cannot be used; see the classes below it.
        """
        file = Path(path)
        if keep_full not in KEEP_FULL:
            raise UsageError(f"keep_full is {keep_full!r}, expected one of {KEEP_FULL}")
        fill = None if create is None else partial(_fill, file, create, keep_full)
        connection, writable = connect(file, create=fill, timeout_s=timeout_s)
        try:
            return cls(file, connection, writable=writable)
        except DamagedError as error:
            connection.close()
            raise _named(file, error) from error
        except BaseException:
            connection.close()
            raise

    @property
    def cache_problem(self) -> str | None:
        """Why the code file is not used or written; None if all is well."""
        return self._cache.problem

    def require(self, binding: Binding) -> None:
        """Check that codes of a bundle belong in this store, and remember where the bundle is.

        Raises:
            BindingError: They do not; the message names both bundles.
        """
        mine = self.binding
        if binding.code != mine.code:
            what = "embedding space" if binding.space_id != mine.space_id else "code"
            raise BindingError(
                f"{self.path} was made with another {what}: its bundle is {mine.bundle} "
                f"({_describe(mine)}), not {binding.bundle} ({_describe(binding)}): "
                "use that bundle, or another --store, or change this one with `edge-mrl reindex`"
            )
        if binding.bundle != mine.bundle and self.writable:
            relative = _relative(binding.bundle, self.path)
            query = "UPDATE binding SET bundle = ?, bundle_relative = ?"
            with self.writing():
                self._connection.execute(query, (clean(binding.bundle), relative))
            self.binding = replace(mine, bundle=binding.bundle)
            self._bundle_relative = relative

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
            entries: Each replaces the document of its id, if there is one; of several with one id
                the last counts.
            unchanged: Documents whose text is stored already: only metadata and source are written.

        Returns:
            Those of ``unchanged`` whose text is not stored any more, because another process has
            replaced or deleted it: they must be embedded after all.

        Raises:
            UsageError: Codes of the wrong type or shape, or metadata that JSON cannot carry.
            BindingError: Another process has changed the store's bundle.
            StoreError: Nothing was stored.
        """
        by_id = {entry.document.id: entry for entry in entries}
        rows = [_Row(entry, self.binding, self.keep_full) for entry in by_id.values()]
        kept = [(document, encode_metadata(document)) for document in unchanged]
        with self.writing() as state:
            self._require_unchanged()
            self._keep_within_bounds(rows)
            after = self._put_rows(rows, state)
            changed: list[str] = []
            stale = [pair[0] for pair in kept if not self._put_metadata(*pair, changed)]
            self._note([(row.document.id, row.size_bytes) for row in rows], changed)
            if rows:
                write_state(self._connection, replace(after, changes=state.changes + 1))
        with self._lock, self._reporting():
            self._cache.keep_up(after)
        return stale

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents with all that belongs to them; returns how many were there."""
        names = list(dict.fromkeys(_strings(ids)))
        with self.writing() as state:
            rows = self._select("key, id", "id", names)
            keys = [key for key, _ in rows]
            gone = [Change(name, deleted=True) for _, name in rows]
            self._remove(keys)
            note(self._connection, gone)
            if keys:
                write_state(self._connection, replace(state, changes=state.changes + 1))
        return len(keys)

    def take(
        self, decide: Callable[[sqlite3.Connection], tuple[Sequence[Entry], Sequence[str]]]
    ) -> None:
        """Store what another device wrote, in one transaction; nothing of it is queued.

        Args:
            decide: Called within the transaction; returns documents to put and ids to delete. What
                else it writes is part of the transaction.

        Raises:
            UsageError: Codes of the wrong type or shape.
            BindingError: Another process has changed the store's bundle.
            StoreError: Nothing was stored.
        """
        with self.writing() as state:
            self._require_unchanged()
            entries, gone = decide(self._connection)
            keys = [row[0] for row in self._select("key", "id", gone)]
            self._remove(keys)
            rows = [_Row(entry, self.binding, self._kept_of_others) for entry in entries]
            after = self._put_rows(rows, state)
            if rows or keys:
                write_state(self._connection, replace(after, changes=state.changes + 1))
        with self._lock, self._reporting():
            self._cache.keep_up(after)

    def forget_full(self, ids: Iterable[str]) -> int:
        """Delete the full vectors of documents that a server has; returns of how many.

        Only where ``keep_full`` is "until-synced".
        """
        if self.keep_full != "until-synced":
            return 0
        with self.writing():
            keys = [row[0] for row in self._select("key", "id", list(_strings(ids)))]
            query = "DELETE FROM fulls WHERE document = ?"
            done = self._connection.executemany(query, [(key,) for key in keys])
            return max(done.rowcount, 0) if keys else 0

    def hashes(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Text hashes of those documents that are there with their text.

        One that came from another device without it has another text than the empty one it shows.
        """
        with self._lock, self._reporting():
            rows = self._select("id, hash, key", "id", ids)
            empty = [key for _, digest, key in rows if digest == _NO_TEXT]
            without = {row[0] for row in self._select("document", "document", empty, "passages")}
            return {name: digest for name, digest, key in rows if key not in without}

    def get(self, ids: Iterable[str]) -> dict[str, Document]:
        """Those of the documents that are there, by id, in the order asked for.

        Raises:
            DamagedError: One is not what was put.
        """
        names = list(_strings(ids))
        with self._lock, self._reporting():
            rows = self._select(DOCUMENT_COLUMNS, "id", names)
            found = {row[1]: read_document(row) for row in rows}
        return {name: found[name] for name in names if name in found}

    def ids(self, keys: Sequence[int]) -> dict[int, str]:
        """Ids of documents by key."""
        with self._lock, self._reporting():
            return self._ids(keys)

    def keys(self, ids: Sequence[str]) -> dict[int, str]:
        """Ids by key, of those documents that are there."""
        with self._lock, self._reporting():
            return dict(self._select("key, id", "id", ids))

    def ids_of_sources(self) -> Iterator[tuple[str, str]]:
        """Ids and sources of the documents that were read from files, in parts, by source."""
        query = (
            "SELECT source, key, id FROM documents WHERE source IS NOT NULL AND (source, key) > "
            "(?, ?) ORDER BY source, key LIMIT 1000"
        )
        at = ("", -1)
        while True:
            with self._lock, self._reporting():
                rows = self._connection.execute(query, at).fetchall()
            if not rows:
                return
            yield from ((name, source) for source, _, name in rows)
            at = rows[-1][:2]

    def count(self) -> Counts:
        """Count documents and passages."""
        with self._lock, self._reporting(), self._one_state():
            documents = self._connection.execute("SELECT count(*) FROM documents").fetchone()[0]
            # Adding up the rows of all passages would read them all.
            passages = read_state(self._connection).next_row - len(read_dead(self._connection))
            return Counts(documents, passages)

    @contextmanager
    def reading(self) -> Iterator[View]:
        """Show one state of the store throughout a block, whatever other processes write."""
        with self._lock, self._reporting():
            if self._connection.in_transaction:  # a block within a block
                yield self._view()
                return
            if not self.writable and not self._had_log and _has_bytes(self._log):
                raise StoreBusyError(f"{self.path} is being written now: open it again to read it")
            self._follow_binding()
            self._cache.heal()
            with transaction(self._connection, "DEFERRED"):
                self._follow_binding()
                yield self._view()
            if self._cache.damaged:
                self._cache.heal()

    @contextmanager
    def writing(self) -> Iterator[State]:
        """Run a block in one transaction that writes; gives the state at its start."""
        if not self.writable:
            raise StoreError(f"{self.path} cannot be written: it, or its medium, is read-only")
        # IMMEDIATE takes the write lock first: a transaction that starts by reading could not wait.
        with self._lock, self._reporting(), transaction(self._connection, "IMMEDIATE"):
            yield read_state(self._connection)

    @contextmanager
    def locked(self) -> Iterator[tuple[sqlite3.Connection, CodeCache]]:
        """Lend the connection and the code file, for maintenance."""
        with self._lock, self._reporting():
            yield self._connection, self._cache

    def tune(self, funnel: Funnel | None) -> None:
        """Remember stages for searches, until the bundle is changed; None for the default ones.

        Raises:
            UsageError: The store's codes cannot be searched so.
        """
        with self.writing():
            self._follow_binding()
            self._connection.execute("DELETE FROM settings WHERE name = ?", (FUNNEL,))
            if funnel is not None:
                funnel.check(self._cache.layout)
                if funnel.rescored is not None and self.keep_full is None:
                    raise UsageError(f"the funnel {funnel} ends with full vectors: none are kept")
                row = (FUNNEL, str(funnel), checksum(FUNNEL, str(funnel)))
                self._connection.execute("INSERT INTO settings VALUES (?, ?, ?)", row)

    def refresh(self) -> None:
        """Read the binding again, after it was changed."""
        with self._lock, self._reporting():
            self._follow_binding()

    def close(self) -> None:
        """Close the file; the last one to do so folds the write-ahead log into it."""
        with self._lock, reporting(self.path):
            self._cache.close()
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
    def _one_state(self) -> Iterator[None]:
        """Run a block in a transaction that reads, its own or the one that is open."""
        if self._connection.in_transaction:
            yield
            return
        with transaction(self._connection, "DEFERRED"):
            yield

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn SQLite's errors into ours, and name the file in those about damage."""
        try:
            with reporting(self.path):
                yield
        except DamagedError as error:
            raise _named(self.path, error) from error

    def _view(self) -> View:
        return View(self._connection, self._cache, self.binding, self.keep_full)

    def _new_cache(self) -> CodeCache:
        return CodeCache(
            self.path, self._connection, self.binding, self._ids, writable=self.writable
        )

    def _ids(self, keys: Sequence[int]) -> dict[int, str]:
        found = {row[0]: row[1] for row in self._select("key, id", "key", keys)}
        if len(found) < len(set(keys)):
            raise DamagedError("there are codes without a document")
        return found

    def _put_rows(self, rows: list[_Row], state: State) -> State:
        known = dict(self._select("id, key", "id", [row.document.id for row in rows]))
        self._remove(list(known.values()))
        key, first = state.next_key, state.next_row
        for row in rows:
            row.first_row = first
            first += row.passages
            row.key = known.get(row.document.id, key)
            key += row.key == key
        if key > MAX_KEY or first > MAX_KEY:
            raise StoreError(f"{self.path} has used all its keys: make it again")
        execute = self._connection.executemany
        execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)", [r.documents() for r in rows])
        execute(
            "INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?)",
            [row.passage_row() for row in rows if row.passages],
        )
        execute(
            "INSERT INTO fulls VALUES (?, ?, ?)",
            [(r.key, zlib.crc32(r.full, r.key), r.full) for r in rows if r.full is not None],
        )
        execute("INSERT INTO fields VALUES (?, ?, ?, ?)", [f for row in rows for f in row.fields()])
        execute(
            "INSERT INTO keywords (rowid, text) VALUES (?, ?)",
            [(row.key, row.document.text) for row in rows],
        )
        return replace(state, next_key=key, next_row=first)

    def _remove(self, keys: Sequence[int]) -> None:
        """Delete documents with passages, codes, fields, keywords and full vectors."""
        rows = self._select("first_row, rows", "document", keys, table="passages")
        bury(self._connection, rows)
        for key, text, metadata in self._select("key, text, metadata", "key", keys):
            self._connection.execute(
                "INSERT INTO keywords (keywords, rowid, text) VALUES ('delete', ?, ?)", (key, text)
            )
            self._remove_fields(key, metadata)
        query = "DELETE FROM documents WHERE key = ?"
        self._connection.executemany(query, [(key,) for key in keys])

    def _remove_fields(self, key: int, metadata: str) -> None:
        try:
            rows = field_rows(decode_metadata(metadata))
        except ValueError:  # damaged: a search by them can only find nothing, and `check` says so
            rows = []
        query = "DELETE FROM fields WHERE name = ? AND kind = ? AND value = ? AND document = ?"
        self._connection.executemany(query, [(*row, key) for row in rows])

    @property
    def _kept_of_others(self) -> str | None:
        """What is kept of the full vectors of other devices' documents: the server has them."""
        return None if self.keep_full == "until-synced" else self.keep_full

    def _keep_within_bounds(self, rows: list[_Row]) -> None:
        """Leave the vectors out that would make the queue too large; they can be made again."""
        enrollment = read_enrollment(self._connection) if rows else None
        if enrollment is None or self.keep_full != "until-synced":
            return
        room = enrollment.max_queue - queue_bytes(self._connection)
        for row in rows:
            if row.size_bytes > room:
                row.full = None
            room -= row.size_bytes

    def _note(self, written: list[tuple[str, int]], changed: list[str]) -> None:
        """Queue documents that were written, and those of whom other metadata is to be sent."""
        changes = [Change(name, deleted=False, size_bytes=size) for name, size in written]
        enrollment = read_enrollment(self._connection) if changed else None
        if enrollment is not None and enrollment.with_text:
            for name in changed:
                query = (
                    "SELECT ifnull(max(length(vectors)), 0) FROM fulls JOIN documents "
                    "ON key = document WHERE id = ?"
                )
                size = self._connection.execute(query, (name,)).fetchone()[0]
                changes.append(Change(name, deleted=False, size_bytes=size))
        note(self._connection, changes)

    def _put_metadata(self, document: Document, metadata: str, changed: list[str]) -> bool:
        """Write metadata and source of a document if its text is still this one."""
        digest = text_hash(document.text)
        query = "SELECT key, metadata, source FROM documents WHERE id = ? AND hash = ?"
        row = self._connection.execute(query, (document.id, digest)).fetchone()
        if row is None:
            return False
        key, old, source = row
        if old != metadata:
            changed.append(document.id)
        if (old, source) != (metadata, document.source):
            self._remove_fields(key, old)
            crc = document_check(key, document.id, metadata, document.source, digest)
            self._connection.execute(
                "UPDATE documents SET metadata = ?, source = ?, crc = ? WHERE key = ?",
                (metadata, document.source, crc, key),
            )
            rows = [(*field, key) for field in field_rows(decode_metadata(metadata))]
            self._connection.executemany("INSERT INTO fields VALUES (?, ?, ?, ?)", rows)
        return True

    def _select(
        self, columns: str, by: str, values: Sequence[Any], table: str = "documents"
    ) -> list[tuple[Any, ...]]:
        return select_rows(self._connection, columns, by, values, table)

    def _require_unchanged(self) -> None:
        """Raise BindingError if the store's bundle is another one than when it was opened."""
        before = self.binding
        self._follow_binding()
        if self.binding.code != before.code:
            raise BindingError(
                f"{self.path} has been changed to another bundle, {self.binding.bundle} "
                f"({_describe(self.binding)}): put these documents again"
            )

    def _follow_binding(self) -> None:
        """Take over the binding if another process has changed it."""
        before = self.binding
        self._read_binding()
        if self.binding.code != before.code or self.binding.dim != before.dim:
            self._cache.close()
            self._cache = self._new_cache()

    def _read_binding(self) -> None:
        query = (
            "SELECT space_id, code_id, dim, scale, full_dim, keep_full, passage_tokens, "
            "passage_overlap, stored, step, centre, crc, bundle, bundle_relative FROM binding"
        )
        with reporting(self.path):
            row = self._connection.execute(query).fetchone()
        if row is None or checksum(*row[:11]) != row[11]:
            raise DamagedError("its binding cannot be trusted")
        packing = decode_packing(*row[8:11])
        self.binding = Binding(row[0], row[1], row[2], row[3], row[12], row[4], packing)
        self.keep_full = row[5]
        self.rule = PassageRule(*row[6:8])
        self._bundle_relative = row[13]


class _Row:
    """An entry as the values of its rows; its key and first row come last."""

    __slots__ = (
        "codes",
        "digest",
        "document",
        "first_row",
        "full",
        "key",
        "metadata",
        "passages",
        "spans",
    )

    def __init__(self, entry: Entry, binding: Binding, keep_full: str | None) -> None:
        self.document = entry.document
        self.metadata = encode_metadata(entry.document)
        self.digest = text_hash(entry.document.text)
        self.passages = len(entry.spans)
        self.spans = encode_spans(entry.spans)
        self.codes = encode_codes(entry, binding)
        self.full = _full_bytes(entry, binding, keep_full)
        self.key = self.first_row = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the full vectors that wait in the store."""
        return 0 if self.full is None else len(self.full)

    def documents(self) -> tuple[Any, ...]:
        document = self.document
        source = document.source
        crc = document_check(self.key, document.id, self.metadata, source, self.digest)
        return (self.key, document.id, self.metadata, source, self.digest, crc, document.text)

    def passage_row(self) -> tuple[Any, ...]:
        crc = zlib.crc32(self.spans, zlib.crc32(self.codes, self.key))
        return (self.first_row, self.key, self.passages, crc, self.spans, self.codes)

    def fields(self) -> list[tuple[Any, ...]]:
        if self.metadata == "{}":
            return []
        return [(*field, self.key) for field in field_rows(decode_metadata(self.metadata))]


def _full_bytes(entry: Entry, binding: Binding, keep_full: str | None) -> bytes | None:
    if keep_full is None or not entry.spans:
        return None
    shape = (len(entry.spans), binding.full_dim)
    if entry.full is None or entry.full.shape != shape:
        got = None if entry.full is None else list(entry.full.shape)
        raise UsageError(
            f"full vectors of document {entry.document.id!r} are {got}, "
            f"expected float32{list(shape)}: this store keeps them"
        )
    return encode_full(entry.full, keep_full)


def _fill(
    path: Path, create: Callable[[], tuple[Binding, PassageRule]], keep_full: str | None
) -> Fill:
    binding, rule = create()
    if keep_full is not None and binding.full_dim is None:
        raise UsageError(
            f"{path} cannot keep full vectors: the bundle {binding.bundle} gives none "
            "(it was exported with --coarse-only)"
        )

    def fill(connection: sqlite3.Connection) -> None:
        bind(connection, path, binding, rule, keep_full)
        write_state(connection, State(0, 1, 0, 0, b"\0" * 16))

    return fill


def bind(
    connection: sqlite3.Connection,
    path: Path,
    binding: Binding,
    rule: PassageRule,
    keep_full: str | None,
) -> None:
    """Write what a store is bound to."""
    head = (binding.space_id, binding.code_id, binding.dim, float(binding.scale), binding.full_dim)
    stored = encode_packing(binding.packing)
    bound = (*head, keep_full, rule.max_tokens, rule.overlap, *stored)
    connection.execute(
        "INSERT OR REPLACE INTO binding (id, space_id, code_id, dim, scale, full_dim, keep_full, "
        "passage_tokens, passage_overlap, stored, step, centre, bundle, bundle_relative, crc) "
        "VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*bound, clean(binding.bundle), _relative(binding.bundle, path), checksum(*bound)),
    )
    connection.execute("DELETE FROM settings WHERE name = ?", (FUNNEL,))  # tuned for other codes


def _has_bytes(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _relative(bundle: str, path: Path) -> str:
    """The bundle seen from the store's folder, so that both can move together; "" if it is far."""
    try:
        return clean(os.path.relpath(bundle, path.absolute().parent))
    except ValueError:  # another drive
        return ""


def _describe(binding: Binding) -> str:
    return f"space {binding.space_id[:12]}, code {binding.code_id[:12]}, {binding.dim} dimensions"


def _named(path: Path, error: DamagedError) -> DamagedError:
    """The error with the file's name and what to do, once."""
    text = str(error)
    if text.startswith(str(path)):
        return error
    return DamagedError(
        f"{path} is damaged ({text}): `edge-mrl check --store {path}` says what; restore a copy, or "
        "put the documents again"
    )


def _strings(values: Iterable[str]) -> Iterator[str]:
    if isinstance(values, str | bytes):
        raise TypeError("ids is a single string: pass a list of strings, e.g. [id]")
    yield from values
