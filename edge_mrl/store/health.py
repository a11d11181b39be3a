"""Checking everything that a store holds, and making damaged indexes again."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from edge_mrl.errors import DamagedError, StoreError
from edge_mrl.store.codefile.file import SEGMENT_ROWS
from edge_mrl.store.codefile.state import read_state
from edge_mrl.store.engine.cipher import database_errors
from edge_mrl.store.file import transaction
from edge_mrl.store.filters import field_rows
from edge_mrl.store.migrations import KEYWORD_COLUMNS
from edge_mrl.store.records import checksum, decode_metadata, document_check, text_hash
from edge_mrl.store.replica.foreign import foreign_problem
from edge_mrl.store.replica.outbox import read_enrollment
from edge_mrl.store.replica.withheld import WITHHELD_COLUMNS
from edge_mrl.store.roots import damaged_roots, drop_damaged_roots
from edge_mrl.store.rows import insert_fields

if TYPE_CHECKING:
    from edge_mrl.store.codefile.cache import CodeCache
    from edge_mrl.store.store import Store

__all__ = ["Health", "check"]

#: How many problems of one kind are listed one by one.
MOST_NAMED = 20
#: Without texts all totals are 0; FTS5 writes them only once there was a text.
_TOTALS = (
    "SELECT CASE WHEN replace(hex(block), '0', '') = '' THEN '' ELSE hex(block) END "
    "FROM {} WHERE id = 1"
)
#: Called with the number of documents that were checked since the last call.
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Health:
    """What a check found.

    Attributes:
        documents: How many documents were checked.
        problems: What is damaged and was not repaired, one sentence each; empty for a sound store.
        repaired: What was damaged and has been repaired, one sentence each.
        damaged_ids: Ids of documents whose text, metadata, passages or vectors are not what was stored.
            Put these documents again, or delete them.
    """

    documents: int
    problems: tuple[str, ...]
    repaired: tuple[str, ...]
    damaged_ids: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether no problem is left."""
        return not self.problems


def check(store: Store, *, repair: bool = False, advance: Advance | None = None) -> Health:
    """Compare everything in a store with its checksums, and every index with what it indexes.

    Args:
        store: An open store.
        repair: Rebuild damaged indexes: of metadata, of words, and the code file. Damaged documents
            cannot be repaired, since their text is lost; they are listed.
        advance: Called with the number of documents that were checked since the last call.

    Raises:
        StoreError: The file is so damaged that it cannot be read through.
    """
    found: list[str] = []
    indexes: dict[str, str] = {}
    with store.locked() as (connection, cache), transaction(connection, "DEFERRED"):
        found += _structure(connection)
        documents, ids = _documents(connection, found, advance)
        ids += _rows(connection, cache, found)
        ids += _fulls(connection, found)
        found += _queue(connection)
        if (fields := _fields(connection)) is not None:
            indexes["fields"] = fields
        if (keywords := _keywords(connection)) is not None:
            indexes["keywords"] = keywords
        if damaged_roots(connection):
            indexes["roots"] = "roots: the place of a folder cannot be trusted; it is found again"
        foreign = [text for text in [foreign_problem(connection)] if text is not None]
        indexes.update((f"codes {n}", text) for n, text in enumerate(_code_file(connection, cache)))
    repaired = _repair(store, indexes, damaged=bool(found)) if repair else {}
    left = [text for name, text in indexes.items() if name not in repaired]
    return Health(
        documents, (*found, *foreign, *left), tuple(repaired.values()), tuple(dict.fromkeys(ids))
    )


def _structure(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(f"PRAGMA integrity_check({MOST_NAMED})").fetchall()
    problems = [f"structure: {text}" for (text,) in rows if text != "ok"]
    for table, _, parent, _ in connection.execute("PRAGMA foreign_key_check").fetchmany(MOST_NAMED):
        problems.append(f"structure: a row of {table} belongs to nothing in {parent}")
    return problems


def _documents(
    connection: sqlite3.Connection, found: list[str], advance: Advance | None
) -> tuple[int, list[str]]:
    count, bad = 0, []
    query = "SELECT key, id, metadata, source, hash, crc, text FROM documents"
    connection.text_factory = bytes  # damaged text may be no UTF-8
    try:
        for key, name, metadata, source, digest, crc, text in connection.execute(query):
            count += 1
            if not _right(key, name, metadata, source, digest, crc, text):
                bad.append(_plain(name))
            if advance is not None:
                advance(1)
    finally:
        connection.text_factory = str
    found += [f"document {name!r} is not what was stored" for name in bad[:MOST_NAMED]]
    if len(bad) > MOST_NAMED:
        found.append(f"{len(bad) - MOST_NAMED} more documents are not what was stored")
    return count, bad


def _right(
    key: int,
    name: bytes,
    metadata: bytes,
    source: bytes | None,
    digest: bytes,
    crc: int,
    text: bytes,
) -> bool:
    try:
        at = None if source is None else source.decode()
        same = document_check(key, name.decode(), metadata.decode(), at, digest) == crc
        return same and text_hash(text.decode()) == digest
    except (UnicodeDecodeError, AttributeError):  # NULL or a number, where damage changed a type
        return False


def _plain(name: object) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _rows(connection: sqlite3.Connection, cache: CodeCache, found: list[str]) -> list[str]:
    """Read every row of codes; returns ids of documents whose passages are damaged."""
    ids = []
    try:
        for key in cache.damaged_keys():
            query = "SELECT id FROM documents WHERE key = ?"
            names = [str(name) for (name,) in connection.execute(query, (key,))]
            ids += names or [f"key {key}"]
            found.append(f"the passages of document {ids[-1]!r} are not what was stored")
        if not ids:
            state = read_state(connection)
            cache.read_dead()
            for first in range(0, state.next_row, SEGMENT_ROWS):
                cache.load(first, min(first + SEGMENT_ROWS, state.next_row))
    except DamagedError as error:
        found.append(str(error))
    return ids


def _fulls(connection: sqlite3.Connection, found: list[str]) -> list[str]:
    ids = []
    query = (
        "SELECT document, fulls.crc, vectors, id FROM fulls LEFT JOIN documents ON key = document"
    )
    for key, crc, vectors, name in connection.execute(query):
        if not isinstance(vectors, bytes) or zlib.crc32(vectors, key) != crc:
            ids.append(str(name))
            found.append(f"the full vectors of document {name!r} are not what was stored")
    return ids


def _queue(connection: sqlite3.Connection) -> list[str]:
    """What is wrong with the queue, and with what is known of the server."""
    found = []
    try:
        enrolled = read_enrollment(connection) is not None
    except DamagedError as error:
        return [f"sync: {error}"]
    tables = (
        ("versions", "id, stamp, device, deleted, acknowledged, sent"),
        ("outbox", "id, stamp, deleted, bytes"),
        ("dead", "id, stamp, reason, since_ms, deleted, metadata, text"),
        ("withheld", WITHHELD_COLUMNS),
    )
    for table, columns in tables:
        query = f"SELECT {columns}, crc FROM {table}"  # noqa: S608 - own names
        rows = connection.execute(query)
        bad = [name for name, *values, crc in rows if checksum(name, *values) != crc]
        found += [f"sync: {table} of document {name!r} is damaged" for name in bad[:MOST_NAMED]]
    if not enrolled:
        return found
    unsendable = (
        "SELECT outbox.id FROM outbox LEFT JOIN documents ON documents.id = outbox.id "
        "WHERE NOT outbox.deleted AND key IS NULL"
    )
    unversioned = (
        "SELECT documents.id FROM documents LEFT JOIN versions ON versions.id = documents.id "
        "WHERE versions.id IS NULL OR versions.deleted"
    )
    for query in (unsendable, unversioned):
        for (name,) in connection.execute(query).fetchmany(MOST_NAMED):
            found.append(f"sync: document {name!r} and its version do not agree")
    return found


def _fields(connection: sqlite3.Connection) -> str | None:
    """What is wrong with the metadata's index, or None."""
    wanted = 0
    query = "SELECT 1 FROM fields WHERE name = ? AND kind = ? AND value = ? AND document = ?"
    for key, metadata in _metadata(connection):
        for row in field_rows(metadata):
            wanted += 1
            if connection.execute(query, (*row, key)).fetchone() is None:
                return "fields: values are missing from the index of metadata"
    (there,) = connection.execute("SELECT count(*) FROM fields").fetchone()
    return (
        None if there == wanted else "fields: the index of metadata has values that no document has"
    )


def _metadata(connection: sqlite3.Connection) -> Iterator[tuple[int, dict[str, object]]]:
    """Keys and metadata of those documents whose metadata can be read."""
    query = "SELECT key, metadata FROM documents WHERE metadata <> '{}'"
    for key, text in connection.execute(query):
        try:
            yield key, decode_metadata(text)
        except ValueError:  # named among the damaged documents
            continue


def _keywords(connection: sqlite3.Connection) -> str | None:
    """What is wrong with the index of words, or None. All texts are indexed again to compare."""
    damaged = "keywords: the index of words does not agree with the texts"
    create = f"CREATE VIRTUAL TABLE temp.fresh USING fts5 ({KEYWORD_COLUMNS})"
    try:
        connection.execute(create)
        connection.execute("INSERT INTO temp.fresh (rowid, text) SELECT key, text FROM documents")
        for table, home in (("fresh", "temp"), ("keywords", "main")):
            connection.execute(
                f"CREATE VIRTUAL TABLE temp.{table}_words USING fts5vocab ({home}, {table}, instance)"
            )
        # Every word's places, every text's length, and the totals that BM25 uses (record 1).
        pairs = (
            ("temp.fresh_words", "temp.keywords_words", "SELECT term, doc, offset FROM {}"),
            ("temp.fresh_docsize", "keywords_docsize", "SELECT id, sz FROM {} ORDER BY id"),
            ("temp.fresh_data", "keywords_data", _TOTALS),
        )
        same = (_same(connection, query.format(a), query.format(b)) for a, b, query in pairs)
        return None if all(same) else damaged
    except database_errors() as error:
        return f"{damaged} ({error})"
    finally:
        for table in ("fresh_words", "keywords_words", "fresh"):
            connection.execute(f"DROP TABLE IF EXISTS temp.{table}")


def _same(connection: sqlite3.Connection, one: str, other: str) -> bool:
    rows = zip_longest(connection.execute(one), connection.execute(other))
    return all(a == b for a, b in rows)


def _code_file(connection: sqlite3.Connection, cache: CodeCache) -> list[str]:
    try:
        return cache.verify(read_state(connection))
    except DamagedError:
        return []  # the database itself is damaged there, and has been named


def _repair(store: Store, indexes: dict[str, str], *, damaged: bool) -> dict[str, str]:
    """Rebuild indexes; returns those that were rebuilt."""
    if not indexes:
        return {}
    if damaged:
        raise StoreError(
            f"{store.path} has damaged documents: delete them or put them again, then run "
            "`edge-mrl check --repair`"
        )
    with store.writing(), store.locked() as (connection, _):
        if "fields" in indexes:
            connection.execute("DELETE FROM fields")
            for key, metadata in list(_metadata(connection)):
                insert_fields(connection, key, metadata)
        if "roots" in indexes:
            drop_damaged_roots(connection)
        if "keywords" in indexes:
            connection.execute("INSERT INTO keywords (keywords) VALUES ('delete-all')")
            connection.execute("INSERT INTO keywords (rowid, text) SELECT key, text FROM documents")
    with store.locked() as (_, cache):
        filed = not any(name.startswith("codes") for name in indexes) or cache.roll()
    return {name: text for name, text in indexes.items() if filed or not name.startswith("codes")}
