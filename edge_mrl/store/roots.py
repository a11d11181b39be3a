"""Roots: folders whose files are documents of a store, and the names that begin the documents' ids.

A root's name is kept with the folder's absolute path, so that a file has one id however its folder is
named on the command line. The name is part of ids and is sent to servers; the path never is.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edge_mrl.documents import Document
from edge_mrl.errors import DamagedError, StoreBusyError
from edge_mrl.store.codefile.state import write_state
from edge_mrl.store.records import checksum, decode_metadata, document_check
from edge_mrl.store.replica.moved import note_moved
from edge_mrl.store.rows import remove_documents
from edge_mrl.store.statements import insert_row, select_rows

if TYPE_CHECKING:
    from edge_mrl.store.store import Store

__all__ = [
    "Moved",
    "Root",
    "damaged_roots",
    "drop_damaged_roots",
    "forget_root",
    "move_some",
    "read_roots",
    "sources_below",
    "write_roots",
]

#: Documents whose ids are changed in one transaction.
MOVE_DOCUMENTS = 256
#: What sorts after every text that begins with a prefix.
_LAST = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Root:
    """A folder that is indexed.

    Attributes:
        prefix: What begins the source of each of its files, and the ids of their documents: its name and
            a slash. For standard input the name alone.
        path: The folder's absolute path without links; "-" for standard input.
        numbered: Whether documents in JSON Lines without an id have the number of their line as id, as
            in stores of earlier versions. Else their ids are made of their content.
        mounted_on: The mount point on which the folder was when it was last read; "" if unknown.
        mounts: Mount points inside the folder, relative to it, that were read so far.
        moves_to: The prefix that its documents are being given; None if they keep theirs.
    """

    prefix: str
    path: str
    numbered: bool = False
    mounted_on: str = ""
    mounts: tuple[str, ...] = ()
    moves_to: str | None = None

    @property
    def name(self) -> str:
        """The name that begins ids."""
        return self.prefix.rstrip("/") or "."

    def source_of(self, relative: str) -> str:
        """The source of a file, given its path in the folder with forward slashes."""
        return f"{self.prefix}{relative}"


@dataclass(frozen=True, slots=True)
class Moved:
    """What a step of moving ids did.

    Attributes:
        moved: Documents that have their new id.
        equal: Documents that were dropped because another one has the same content, and so the same id.
        left: Documents that stay under their old id, as no file's: another device has written them since,
            or another document has the new id.
        last: The largest key that was looked at.
        done: Whether nothing is left to move.
    """

    moved: int = 0
    equal: int = 0
    left: int = 0
    last: int = 0
    done: bool = False

    def __add__(self, other: Moved) -> Moved:
        return Moved(
            self.moved + other.moved,
            self.equal + other.equal,
            self.left + other.left,
            max(self.last, other.last),
            self.done or other.done,
        )


def read_roots(store: Store) -> list[Root]:
    """The roots of a store, ordered by prefix.

    A root that is not what was written is left out: it is found again by the files of its documents.
    """
    query = "SELECT prefix, path, facts, crc FROM roots ORDER BY prefix"
    with store.locked() as (connection, _):
        rows = connection.execute(query).fetchall()
    found = []
    for prefix, path, facts, crc in rows:
        if not _is_right(prefix, path, facts, crc):
            continue
        values = json.loads(facts)
        mounts = tuple(values.pop("mounts"))
        found.append(Root(prefix, os.fsdecode(path), mounts=mounts, **values))
    return found


def _is_right(prefix: object, path: object, facts: object, crc: int) -> bool:
    """Whether a row of the table ``roots`` is what was written."""
    if not (isinstance(prefix, str) and isinstance(path, bytes) and isinstance(facts, str)):
        return False
    return checksum(prefix, path, facts) == crc


def damaged_roots(connection: sqlite3.Connection) -> list[Any]:
    """Prefixes of roots that are not what was written."""
    rows = connection.execute("SELECT prefix, path, facts, crc FROM roots").fetchall()
    return [row[0] for row in rows if not _is_right(*row)]


def drop_damaged_roots(connection: sqlite3.Connection) -> None:
    """Delete roots that are not what was written; reading their folders finds them again."""
    for prefix in damaged_roots(connection):
        # Text that is no UTF-8 cannot be bound as text.
        bound = prefix.encode("utf-8", "surrogateescape") if isinstance(prefix, str) else prefix
        as_bytes = "CAST(prefix AS BLOB)" if isinstance(prefix, str) else "prefix"
        connection.execute(f"DELETE FROM roots WHERE {as_bytes} IS ?", (bound,))  # noqa: S608


def write_roots(store: Store, roots: Sequence[Root]) -> None:
    """Write roots, each in place of the one of its prefix.

    Raises:
        StoreBusyError: Another process has named one of the folders meanwhile; nothing was written.
    """
    with store.writing(), store.locked() as (connection, _):
        drop_damaged_roots(connection)  # one of them may have the path of another
        for root in roots:
            query = "SELECT prefix FROM roots WHERE path = ? AND prefix <> ?"
            others = connection.execute(query, (os.fsencode(root.path), root.prefix)).fetchall()
            there = connection.execute("SELECT 1 FROM roots WHERE prefix = ?", (root.prefix,))
            if others and there.fetchone() is None:
                raise StoreBusyError(
                    f"another process has indexed {root.path} for the first time just now: try again"
                )
            _write(connection, root)


def _write(connection: sqlite3.Connection, root: Root) -> None:
    facts = json.dumps(
        {
            "numbered": root.numbered,
            "mounted_on": root.mounted_on,
            "mounts": list(root.mounts),
            "moves_to": root.moves_to,
        },
        sort_keys=True,
    )
    path = os.fsencode(root.path)
    row = {"prefix": root.prefix, "path": path, "facts": facts}
    insert_row(
        connection, "roots", {**row, "crc": checksum(root.prefix, path, facts)}, replace=True
    )


def forget_root(store: Store, prefix: str) -> None:
    """Forget a root; its documents stay."""
    with store.writing(), store.locked() as (connection, _):
        connection.execute("DELETE FROM roots WHERE prefix = ?", (prefix,))


def sources_below(store: Store, prefix: str) -> Iterator[tuple[str, str]]:
    """Ids and sources of the documents whose source begins with ``prefix``, ordered by source."""
    query = (
        "SELECT source, key, id FROM documents WHERE (source, key) > (?, ?) AND source < ? "
        "ORDER BY source, key LIMIT 1000"
    )
    at = (prefix, -1)
    while True:
        with store.locked() as (connection, _):
            rows = connection.execute(query, (*at, prefix + _LAST)).fetchall()
        if not rows:
            return
        for source, key, name in rows:
            yield name, source
            at = (source, key)


def move_some(
    store: Store,
    old: Root,
    new: Root,
    *,
    inner: Sequence[str],
    after: int,
    rename: Callable[[Document, Root, Root], tuple[str, str]],
) -> Moved:
    """Give some documents of a root new ids, in one transaction; nothing is embedded again.

    Both roots are written at the first step and the old one is forgotten at the last, so that an
    interrupted move is seen and goes on.

    In an enrolled store each document is queued under its new id, and its old id is deleted on the server
    if the server may have it. A document of which another device has written the present version stays
    under its old id, as that device's.

    Args:
        store: The store.
        old: What the documents' sources begin with now.
        new: What they will begin with.
        inner: Prefixes of other roots that begin with the old one; their documents stay.
        after: Only documents with a larger key.
        rename: Gives a document's new id and source.
    """
    with store.writing() as state, store.locked() as (connection, _):
        if old.prefix != new.prefix:
            _write(connection, replace(old, moves_to=new.prefix))
            if new.prefix.startswith(old.prefix):
                inner = [*inner, new.prefix]
        rows = _rows_to_move(connection, old.prefix, inner, after)
        if not rows:
            connection.execute("DELETE FROM roots WHERE prefix = ?", (old.prefix,))
        _write(connection, replace(new, moves_to=None, numbered=new.numbered and bool(rows)))
        if not rows:
            return Moved(done=True)
        names = {row[1]: rename(_document(row), old, new) for row in rows}
        moved = _move(connection, rows, names)
        write_state(connection, replace(state, changes=state.changes + 1))
        return replace(moved, last=rows[-1][0])


def _rows_to_move(
    connection: sqlite3.Connection, prefix: str, inner: Sequence[str], after: int
) -> list[tuple[Any, ...]]:
    columns = "key, id, metadata, source, hash, crc, text"
    where = "key > ? AND source >= ? AND source < ?"
    values: list[str | int] = [after, prefix, prefix + _LAST]
    for one in inner:
        where += " AND NOT (source >= ? AND source < ?)"
        values += [one, one + _LAST]
    query = f"SELECT {columns} FROM documents WHERE {where} ORDER BY key LIMIT ?"  # noqa: S608 - own names
    return connection.execute(query, (*values, MOVE_DOCUMENTS)).fetchall()


def _document(row: tuple[Any, ...]) -> Document:
    key, name, metadata, source, digest, crc, text = row
    if document_check(key, name, metadata, source, digest) != crc:
        raise DamagedError(f"document {name!r} cannot be trusted")
    return Document(name, text, decode_metadata(metadata), source)


def _move(
    connection: sqlite3.Connection,
    rows: Sequence[tuple[Any, ...]],
    names: dict[str, tuple[str, str]],
) -> Moved:
    wanted = [new for old, (new, _) in names.items() if new != old]
    taken = dict(select_rows(connection, "id, hash", "id", wanted))
    plan: dict[str, str] = {}
    equal: dict[str, int] = {}
    blocked: set[str] = set()
    for key, name, _, _, digest, _, _ in rows:
        new, _ = names[name]
        if new == name:
            continue
        if new not in taken:
            plan[name] = new
            taken[new] = digest
        elif taken[new] == digest:
            equal[name] = key
        else:
            blocked.add(name)
    others = note_moved(connection, plan, dropped=list(equal))
    left = blocked | others
    moved = 0
    for key, name, metadata, _, digest, _, _ in rows:
        new, source = names[name]
        if name in left:
            _rewrite(connection, key, (name, metadata, None, digest))
        elif name not in equal:
            _rewrite(connection, key, (new, metadata, source, digest))
            moved += 1
    remove_documents(connection, [key for name, key in equal.items() if name not in others])
    return Moved(moved, len(equal.keys() - others), len(left))


def _rewrite(
    connection: sqlite3.Connection, key: int, row: tuple[str, str, str | None, bytes]
) -> None:
    name, metadata, source, digest = row
    crc = document_check(key, name, metadata, source, digest)
    query = "UPDATE documents SET id = ?, source = ?, crc = ? WHERE key = ?"
    connection.execute(query, (name, source, crc, key))
