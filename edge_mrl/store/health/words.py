"""Comparing the index of words with the texts, and making it again."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from itertools import zip_longest
from typing import Any

from edge_mrl.store.engine.cipher import database_errors
from edge_mrl.store.keywords.form import keyword_text
from edge_mrl.store.migrations import KEYWORD_COLUMNS
from edge_mrl.store.records import DOCUMENT_COLUMNS, sound_document

__all__ = ["index_words", "words_problem"]

_DAMAGED = "keywords: the index of words does not agree with the texts"
_MORE = 0x80


def words_problem(connection: sqlite3.Connection, damaged: Collection[int]) -> str | None:
    """What is wrong with the index of words, or None. All texts are indexed again to compare.

    Args:
        connection: In a transaction.
        damaged: Keys of documents whose texts are damaged, so that their words are not known.
    """
    create = f"CREATE VIRTUAL TABLE temp.fresh USING fts5 ({KEYWORD_COLUMNS})"
    try:
        connection.execute(create)
        connection.execute("CREATE TEMP TABLE unknown (key INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO temp.unknown VALUES (?)", [(key,) for key in damaged])
        for row in _texts(connection):
            connection.execute("INSERT INTO temp.fresh (rowid, text) VALUES (?, ?)", row)
        for table, home in (("fresh", "temp"), ("keywords", "main")):
            connection.execute(
                f"CREATE VIRTUAL TABLE temp.{table}_words USING fts5vocab ({home}, {table}, instance)"
            )
        known = "NOT IN (SELECT key FROM temp.unknown)"
        words = f"SELECT term, doc, offset FROM temp.{{}}_words WHERE doc {known}"  # noqa: S608
        sizes = f"SELECT id, sz FROM {{}}_docsize WHERE id {known} ORDER BY id"  # noqa: S608
        same = _same(connection, words.format("fresh"), words.format("keywords"))
        same = same and _same(connection, sizes.format("temp.fresh"), sizes.format("keywords"))
        same = same and (bool(damaged) or _same_totals(connection))
    except database_errors() as error:
        return f"{_DAMAGED} ({error})"
    finally:
        for table in ("fresh_words", "keywords_words", "fresh", "unknown"):
            connection.execute(f"DROP TABLE IF EXISTS temp.{table}")
    return None if same else _DAMAGED


def index_words(connection: sqlite3.Connection) -> None:
    """Make the index of words again from the texts of all sound documents."""
    connection.execute("INSERT INTO keywords (keywords) VALUES ('delete-all')")
    for row in _texts(connection):
        connection.execute("INSERT INTO keywords (rowid, text) VALUES (?, ?)", row)


def _texts(connection: sqlite3.Connection) -> Iterator[tuple[int, str]]:
    query = f"SELECT {DOCUMENT_COLUMNS} FROM documents"  # noqa: S608 - own names
    for row in connection.execute(query):
        if sound_document(*row):
            yield row[0], keyword_text(row[-1])


def _same(connection: sqlite3.Connection, one: str, other: str) -> bool:
    rows = zip_longest(connection.execute(one), connection.execute(other))
    return all(a == b for a, b in rows)


def _same_totals(connection: sqlite3.Connection) -> bool:
    """Whether the totals that BM25 uses are equal: texts, and words in all of them.

    They are the record 1, as varints. FTS5 writes it once there was a text, so that an index that never
    had one, and one whose last text was deleted, have the same totals in different bytes.
    """
    totals = []
    for table in ("temp.fresh_data", "keywords_data"):
        query = f"SELECT block FROM {table} WHERE id = 1"  # noqa: S608 - own names
        row = connection.execute(query).fetchone()
        totals.append(_numbers(row[0]) if row else [])
    return totals[0] == totals[1]


def _numbers(data: Any) -> list[int]:
    """SQLite's varints, without zeros at the end."""
    numbers, value = [], 0
    for byte in data if isinstance(data, bytes) else b"":
        value = value << 7 | byte & 0x7F
        if not byte & _MORE:
            numbers.append(value)
            value = 0
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers
