"""What a database's statements cost as tenants grow, in rows that PostgreSQL visits, and in bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import psycopg
import pytest

from edge_mrl.cli import main
from edge_mrl.wire import now_ms
from edge_mrl_server.errors import UnavailableError
from edge_mrl_server.http.operator_page import _page
from edge_mrl_server.storage import accounts, open_database, purge, removal
from edge_mrl_server.storage.engines import pool, prefix_index
from edge_mrl_server.storage.engines import postgres as engine
from edge_mrl_server.storage.engines.postgres import PostgresDatabase, PostgresTransaction
from edge_mrl_server.storage.pulls import PullQuery, changes_after
from edge_mrl_server.storage.pushes import Push, push
from edge_mrl_server.storage.records import Principal
from tests.support import postgres
from tests.support.processes import wait_until
from tests.support.serving import SPACE, item, units

pytestmark = pytest.mark.test

DIM = 8
#: Documents of a tenant that has grown since PostgreSQL counted, and those that a request is about.
GROWN, ASKED = 20_000, 200
#: Rows that may be visited for each document that is asked for: it, its vector, and pages of an index.
EACH = 6
_VISITED = re.compile(r"actual (?:time=\S+ )?rows=([\d.]+) loops=(\d+)")
_REMOVED = re.compile(r"Rows Removed by \w+(?: \w+)?: (\d+)")


@pytest.fixture(scope="module")
def grown(pg: postgres.Postgres) -> Iterator[PostgresDatabase]:
    """A tenant that grew after PostgreSQL counted: until then there were only small ones."""
    with open_database(pg.make_database("grown")) as database:
        assert isinstance(database, PostgresDatabase)
        with database.write() as transaction:
            for table in ("documents", "passages"):
                transaction.run(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
            for name in (*(f"small{n}" for n in range(50)), "big"):
                accounts.create_tenant(transaction, name)
                _fill(transaction, name, 2 if name == "big" else 200)
        with database.write() as transaction:
            transaction.run("ANALYZE documents")
            transaction.run("ANALYZE passages")
        with database.write() as transaction:
            _fill(transaction, "big", GROWN)
        yield database


def _fill(transaction: Any, tenant: str, count: int) -> None:
    """As pushes would, but by statements: one document, one passage, ids that all tenants have."""
    (before,) = transaction.rows("SELECT count(*) AS n FROM documents WHERE tenant = ?", tenant)
    first = before["n"] + 1
    transaction.run(
        "INSERT INTO documents (tenant, device, id, stamp, change, deleted, passages) SELECT ?, 'd', "
        "'file' || n, n, n, false, 1 FROM generate_series(?::int, ?::int) n",
        tenant,
        first,
        first + count - 1,
    )
    transaction.run(
        "INSERT INTO passages (tenant, id, position, vector) SELECT ?, 'file' || n, 0, "
        "array_fill(0.125::real, ARRAY[8])::vector::halfvec FROM generate_series(?::int, ?::int) n",
        tenant,
        first,
        first + count - 1,
    )
    transaction.run(
        "UPDATE tenants SET change = ?, documents = ?, passages = ?, full_dim = 8, space_id = ? "
        "WHERE tenant = ?",
        first + count - 1,
        first + count - 1,
        first + count - 1,
        SPACE,
        tenant,
    )


class Explaining(psycopg.Cursor[dict[str, Any]]):
    """Notes how many rows each statement visits, by running it once more with EXPLAIN ANALYZE."""

    visited: ClassVar[list[int]] = []

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        if not str(query).startswith("SET "):
            super().execute(f"EXPLAIN (ANALYZE, TIMING OFF) {query}", params)
            text = "\n".join(row["QUERY PLAN"] for row in self.fetchall())
            rows = sum(float(n) * int(loops) for n, loops in _VISITED.findall(text))
            self.visited.append(int(rows + sum(map(int, _REMOVED.findall(text)))))
        return super().execute(query, params, **options)


@contextmanager
def visiting(database: PostgresDatabase) -> Iterator[tuple[PostgresTransaction, list[int]]]:
    """A transaction that is undone, and for each of its statements how many rows were visited."""
    Explaining.visited.clear()
    with database.write() as transaction:
        assert isinstance(transaction, PostgresTransaction)
        connection = transaction._connection
        before, connection.cursor_factory = connection.cursor_factory, Explaining
        try:
            yield transaction, Explaining.visited
        finally:
            connection.cursor_factory = before
            connection.rollback()


ASKED_IDS = [f"file{n}" for n in range(100, 100 + ASKED)]


def test_documents_that_are_asked_for_are_all_that_is_read(grown: PostgresDatabase) -> None:
    with visiting(grown) as (transaction, visited):
        assert len(transaction.documents("big", "id, stamp", ASKED_IDS)) == ASKED
        assert len(transaction.vectors("big", ASKED_IDS)) == ASKED
        assert len(transaction.scores("big", ASKED_IDS, np.ones(DIM, np.float32))) == ASKED
        transaction.replace_vectors("big", [], ASKED_IDS)
        assert not transaction.vectors("big", ASKED_IDS)
    assert len(visited) == 5
    assert max(visited) <= EACH * ASKED


def test_page_of_changes_reads_no_more_than_its_length(grown: PostgresDatabase) -> None:
    page = 300
    with visiting(grown) as (transaction, visited):
        sql = (
            "SELECT id, stamp, device, change, deleted, passages, 0 AS text_bytes FROM documents "
            "WHERE tenant = ? AND change > ? ORDER BY change LIMIT ?"
        )
        assert len(transaction.rows(sql, "big", 1_000, page)) == page
    assert max(visited) <= EACH * page
    found = changes_after(grown, "big", PullQuery(1_000, limit=page))
    assert [one.id for one in found.items[:2]] == ["file1001", "file1002"]


def test_plans_that_are_avoided_read_the_whole_tenant(grown: PostgresDatabase) -> None:
    """The tests above can fail: so a tenant is read that has grown, without what they look at."""
    with visiting(grown) as (transaction, visited):
        transaction.rows(
            "SELECT id, stamp FROM documents WHERE tenant = ? AND id = ANY(?)", "big", ASKED_IDS
        )
        transaction.run("SET LOCAL enable_bitmapscan = on")
        transaction.rows(
            "SELECT id FROM documents WHERE tenant = ? AND change > ? ORDER BY change LIMIT ?",
            "big",
            1_000,
            300,
        )
    assert max(visited) > EACH * 300


@pytest.mark.parametrize("passages", [1, 40])
def test_search_without_an_index_is_exact(
    pg: postgres.Postgres, monkeypatch: pytest.MonkeyPatch, passages: int
) -> None:
    """However few passages are looked at first: of documents of many, and of equal ones."""
    monkeypatch.setattr(engine, "SHORTLIST", 3)
    url = pg.make_database(f"exact{passages}")
    vectors = [units(passages, DIM, seed=n // 2) for n in range(60)]  # each twice
    with open_database(url) as database:
        with database.write() as transaction:
            accounts.create_tenant(transaction, "t")
        items = [item(f"d{n:02}", n=passages, seed=n // 2, dim=DIM) for n in range(60)]
        push(database, Principal("t", "d", {}), Push(SPACE, items, DIM, 0))
        for seed in range(1_000, 1_005):
            query = units(1, DIM, seed=seed)[0].astype(np.float32)
            scores = [float((v.astype(np.float32) @ query).max()) for v in vectors]
            best = sorted(range(60), key=lambda n: (-round(scores[n], 3), n))
            for k in (1, 7, 60):
                with database.read() as transaction:
                    tenant = accounts.require_tenant(transaction, "t")
                    found = transaction.search(tenant, query, k)
                assert [round(score, 2) for _, score in found] == pytest.approx(
                    [scores[n] for n in best[:k]], abs=0.011
                )
                assert [score for _, score in found] == sorted((s for _, s in found), reverse=True)
                pairs = [name for name, _ in found]
                # Of two that are equally near, the first by its id.
                assert all(
                    pairs.index(f"d{n - 1:02}") < pairs.index(f"d{n:02}")
                    for n in range(1, 60, 2)
                    if f"d{n:02}" in pairs
                )


@contextmanager
def stopping(url: str, make: Callable[[], object]) -> Iterator[Future[object]]:
    """Begin to make an index, and have an operator cancel it."""
    with psycopg.connect(url) as holder, ThreadPoolExecutor(1) as threads:
        # What is being written keeps an index from becoming valid until it ends.
        holder.execute("UPDATE passages SET position = position")
        making = threads.submit(make)
        try:
            with psycopg.connect(url, autocommit=True) as operator:
                wait_until(lambda: _cancel(operator) or making.done(), limit_s=30)
        finally:
            holder.rollback()
        yield making


def _cancel(operator: psycopg.Connection[tuple[Any, ...]]) -> bool:
    """Stop what makes an index, once it waits."""
    rows = operator.execute(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%' "
        "AND wait_event_type = 'Lock'"
    ).fetchall()
    return bool(rows)


def _leave_unfinished(url: str) -> None:
    """An index that was stopped in the making stays, and is of no use."""

    def make() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                f"CREATE INDEX CONCURRENTLY {prefix_index.NAME} ON passages USING hnsw "
                f"((subvector(vector, 1, {prefix_index.PREFIX})::halfvec({prefix_index.PREFIX})) "
                "halfvec_cosine_ops)"
            )

    with stopping(url, make) as making, pytest.raises(psycopg.errors.QueryCanceled):
        making.result(30)


@pytest.fixture(scope="module")
def wide(pg: postgres.Postgres) -> str:
    """A database of vectors that are long enough for the index."""
    url = pg.make_database("wide")
    dim = prefix_index.PREFIX
    with open_database(url) as database:
        with database.write() as transaction:
            accounts.create_tenant(transaction, "long")
        items = [item(f"d{n}", n=1, seed=n, dim=dim) for n in range(400)]
        push(database, Principal("long", "d", {}), Push(SPACE, items, dim, 0))
    return url


def test_index_that_was_never_finished_is_made_anew(
    wide: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["admin", "index", "create", "--database", wide, "--json"]
    monkeypatch.setattr(engine, "INDEX_PASSAGES", 100)
    _leave_unfinished(wide)
    with open_database(wide) as database, database.read() as transaction:
        tenant = accounts.require_tenant(transaction, "long")
        assert database.lacks_index(tenant)
        assert not database.lacks_index(replace(tenant, passages=100))
    assert main(command) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["made"], made["dropped"], made["passages"]) == (True, True, 400)
    assert made["memory_mb"] == prefix_index.LEAST_MB
    assert made["size_bytes"] > 0
    with psycopg.connect(wide) as connection:
        found = connection.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = %s::regclass", (prefix_index.NAME,)
        ).fetchone()
        assert found == (True,)
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["made"] is False
    with open_database(wide) as database:
        assert not database.lacks_index(tenant)
    assert main([*command[:2], "drop", *command[3:]]) == 0
    assert main([*command, "--memory", "0"]) == 2


def test_index_that_is_stopped_leaves_nothing_behind(wide: str) -> None:
    with open_database(wide) as database:
        assert isinstance(database, PostgresDatabase)
        with (
            stopping(wide, database.make_index) as making,
            pytest.raises(UnavailableError, match="cancel"),
        ):
            making.result(30)
        with psycopg.connect(wide) as connection:
            left = connection.execute("SELECT to_regclass(%s)", (prefix_index.NAME,)).fetchone()
        assert left == (None,)
        assert database.make_index(memory_mb=32).memory_mb == 32
        database.drop_index()


def test_operator_is_told_which_tenants_need_an_index(
    wide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prometheus_client import CollectorRegistry

    with open_database(wide) as database:
        assert b"admin index create" not in _page(database, CollectorRegistry(), None)
        monkeypatch.setattr(engine, "INDEX_PASSAGES", 100)
        page = _page(database, CollectorRegistry(), None).decode()
    assert "Each search compares all vectors of long" in page


def test_purge_lets_devices_go_on_between_its_pieces(
    pg: postgres.Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "PURGED", 3)
    with open_database(pg.make_database("purged")) as database:
        with database.write() as transaction:
            accounts.create_tenant(transaction, "t")
        device = Principal("t", "d", {})
        for after, deleted in ((-50_000, False), (-40_000, True)):
            items = [item(f"d{n}", after=after, deleted=deleted, dim=DIM) for n in range(11)]
            push(database, device, Push(SPACE, items, DIM, 0))
        push(database, device, Push(SPACE, [item("live", dim=DIM)], DIM, 0))
        fences: list[int] = []
        forget = removal._forget

        def watched(transaction: Any, tenant: Any, rows: Any, stamp: int) -> int:
            fences.append(forget(transaction, tenant, rows, stamp))
            # Another connection sees what earlier pieces did: they are committed.
            with database.read() as other:
                assert accounts.require_tenant(other, "t").fence == (fences[-2:-1] or [0])[0]
            return fences[-1]

        monkeypatch.setattr(removal, "_forget", watched)
        assert purge(database, "t", before_ms=now_ms() - 30_000) == (11, 22)
        assert fences == [14, 17, 20, 22]
        with database.read() as transaction:
            tenant = accounts.require_tenant(transaction, "t")
        assert (tenant.tombstones, tenant.documents, tenant.fence) == (0, 1, 22)


def test_connections_that_postgresql_refuses_are_waited_for(
    pg: postgres.Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = pg.make_database("few")
    with open_database(url) as database, database.write() as transaction:
        accounts.create_tenant(transaction, "t")
    with psycopg.connect(url, autocommit=True) as operator:
        operator.execute("CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 3")
        operator.execute("GRANT ALL ON SCHEMA public TO few")
        operator.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO few")
    url = re.sub(r"//[^@]*@", "//few:few@", url)

    def work(database: PostgresDatabase) -> int:
        with database.read() as transaction:
            transaction.rows("SELECT pg_sleep(0.02)")
            return accounts.require_tenant(transaction, "t").change

    with open_database(url, connections=12) as database, ThreadPoolExecutor(12) as threads:
        assert isinstance(database, PostgresDatabase)
        assert [*threads.map(work, [database] * 100)] == [0] * 100
    monkeypatch.setattr(pool, "FULL_S", 0.0)  # nobody waits: the limit is reached indeed
    with (
        open_database(url, connections=12) as database,
        ThreadPoolExecutor(12) as threads,
    ):
        assert isinstance(database, PostgresDatabase)
        answers = [threads.submit(work, database) for _ in range(100)]
        assert any(isinstance(answer.exception(), UnavailableError) for answer in answers)
