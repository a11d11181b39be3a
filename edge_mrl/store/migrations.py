"""The store's tables, as migrations (FORMAT.md, "Store", is the specification)."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Sequence

from edge_mrl.store.codefile.file import GENERATION_BYTES
from edge_mrl.store.filters.values import field_rows
from edge_mrl.store.records import encode_spans
from edge_mrl.store.schema.former import checksum, matches, passage_check
from edge_mrl.store.schema.ninth import fill_ninth
from edge_mrl.store.schema.report import Report
from edge_mrl.store.schema.tenth import fill_tenth

__all__ = ["KEYWORD_COLUMNS", "MIGRATIONS", "MIGRATIONS_TABLE", "apply"]

#: FTS5 without a copy of the texts; letters count without their accents.
KEYWORD_COLUMNS = "text, content = '', tokenize = 'unicode61 remove_diacritics 2'"

MIGRATIONS_TABLE = """CREATE TABLE migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    applied_ms INTEGER NOT NULL
)"""

Step = str | Callable[[sqlite3.Connection, Report], None]

_FIRST: tuple[Step, ...] = (
    """CREATE TABLE binding (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        space_id TEXT NOT NULL,
        code_id TEXT NOT NULL,
        dim INTEGER NOT NULL CHECK (dim > 0),
        scale REAL NOT NULL,
        bundle TEXT NOT NULL,
        bundle_relative TEXT NOT NULL,
        passage_tokens INTEGER NOT NULL,
        passage_overlap INTEGER NOT NULL,
        changes INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE TABLE documents (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        text TEXT NOT NULL,
        metadata TEXT NOT NULL,
        hash BLOB NOT NULL
    )""",
    """CREATE TABLE passages (
        document INTEGER NOT NULL REFERENCES documents(key) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        start INTEGER NOT NULL,
        stop INTEGER NOT NULL,
        PRIMARY KEY (document, position)
    ) WITHOUT ROWID""",
    """CREATE TABLE codes (
        document INTEGER PRIMARY KEY REFERENCES documents(key) ON DELETE CASCADE,
        codes BLOB NOT NULL
    )""",
)

_SECOND_TABLES: tuple[Step, ...] = (
    "ALTER TABLE binding RENAME TO old_binding",
    "ALTER TABLE documents RENAME TO old_documents",
    "ALTER TABLE passages RENAME TO old_passages",
    "ALTER TABLE codes RENAME TO old_codes",
    """CREATE TABLE binding (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        space_id TEXT NOT NULL,
        code_id TEXT NOT NULL,
        dim INTEGER NOT NULL CHECK (dim > 0),
        scale REAL NOT NULL,
        full_dim INTEGER,
        keep_full TEXT,
        passage_tokens INTEGER NOT NULL,
        passage_overlap INTEGER NOT NULL,
        bundle TEXT NOT NULL,
        bundle_relative TEXT NOT NULL,
        crc INTEGER NOT NULL
    )""",
    """CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        changes INTEGER NOT NULL,
        next_key INTEGER NOT NULL,
        next_row INTEGER NOT NULL,
        filed INTEGER NOT NULL,
        generation BLOB NOT NULL,
        crc INTEGER NOT NULL
    )""",
    # The text comes last: what only needs the other columns does not read a long text's pages.
    """CREATE TABLE documents (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        metadata TEXT NOT NULL,
        source TEXT,
        hash BLOB NOT NULL,
        crc INTEGER NOT NULL,
        text TEXT NOT NULL
    )""",
    "CREATE INDEX documents_source ON documents (source) WHERE source IS NOT NULL",
    """CREATE TABLE passages (
        first_row INTEGER PRIMARY KEY,
        document INTEGER NOT NULL UNIQUE REFERENCES documents(key) ON DELETE CASCADE,
        rows INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        spans BLOB NOT NULL,
        codes BLOB NOT NULL
    )""",
    """CREATE TABLE tombstones (
        block INTEGER PRIMARY KEY,
        crc INTEGER NOT NULL,
        bits BLOB NOT NULL
    )""",
    """CREATE TABLE segments (
        segment INTEGER PRIMARY KEY,
        checksums BLOB NOT NULL
    )""",
    """CREATE TABLE fulls (
        document INTEGER PRIMARY KEY REFERENCES documents(key) ON DELETE CASCADE,
        crc INTEGER NOT NULL,
        vectors BLOB NOT NULL
    )""",
    """CREATE TABLE fields (
        name TEXT NOT NULL,
        kind INTEGER NOT NULL,
        value NOT NULL,
        document INTEGER NOT NULL,
        PRIMARY KEY (name, kind, value, document)
    ) WITHOUT ROWID""",
    f"CREATE VIRTUAL TABLE keywords USING fts5 ({KEYWORD_COLUMNS})",
    """CREATE TABLE reindexing (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        binding TEXT NOT NULL
    )""",
    """CREATE TABLE reindexed (
        document INTEGER PRIMARY KEY REFERENCES documents(key) ON DELETE CASCADE,
        rows INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        full_crc INTEGER,
        spans BLOB NOT NULL,
        codes BLOB NOT NULL,
        vectors BLOB
    )""",
)


def _fill_second(connection: sqlite3.Connection, report: Report) -> None:
    """Carry the rows of the first version over, and drop its tables."""
    report.expect("old_documents")
    changes = _carry_binding(connection)
    row = 0
    for key, name, text, metadata, digest in connection.execute(
        "SELECT key, id, text, metadata, hash FROM old_documents ORDER BY key"
    ):
        crc = checksum(key, name, metadata, None, digest)
        connection.execute(
            "INSERT INTO documents VALUES (?, ?, ?, NULL, ?, ?, ?)",
            (key, name, metadata, digest, crc, text),
        )
        connection.execute("INSERT INTO keywords (rowid, text) VALUES (?, ?)", (key, text))
        connection.executemany(
            "INSERT INTO fields VALUES (?, ?, ?, ?)",
            [(*field, key) for field in field_rows(json.loads(metadata))],
        )
        row += _carry_passages(connection, key, row)
        report.add(1)
    next_key = 1 + connection.execute("SELECT ifnull(max(key), 0) FROM documents").fetchone()[0]
    state = (changes, next_key, row, 0, os.urandom(GENERATION_BYTES))
    if changes is not None:
        connection.execute(
            "INSERT INTO state VALUES (1, ?, ?, ?, ?, ?, ?)", (*state, checksum(*state))
        )
    for table in ("old_codes", "old_passages", "old_documents", "old_binding"):
        connection.execute(f"DROP TABLE {table}")


def _carry_binding(connection: sqlite3.Connection) -> int | None:
    """Copy the binding; returns the count of changes, or None in a store that is just being made."""
    row = connection.execute(
        "SELECT space_id, code_id, dim, scale, passage_tokens, passage_overlap, bundle, "
        "bundle_relative, changes FROM old_binding"
    ).fetchone()
    if row is None:
        return None
    bound = (*row[:4], None, None, *row[4:6])
    values = (*bound, *row[6:8], checksum(*bound))
    connection.execute("INSERT INTO binding VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    changes: int = row[8]
    return changes


def _carry_passages(connection: sqlite3.Connection, key: int, row: int) -> int:
    """Copy a document's passages to the rows from ``row`` on; returns how many."""
    spans = connection.execute(
        "SELECT start, stop FROM old_passages WHERE document = ? ORDER BY position", (key,)
    ).fetchall()
    if not spans:
        return 0
    query = "SELECT codes FROM old_codes WHERE document = ?"
    codes = connection.execute(query, (key,)).fetchone()[0]
    places = encode_spans(spans)
    crc = passage_check(key, places, codes)
    values = (row, key, len(spans), crc, places, codes)
    connection.execute("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?)", values)
    return len(spans)


