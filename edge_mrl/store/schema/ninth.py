"""Migration 0009: checksums of values by their type, and words in their compatibility form.

Everything is written in the migration's one transaction, a few rows in memory at a time. A row whose
former checksum was wrong keeps a wrong one.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from edge_mrl.documents import metadata_problem
from edge_mrl.store.keywords.form import keyword_text
from edge_mrl.store.records import checksum, decode_metadata, passage_check, text_hash
from edge_mrl.store.replica.withheld import WITHHELD_COLUMNS
from edge_mrl.store.schema import former
from edge_mrl.store.schema.paging import bound, pages, raw
from edge_mrl.store.schema.report import Report

__all__ = ["fill_ninth"]

_FORGET = "INSERT INTO keywords (keywords, rowid, text) VALUES ('delete', ?, ?)"
#: Tables, their keys, and the columns that their checksums cover.
_TABLES = (
    (
        "binding",
        "id",
        (
            "space_id, code_id, dim, scale, full_dim, keep_full, passage_tokens, passage_overlap, "
            "stored, step, centre"
        ),
    ),
    ("settings", "name", "name, value"),
    ("state", "id", "changes, next_key, next_row, filed, generation"),
    ("tombstones", "block", "block, bits"),
    (
        "sync",
        "id",
        (
            "server, tenant, device, cursor, last, floor, offset_ms, with_text, max_queue, success_ms, "
            "margin, epoch, push, answered"
        ),
    ),
    ("versions", "id", "id, stamp, device, deleted, acknowledged, sent"),
    ("outbox", "id", "id, stamp, deleted, bytes"),
    ("dead", "id", "id, stamp, reason, since_ms, deleted, metadata, text"),
    ("withheld", "id", WITHHELD_COLUMNS),
    ("roots", "prefix", "prefix, path, facts"),
    ("agreement", "id", "sums, pending, there, here, tries, next_ms, differs"),
    ("documents", "key", "key, id, metadata, source, hash"),
)


def fill_ninth(connection: sqlite3.Connection, report: Report) -> None:
    """Give every row the checksum of its values, and index again what has other words now."""
    report.expect(*(table for table, _, _ in _TABLES), "passages", "documents")
    for table, key, columns in _TABLES:
        for name, crc, *values in pages(connection, table, key, f"crc, {columns}", report):
            right = former.matches(values, crc)
            carried = _carried(crc, partial(checksum, *values), right=right)
            _write(connection, table, key, name, carried)
    columns = "crc, document, rows, spans, codes"
    for first, crc, *values in pages(connection, "passages", "first_row", columns, report):
        key, _, spans, codes = values
        blobs = isinstance(spans, bytes) and isinstance(codes, bytes)
        right = blobs and former.passage_check(key, spans, codes) == crc
        carried = _carried(crc, partial(passage_check, first, *values), right=right)
        _write(connection, "passages", "first_row", first, carried)
    for (binding,) in connection.execute("SELECT binding FROM reindexing").fetchall():
        connection.execute("UPDATE reindexing SET crc = ?", (checksum(binding),))
    _index_again(connection, report)


def _carried(crc: Any, make: Callable[[], int], *, right: bool) -> Any:
    """The new checksum; for a row that was not sound, the former one, which is wrong still."""
    if right:
        return make()
    try:
        return crc ^ 1 if crc == make() else crc
    except (TypeError, ValueError, OverflowError, struct.error):
        return crc  # values of types that no writer wrote


def _write(connection: sqlite3.Connection, table: str, key: str, name: Any, crc: Any) -> None:
    query = f"UPDATE {table} SET crc = ? WHERE {key} = {bound(name)}"  # noqa: S608 - own names
    connection.execute(query, (crc, raw(name)))


def _index_again(connection: sqlite3.Connection, report: Report) -> None:
    """Give documents their words as they are indexed now, and no fields to those beyond the limits."""
    connection.execute("CREATE TEMP TABLE beyond (key INTEGER PRIMARY KEY)")
    for key, metadata, digest, text in pages(
        connection, "documents", "key", "metadata, hash, text", report
    ):
        words = keyword_text(text) if isinstance(text, str) else text
        if words != text and text_hash(text) == digest:
            connection.execute(_FORGET, (key, text))
            connection.execute("INSERT INTO keywords (rowid, text) VALUES (?, ?)", (key, words))
        if metadata != "{}" and _beyond(metadata):
            connection.execute("INSERT INTO beyond VALUES (?)", (key,))
    connection.execute("DELETE FROM fields WHERE document IN (SELECT key FROM beyond)")
    connection.execute("DROP TABLE beyond")


def _beyond(metadata: Any) -> bool:
    try:
        return metadata_problem(decode_metadata(metadata)) is not None
    except (TypeError, ValueError, RecursionError):
        return False  # a damaged document, which is named when it is read
