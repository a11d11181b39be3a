"""The interface to a database: transactions, plain SQL that both understand, and vectors.

Everything that is the same in SQLite and PostgreSQL is written once, over ``Session`` (``accounts``,
``documents``). What differs is here: how transactions begin, how many rows go in at once, how vectors
are kept, and how the nearest are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from edge_mrl_server.storage.records import Row, Tenant, Written

__all__ = ["Database", "Session", "open_database"]


class Session(Protocol):
    """One transaction. SQL has ``?`` for parameters, in both databases."""

    #: The condition behind a column that holds where the value is in ``pack(values)``.
    among: str

    def rows(self, sql: str, *arguments: object) -> list[Row]:
        """All rows of a query."""

    def run(self, sql: str, *arguments: object) -> int:
        """Change something; returns the number of rows."""

    def pack(self, values: Sequence[str]) -> object:
        """The parameter for ``among``."""

    def lock_tenant(self, name: str) -> Tenant | None:
        """A tenant, its row locked until the transaction ends."""

    def upsert(self, tenant: str, device: str, versions: Sequence[Written]) -> int:
        """Write versions that are above what is there; returns how many were."""

    def replace_vectors(
        self, tenant: str, versions: Sequence[Written], drop: Sequence[str]
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
            ids: Names of documents.
            query: float32[full_dim].
        """

    def search(self, tenant: Tenant, query: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
        """The ``k`` documents whose best passages are nearest, with cosines, best first.

        Args:
            tenant: Whose, as this transaction sees it.
            query: float32[full_dim], unit length.
            k: How many at most.
        """


class Database(Protocol):
    """A database with the server's tables. Thread-safe."""

    #: What it is, for people, without passwords.
    name: str

    def read(self) -> AbstractContextManager[Session]:
        """A transaction that sees one state of everything, and changes nothing."""

    def write(self, *, lazily: bool = False) -> AbstractContextManager[Session]:
        """A transaction; durable when the context is left without an error.

        Args:
            lazily: It may be lost, so it waits neither for standbys nor long for others' locks.
        """

    def sizes(self) -> Mapping[str, int]:
        """Bytes on disk, by table (with its indexes) or file."""

    def close(self) -> None:
        """Close every connection."""

    def __enter__(self) -> Self:
        """Itself."""

    def __exit__(self, *_: object) -> None:
        """Closes."""


def open_database(url: str, *, connections: int = 8) -> Database:
    """Open, and where needed make or migrate, the database at a path or a ``postgresql://`` address.

    Args:
        url: A file's path, or a connection string as libpq reads it.
        connections: How many are used at once at most (PostgreSQL).

    Raises:
        DatabaseError: It is another program's, or a newer server's.
        UnavailableError: It cannot be reached.
        MissingDependencyError: PostgreSQL's driver is not installed.
    """
    if url.startswith(("postgresql://", "postgres://")):
        from edge_mrl_server.storage.engines.postgres import PostgresDatabase

        return PostgresDatabase(url, connections=connections)
    from edge_mrl_server.storage.engines.sqlite import SqliteDatabase

    return SqliteDatabase(Path(url))
