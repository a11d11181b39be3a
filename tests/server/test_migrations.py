"""The tables of both databases: made whole or not at all, and never changed once released."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest

from edge_mrl_server.errors import UnavailableError
from edge_mrl_server.storage import Database, accounts, open_database
from edge_mrl_server.storage.migrations import MIGRATIONS, Migration, statements

#: SHA-256 of the statements of each released migration. A change belongs into a new migration.
RELEASED = {
    "sqlite": ["944dc0a181f1639f", "0cf7030b647f0cc0"],
    "postgres": ["589bd1c9273e63d6", "faaad78d8cb8b936"],
}
KINDS = ["sqlite", "postgres"]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.test)])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    """An empty database."""
    return str(request.getfixturevalue("sqlite_path" if kind == "sqlite" else "pg_url"))


def digest(kind: str, number: int) -> str:
    return hashlib.sha256("\0".join(statements(kind, number)).encode()).hexdigest()[:16]


@pytest.mark.parametrize("kind", KINDS)
def test_released_migrations_never_change(kind: str) -> None:
    released = RELEASED[kind]
    assert [digest(kind, number) for number in range(len(released))] == released


def test_both_kinds_have_the_same_migrations() -> None:
    names = [[migration.name for migration in MIGRATIONS[kind]] for kind in KINDS]
    assert names[0] == names[1]
    assert [int(name.split("-")[0]) for name in names[0]] == [*range(1, len(names[0]) + 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_statements_are_whole(kind: str) -> None:
    for number in range(len(MIGRATIONS[kind])):
        for sql in statements(kind, number):
            assert "{" not in sql.replace("'{}'", "")
            if sql.startswith("CREATE TABLE"):
                # Every table can be distributed by its tenant.
                assert "PRIMARY KEY (tenant" in sql or "tenants" in sql.split("(")[0]


def test_opening_makes_all_tables_once(kind: str, url: str) -> None:
    seen = []
    for _ in range(2):
        with open_database(url, connections=1) as database, database.read() as transaction:
            sql = "SELECT version, name, applied_ms FROM migrations ORDER BY version"
            rows = transaction.rows(sql)
            seen.append([(row["version"], row["name"], row["applied_ms"]) for row in rows])
            assert accounts.list_tenants(transaction) == []
    assert [row[:2] for row in seen[0]] == [
        (number, migration.name) for number, migration in enumerate(MIGRATIONS[kind], 1)
    ]
    assert seen[0] == seen[1]


def test_migration_that_fails_leaves_the_database_as_it_was(
    kind: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_database(url, connections=1) as database, database.write() as transaction:
        accounts.create_tenant(transaction, "acme")
    broken = Migration("9999-broken", ("ALTER TABLE tenants ADD COLUMN half {long}", "NONSENSE"))
    with monkeypatch.context() as patch:
        patch.setitem(MIGRATIONS, kind, (*MIGRATIONS[kind], broken))
        with pytest.raises(Exception, match="NONSENSE"):
            open_database(url, connections=1)
    with open_database(url, connections=1) as database:
        assert "half" not in columns(database, kind)
        with database.read() as transaction:
            assert [tenant.name for tenant in accounts.list_tenants(transaction)] == ["acme"]
            (row,) = transaction.rows("SELECT max(version) AS last FROM migrations")
            assert row["last"] == len(MIGRATIONS[kind])


def columns(database: Database, kind: str) -> set[str]:
    sql = (
        "SELECT name FROM pragma_table_info('tenants')"
        if kind == "sqlite"
        else "SELECT attname AS name FROM pg_attribute WHERE attrelid = 'tenants'::regclass"
    )
    with database.read() as transaction:
        found = {row["name"] for row in transaction.rows(sql)}
    assert "tenant" in found
    return found


def test_file_that_another_process_migrates_is_waited_for_or_said_to_be_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_mrl_server.storage.engines.sqlite.BUSY_TIMEOUT_S", 0.1)
    path = tmp_path / "server.db"
    open_database(str(path)).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="locked"):
        open_database(str(path))
    other.execute("ROLLBACK")
    other.close()
    open_database(str(path)).close()
