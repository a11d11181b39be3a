"""Writing what other devices wrote: one transaction, of which nothing is queued."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from edge_mrl.store.codefile.state import State
from edge_mrl.store.records import Binding, Entry
from edge_mrl.store.rows import EntryRows, put_rows, remove_documents
from edge_mrl.store.statements import select_rows

__all__ = ["Taking"]


class Taking:
    """A transaction that writes what other devices wrote; see ``Store.taking``.

    Attributes:
        connection: For what else belongs to this transaction.
        state: The store's state after what was written so far.
        changed: Whether any document was put or deleted.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        binding: Binding,
        keep_full: str | None,
        state: State,
    ) -> None:
        self.connection = connection
        self.state = state
        self.changed = False
        self._path = path
        self._binding = binding
        self._keep_full = keep_full

    def put(self, entries: Sequence[Entry]) -> None:
        """Store documents, each in place of the one of its id.

        Raises:
            UsageError: Codes of the wrong type or shape.
        """
        rows = [EntryRows(entry, self._binding, self._keep_full) for entry in entries]
        self.state = put_rows(self.connection, self._path, rows, self.state)
        self.changed = self.changed or bool(rows)

    def delete(self, ids: Sequence[str]) -> None:
        """Delete those of the documents that are there."""
        keys = [key for (key,) in select_rows(self.connection, "key", "id", ids)]
        remove_documents(self.connection, keys)
        self.changed = self.changed or bool(keys)
