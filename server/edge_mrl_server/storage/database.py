"""The seam between what the server stores and the database that it is stored in.

What is the same in every database is written once, as SQL over a ``Transaction``: ``accounts``,
``heads``, ``pushes``, ``pulls`` and ``ranking``. An engine (``engines/sqlite.py``,
``engines/postgres.py``) adds what differs: how a transaction begins, how a tenant's row is locked,
how many rows go in at once, how vectors are kept, and how the nearest ones are found.

So an engine has to speak the SQL that PostgreSQL and SQLite have in common: ``INSERT ... ON
CONFLICT ... DO UPDATE ... WHERE``, comparisons of row values, ``coalesce``, ``LIMIT``, and ``?``
for a parameter, which the engine may rewrite. This is a decision, and its price is known. Each
statement stands where it is used and can be read there. What speaks PostgreSQL's SQL can become an
engine: ``tenant`` is the first column of every key, so Citus, SPQR and the like can distribute the
tables by it. A database without this SQL cannot: those five modules would have to be written again
for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from edge_mrl_server.storage.records import NewVersion, Row, Tenant

__all__ = ["Database", "Transaction", "hold_database", "is_file", "open_database"]


class Transaction(Protocol):
    """One transaction. SQL has ``?`` for parameters; columns of results are named."""

    #: The table that has the vectors.
    vector_table: str

    def rows(self, sql: str, *arguments: object) -> list[Row]:
        """All rows of a query."""

    def run(self, sql: str, *arguments: object) -> int:
        """Run a statement that changes rows; returns how many it changed."""

    def documents(self, tenant: str, columns: str, ids: Sequence[str]) -> list[Row]:
        """Those of some documents that are there, each looked up by its id.

        Args:
            tenant: Whose.
            columns: Columns of ``documents`` with commas between them, each named in the result.
            ids: Ids of documents; no matter how often each is there.
        """

    def lock_tenant(self, name: str) -> Tenant | None:
        """A tenant, or None; its row is locked until the transaction ends."""

    def upsert(self, tenant: str, versions: Sequence[NewVersion]) -> int:
        """Write the versions that are newer than what is there; returns how many were."""

    def replace_vectors(
        self, tenant: str, versions: Sequence[NewVersion], drop: Sequence[str]
    ) -> None:
        """Forget the vectors of the documents ``drop``, and add those of the versions."""

    def vectors(self, tenant: str, ids: Sequence[str]) -> Mapping[str, NDArray[np.float16]]:
        """float16[n, full_dim] of each document that has vectors."""

    def scores(
        self, tenant: str, ids: Sequence[str], query: NDArray[np.float32]
    ) -> Mapping[str, float]:
        """The cosine of the best passage of each document that has vectors.

        Args:
            tenant: Whose.
            ids: Ids of documents.
            query: float32[full_dim].
        """

    def search(self, tenant: Tenant, query: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
        """The ``k`` documents whose best passages are nearest, with cosines, best first.

        Args:
            tenant: Whose, as this transaction sees it.
            query: float32[full_dim], unit length.
            k: How many documents at most.
        """


class Database(Protocol):
    """A database with the server's tables. Thread-safe."""

    #: Its name for people: a path, or an address without its password.
    name: str

    def read(self) -> AbstractContextManager[Transaction]:
        """A transaction that sees one state of everything, and changes nothing."""

    def write(self, *, lazily: bool = False) -> AbstractContextManager[Transaction]:
        """A transaction; durable when the context is left without an error.

        Args:
            lazily: It may be lost, so it waits neither for standbys nor long for others' locks.
        """

    def check(self, *, most_bytes: int | None = None) -> bool:
        """Read the whole database, unless it is larger, or checks itself; returns whether it was read.

        Raises:
            DamagedDatabaseError: It is malformed.
        """

    def erase(self) -> None:
        """See that nothing of what was deleted stays in the file's free pages or its log (SQLite)."""

    def lacks_index(self, tenant: Tenant) -> bool:
        """Whether an operator should make an index, since each search of a tenant compares everything."""

    def sizes(self) -> Mapping[str, int]:
        """Bytes on disk, by table (with its indexes) or file."""

    def close(self) -> None:
        """Close every connection."""

    def __enter__(self) -> Self:
        """Itself."""

    def __exit__(self, *_: object) -> None:
        """Closes."""


def is_file(url: str) -> bool:
    """Whether an address is a SQLite file's path."""
    return not url.startswith(("postgresql://", "postgres://"))


def hold_database(url: str) -> AbstractContextManager[None]:
    """Keep others from replacing a SQLite file for as long as this process, and those it forks, live."""
    if not is_file(url):
        return nullcontext()
    from edge_mrl_server.storage.engines.guard import Files, hold

    return hold(Files(Path(url)))


def open_database(url: str, *, connections: int = 8, create: bool = True) -> Database:
    """Open, and where needed make or migrate, the database at a path or a ``postgresql://`` address.

    Args:
        url: A file's path, or a connection string as libpq reads it.
        connections: How many are used at once at most (PostgreSQL).
        create: Whether a file is made where there is none (SQLite).

    Raises:
        DatabaseError: The database is another program's, or a newer server's; or there is none.
        DamagedDatabaseError: The database is malformed.
        UnavailableError: The database cannot be reached.
        MissingDependencyError: PostgreSQL's driver is not installed.
    """
    if not is_file(url):
        from edge_mrl_server.storage.engines.postgres import PostgresDatabase

        return PostgresDatabase(url, connections=connections)
    from edge_mrl_server.storage.engines.sqlite import SqliteDatabase

    return SqliteDatabase(Path(url), create=create)
