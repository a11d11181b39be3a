"""Dead letters: versions that are not sent any more, or that arrived and could not be stored here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_mrl.documents import Document, clean, id_problem
from edge_mrl.store.records import checksum, decode_metadata, text_hash
from edge_mrl.store.replica.enrollment import require
from edge_mrl.store.replica.outbox import Queued, restamp, write_queue
from edge_mrl.store.replica.withheld import (
    DETAIL_CHARS,
    LOST,
    UNREADABLE,
    ask_again,
    count_withheld,
    damaged_withheld,
    drop_withheld,
    list_withheld,
)
from edge_mrl.store.statements import insert_into, select_rows
from edge_mrl.wire import now_ms

if TYPE_CHECKING:
    from edge_mrl.store.store import Store

__all__ = [
    "DAMAGED",
    "DELETED_ELSEWHERE",
    "NO_VECTORS",
    "REPLACED_ELSEWHERE",
    "DeadLetter",
    "count_dead_letters",
    "drop_dead_letters",
    "list_dead_letters",
    "move_to_dead_letters",
    "replaced_texts",
    "requeue_dead_letters",
    "write_dead_letter",
]

#: Reasons why a version is not sent, beside those of a server: "invalid", "too_large", "forbidden".
DELETED_ELSEWHERE = "deleted_elsewhere"
NO_VECTORS = "no_vectors"
DAMAGED = "damaged"
REPLACED_ELSEWHERE = "replaced_elsewhere"
#: Reasons of letters that hold a text which the store does not have any more.
_HOLD_TEXT = (DELETED_ELSEWHERE, REPLACED_ELSEWHERE)
_DEAD = ("id", "stamp", "reason", "since_ms", "deleted", "metadata", "text", "crc", "detail")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A version that is not sent any more, or one of another device that cannot be stored here.

    Attributes:
        id: The document.
        reason: "invalid", "too_large" or "forbidden", if the server refused it, or what stands between;
            "no_vectors", if its text is not on this device, or cannot be embedded;
            "deleted_elsewhere", if another device deleted the document; "replaced_elsewhere", if another
            device wrote another text under this id, and this is the one that was here; "unreadable", if
            another device's version arrived and cannot be stored; "lost", if a restored server lacks
            another device's version, and nothing here could send it; "damaged", if the document, or what
            is known of the version, is not what was stored.
        since_ms: Since when it is a dead letter, in milliseconds since 1970.
        deleted: Whether the version is a deletion.
        document: The document; None for a deletion, and where it is not here.
        stamp: The stamp of the version.
        device: The device that wrote the version; "" for this one.
        detail: What was said about it, for people; "" for nothing.
    """

    id: str
    reason: str
    since_ms: int
    deleted: bool
    document: Document | None
    stamp: int = 0
    device: str = ""
    detail: str = ""


def count_dead_letters(store: Store) -> int:
    """The number of dead letters."""
    with store.locked() as (connection, _):
        (count,) = connection.execute("SELECT count(*) FROM dead").fetchone()
        return int(count) + count_withheld(connection)


def list_dead_letters(store: Store) -> list[DeadLetter]:
    """All dead letters, ordered by id; of one document, what arrived comes behind what is not sent.

    One that is not what was written is there with the reason "damaged", and nothing else.
    """
    query = f"SELECT {', '.join(_DEAD)} FROM dead ORDER BY id"  # noqa: S608 - own names
    with store.locked() as (connection, _):
        rows = connection.execute(query).fetchall()
        withheld = list_withheld(connection)
        letters = [_damaged(name) for name in damaged_withheld(connection)]
    here = _sound_documents(store, [name for name, *_ in rows])
    for *values, crc, detail in rows:
        name, stamp, reason, since_ms, deleted, metadata, text = values
        if checksum(*values) != crc:
            letters.append(_damaged(clean(str(name))))
            continue
        document = None if deleted else here.get(name)
        if text is not None:
            document = Document(name, text, decode_metadata(metadata))
        letters.append(
            DeadLetter(name, reason, since_ms, bool(deleted), document, stamp, "", detail)
        )
    letters += [
        DeadLetter(
            one.id, one.reason, one.since_ms, one.deleted, one.document, one.version.stamp,
            one.version.device, one.detail,
        )
        for one in withheld
    ]  # fmt: skip
    return sorted(letters, key=lambda letter: (letter.id, letter.device != ""))


def _damaged(name: str) -> DeadLetter:
    detail = "what is known of it is damaged: `edge-mrl check --repair` drops it"
    return DeadLetter(name, DAMAGED, 0, deleted=False, document=None, detail=detail)


