"""Comparing everything in a store with its checksums, and every index with what it indexes."""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_mrl.arguments import check_call, check_flag
from edge_mrl.documents import clean, id_problem, metadata_problem
from edge_mrl.errors import DamagedError
from edge_mrl.store.codefile.file import SEGMENT_ROWS
from edge_mrl.store.codefile.state import damaged_tombstones, read_state
from edge_mrl.store.engine.cipher import database_errors
from edge_mrl.store.filters.values import field_rows
from edge_mrl.store.health.repair import repair as mend
from edge_mrl.store.health.rewriting import discard_unfinished
from edge_mrl.store.health.salvage import is_damage
from edge_mrl.store.health.words import words_problem
from edge_mrl.store.records import DOCUMENT_COLUMNS, checksum, decode_metadata, sound_document
from edge_mrl.store.replica.foreign import foreign_problem
from edge_mrl.store.replica.outbox import read_enrollment
from edge_mrl.store.replica.withheld import WITHHELD_COLUMNS
from edge_mrl.store.roots import damaged_roots
from edge_mrl.store.schema.tables import wrong_definitions

if TYPE_CHECKING:
    from edge_mrl.store.codefile.cache import CodeCache
    from edge_mrl.store.health.rewriting import Rescued
    from edge_mrl.store.store import Store

__all__ = ["Health", "check"]

#: How many problems of one kind are listed one by one.
MOST_NAMED = 20
#: Repairs that follow each other at most: damage can hide more of it.
_ROUNDS = 3
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
        notes: What is not damage, and worth knowing, one sentence each.
    """

    documents: int
    problems: tuple[str, ...]
    repaired: tuple[str, ...]
    damaged_ids: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether no problem is left."""
        return not self.problems


@dataclass(slots=True)
class _Findings:
    """What is wrong, by what can be done about it."""

    documents: int = 0
    #: Damage that only a document that is put again can heal, and the structure of the file.
    found: list[str] = field(default_factory=list)
    #: What can be made again, by name.
    parts: dict[str, str] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    keys: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def name(self, what: str, ids: list[str]) -> None:
        """List the first of some documents one by one."""
        self.ids += ids
        self.found += [f"{what.format(repr(one))}" for one in ids[:MOST_NAMED]]
        if len(ids) > MOST_NAMED:
            self.found.append(f"{len(ids) - MOST_NAMED} more: {what.format('...')}")


def check(store: Store, *, repair: bool = False, advance: Advance | None = None) -> Health:
    """Compare everything in a store with its checksums, and every index with what it indexes.

    Args:
        store: An open store.
        repair: Make again what can be: indexes, lists, counters, the queue, and the code file. A
            document's text cannot be; damaged documents are listed. One whose id is lost, so that nobody
            can name it, is removed.
        advance: Called with the number of documents that were checked since the last call.

    Raises:
        StoreError: The file is so damaged that it cannot be read through.
    """
    check_flag("repair", repair)
    check_call("advance", advance)
    now = _examine(store, advance)
    repaired: tuple[str, ...] = ()
    for _ in range(_ROUNDS if repair else 0):
        if not now.parts:
            break
        rescued = mend(store, now.parts)
        before, now = now, _examine(store, None)
        repaired += tuple(text for name, text in before.parts.items() if name not in now.parts)
        if rescued is not None:
            repaired += _lost(rescued)
    if repair:
        discard_unfinished(store)
    problems = (*now.found, *now.parts.values())
    return Health(
        now.documents, problems, repaired, tuple(dict.fromkeys(now.ids)), tuple(now.notes)
    )


def _lost(rescued: Rescued) -> tuple[str, ...]:
    """What was lost, in a sentence."""
    named = ", ".join(repr(name) for name in rescued.lost[:MOST_NAMED])
    more = len(rescued.lost) - MOST_NAMED
    parts = [named] if named else []
    if more > 0:
        parts.append(f"{more} more")
    if rescued.unnamed:
        parts.append(f"{rescued.unnamed} whose ids are lost too")
    if rescued.tables and not parts:
        names = ", ".join(rescued.tables)
        return (
            f"not all rows of {names} could be read (the former file is kept as {rescued.kept})",
        )
    if not parts:
        return ()
    text = f"documents that could not be read are gone: {', '.join(parts)}: put them again"
    return (f"{text} (the former file is kept as {rescued.kept})",)


def _examine(store: Store, advance: Advance | None) -> _Findings:
    findings = _Findings()
    with store.locked() as (connection, cache), _one_state(connection):
        parts: tuple[tuple[str, Callable[[], None]], ...] = (
            ("the file", lambda: _structure(connection, findings)),
            ("documents", lambda: _documents(connection, findings, advance)),
            ("counters", lambda: _counters(connection, findings)),
            ("passages", lambda: _passages(connection, cache, findings)),
            ("full vectors", lambda: _fulls(connection, findings)),
            ("folders", lambda: _places(connection, findings)),
            ("sync", lambda: _queue(connection, findings)),
            ("fields", lambda: _fields(connection, findings)),
            ("keywords", lambda: _keywords(connection, findings)),
            ("the code file", lambda: _code_file(connection, cache, findings)),
        )
        for name, examine in parts:
            try:
                examine()
            except _damage_shown() as error:
                if isinstance(error, database_errors()) and not is_damage(error):
                    raise
                text = f"structure: {name} cannot be read ({error})"
                findings.parts.setdefault("structure", text)
    return findings


