"""What a store holds, document by document: one state of it, in bounded memory."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.documents import clean
from edge_mrl.errors import DamagedError
from edge_mrl.store.binding import read_bound
from edge_mrl.store.engine.explaining import reporting
from edge_mrl.store.filters.compiling import compile_filter
from edge_mrl.store.filters.matching import matches
from edge_mrl.store.records import (
    DOCUMENT_COLUMNS,
    Entry,
    decode_full,
    decode_spans,
    sound_passages,
)
from edge_mrl.store.view import read_document

if TYPE_CHECKING:
    from edge_mrl.documents import Document
    from edge_mrl.store.binding import Bound
    from edge_mrl.store.store import Store

__all__ = ["list_documents", "list_entries", "list_ids"]

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
        where: Which documents (see ``filters.compiling.compile_filter``); None or ``{}`` for all.

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
            _require_match(store, where, document)
            yield document
    _report(store, damaged)


def _require_match(store: Store, where: Mapping[str, Any], document: Document) -> None:
    if where and not matches(where, document.metadata):
        raise DamagedError(
            f"{store.path} is damaged (its index of metadata cannot be trusted): "
            "`edge-mrl check --repair` makes it anew"
        )


def _report(store: Store, damaged: list[str]) -> None:
    """Name the documents that were left out.

    Raises:
        DamagedError: There are some.
    """
    if damaged:
        named = ", ".join(map(repr, sorted(damaged)[:MOST_NAMED]))
        more = f" and {len(damaged) - MOST_NAMED} more" if len(damaged) > MOST_NAMED else ""
        raise DamagedError(
            f"{store.path}: documents {named}{more} are not what was stored, and were left out: put "
            "them again, or delete them"
        )


def list_entries(
    store: Store, where: Mapping[str, Any] | None = None
) -> Generator[tuple[Entry, Bound], None, None]:
    """Documents with their passages, codes and full vectors, and what these are bound to.

    All else is as in ``list_documents``. A document without passages has none here either.

    Raises:
        UsageError: The filter cannot be understood.
        DamagedError: Documents or their passages are not what was put. All others were given before.
    """
    names = [f"documents.{name}" for name in DOCUMENT_COLUMNS.split(", ")]
    passages = "first_row, passages.document, rows, spans, codes, passages.crc"
    query, values = _query(f"{', '.join(names)}, {passages}, fulls.crc, vectors", where)
    joined = (
        "FROM documents LEFT JOIN passages ON passages.document = documents.key "
        "LEFT JOIN fulls ON fulls.document = documents.key"
    )
    return _entries(store, query.replace("FROM documents", joined, 1), values, where or {})


def _entries(
    store: Store, query: str, values: list[Any], where: Mapping[str, Any]
) -> Generator[tuple[Entry, Bound], None, None]:
    damaged = []
    with reporting(store.path), closing(store.reader()) as connection:
        connection.execute("BEGIN")
        bound = read_bound(connection)
        for row in connection.execute(query, values):
            try:
                entry = _entry(row, bound)
            except DamagedError:
                damaged.append(clean(str(row[1])))
                continue
            _require_match(store, where, entry.document)
            yield entry, bound
    _report(store, damaged)


def _entry(row: tuple[Any, ...], bound: Bound) -> Entry:
    document = read_document(row[:7])
    first_row, key, rows, spans, codes, crc, full_crc, vectors = row[7:]
    dim, packing = bound.binding.dim, bound.binding.packing
    if key is None:
        return Entry(document, [], np.empty((0, dim), np.int8))
    if not sound_passages(first_row, key, rows, spans, codes, crc):
        raise DamagedError("its passages cannot be trusted")
    full = None
    if vectors is not None and bound.keep_full is not None and bound.binding.full_dim is not None:
        if not isinstance(vectors, bytes) or zlib.crc32(vectors, key) != full_crc:
            raise DamagedError("its full vectors cannot be trusted")
        full = decode_full(vectors, bound.binding.full_dim, bound.keep_full)
    packed = np.frombuffer(codes, np.uint8).reshape(rows, -1)
    return Entry(document, decode_spans(spans), packing.representatives(packed, dim), full)
