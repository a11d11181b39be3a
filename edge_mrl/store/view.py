"""One state of a store, as a transaction shows it. All that is read is compared with its checksum."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.documents import Document, clean
from edge_mrl.errors import DamagedError, EdgeMrlError
from edge_mrl.store.binding import read_setting
from edge_mrl.store.codefile.cache import CodeCache
from edge_mrl.store.codefile.state import read_state
from edge_mrl.store.filters.compiling import asks_for_words, compile_condition, compile_filter
from edge_mrl.store.filters.matching import matches
from edge_mrl.store.filters.selecting import select_keys
from edge_mrl.store.keywords.common import without_common
from edge_mrl.store.keywords.expression import match_terms
from edge_mrl.store.records import (
    DOCUMENT_COLUMNS,
    Binding,
    decode_full,
    decode_metadata,
    decode_spans,
    document_check,
    full_bytes,
    sound_document,
    sound_passages,
)
from edge_mrl.store.statements import select_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.store.codefile.file import Layout
    from edge_mrl.store.codefile.table import CodeTable
    from edge_mrl.store.counting import Counting

__all__ = ["Place", "View", "read_document", "read_documents"]

#: Documents whose metadata are read and compared with a filter at a time, and in all for a few hits.
JUDGED, MOST_JUDGED = 64, 512
#: Full vectors are read in pieces of this size.
PIECE_BYTES = 1 << 20

#: First row and spans of a document's passages.
Place = tuple[int, Sequence[tuple[int, int]]]


class View:
    """One state of a store, shown within ``Store.reading``."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        cache: CodeCache,
        binding: Binding,
        keep_full: str | None,
        counting: Counting,
    ) -> None:
        self._connection = connection
        self._counting = counting
        self._cache = cache
        #: What the codes of this state are.
        self.binding = binding
        self._keep_full = keep_full
        #: Keys of documents that were found to be damaged, and left out.
        self.damaged: set[int] = set()

    @property
    def codes(self) -> CodeTable:
        """All codes in this state, without those of damaged documents."""
        table = self._cache.table(read_state(self._connection))
        self.damaged |= self._cache.unsound
        return table

    @property
    def layout(self) -> Layout:
        """How the codes are laid out."""
        return self._cache.layout

    def setting(self, name: str) -> str | None:
        """The text of a setting, or None if it is not set.

        Raises:
            DamagedError: The text is not what was written.
        """
        return read_setting(self._connection, name)

    def passage_counts(self) -> list[tuple[int, int]]:
        """Keys of documents that have passages, ascending, each with the number of its passages."""
        query = "SELECT document, rows FROM passages ORDER BY document"
        return [(int(key), int(count)) for key, count in self._connection.execute(query)]

    def existing(self, keys: Sequence[int]) -> list[int]:
        """Those of the keys that are a document's."""
        return [key for (key,) in select_rows(self._connection, "key", "key", keys)]

    def keys(self, ids: Sequence[str]) -> list[int]:
        """Keys of those documents that are in the store."""
        return [key for (key,) in select_rows(self._connection, "key", "id", ids)]

    @property
    def keeps_full(self) -> bool:
        """Whether the store keeps full vectors."""
        return self._keep_full is not None

    def documents(self, keys: Sequence[int], *, sound: bool = False) -> dict[int, Document]:
        """Documents by key, as codes or keywords name them.

        Args:
            keys: Documents.
            sound: Leave out those that are damaged or missing, and note them in ``damaged``.

        Raises:
            DamagedError: A document is missing, or not what was put.
        """
        rows = select_rows(self._connection, DOCUMENT_COLUMNS, "key", keys)
        if len(rows) < len(set(keys)) and not sound:
            raise DamagedError("there are codes or keywords without a document")
        self.damaged |= set(keys) - {key for key, *_ in rows}
        found = {}
        for row in rows:
            try:
                found[row[0]] = read_document(row)
            except DamagedError:
                if not sound:
                    raise
                self.damaged.add(row[0])
        return found

    def names(self, keys: Collection[int]) -> list[str]:
        """Ids of those of the documents that are there, damaged ones included, sorted."""
        rows = select_rows(self._connection, "id", "key", list(keys))
        return sorted(clean(str(name)) for (name,) in rows)

    def places(
        self, keys: Sequence[int], *, partial: bool = False, sound: bool = False
    ) -> dict[int, Place]:
        """Rows and spans of documents' passages, by key.

        Args:
            keys: Documents.
            partial: Leave out documents that have no passages.
            sound: Leave out those that are damaged, and note them in ``damaged``.

        Raises:
            DamagedError: Passages are missing, or not what was put.
        """
        columns = "first_row, document, rows, spans, codes, crc"
        rows = select_rows(self._connection, columns, "document", keys, "passages")
        bad = {row[1] for row in rows if not sound_passages(*row)}
        if not partial:
            missing = set(keys) - {row[1] for row in rows}
            if missing and not sound:
                raise DamagedError("there are codes without a document's passages")
            bad |= missing
        if bad and not sound:
            raise DamagedError(f"the passages of document {min(bad)} cannot be trusted")
        self.damaged |= bad
        return {row[1]: (row[0], decode_spans(row[3])) for row in rows if row[1] not in bad}

    def fulls(self, keys: Sequence[int], *, sound: bool = False) -> dict[int, NDArray[np.float32]]:
        """Full vectors float32[n, full_dim] by key, of those documents whose vectors the store keeps.

        Args:
            keys: Documents.
            sound: Leave out those that are damaged, and note them in ``damaged``.

        Raises:
            DamagedError: Vectors are not what was stored.
        """
        dim = self.binding.full_dim
        if self._keep_full is None or dim is None:
            return {}
        found = {}
        columns = "document, crc, vectors"
        for key, crc, data in select_rows(self._connection, columns, "document", keys, "fulls"):
            if not isinstance(data, bytes) or zlib.crc32(data, key) != crc:
                if not sound:
                    raise DamagedError(f"the full vectors of document {key} cannot be trusted")
                self.damaged.add(key)
                continue
            found[key] = decode_full(data, dim, self._keep_full)
        return found

    def fulls_at(self, positions: Mapping[int, int]) -> dict[int, NDArray[np.float32]]:
        """One full vector float32[full_dim] of each document, of those whose vectors the store keeps.

        All of a document's vectors are compared with their checksum, a part at a time, so that a
        document of any size takes little memory. Those that are damaged are left out, and are noted in
        ``damaged``.

        Args:
            positions: By key, the number of the passage in its document.
        """
        dim = self.binding.full_dim
        if self._keep_full is None or dim is None:
            return {}
        size = full_bytes(dim, self._keep_full)
        found = {}
        columns = "document, crc, typeof(vectors), length(vectors)"
        rows = select_rows(self._connection, columns, "document", list(positions), "fulls")
        for key, crc, kind, length in rows:
            start = positions[key] * size
            whole = kind == "blob" and 0 <= start <= length - size
            data = self._part(key, crc, start, size) if whole else None
            if data is None:
                self.damaged.add(key)
            else:
                found[key] = decode_full(data, dim, self._keep_full)[0]
        return found

    def _part(self, key: int, crc: int, start: int, size: int) -> bytes | None:
        """Bytes of a document's full vectors; None if these are not what was stored."""
        part, seen, at = b"", key, 0
        for piece in self._pieces(key):
            seen = zlib.crc32(piece, seen)
            part += piece[max(start + len(part) - at, 0) : max(start + size - at, 0)]
            at += len(piece)
        return part if seen == crc and len(part) == size else None

    def _pieces(self, key: int) -> Iterator[bytes]:
        """A document's full vectors, in order."""
        if hasattr(self._connection, "blobopen"):  # SQLCipher's driver has none
            with self._connection.blobopen("fulls", "vectors", key, readonly=True) as blob:
                while piece := blob.read(PIECE_BYTES):
                    yield piece
            return
        query = "SELECT vectors FROM fulls WHERE document = ?"
        yield from self._connection.execute(query, (key,)).fetchone()

    def select(self, where: Mapping[str, Any]) -> NDArray[np.int64]:
        """int64: keys of the documents that a filter selects, ascending."""
        return select_keys(self._connection, where)

    def ids_where(self, where: Mapping[str, Any]) -> list[str]:
        """Ids of the documents that a filter selects, sorted; each is compared with the filter.

        Raises:
            DamagedError: The index of metadata is not what was written.
        """
        keys = [int(key) for key in self.select(where)]
        columns = "key, id, metadata, source, hash, crc"
        rows = select_rows(self._connection, columns, "key", keys)
        if len(rows) < len(keys):
            raise DamagedError("its index of metadata cannot be trusted")
        for *values, crc in rows:
            # Of a document that is damaged itself, the index may know better.
            if document_check(*values) == crc:
                self.require_match(where, decode_metadata(values[2]))
        return sorted(name for _, name, *_ in rows)

    def require_match(self, where: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        """Check that a document that the index of metadata selected does match.

        Raises:
            DamagedError: It does not.
        """
        if not matches(where, metadata):
            raise DamagedError("its index of metadata cannot be trusted")

    @staticmethod
    def judged_depth(wanted: int) -> int:
        """How many of the best documents to compare with a filter, to find ``wanted`` that match it.

        The more there are, the rarer a match may be that is found without a look at all documents that
        match. One costs some 10 us.
        """
        return max(MOST_JUDGED, 4 * wanted)

    def first_matching(
        self, where: Mapping[str, Any], keys: Sequence[int], wanted: int
    ) -> list[int] | None:
        """The first of some documents, in their order, that a filter selects by their metadata.

        So a filter that most documents match costs what is read of a few, however many match it.

        Args:
            where: A filter.
            keys: Documents.
            wanted: How many are enough.

        Returns:
            Keys of ``wanted`` documents, or of all that match. None if the documents cannot or should not
            be judged one by one: the filter asks for words, so few match that a look into the index of
            metadata costs less, or a document is damaged, of which the index may know better.

        Raises:
            UsageError: The filter cannot be understood.
        """
        compile_filter(where)
        if asks_for_words(where):
            return None
        found: list[int] = []
        columns = "key, id, metadata, source, hash, crc"
        for first in range(0, len(keys), JUDGED):
            some = keys[first : first + JUDGED]
            rows = {row[0]: row for row in select_rows(self._connection, columns, "key", some)}
            if any(
                key not in rows or document_check(*rows[key][:-1]) != rows[key][-1] for key in some
            ):
                return None
            found += [key for key in some if matches(where, decode_metadata(rows[key][2]))]
            if len(found) >= wanted:
                return found[:wanted]
            seen = first + len(some)
            if seen < len(keys) and 2 * len(found) * len(keys) < wanted * seen:
                return None
        return found

    def keyword_matches(
        self, query: str, *, k: int, where: Mapping[str, Any] | None = None
    ) -> list[tuple[int, float]]:
        """Documents that have at least one of the query's words: keys and scores, the best first.

        The score is SQLite's BM25 (k1 = 1.2, b = 0.75), made positive. See ``keywords.match_expression``.
        Common words are left out where there are rarer ones (``keywords.common``).
        """
        expression = " OR ".join(without_common(match_terms(query), self._counting))
        if not expression:
            return []
        if where is None:
            return self._ranked(expression, k)
        depth = self.judged_depth(k)
        ranked = self._ranked(expression, depth)
        found = self.first_matching(where, [key for key, _ in ranked], k)
        if found is not None and (len(found) == k or len(ranked) < depth):
            scores = dict(ranked)
            return [(key, scores[key]) for key in found]
        return self._ranked(expression, k, compile_condition(where, "keywords.rowid"))

    def _ranked(
        self, expression: str, k: int, condition: tuple[str, list[Any]] = ("1", [])
    ) -> list[tuple[int, float]]:
        sql, values = condition
        there = ""
        while True:
            query = (
                f"SELECT rowid, -rank FROM keywords WHERE keywords MATCH ? AND ({sql}){there} "  # noqa: S608 - own text
                "ORDER BY rank, rowid LIMIT ?"
            )
            rows = self._connection.execute(query, (expression, *values, k)).fetchall()
            # Words of a damaged document stay until the index is made again (``rows``). To ask for each
            # match if its document is there would take a third of the time.
            if there or len(self.existing([key for key, _ in rows])) == len(rows):
                return [(key, score) for key, score in rows]
            there = " AND EXISTS (SELECT 1 FROM documents WHERE key = keywords.rowid)"


def read_documents(connection: sqlite3.Connection, ids: Sequence[str]) -> list[Document]:
    """Those of the documents that are there.

    Raises:
        DamagedError: A document is not what was put.
    """
    rows = select_rows(connection, DOCUMENT_COLUMNS, "id", ids)
    return [read_document(row) for row in rows]


def read_document(row: tuple[Any, ...]) -> Document:
    """The document of a row.

    Args:
        row: Values of ``records.DOCUMENT_COLUMNS``.

    Raises:
        DamagedError: It does not agree with its checksum and hash.
    """
    _, name, metadata, source, _, _, text = row
    if sound_document(*row):
        with suppress(TypeError, ValueError, RecursionError, EdgeMrlError):  # no writer wrote that
            return Document(name, text, decode_metadata(metadata), source)
    raise DamagedError(f"document {name!r} is not what was stored: put it again, or delete it")