@contextmanager
def _one_state(connection: sqlite3.Connection) -> Iterator[None]:
    """Read in a transaction, which is taken back: a damaged index of words cannot end one."""
    connection.execute("BEGIN DEFERRED")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _damage_shown() -> tuple[type[Exception], ...]:
    """Errors by which damage shows itself: pages that SQLite cannot read, and rows that nobody wrote."""
    return (*database_errors(), DamagedError, TypeError, ValueError, OverflowError, struct.error)


def _places(connection: sqlite3.Connection, findings: _Findings) -> None:
    with suppress(DamagedError):  # of what was named above
        if (foreign := foreign_problem(connection)) is not None:
            findings.found.append(foreign)
    if damaged_roots(connection):
        text = "roots: the place of a folder cannot be trusted; it is found again"
        findings.parts["roots"] = text


def _keywords(connection: sqlite3.Connection, findings: _Findings) -> None:
    if (keywords := words_problem(connection, findings.keys)) is not None:
        findings.parts["keywords"] = keywords


def _structure(connection: sqlite3.Connection, findings: _Findings) -> None:
    if wrong := wrong_definitions(connection):
        text = f"structure: the definition of {_plain(wrong[0])} is not what it was"
        findings.parts["structure"] = text
    rows = connection.execute(f"PRAGMA integrity_check({MOST_NAMED})").fetchall()
    lines = [line for (text,) in rows for line in str(text).splitlines()]
    texts = [line for line in lines if line != "ok" and not line.startswith("***")]
    indexes = [text for text in texts if "index" in text]
    if indexes:
        findings.parts["indexes"] = f"structure: {indexes[0]}"
    others = [text for text in texts if text not in indexes]
    if others:
        more = f", and {len(others) - 1} more" if others[1:] else ""
        findings.parts["structure"] = f"structure: {others[0]}{more}"
    for table, _, parent, _ in connection.execute("PRAGMA foreign_key_check").fetchmany(MOST_NAMED):
        findings.parts["orphans"] = f"structure: a row of {table} belongs to nothing in {parent}"


def _documents(
    connection: sqlite3.Connection, findings: _Findings, advance: Advance | None
) -> None:
    bad: list[str] = []
    lost: list[str] = []
    beyond: list[str] = []
    query = f"SELECT {DOCUMENT_COLUMNS} FROM documents NOT INDEXED"  # noqa: S608 - own names
    for row in connection.execute(query):
        key, name, metadata, *_ = row
        findings.documents += 1
        if not sound_document(*row):
            findings.keys.add(key)
            (bad if _reachable(connection, key, name) else lost).append(_plain(name))
        elif (problem := _beyond(metadata)) is not None:
            beyond.append(f"document {name!r}: no filter finds it, because {problem}")
        if advance is not None:
            advance(1)
    findings.name("document {} is not what was stored", bad)
    findings.notes += beyond[:MOST_NAMED]
    if lost:
        findings.parts["documents"] = (
            f"{len(lost)} documents have lost their ids, among them {lost[0]!r}: put them again"
        )


def _reachable(connection: sqlite3.Connection, key: int, name: object) -> bool:
    """Whether a document can be named, and is found by its name."""
    if id_problem(name) is not None:
        return False
    rows = connection.execute("SELECT key FROM documents WHERE id = ?", (name,)).fetchall()
    return rows == [(key,)]


def _beyond(metadata: str) -> str | None:
    if metadata == "{}":
        return None
    try:
        return metadata_problem(decode_metadata(metadata))
    except (ValueError, RecursionError) as error:
        return f"its metadata is not JSON ({error})"


def _plain(name: object) -> str:
    return clean(name) if isinstance(name, str) else str(name)


def _counters(connection: sqlite3.Connection, findings: _Findings) -> None:
    """The rows that stand for the store as a whole."""
    try:
        read_state(connection)
    except DamagedError as error:
        findings.parts["state"] = str(error)
    if blocks := damaged_tombstones(connection):
        findings.parts["tombstones"] = (
            f"its list of deleted rows, block {blocks[0]}, cannot be trusted"
        )
    for table, columns in (("settings", "name, value"), ("reindexing", "binding")):
        query = f"SELECT {columns}, crc FROM {table}"  # noqa: S608 - own names
        bad = [values for *values, crc in connection.execute(query) if checksum(*values) != crc]
        if bad:
            findings.parts[table] = f"its {table} {_plain(bad[0][0])[:40]!r} cannot be trusted"