#: What a store that is synced keeps beside its documents; empty without enrollment.
_THIRD: tuple[Step, ...] = (
    """CREATE TABLE sync (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        server TEXT NOT NULL,
        tenant TEXT NOT NULL,
        device TEXT NOT NULL,
        cursor INTEGER NOT NULL,
        last INTEGER NOT NULL,
        floor INTEGER NOT NULL,
        offset_ms INTEGER NOT NULL,
        with_text INTEGER NOT NULL,
        max_queue INTEGER NOT NULL,
        success_ms INTEGER NOT NULL,
        margin REAL,
        crc INTEGER NOT NULL
    )""",
    """CREATE TABLE versions (
        id TEXT PRIMARY KEY,
        stamp INTEGER NOT NULL,
        device TEXT NOT NULL,
        deleted INTEGER NOT NULL,
        acknowledged INTEGER NOT NULL,
        sent INTEGER NOT NULL,
        crc INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE outbox (
        id TEXT PRIMARY KEY,
        stamp INTEGER NOT NULL,
        deleted INTEGER NOT NULL,
        queued_ms INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        crc INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX outbox_order ON outbox (stamp, bytes)",
    """CREATE TABLE dead (
        id TEXT PRIMARY KEY,
        stamp INTEGER NOT NULL,
        reason TEXT NOT NULL,
        since_ms INTEGER NOT NULL,
        deleted INTEGER NOT NULL,
        metadata TEXT,
        text TEXT,
        crc INTEGER NOT NULL
    ) WITHOUT ROWID""",
)

_FOURTH_TABLES: tuple[Step, ...] = (
    "ALTER TABLE binding ADD COLUMN stored TEXT NOT NULL DEFAULT 'int8'",
    "ALTER TABLE binding ADD COLUMN step REAL",
    "ALTER TABLE binding ADD COLUMN centre BLOB",
    """CREATE TABLE settings (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL,
        crc INTEGER NOT NULL
    ) WITHOUT ROWID""",
)


def _check_fourth(connection: sqlite3.Connection, _: Report) -> None:
    """Let the binding's checksum cover the new columns, unless it was wrong before."""
    columns = "space_id, code_id, dim, scale, full_dim, keep_full, passage_tokens, passage_overlap"
    query = f"SELECT {columns}, stored, step, centre, crc FROM binding"  # noqa: S608 - own names
    row = connection.execute(query).fetchone()
    if row is not None and matches(row[:8], row[-1]):
        connection.execute("UPDATE binding SET crc = ?", (checksum(*row[:-1]),))


_FIFTH_TABLES: tuple[Step, ...] = (
    "ALTER TABLE sync RENAME TO old_sync",
    """CREATE TABLE sync (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        server TEXT NOT NULL,
        tenant TEXT NOT NULL,
        device TEXT NOT NULL,
        cursor INTEGER NOT NULL,
        last INTEGER NOT NULL,
        floor INTEGER NOT NULL,
        offset_ms INTEGER NOT NULL,
        with_text INTEGER NOT NULL,
        max_queue INTEGER NOT NULL,
        success_ms INTEGER NOT NULL,
        margin REAL,
        epoch TEXT NOT NULL,
        push INTEGER NOT NULL,
        answered INTEGER NOT NULL,
        crc INTEGER NOT NULL
    )""",
)


def _fill_fifth(connection: sqlite3.Connection, _: Report) -> None:
    """Carry the enrollment over; what was sent without an answer was sent without a number."""
    for row in connection.execute("SELECT * FROM old_sync").fetchall():
        values = (*row[1:-1], "", 0, 0)
        crc = checksum(*values) if matches(row[1:-1], row[-1]) else row[-1]
        marks = ", ".join("?" * (len(values) + 2))
        connection.execute(f"INSERT INTO sync VALUES ({marks})", (1, *values, crc))  # noqa: S608
    connection.execute("DROP TABLE old_sync")
    query = (
        "SELECT id, stamp, device, deleted, acknowledged, sent, crc FROM versions WHERE sent > 0"
    )
    for *values, crc in connection.execute(query).fetchall():
        if matches(values, crc):
            row = (checksum(*values[:-1], 0), values[0])
            connection.execute("UPDATE versions SET sent = 0, crc = ? WHERE id = ?", row)


_WITHHELD: tuple[Step, ...] = (
    "ALTER TABLE dead ADD COLUMN detail TEXT NOT NULL DEFAULT ''",
    """CREATE TABLE withheld (
        id TEXT PRIMARY KEY,
        stamp INTEGER NOT NULL,
        device TEXT NOT NULL,
        deleted INTEGER NOT NULL,
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        since_ms INTEGER NOT NULL,
        program TEXT NOT NULL,
        metadata TEXT,
        text TEXT,
        again INTEGER NOT NULL,
        crc INTEGER NOT NULL
    ) WITHOUT ROWID""",
)

_ROOTS: tuple[Step, ...] = (
    """CREATE TABLE roots (
        prefix TEXT PRIMARY KEY,
        path BLOB NOT NULL,
        facts TEXT NOT NULL,
        crc INTEGER NOT NULL
    ) WITHOUT ROWID""",
)

_AGREEMENT: tuple[Step, ...] = (
    # Without a row, the sums are made from the versions.
    """CREATE TABLE agreement (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        sums BLOB NOT NULL,
        pending BLOB NOT NULL,
        there TEXT NOT NULL,
        here TEXT NOT NULL,
        tries INTEGER NOT NULL,
        next_ms INTEGER NOT NULL,
        differs INTEGER NOT NULL,
        crc INTEGER NOT NULL
    )""",
)

_NINTH_TABLES: tuple[Step, ...] = (
    "ALTER TABLE reindexing ADD COLUMN crc INTEGER NOT NULL DEFAULT 0",
)

#: Names and steps, in order. A released migration never changes; a new one goes at the end.
MIGRATIONS: tuple[tuple[str, tuple[Step, ...]], ...] = (
    ("0001-documents-passages-codes", _FIRST),
    ("0002-rows-checksums-keywords", (*_SECOND_TABLES, _fill_second)),
    ("0003-outbox-versions", _THIRD),
    ("0004-stored-codes-settings", (*_FOURTH_TABLES, _check_fourth)),
    ("0005-epoch-numbered-pushes", (*_FIFTH_TABLES, _fill_fifth)),
    ("0006-withheld-versions", _WITHHELD),
    ("0007-roots", _ROOTS),
    ("0008-agreement", _AGREEMENT),
    ("0009-checksums-by-type", (*_NINTH_TABLES, fill_ninth)),
    ("0010-words-of-one-unicode", (fill_tenth,)),
)


def apply(connection: sqlite3.Connection, number: int, steps: Sequence[Step]) -> None:
    """Run the steps of one migration; it is not recorded.

    Args:
        connection: In a transaction that writes, to a store of the version before.
        number: The migration's number, from 1 on.
        steps: Its steps.
    """
    report = Report(connection, number)
    for step in steps:
        if isinstance(step, str):
            connection.execute(step)
        else:
            step(connection, report)
    report.end()
