"""What a store holds, document by document: one state of it, in bounded memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from edge_mrl.documents import clean
from edge_mrl.errors import DamagedError
from edge_mrl.store.engine.explaining import reporting
from edge_mrl.store.filters import compile_filter
from edge_mrl.store.matching import matches
from edge_mrl.store.records import DOCUMENT_COLUMNS
from edge_mrl.store.view import read_document

if TYPE_CHECKING:
    from edge_mrl.documents import Document
    from edge_mrl.store.store import Store

__all__ = ["list_documents", "list_ids"]

#: Damaged documents that an error names.
MOST_NAMED = 5


def list_ids(store: Store, where: Mapping[str, Any] | None = None) -> Generator[str, None, None]:
    """Ids of documents, in the order in which they were first put; see ``list_documents``."""
    query, values = _query("id", where)
    return _names(_rows(store, query, values))


def list_documents(
    store: Store, where: Mapping[str, Any] | None = None
) -> Generator[Document, None, None]:
    """Documents, in the order in which they were first put.

    The generator has a connection of its own, which shows one state: that of the first document. Other
    threads and processes may write meanwhile. Close the generator if you leave it before its end.

    Args:
        store: The store.
        where: Which documents (see ``filters.compile_filter``); None or ``{}`` for all.

    Raises:
        UsageError: The filter cannot be understood.
        DamagedError: Documents are not what was put. All others were given before it is raised.
    """
    query, values = _query(DOCUMENT_COLUMNS, where)
    return _sound(_rows(store, query, values), where or {}, store)


def _query(columns: str, where: Mapping[str, Any] | None) -> tuple[str, list[Any]]:
    query = f"SELECT {columns} FROM documents"  # noqa: S608 - own names
    if not where:
        return f"{query} ORDER BY key", []
    selected, values = compile_filter(where)
    return f"{query} WHERE key IN ({selected}) ORDER BY key", values


def _rows(store: Store, query: str, values: list[Any]) -> Generator[tuple[Any, ...], None, None]:
    with reporting(store.path), closing(store.reader()) as connection:
        cursor: sqlite3.Cursor = connection.execute(query, values)
        yield from cursor


def _names(rows: Generator[tuple[Any, ...], None, None]) -> Generator[str, None, None]:
    with closing(rows):
        for (name,) in rows:
            yield clean(str(name))


def _sound(
    rows: Generator[tuple[Any, ...], None, None], where: Mapping[str, Any], store: Store
) -> Generator[Document, None, None]:
    damaged = []
    with closing(rows):
        for row in rows:
            try:
                document = read_document(row)
            except DamagedError:
                damaged.append(clean(str(row[1])))
                continue
            if where and not matches(where, document.metadata):
                raise DamagedError(
                    f"{store.path} is damaged (its index of metadata cannot be trusted): "
                    "`edge-mrl check --repair` makes it anew"
                )
            yield document
    if damaged:
        named = ", ".join(map(repr, sorted(damaged)[:MOST_NAMED]))
        more = f" and {len(damaged) - MOST_NAMED} more" if len(damaged) > MOST_NAMED else ""
        raise DamagedError(
            f"{store.path}: documents {named}{more} are not what was stored, and were left out: put "
            "them again, or delete them"
        )