def _passages(connection: sqlite3.Connection, cache: CodeCache, findings: _Findings) -> None:
    names: list[str] = []
    unknown: list[str] = []
    for key in cache.damaged_keys():
        query = "SELECT id FROM documents WHERE key = ?"
        row = connection.execute(query, (key,)).fetchone()
        (unknown if row is None else names).append(_plain(row[0]) if row else f"key {key}")
    findings.name("the passages of document {} are not what was stored", names)
    if unknown:
        findings.parts["orphans"] = f"the passages of {unknown[0]} belong to no document"
    if "state" in findings.parts:
        return
    try:
        state = read_state(connection)
        cache.read_dead()
        for first in range(0, state.next_row, SEGMENT_ROWS):
            cache.load(first, min(first + SEGMENT_ROWS, state.next_row))
    except DamagedError as error:
        findings.parts["tombstones"] = str(error)
        return
    if len(cache.lost) and not names and not unknown:
        findings.parts["tombstones"] = f"row {cache.lost[0]} is missing"


def _fulls(connection: sqlite3.Connection, findings: _Findings) -> None:
    ids = []
    query = (
        "SELECT document, fulls.crc, vectors, id FROM fulls LEFT JOIN documents ON key = document"
    )
    for key, crc, vectors, name in connection.execute(query):
        if not isinstance(vectors, bytes) or zlib.crc32(vectors, key) != crc:
            ids.append(_plain(name))
    findings.name("the full vectors of document {} are not what was stored", ids)


def _queue(connection: sqlite3.Connection, findings: _Findings) -> None:
    """What is wrong with the queue, and with what is known of the server."""
    try:
        enrolled = read_enrollment(connection) is not None
    except DamagedError as error:
        findings.parts["sync"] = f"sync: {error}: enroll this store again after the repair"
        return
    tables = (
        ("versions", "id, stamp, device, deleted, acknowledged, sent"),
        ("outbox", "id, stamp, deleted, bytes"),
        ("dead", "id, stamp, reason, since_ms, deleted, metadata, text"),
        ("withheld", WITHHELD_COLUMNS),
    )
    for table, columns in tables:
        query = f"SELECT {columns}, crc FROM {table}"  # noqa: S608 - own names
        bad = [row[0] for *row, crc in connection.execute(query) if not _checked(row, crc)]
        if bad:
            part = table if table in ("dead", "withheld") else "queue"
            findings.parts[part] = f"sync: {table} of document {_plain(bad[0])!r} is damaged"
    if not enrolled:
        return
    unsendable = (
        "SELECT outbox.id FROM outbox LEFT JOIN documents ON documents.id = outbox.id "
        "WHERE NOT outbox.deleted AND key IS NULL"
    )
    unversioned = (
        "SELECT documents.id FROM documents LEFT JOIN versions ON versions.id = documents.id "
        "WHERE versions.id IS NULL OR versions.deleted"
    )
    for query in (unsendable, unversioned):
        for (name,) in connection.execute(query).fetchmany(1):
            text = f"sync: document {_plain(name)!r} and its version do not agree"
            findings.parts.setdefault("queue", text)


def _checked(values: list[Any], crc: object) -> bool:
    return bool(checksum(*values) == crc)


def _fields(connection: sqlite3.Connection, findings: _Findings) -> None:
    if (fields := _fields_problem(connection)) is not None:
        findings.parts["fields"] = fields


def _fields_problem(connection: sqlite3.Connection) -> str | None:
    """What is wrong with the metadata's index, or None."""
    wanted = 0
    query = "SELECT 1 FROM fields WHERE name = ? AND kind = ? AND value = ? AND document = ?"
    for key, metadata in _metadata(connection):
        for row in field_rows(metadata):
            wanted += 1
            if connection.execute(query, (*row, key)).fetchone() is None:
                return "fields: values are missing from the index of metadata"
    (there,) = connection.execute("SELECT count(*) FROM fields").fetchone()
    if there == wanted:
        return None
    return "fields: the index of metadata has values that no document has"


def _metadata(connection: sqlite3.Connection) -> Iterator[tuple[int, dict[str, object]]]:
    """Keys and metadata of those sound documents that have metadata."""
    query = f"SELECT {DOCUMENT_COLUMNS} FROM documents WHERE metadata <> '{{}}'"  # noqa: S608
    for row in connection.execute(query):
        if sound_document(*row):
            try:
                yield row[0], decode_metadata(row[2])
            except (ValueError, RecursionError):
                continue


def _code_file(connection: sqlite3.Connection, cache: CodeCache, findings: _Findings) -> None:
    if "state" in findings.parts:
        return
    state = read_state(connection)
    try:
        for number, text in enumerate(cache.verify(state)):
            findings.parts[f"codes {number}"] = text
    except DamagedError:
        return  # the database itself is damaged there, and has been named
    if state.filed and (problem := cache.inspect(state)) is not None:
        findings.notes.append(f"{problem}: it is made again when the store is written")
