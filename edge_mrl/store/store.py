"""Documents, passages and codes in one SQLite file, bound to one embedding space and code.

The store knows nothing of models: it takes and returns codes as arrays.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from edge_mrl.arguments import each_id, path_of
from edge_mrl.documents import Document, PassageRule, clean
from edge_mrl.errors import DamagedError
from edge_mrl.store.binding import (
    bound_anew,
    bound_to_other,
    fill_new,
    read_bound,
    relative_bundle,
    write_setting,
)
from edge_mrl.store.codefile.cache import CodeCache
from edge_mrl.store.codefile.memory import MemoryCache
from edge_mrl.store.codefile.state import State, read_dead, read_state, write_state
from edge_mrl.store.counting import Counting
from edge_mrl.store.engine.cipher import Key
from edge_mrl.store.engine.explaining import named_damage, reporting, unwritable
from edge_mrl.store.engine.readonly import Look
from edge_mrl.store.engine.transactions import one_state, transaction
from edge_mrl.store.file import Fill, Opened, connect
from edge_mrl.store.readers import Readers
from edge_mrl.store.records import Binding, Counts, Entry, encode_metadata
from edge_mrl.store.replica.outbox import Change, most_queued, note, note_put
from edge_mrl.store.rows import (
    EntryRows,
    Taking,
    leave_out_vectors,
    put_metadata,
    put_rows,
    remove_documents,
    remove_full,
    sound_hashes,
)
from edge_mrl.store.statements import select_rows
from edge_mrl.store.view import View, read_documents

__all__ = ["Store"]

#: How long a write waits for another process's; they last milliseconds, a large batch a second.
BUSY_TIMEOUT_S = 10.0


class Store:
    """An open store. Threads may share it; processes share the file.

    Attributes:
        path: The file.
        binding: What its codes are.
        rule: How its documents are split into passages.
        keep_full: What it keeps of full vectors: None, "until-synced", "fp16" or "int8".
        obstacle: Why it can only be read, such as a full card; else None. A write looks again.
        writable: Whether it can write.
        encrypted: Whether it is encrypted: then nothing of it is in a file in the clear.
    """

    binding: Binding
    rule: PassageRule
    keep_full: str | None

    def __init__(self, path: Path, opened: Opened) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._use(opened)
        self._readers = Readers(self)

    def _use(self, opened: Opened) -> None:
        self._opened, self._gone = opened, False
        self.obstacle, self.encrypted = opened.obstacle, opened.encrypted
        self.writable = opened.obstacle is None
        self.other, self.reader = opened.other, opened.reader
        self._connection = opened.connection
        self._counting = Counting(self._connection)
        self._bundle_relative = ""
        self._read_binding(mend=self.writable)
        self._cache = self._new_cache()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        timeout_s: float = BUSY_TIMEOUT_S,
        key: Key | None = None,
    ) -> Store:
        """Open a store; only to read it where this process cannot write the file or its folder.

        Args:
            path: The file.
            timeout_s: How long to wait for another process's write, in seconds.
            key: Gives the 32 bytes of an encrypted store's key; called once.

        Raises:
            NoStoreError: There is no store at this path.
            StoreError: The file cannot be used; see the classes below it.
        """
        return cls._connect(path_of("path", path), None, timeout_s, key)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        binding: Binding,
        rule: PassageRule,
        *,
        keep_full: str | None = None,
        timeout_s: float = BUSY_TIMEOUT_S,
        key: Key | None = None,
    ) -> Store:
        """Make a store and open it; open it if there is one that is bound to the same codes.

        Of processes that make the same store at once, one makes it and the others open it: then
        ``rule`` and ``keep_full`` are those of the first.

        Args:
            path: The file.
            binding: What its codes are.
            rule: How its documents are split into passages.
            keep_full: What it keeps of full vectors: None, "until-synced", "fp16" or "int8".
            timeout_s: How long to wait for another process's write, in seconds.
            key: Gives the 32 bytes of the key with which the store is encrypted; None for a plain one.

        Raises:
            UsageError: The store cannot keep full vectors, because its bundle gives none.
            BindingError: There is a store with other codes.
            StoreError: The file cannot be used; see the classes below it.
        """
        file = path_of("path", path)
        store = cls._connect(file, fill_new(file, binding, rule, keep_full), timeout_s, key)
        try:
            store.require(binding)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def _connect(cls, path: Path, fill: Fill | None, timeout_s: float, key: Key | None) -> Store:
        opened = connect(path, fill=fill, timeout_s=timeout_s, key=key)
        try:
            return cls(path, opened)
        except BaseException as error:
            opened.connection.close()
            if isinstance(error, DamagedError):
                raise named_damage(path, error) from error
            raise

    @property
    def cache_problem(self) -> str | None:
        """Why the code file is not read or written, in words; None if it is."""
        return self._cache.problem

    def require(self, binding: Binding) -> None:
        """Check that a bundle's codes belong in this store, and remember where the bundle is.

        Raises:
            BindingError: The bundle has another embedding space or code; the message names both bundles.
        """
        mine = self.binding
        if binding.code != mine.code:
            raise bound_to_other(self.path, mine, binding)
        if binding.bundle != mine.bundle and self.writable:
            relative = relative_bundle(binding.bundle, self.path)
            query = "UPDATE binding SET bundle = ?, bundle_relative = ?"
            with self.writing():
                self._connection.execute(query, (clean(binding.bundle), relative))
            self.binding = replace(mine, bundle=binding.bundle)
            self._bundle_relative = relative

    def bundle_candidates(self) -> list[Path]:
        """Where the bundle may be: at its path seen from the store's folder, or at its absolute path."""
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
            StoreError: The store could not be written; nothing was stored.
        """
        by_id = {entry.document.id: entry for entry in entries}
        rows = [EntryRows(entry, self.binding, self.keep_full) for entry in by_id.values()]
        kept = [(document, encode_metadata(document)) for document in unchanged]
        with self.writing() as state:
            self._require_unchanged()
            with self._counting.queueing(
                [*by_id, *(one.id for one in unchanged)], self._most()
            ) as room:
                leave_out_vectors(rows, room)
                after = put_rows(self._connection, self.path, rows, state)
                done = [(one, put_metadata(self._connection, one, data)) for one, data in kept]
                stale = [document for document, what in done if what == "stale"]
                changed = [document.id for document, what in done if what == "changed"]
                sizes = {row.document.id: row.size_bytes for row in rows}
                note_put(self._connection, sizes, changed)
                if rows:
                    write_state(self._connection, replace(after, changes=state.changes + 1))
        with self._lock, self._reporting():
            self._cache.keep_up(after)
        return stale

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents with all that belongs to them; returns how many there were."""
        names = list(dict.fromkeys(each_id(ids)))
        with self.writing() as state:
            rows = select_rows(self._connection, "key, id", "id", names)
            keys = [key for key, _ in rows]
            gone = [Change(name, deleted=True) for _, name in rows]
            with self._counting.queueing(names, self._most()):
                remove_documents(self._connection, keys)
                note(self._connection, gone)
                if keys:
                    write_state(self._connection, replace(state, changes=state.changes + 1))
        return len(keys)

    @contextmanager
    def taking(self) -> Iterator[Taking]:
        """Run a block in one transaction that stores what other devices wrote; nothing is queued.

        Raises the errors of ``put``.
        """
        with self.writing() as state:
            self._require_unchanged()
            # A server has the full vectors of other devices' documents.
            keep_full = None if self.keep_full == "until-synced" else self.keep_full
            taking = Taking(self._connection, self.path, self.binding, keep_full, state)
            yield taking
            if taking.changed:
                after = replace(taking.state, changes=state.changes + 1)
                write_state(self._connection, after)
        with self._lock, self._reporting():
            self._cache.keep_up(taking.state)

    def forget_full(self, ids: Iterable[str]) -> int:
        """Delete the full vectors that a server has, if kept until then; of how many documents."""
        if self.keep_full != "until-synced":
            return 0
        with self.writing():
            return remove_full(self._connection, list(each_id(ids)))

    def hashes(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Hashes of the texts of those documents whose text is in the store, by id.

        A document that another device sent without its text is left out, and so is a damaged one: both
        have to be put again.
        """
        with self._lock, self._reporting():
            return sound_hashes(self._connection, list(each_id(ids)))

    def get(self, ids: Iterable[str]) -> dict[str, Document]:
        """Those of the documents that are in the store, by id, in the order asked for.

        Raises:
            DamagedError: A document is not what was put.
        """
        names = list(each_id(ids))
        with self._lock, self._reporting():
            found = {one.id: one for one in read_documents(self._connection, names)}
        return {name: found[name] for name in names if name in found}

    def ids(self, keys: Sequence[int]) -> dict[int, str]:
        """Ids of documents by key.

        Raises:
            DamagedError: There is no document with one of the keys.
        """
        with self._lock, self._reporting():
            rows = select_rows(self._connection, "key, id", "key", keys)
            found = {key: str(name) for key, name in rows}  # a damaged one may be no text
            if len(found) < len(set(keys)):
                raise DamagedError("there are codes without a document")
        return found

    def keys(self, ids: Sequence[str]) -> dict[int, str]:
        """Keys of those documents that are in the store, with their ids."""
        with self._lock, self._reporting():
            return dict(select_rows(self._connection, "key, id", "id", list(each_id(ids))))

    def count(self) -> Counts:
        """Count documents and passages."""
        with self._lock, self._reporting(), one_state(self._connection):
            documents = self._counting.documents()
            # Adding up the rows of all passages would read them all.
            passages = read_state(self._connection).next_row - len(read_dead(self._connection))
            return Counts(documents, passages)

    @contextmanager
    def reading(self) -> Iterator[View]:
        """Show one state of the store throughout a block, whatever other processes write."""
        with self._lock, self._reporting():
            if self._connection.in_transaction:  # a block within a block
                yield self._view
                return
            self._follow_binding()
            self._cache.heal()
            with transaction(self._connection, "DEFERRED"):
                self._follow_binding()
                yield self._view
            if self._cache.damaged:
                self._cache.heal()

    def searching(self) -> AbstractContextManager[View]:
        """Show one state, as ``reading`` does, but wait for no other thread; see ``readers``."""
        return self._readers.searching()

    @contextmanager
    def writing(self) -> Iterator[State]:
        """Run a block in one transaction that writes; yields the state at its start.

        Raises:
            StoreError: The store cannot be written.
        """
        with self._lock, self._reporting():
            self._require_writable()
            # This takes the write lock first: a transaction that starts by reading could not wait.
            begun = transaction(self._connection, "IMMEDIATE")
            with self._counting.following(self._undone), begun:
                yield read_state(self._connection)

    @contextmanager
    def locked(self) -> Iterator[tuple[sqlite3.Connection, CodeCache]]:
        """Lend the connection and the code file to other modules of this package."""
        with self._lock, self._reporting():
            yield self._connection, self._cache

    def set_setting(self, name: str, value: str | None) -> None:
        """Keep a setting for searches in the codes that the store has now; None deletes it.

        It is deleted when the store is bound to a bundle anew.

        Raises the errors of ``put``.
        """
        with self.writing():
            self._require_unchanged()
            write_setting(self._connection, name, value)

    def refresh(self) -> None:
        """Read the binding again after it was changed."""
        with self._lock, self._reporting():
            self._follow_binding()

    def close(self) -> None:
        """Close the file; the last one to do so folds the write-ahead log into it."""
        self._readers.close()
        with self._lock, reporting(self.path):
            self._cache.close()
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_writable(self) -> None:
        """Open the file anew where it could only be read: the card may have room again."""
        if self.obstacle is not None and not self._connection.in_transaction:
            self._open_again()
        if self.obstacle is not None:
            raise unwritable(self.path, self.obstacle)

    def _notice_others(self) -> None:
        """Open the file anew where it is read without locks, and somebody has written since."""
        look = self._opened.look
        changed = look is not None and look != Look.at(self.path)
        if self._gone or (changed and not self._connection.in_transaction):
            self._open_again()

    def _open_again(self) -> None:
        if not self._gone:
            self._gone = True  # should this fail, the next one tries again
            self._cache.close()
            self._connection.close()
        self._use(self._opened.again())

    def _most(self) -> int | None:
        """How many bytes of vectors may wait to be sent; None for any number, or where none wait."""
        return most_queued(self._connection) if self.keep_full == "until-synced" else None

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn SQLite's errors into those of edge-mrl, and name the file in those about damage."""
        try:
            with reporting(self.path, self._connection):
                self._notice_others()
                yield
        except DamagedError as error:
            raise named_damage(self.path, error) from error

    def _undone(self) -> None:
        self._cache.undone()

    @property
    def _view(self) -> View:
        return View(self._connection, self._cache, self.binding, self.keep_full, self._counting)

    def _new_cache(self) -> CodeCache:
        cache = MemoryCache if self.encrypted else CodeCache
        return cache(self.path, self._connection, self.binding, self.ids, writable=self.writable)

    def _require_unchanged(self) -> None:
        """Raise BindingError if the store's bundle is another one than when it was opened."""
        code = self.binding.code
        self._follow_binding()
        if self.binding.code != code:
            raise bound_anew(self.path, self.binding)

    def _follow_binding(self) -> None:
        """Take over the binding if another process has changed it."""
        before = self.binding
        self._read_binding()
        if self.binding.code != before.code or self.binding.dim != before.dim:
            self._cache.close()
            self._cache = self._new_cache()

    def _read_binding(self, *, mend: bool = False) -> None:
        with reporting(self.path):
            bound = read_bound(self._connection, mend=mend)
        self.binding, self.rule, self.keep_full = bound.binding, bound.rule, bound.keep_full
        self._bundle_relative = bound.bundle_relative
