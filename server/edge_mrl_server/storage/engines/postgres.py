"""PostgreSQL (16 or newer) with pgvector (0.8 or newer): several servers may use one database.

Every commit is flushed, here and on the synchronous standbys that there are, before it is acknowledged.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, Self

import numpy as np
from numpy.typing import NDArray

from edge_mrl.errors import MissingDependencyError, reason
from edge_mrl.wire import now_ms
from edge_mrl_server.errors import DamagedDatabaseError, DatabaseError, UnavailableError
from edge_mrl_server.storage.database import Transaction
from edge_mrl_server.storage.migrations import MIGRATIONS, statements
from edge_mrl_server.storage.records import TENANT_COLUMNS, NewVersion, Row, Tenant, tenant_of

try:
    import psycopg
    import psycopg.abc
    import psycopg.adapt
    import psycopg.conninfo

    from edge_mrl_server.storage.engines import prefix_index
    from edge_mrl_server.storage.engines.pool import CONNECT_TIMEOUT_S, Connection, Pool
    from edge_mrl_server.storage.engines.prefix_index import PREFIX
except ImportError as error:
    raise MissingDependencyError(
        'PostgreSQL needs psycopg: pip install "edge-mrl[server]"'
    ) from error

__all__ = ["PostgresDatabase"]

LEAST_SERVER = 160_000
LEAST_PGVECTOR = (0, 8)
#: A statement that runs so long holds others up more than it helps.
STATEMENT_TIMEOUT_MS = 30_000
#: How long a lazy transaction waits for others' locks.
LAZY_MS = 100
#: Held while migrating, so that several servers may start at once.
MIGRATION_LOCK = 0x654D5253
#: Up to here every vector of the tenant is compared: it takes some tens of milliseconds, and is exact.
EXACT_PASSAGES = 20_000
#: From here on the operator is told to make the index: searches take a tenth of a second and more, of all
#: processors that PostgreSQL may use.
INDEX_PASSAGES = 100_000
#: Passages that the index is asked for, to be scored with their full vectors.
SHORTLIST = 200

#: A connection that is used before there is a pool; its rows are tuples.
_Plain = psycopg.Connection[tuple[Any, ...]]

_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">II", 0, 0)
_COPY_END = struct.pack(">h", -1)


def _each(table: str, columns: str) -> str:
    """SQL for the rows of documents, each looked up by its id; parameters: ids, and the tenant.

    With ``id = ANY(ids)`` a tenant that has grown since PostgreSQL counted its rows last is read as a
    whole. OFFSET 0 keeps the planner from making that of this, too.
    """
    return (
        "SELECT found.* FROM unnest(?::text[]) AS wanted (name) CROSS JOIN LATERAL "  # noqa: S608
        f"(SELECT {columns} FROM {table} WHERE tenant = ? AND id = wanted.name OFFSET 0) AS found"
    )


class PostgresTransaction:
    """A transaction of PostgreSQL."""

    vector_table = "passages"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, *arguments: object) -> list[Row]:
        """All rows of a query."""
        return [*self._execute(sql, arguments)]

    def run(self, sql: str, *arguments: object) -> int:
        """Change something."""
        return self._execute(sql, arguments).rowcount

    def documents(self, tenant: str, columns: str, ids: Sequence[str]) -> list[Row]:
        """Those of some documents that are there."""
        wanted = list(dict.fromkeys(ids))
        return self.rows(_each("documents", columns), wanted, tenant)

    def lock_tenant(self, name: str) -> Tenant | None:
        """A tenant's row, locked."""
        rows = self.rows(
            f"SELECT {TENANT_COLUMNS} FROM tenants WHERE tenant = ? FOR NO KEY UPDATE",  # noqa: S608
            name,
        )
        return tenant_of(rows[0]) if rows else None

    def upsert(self, tenant: str, versions: Sequence[NewVersion]) -> int:
        """Write what is newer."""
        return self._connection.execute(
            "INSERT INTO documents (tenant, device, id, stamp, change, deleted, passages, text, "
            "spans, metadata) SELECT %s, * FROM unnest(%b::text[], %b::text[], %b::bigint[], "
            "%b::bigint[], %b::boolean[], %b::integer[], %b::bytea[], %b::bytea[], %b::bytea[]) "
            "ON CONFLICT (tenant, id) DO UPDATE SET stamp = excluded.stamp, "
            "change = excluded.change, device = excluded.device, deleted = excluded.deleted, "
            "passages = excluded.passages, text = excluded.text, spans = excluded.spans, "
            "metadata = excluded.metadata "
            "WHERE (excluded.stamp, excluded.device) > (documents.stamp, documents.device)",
            (
                tenant,
                [item.device for item in versions],
                [item.id for item in versions],
                [item.stamp for item in versions],
                [item.change for item in versions],
                [item.deleted for item in versions],
                [len(item.vectors) for item in versions],
                [item.text for item in versions],
                [item.spans for item in versions],
                [item.metadata for item in versions],
            ),
        ).rowcount

    def replace_vectors(
        self, tenant: str, versions: Sequence[NewVersion], drop: Sequence[str]
    ) -> None:
        """Forget some documents' vectors, and add others."""
        if drop:
            # By their places: the planner would read a tenant that it takes for a small one.
            places = _each("passages", "ctid AS place")
            sql = f"DELETE FROM passages WHERE ctid = ANY(ARRAY({places}))"  # noqa: S608 - own text
            self.run(sql, list(dict.fromkeys(drop)), tenant)
        rows = b"".join(_copy_rows(tenant.encode(), item) for item in versions)
        if rows:
            sql = "COPY passages (tenant, id, position, vector) FROM STDIN (FORMAT BINARY)"
            with self._connection.cursor() as cursor, cursor.copy(sql) as copy:
                copy.write(_COPY_HEADER + rows + _COPY_END)

    def vectors(self, tenant: str, ids: Sequence[str]) -> Mapping[str, NDArray[np.float16]]:
        """float16[n, full_dim] by id."""
        # One value for each document, as the network carries it: a header of 4 bytes, then big-endian
        # float16 for each passage.
        each = _each("passages", "id, position, vector").replace("?", "%b", 1).replace("?", "%s")
        sql = (
            "SELECT id, string_agg(halfvec_send(vector), ''::bytea ORDER BY position) AS vectors, "  # noqa: S608
            f"count(*) AS n FROM ({each}) AS p GROUP BY id"
        )
        with self._connection.cursor(binary=True) as cursor:
            cursor.execute(sql, (list(dict.fromkeys(ids)), tenant))
            return {row["id"]: _from_network(row["vectors"], row["n"]) for row in cursor}

    def scores(
        self, tenant: str, ids: Sequence[str], query: NDArray[np.float32]
    ) -> Mapping[str, float]:
        """Computed in the database: fetching the vectors would take half as long again."""
        rows = self.rows(
            "SELECT id, max(1 - (vector <=> ?::halfvec)) AS score "  # noqa: S608 - own text
            f"FROM ({_each('passages', 'id, vector')}) AS p GROUP BY id",
            _as_text(query),
            list(dict.fromkeys(ids)),
            tenant,
        )
        return {row["id"]: row["score"] for row in rows}

    def search(self, tenant: Tenant, query: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
        """Compare all vectors of a small tenant; use the index over prefixes, if made, for others."""
        text = _as_text(query)
        if (
            tenant.passages > EXACT_PASSAGES
            and len(query) >= PREFIX
            and prefix_index.is_valid(self._connection)
        ):
            hits = self._search_by_prefix(tenant.name, text, k)
            # The index gives up after some ten thousand rows of other tenants.
            if len(hits) >= min(k, tenant.documents):
                return hits
        return self._search_all(tenant.name, text, k)

    def _search_all(self, tenant: str, text: str, k: int) -> list[tuple[str, float]]:
        """Compare every vector: the nearest passages, more of them until they are of k documents."""
        # To group all passages first and sort then takes one processor two to three times as long.
        count = max(SHORTLIST, 4 * k)
        while True:
            rows = self.rows(
                "WITH near AS MATERIALIZED (SELECT id, vector <=> ?::halfvec AS distance "
                "FROM passages WHERE tenant = ? ORDER BY vector <=> ?::halfvec LIMIT ?) "
                "SELECT id, max(1 - distance) AS score, (SELECT count(*) FROM near) AS passages, "
                "(SELECT min(1 - distance) FROM near) AS least FROM near "
                "GROUP BY id ORDER BY score DESC, id LIMIT ?",
                text,
                tenant,
                text,
                count,
                k,
            )
            # A document as near as the last passage may not be among them.
            whole = not rows or rows[0]["passages"] < count
            if whole or (len(rows) == k and rows[-1]["score"] > rows[0]["least"]):
                return [(row["id"], float(row["score"])) for row in rows]
            count *= 4

    def _search_by_prefix(self, tenant: str, text: str, k: int) -> list[tuple[str, float]]:
        # Without iterative scans an index over all tenants finds its nearest rows first and drops
        # those of others then: of a small tenant nothing might be left.
        count = max(SHORTLIST, 4 * k)
        self.run("SET LOCAL hnsw.iterative_scan = 'relaxed_order'")
        self.run(f"SET LOCAL hnsw.ef_search = {min(count, 1000)}")
        rows = self.rows(
            "WITH near AS MATERIALIZED (SELECT id, vector FROM passages WHERE tenant = ? "  # noqa: S608
            f"AND vector_dims(vector) >= {PREFIX} "
            f"ORDER BY subvector(vector, 1, {PREFIX})::halfvec({PREFIX}) <=> "
            f"subvector(?::halfvec, 1, {PREFIX})::halfvec({PREFIX}) LIMIT ?) "
            "SELECT id, max(1 - (vector <=> ?::halfvec)) AS score FROM near "
            "GROUP BY id ORDER BY score DESC, id LIMIT ?",
            tenant,
            text,
            count,
            text,
            k,
        )
        return [(row["id"], float(row["score"])) for row in rows]

    def _execute(self, sql: str, arguments: Sequence[object]) -> psycopg.Cursor[dict[str, Any]]:
        # Statements are constants of this package; values are always parameters.
        return self._connection.execute(sql.replace("?", "%s"), arguments or None)


class PostgresDatabase:
    """A database on a PostgreSQL server. See ``Database``."""

    def __init__(self, url: str, *, connections: int = 8) -> None:
        with _translated():
            self.name = _without_password(url)
            with psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S) as connection:
                _check_server(connection)
                _migrate(connection)
        self._pool = Pool(url, connections, _configure)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """One state of the database."""
        with _translated(), self._pool.connection() as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            yield PostgresTransaction(connection)

    @contextmanager
    def write(self, *, lazily: bool = False) -> Iterator[Transaction]:
        """A transaction that sees what others commit while it waits for a tenant's row."""
        with _translated(), self._pool.connection() as connection:
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            connection.read_only = False
            if lazily:
                connection.execute(
                    "SELECT set_config('synchronous_commit', 'off', true), "
                    "set_config('lock_timeout', %s, true)",
                    (str(LAZY_MS),),
                )
            yield PostgresTransaction(connection)

    def check(self, *, most_bytes: int | None = None) -> bool:  # noqa: ARG002
        """PostgreSQL checks its pages by itself, where its cluster has checksums."""
        return False

    def erase(self) -> None:
        """Left to VACUUM."""

    def sizes(self) -> Mapping[str, int]:
        """Bytes of each table with its indexes."""
        with self.read() as transaction:
            rows = transaction.rows(
                "SELECT relname AS name, pg_total_relation_size(oid) AS size FROM pg_class "
                "WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
            )
        return {row["name"]: row["size"] for row in rows}

    def make_index(
        self,
        *,
        memory_mb: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> prefix_index.IndexMade:
        """Make the index over prefixes, without keeping writers out; see ``prefix_index.make``."""
        with _translated():
            return prefix_index.make(self._pool, memory_mb=memory_mb, progress=progress)

    def drop_index(self) -> None:
        """Drop the index over prefixes."""
        with _translated():
            prefix_index.drop(self._pool)

    def lacks_index(self, tenant: Tenant) -> bool:
        """Whether each search of a tenant compares so many vectors that the index would help."""
        if tenant.passages <= INDEX_PASSAGES or (tenant.full_dim or 0) < PREFIX:
            return False
        with _translated(), self._pool.connection() as connection:
            return not prefix_index.is_valid(connection)

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _configure(connection: Connection) -> None:
    # No prepared statements: a plan that was made while a table was small goes on being used when it
    # is not (a push of 512 took 200 ms instead of 20), and poolers between us and the server lose them.
    connection.prepare_threshold = None
    # What is read in order is read from an index. Where a tenant has grown since its rows were counted
    # last, the planner would rather collect and sort everything behind a page's beginning.
    connection.execute("SET enable_bitmapscan = off")
    connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
    connection.execute(f"SET idle_in_transaction_session_timeout = {2 * STATEMENT_TIMEOUT_MS}")
    # Whatever else the cluster does: what is acknowledged is on the disk, and on synchronous standbys.
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) "
        "WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
    )
    connection.commit()


