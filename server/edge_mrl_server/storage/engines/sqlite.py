"""SQLite: one file, one writer at a time, every commit on the disk before it is acknowledged."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge_mrl.wire import now_ms
from edge_mrl_server.errors import DamagedDatabaseError, DatabaseError, UnavailableError
from edge_mrl_server.logs import LOGGER
from edge_mrl_server.storage.bits import BitCache, Page
from edge_mrl_server.storage.database import Transaction
from edge_mrl_server.storage.engines.guard import Files, hold
from edge_mrl_server.storage.engines.soundness import (
    APPLICATION_ID,
    check_structure,
    is_damage,
)
from edge_mrl_server.storage.migrations import MIGRATIONS, statements
from edge_mrl_server.storage.records import TENANT_COLUMNS, NewVersion, Row, Tenant, tenant_of

__all__ = ["SqliteDatabase", "SqliteTransaction", "migrate"]

#: How long a writer waits for another process before the device is told to come again.
BUSY_TIMEOUT_S = 10.0
#: Pages stay in SQLite's own cache; the system's does the rest.
CACHE_KIB = 16_384
#: What an operator can do about a malformed database.
_HELP = "restore a copy (`edge-mrl admin restore COPY`)"
#: Rows of documents' vectors that one look-up asks for.
LOOKUP = 500
#: Vectors that are scored at once: 384 dimensions of so many take 12 MB as float32.
SCORED_PASSAGES = 8_192


#: The condition that a column's value is in a list; the list is a parameter that ``_pack`` makes.
_AMONG = "IN (SELECT value FROM json_each(?))"


class SqliteTransaction:
    """A transaction of SQLite."""

    vector_table = "vectors"

    def __init__(self, connection: sqlite3.Connection, bits: BitCache) -> None:
        self._connection = connection
        self._bits = bits

    def rows(self, sql: str, *arguments: object) -> list[Row]:
        """All rows of a query."""
        rows: list[Row] = self._connection.execute(sql, arguments).fetchall()
        return rows

    def run(self, sql: str, *arguments: object) -> int:
        """Change something."""
        return self._connection.execute(sql, arguments).rowcount

    def documents(self, tenant: str, columns: str, ids: Sequence[str]) -> list[Row]:
        """Those of some documents that are there."""
        sql = f"SELECT {columns} FROM documents WHERE tenant = ? AND id {_AMONG}"  # noqa: S608
        return self.rows(sql, tenant, _pack(ids))

    def lock_tenant(self, name: str) -> Tenant | None:
        """A tenant's row; the transaction has the whole file locked."""
        rows = self.rows(f"SELECT {TENANT_COLUMNS} FROM tenants WHERE tenant = ?", name)  # noqa: S608
        return tenant_of(rows[0]) if rows else None

    def upsert(self, tenant: str, versions: Sequence[NewVersion]) -> int:
        """Write what is newer."""
        return self._connection.executemany(
            "INSERT INTO documents (tenant, id, stamp, change, device, deleted, passages, text, "
            "spans, metadata) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (tenant, id) DO UPDATE SET stamp = excluded.stamp, "
            "change = excluded.change, device = excluded.device, deleted = excluded.deleted, "
            "passages = excluded.passages, text = excluded.text, spans = excluded.spans, "
            "metadata = excluded.metadata "
            "WHERE (excluded.stamp, excluded.device) > (documents.stamp, documents.device)",
            [
                (
                    tenant,
                    item.id,
                    item.stamp,
                    item.change,
                    item.device,
                    item.deleted,
                    len(item.vectors),
                    item.text,
                    item.spans,
                    item.metadata,
                )
                for item in versions
            ],
        ).rowcount

    def replace_vectors(
        self, tenant: str, versions: Sequence[NewVersion], drop: Sequence[str]
    ) -> None:
        """Forget some documents' vectors, and add others."""
        self._connection.executemany(
            "DELETE FROM vectors WHERE tenant = ? AND id = ?", [(tenant, name) for name in drop]
        )
        self._connection.executemany(
            "INSERT INTO vectors (tenant, id, vectors) VALUES (?, ?, ?)",
            [
                (tenant, item.id, np.ascontiguousarray(item.vectors, "<f2").tobytes())
                for item in versions
                if len(item.vectors)
            ],
        )

    def vectors(self, tenant: str, ids: Sequence[str]) -> Mapping[str, NDArray[np.float16]]:
        """float16[n, full_dim] by id."""
        sql = (
            "SELECT v.id, v.vectors, d.passages FROM vectors v JOIN documents d "  # noqa: S608
            f"ON d.tenant = v.tenant AND d.id = v.id WHERE v.tenant = ? AND v.id {_AMONG}"
        )
        return {
            row["id"]: np.frombuffer(row["vectors"], "<f2").reshape(row["passages"], -1)
            for row in self.rows(sql, tenant, _pack(ids))
        }

    def scores(
        self, tenant: str, ids: Sequence[str], query: NDArray[np.float32]
    ) -> Mapping[str, float]:
        """All vectors of some documents in one product."""
        scores: dict[str, float] = {}
        for some in self._by_size(tenant, ids):
            scores |= self._scores(tenant, some, query)
        return scores

    def _by_size(self, tenant: str, ids: Sequence[str]) -> Iterator[list[str]]:
        """Ids in groups whose vectors are in memory at once: a document may have a thousand of them."""
        group: list[str] = []
        total = 0
        for row in self.documents(tenant, "id, passages", ids):
            if group and total + row["passages"] > SCORED_PASSAGES:
                yield group
                group, total = [], 0
            group.append(row["id"])
            total += row["passages"]
        if group:
            yield group

    def _scores(
        self, tenant: str, ids: Sequence[str], query: NDArray[np.float32]
    ) -> Mapping[str, float]:
        found = self.vectors(tenant, ids)
        if not found:
            return {}
        whole = np.concatenate(list(found.values())).astype(np.float32)
        lengths = np.linalg.norm(whole, axis=1) * np.linalg.norm(query)
        starts = np.cumsum([0, *(len(array) for array in found.values())][:-1])
        best = np.maximum.reduceat(whole @ query / lengths, starts)
        return dict(zip(found, best.tolist(), strict=True))

    def page(self, tenant: str, change: int, limit: int) -> Page:
        """Vectors of the next changes."""
        rows = self.rows(
            "SELECT d.change, d.passages, v.vectors FROM documents d LEFT JOIN vectors v "
            "ON v.tenant = d.tenant AND v.id = d.id "
            "WHERE d.tenant = ? AND d.change > ? ORDER BY d.change LIMIT ?",
            tenant,
            change,
            limit,
        )
        live = [row for row in rows if row["vectors"] is not None]
        counts = np.array([row["passages"] for row in live], np.int64)
        owners = np.repeat(np.array([row["change"] for row in live], np.int64), counts)
        vectors = np.frombuffer(b"".join([row["vectors"] for row in live]), "<f2")
        return Page(
            rows[-1]["change"] if rows else change,
            len(rows) == limit,
            owners,
            vectors.reshape(len(owners), -1 if len(owners) else 1),
        )

    def live(self, tenant: str) -> NDArray[np.int64]:
        """Changes of all documents that are there."""
        rows = self.rows("SELECT change FROM documents WHERE tenant = ? AND NOT deleted", tenant)
        return np.array([row["change"] for row in rows], np.int64)

    def names(self, tenant: str, changes: Sequence[int]) -> dict[int, str]:
        """Ids of documents by their changes."""
        sql = f"SELECT change, id FROM documents WHERE tenant = ? AND change {_AMONG}"  # noqa: S608
        return {row["change"]: row["id"] for row in self.rows(sql, tenant, json.dumps([*changes]))}

    def search(self, tenant: Tenant, query: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
        """One bit of every dimension first, then the full vectors of the nearest."""
        ids = self._bits.shortlist(self, tenant, query, k)
        best: dict[str, float] = {}
        for start in range(0, len(ids), LOOKUP):
            best |= self.scores(tenant.name, ids[start : start + LOOKUP], query)
        return sorted(best.items(), key=lambda hit: (-hit[1], hit[0]))[:k]


def _pack(values: Sequence[str]) -> str:
    return json.dumps(list(values), ensure_ascii=False)


class SqliteDatabase:
    """A database in one file. See ``Database``.

    Args:
        path: The file.
        create: Whether it is made where there is none.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.name = str(path)
        self._path = path
        self._files = Files(path)
        self._bits = BitCache()
        self._writing = threading.Lock()
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._closed = False
        self._damage: str | None = None
        with contextlib.ExitStack() as stack:
            if not create:
                _require(self._files)
            stack.enter_context(hold(self._files))
            _make_private(path)
            with _translated(path):
                self._writer = self._connect()
                stack.callback(self._writer.close)
                self._prepare()
            self._held = stack.pop_all()

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """One state of the database."""
        with self._watching():
            try:
                connection = self._readers.get_nowait()
            except queue.Empty:
                connection = self._connect()
        try:
            with self._watching():
                connection.execute("BEGIN")
                yield SqliteTransaction(connection, self._bits)
        finally:
            # Nothing was changed: this only ends the transaction.
            connection.rollback()
            if self._closed:
                connection.close()
            else:
                self._readers.put(connection)

    @contextmanager
    def write(self, *, lazily: bool = False) -> Iterator[Transaction]:
        """The only transaction that writes."""
        with self._writing, self._watching():
            if self._closed:
                raise UnavailableError("the database is being closed")
            connection = self._writer
            # In the log, and flushed with the next commit that has to be.
            connection.execute(f"PRAGMA synchronous = {'NORMAL' if lazily else 'FULL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield SqliteTransaction(connection, self._bits)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.rollback()
                raise

    def check(self, *, most_bytes: int | None = None) -> bool:
        """Read every page, unless the file is larger than ``most_bytes``; returns whether it was read.

        Raises:
            DamagedDatabaseError: The file is malformed. From then on nothing is read or written.
        """
        size = self.sizes().get("database", 0)
        if most_bytes is not None and size > most_bytes:
            return False
        with self._watching():
            connection = self._connect()
            try:
                check_structure(connection, self._path, quick=True)
            finally:
                connection.close()
        return True

    def erase(self) -> None:
        """Fold the log in: pages that were given up are overwritten (``secure_delete``)."""
        with self._writing, self._watching():
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def lacks_index(self, tenant: Tenant) -> bool:  # noqa: ARG002 - as the protocol has it
        """There is none to make."""
        return False

    def sizes(self) -> Mapping[str, int]:
        """Bytes of the database and its log."""
        files = {"database": self._path, "log": self._files.log}
        return {name: path.stat().st_size for name, path in files.items() if path.exists()}

    def close(self) -> None:
        """Close every connection that is not in use, the others when they are given back."""
        self._closed = True
        with self._writing:
            self._writer.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self._readers.get_nowait().close()
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        return connection

    def _prepare(self) -> None:
        connection = self._writer
        _check_ours(connection, self._path)
        if self._files.damage_said() is not None:
            check_structure(connection, self._path)
            self._files.damage.unlink(missing_ok=True)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # What was deleted is overwritten with zeros. Python's SQLite may be built without.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("BEGIN IMMEDIATE")
        try:
            migrate(connection, self._path)
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise
        if os.name == "posix":
            _tighten(self._path)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Translate SQLite's errors, and touch nothing more once the file is known to be malformed.

        What is read from a malformed file may lack documents, and devices would go on behind them.
        """
        said = self._damage or self._files.damage_said()
        if said is not None:
            raise DamagedDatabaseError(f"{self._path} is damaged ({said}): {_HELP}")
        try:
            with _translated(self._path):
                yield
        except DamagedDatabaseError as error:
            if self._damage is None:
                self._damage = str(error.__cause__ or error)
                self._files.mark_damaged(self._damage)
                LOGGER.critical("database damaged", extra={"fields": {"error": str(error)}})
            raise


def _make_private(path: Path) -> None:
    """Give a database its mode before its first byte: SQLite gives log and index the same one."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # what is wrong with the path, SQLite says
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _tighten(path: Path) -> None:
    """Take others' rights from a database that an older release made."""
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with contextlib.suppress(OSError):
            file.chmod(0o600)


def _check_ours(connection: sqlite3.Connection, path: Path) -> None:
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if found != APPLICATION_ID and (found or tables):
        raise DatabaseError(
            f"{path} is not a database of this server, and was not changed: name another file"
        )


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the tables up to date, in a transaction that writes.

    Raises:
        DatabaseError: A newer server wrote them.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    steps = MIGRATIONS["sqlite"]
    if version > len(steps):
        raise DatabaseError(f"{path} was written by a newer edge-mrl: update this one")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, "
        "applied_ms INTEGER NOT NULL)"
    )
    for number in range(version, len(steps)):
        for sql in statements("sqlite", number):
            connection.execute(sql)
        connection.execute(
            "INSERT INTO migrations (version, name, applied_ms) VALUES (?, ?, ?)",
            (number + 1, steps[number].name, now_ms()),
        )
    connection.execute(f"PRAGMA user_version = {len(steps)}")


def _require(files: Files) -> None:
    """Make no database by looking at one that is not there."""
    if files.incoming.exists() or files.has_log:
        return
    if not files.database.exists() or not files.database.stat().st_size:
        raise DatabaseError(
            f"no database at {files.database}: name the server's with --database "
            "(`edge-mrl serve` makes one)"
        )


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """What SQLite cannot do now, as an error that devices are told to wait for; damage by its name."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            raise
        if is_damage(error):
            raise DamagedDatabaseError(f"{path}: {error}: {_HELP}") from error
        raise UnavailableError(f"SQLite: {error}") from error
