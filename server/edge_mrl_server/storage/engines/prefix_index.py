"""PostgreSQL's index over the first dimensions of all vectors: making it, and whether it is of use.

An index that was not finished stays in the catalogue, invalid: PostgreSQL keeps it up to date and never
reads it. ``CREATE INDEX IF NOT EXISTS`` takes its name for the thing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

import psycopg

from edge_mrl_server.errors import DatabaseError, UnavailableError

if TYPE_CHECKING:
    from edge_mrl_server.storage.engines.pool import Connection, Pool

__all__ = ["PREFIX", "IndexMade", "drop", "is_valid", "make"]

#: Dimensions of the index.
PREFIX = 128
NAME = "passages_by_prefix"
#: What pgvector keeps in memory of a passage while it makes the graph: a vector of 128 dimensions, and
#: its neighbours. Beyond ``maintenance_work_mem`` it goes on, but at a third of the speed and less.
PASSAGE_BYTES = 1_000
LEAST_MB, MOST_MB = 64, 1_024
#: How often progress is asked for.
EVERY_S = 0.5
#: How long PostgreSQL may take to stop.
CANCEL_S = 10.0

#: Called with how many parts of the table are done, and how many there are.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class IndexMade:
    """What ``make`` made.

    Attributes:
        made: Whether there was none that is of use before.
        passages: Passages in the database, when it began.
        size_bytes: The size of the index.
        dropped: Whether an unfinished one was dropped first.
        memory_mb: How much memory it was allowed, in MiB; 0 if nothing was made.
        wanted_mb: How much would have held the whole graph.
        seconds: How long it took.
    """

    made: bool
    passages: int
    size_bytes: int
    dropped: bool = False
    memory_mb: int = 0
    wanted_mb: int = 0
    seconds: float = 0.0


def is_valid(connection: Connection) -> bool | None:
    """Whether the index is of use; None if there is none."""
    row = connection.execute(
        "SELECT i.indisvalid AND i.indisready AS valid FROM pg_index i WHERE i.indexrelid = "
        "to_regclass(%s)",
        (NAME,),
    ).fetchone()
    return None if row is None else bool(row["valid"])


def make(pool: Pool, *, memory_mb: int | None, progress: Progress | None) -> IndexMade:
    """Make the index while devices go on; drop an unfinished one first.

    Args:
        pool: Connections to the database.
        memory_mb: How much memory PostgreSQL may use for it, in MiB; None takes what the passages need,
            from 64 to 1,024.
        progress: Called twice a second.

    Raises:
        DatabaseError: PostgreSQL says that the index is not valid.
        psycopg.Error: It could not be made; what was begun is dropped.
    """
    began = time.monotonic()
    with _alone(pool) as connection:
        before = is_valid(connection)
        passages = _number(connection, "SELECT coalesce(sum(passages), 0) AS n FROM tenants")
        wanted = -(-passages * PASSAGE_BYTES // 2**20)
        if before:
            return IndexMade(made=False, passages=passages, size_bytes=_size(connection))
        if before is False:
            _remove(connection)
        memory = memory_mb or min(max(wanted, LEAST_MB), MOST_MB)
        connection.execute(f"SET maintenance_work_mem = '{memory}MB'")
        try:
            with _watching(pool, progress):
                connection.execute(
                    f"CREATE INDEX CONCURRENTLY {NAME} ON passages USING hnsw "
                    f"((subvector(vector, 1, {PREFIX})::halfvec({PREFIX})) halfvec_cosine_ops) "
                    f"WHERE vector_dims(vector) >= {PREFIX}"
                )
            # Without figures the planner takes every tenant for a small one, and sorts instead.
            connection.execute("ANALYZE passages")
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                connection.cancel_safe(timeout=CANCEL_S)
            with contextlib.suppress(psycopg.Error, UnavailableError), _alone(pool) as other:
                _remove(other)
            raise
        if not is_valid(connection):
            raise DatabaseError("PostgreSQL says that the index is not valid: make it again")
        seconds = time.monotonic() - began
        size = _size(connection)
        return IndexMade(
            made=True,
            dropped=before is False,
            passages=passages,
            size_bytes=size,
            memory_mb=memory,
            wanted_mb=wanted,
            seconds=seconds,
        )


def drop(pool: Pool) -> None:
    """Drop the index, finished or not."""
    with _alone(pool) as connection:
        _remove(connection)


def _remove(connection: Connection) -> None:
    connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")


@contextmanager
def _alone(pool: Pool) -> Iterator[Connection]:
    """A connection for statements that run in no transaction, and for however long they take."""
    with pool.connection() as connection:
        connection.autocommit = True
        row = connection.execute("SHOW statement_timeout").fetchone()
        connection.execute("SET statement_timeout = 0")
        try:
            yield connection
        finally:
            with contextlib.suppress(psycopg.Error):
                before = None if row is None else row["statement_timeout"]
                connection.execute("SELECT set_config('statement_timeout', %s, false)", (before,))
                connection.execute("RESET maintenance_work_mem")
                connection.autocommit = False


@contextmanager
def _watching(pool: Pool, progress: Progress | None) -> Iterator[None]:
    """Report how far PostgreSQL is with an index, while the block runs."""
    if progress is None:
        yield
        return
    ended = threading.Event()
    sql = (
        "SELECT blocks_done, blocks_total FROM pg_stat_progress_create_index "
        "WHERE relid = 'passages'::regclass AND blocks_total > 0"
    )

    def watch() -> None:
        # Where no other connection can be had, there is no progress to show.
        with contextlib.suppress(psycopg.Error, UnavailableError), _alone(pool) as connection:
            while not ended.wait(EVERY_S):
                row = connection.execute(sql).fetchone()
                if row is not None:
                    progress(row["blocks_done"], row["blocks_total"])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _size(connection: Connection) -> int:
    return _number(connection, "SELECT pg_relation_size(to_regclass('passages_by_prefix')) AS n")


def _number(connection: Connection, sql: LiteralString) -> int:
    row = connection.execute(sql).fetchone()
    return int(row["n"]) if row is not None else 0