def _check_server(connection: _Plain) -> None:
    version = connection.info.server_version
    if version < LEAST_SERVER:
        raise DatabaseError(f"PostgreSQL {version // 10_000}: expected 16 or newer")
    encoding = _value(connection, "SHOW server_encoding")
    if encoding != "UTF8":
        raise DatabaseError(f"the database is encoded in {encoding}: make one in UTF8")


def _migrate(connection: _Plain) -> None:
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
    _need_pgvector(connection)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, "
        "applied_ms BIGINT NOT NULL)"
    )
    version = _value(connection, "SELECT coalesce(max(version), 0) FROM migrations")
    steps = MIGRATIONS["postgres"]
    if version > len(steps):
        raise DatabaseError("the database was written by a newer edge-mrl: update this one")
    for number in range(version, len(steps)):
        for sql in statements("postgres", number):
            connection.execute(sql)
        connection.execute(
            "INSERT INTO migrations (version, name, applied_ms) VALUES (%s, %s, %s)",
            (number + 1, steps[number].name, now_ms()),
        )
    connection.commit()


def _need_pgvector(connection: _Plain) -> None:
    found = connection.execute(
        "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    ).fetchone()
    if found is None:
        try:
            connection.execute("CREATE EXTENSION vector")
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported) as error:
            raise DatabaseError(
                f"pgvector: {reason(error)}; install pgvector, and let an administrator run "
                "CREATE EXTENSION vector in this database"
            ) from error
        text = _value(connection, "SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    else:
        (text,) = found
    if tuple(int(part) for part in text.split(".")[:2]) < LEAST_PGVECTOR:
        raise DatabaseError(
            f"pgvector {text}: expected 0.8 or newer (ALTER EXTENSION vector UPDATE)"
        )


def _value(connection: _Plain, sql: LiteralString) -> Any:
    """The only value of a query's only row."""
    row = connection.execute(sql).fetchone()
    assert row is not None
    (value,) = row
    return value


def _copy_rows(tenant: bytes, item: NewVersion) -> bytes:
    """A document's rows of ``passages`` in the format of COPY BINARY."""
    if not len(item.vectors):
        return b""
    name = item.id.encode()
    dim = item.vectors.shape[1]
    start = struct.pack(">hi", 4, len(tenant)) + tenant + struct.pack(">i", len(name)) + name
    values = item.vectors.astype(">f2")
    return b"".join(
        start + struct.pack(">iiihh", 4, place, 4 + 2 * dim, dim, 0) + row.tobytes()
        for place, row in enumerate(values)
    )


def _from_network(data: bytes, count: int) -> NDArray[np.float16]:
    rows = np.frombuffer(data, ">f2").reshape(count, -1)
    return rows[:, 2:].astype(np.float16)


def _as_text(query: NDArray[np.float32]) -> str:
    return "[" + ",".join(f"{value:.9g}" for value in query.tolist()) + "]"


def _without_password(url: str) -> str:
    parts: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(url)
    host, port = parts.get("host", "local"), parts.get("port", "5432")
    return f"postgresql://{host}:{port}/{parts.get('dbname', '')}"


@contextmanager
def _translated() -> Iterator[None]:
    """What PostgreSQL cannot do now, as an error that devices wait for; damage by its name."""
    try:
        yield
    except (psycopg.errors.DataCorrupted, psycopg.errors.IndexCorrupted) as error:
        raise DamagedDatabaseError(
            f"PostgreSQL: {reason(error)}: the database is damaged; restore a copy"
        ) from error
    except psycopg.ProgrammingError:
        raise
    except (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        psycopg.errors.ReadOnlySqlTransaction,
    ) as error:
        raise UnavailableError(f"PostgreSQL: {reason(error)}") from error