def _sound_documents(store: Store, names: Sequence[str]) -> dict[str, Document]:
    with store.reading() as view, store.locked() as (connection, _):
        known = [name for name in names if id_problem(name) is None]
        keys = [key for (key,) in select_rows(connection, "key", "id", known)]
        return {one.id: one for one in view.documents(keys, sound=True).values()}


def replaced_texts(store: Store, ids: Sequence[str]) -> dict[str, bytes]:
    """Hashes of the texts that other devices have replaced, by id, of those documents that have one."""
    with store.locked() as (connection, _):
        rows = select_rows(connection, ", ".join(_DEAD[:-1]), "id", ids, "dead")
    return {
        values[0]: text_hash(values[-1])
        for *values, crc in rows
        if values[2] == REPLACED_ELSEWHERE and values[-1] is not None and checksum(*values) == crc
    }


def requeue_dead_letters(
    store: Store, ids: Iterable[str] | None = None
) -> tuple[int, list[Document]]:
    """Queue dead letters again, with new stamps. What could not be stored here is asked for again.

    Args:
        store: The store.
        ids: Which documents; None for all.

    Returns:
        How many were queued, and the documents that were deleted or replaced elsewhere. Those are not
        queued: put them again to keep them.
    """
    wanted = None if ids is None else set(ids)
    found = [letter for letter in list_dead_letters(store) if wanted is None or letter.id in wanted]
    letters = [letter for letter in found if not letter.device and letter.stamp]
    gone = [letter for letter in letters if letter.reason in _HOLD_TEXT]
    again = [letter for letter in letters if letter.reason not in _HOLD_TEXT]
    # Put again, they are this device's: their writer has not sent them since the server lost them.
    gone += [letter for letter in found if letter.reason == LOST]
    with store.writing(), store.locked() as (connection, _):
        now = require(connection, store)
        rows = [Queued(letter.id, now.last, letter.deleted, now_ms(), 0) for letter in again]
        write_queue(connection, rows)
        restamp(connection, now, [letter.id for letter in again])
        _forget(connection, [letter.id for letter in again])
        ask_again(connection, [letter.id for letter in found if letter.reason == UNREADABLE])
    documents = [letter.document for letter in gone if letter.document is not None]
    asked = sum(letter.reason == UNREADABLE for letter in found)
    return len(again) + asked, documents


def drop_dead_letters(store: Store, ids: Iterable[str] | None = None) -> int:
    """Drop dead letters. Their documents stay in the store, and are not sent.

    Args:
        store: The store.
        ids: Which documents; None for all.

    Returns:
        How many were dropped.
    """
    with store.writing(), store.locked() as (connection, _):
        there = {name for (name,) in connection.execute("SELECT id FROM dead")}
        chosen = None if ids is None else set(ids)
        wanted = there if chosen is None else there & chosen
        _forget(connection, sorted(wanted))
        withheld = drop_withheld(connection, chosen)
        if store.keep_full == "until-synced":
            query = "DELETE FROM fulls WHERE document = (SELECT key FROM documents WHERE id = ?)"
            connection.executemany(query, [(name,) for name in wanted])
    return len(wanted) + withheld


def _forget(connection: sqlite3.Connection, names: Sequence[str]) -> None:
    connection.executemany("DELETE FROM dead WHERE id = ?", [(name,) for name in names])


def move_to_dead_letters(
    connection: sqlite3.Connection, letters: Iterable[tuple[str, int, str, str]]
) -> None:
    """Move versions (id, stamp, reason, detail) from the queue to the dead letters.

    Their documents stay.
    """
    for name, stamp, reason, detail in letters:
        query = "DELETE FROM outbox WHERE id = ? AND stamp = ? RETURNING deleted"
        for (deleted,) in connection.execute(query, (name, stamp)).fetchall():
            write_dead_letter(connection, (name, stamp, reason, deleted), detail=detail)


def write_dead_letter(
    connection: sqlite3.Connection,
    letter: tuple[str, int, str, int],
    *,
    kept: tuple[str, str] | None = None,
    detail: str = "",
) -> None:
    """Write a dead letter.

    Args:
        connection: In a transaction that writes.
        letter: The document's id, the version's stamp, the reason, and whether it is a deletion.
        kept: Metadata and text of a document that is deleted here.
        detail: What was said about it.
    """
    name, stamp, reason, deleted = letter
    metadata, text = kept or (None, None)
    values = (name, stamp, reason, now_ms(), deleted, metadata, text)
    # The detail is for people alone: nothing depends on it, and no checksum covers it.
    row = (*values, checksum(*values), clean(detail)[:DETAIL_CHARS])
    connection.execute(insert_into("dead", _DEAD, replace=True), row)
