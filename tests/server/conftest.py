from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_mrl_server.storage import Database, accounts, open_database
from tests.support import postgres
from tests.support.processes import wait_until
from tests.support.serving import Caller, Serving, enroll, serving


class Place:
    """A database with a server before it, both alive for the whole session."""

    _numbers = itertools.count(1)

    def __init__(self, kind: str, url: str, database: Database, server: Serving) -> None:
        self.kind = kind
        self.url = url
        self.database = database
        self.server = server
        self._callers: list[Caller] = []

    def tenant(self) -> str:
        """A new tenant."""
        name = f"t{next(self._numbers)}"
        with self.database.write() as transaction:
            accounts.create_tenant(transaction, name)
        return name

    def invitation(self, tenant: str) -> str:
        """A new invitation."""
        with self.database.write() as transaction:
            return accounts.create_invitation(transaction, tenant)

    def device(self, tenant: str | None = None) -> Caller:
        """A new device, of a new tenant where none is named."""
        caller = enroll(self.server.url, self.invitation(tenant or self.tenant()))
        self._callers.append(caller)
        return caller

    def close(self) -> None:
        """Close the connections of this test."""
        for caller in self._callers:
            caller.close()
        self._callers.clear()


@pytest.fixture(scope="session")
def pg() -> Iterator[postgres.Postgres]:
    """A PostgreSQL of this session's own."""
    try:
        context = postgres.started()
        server = context.__enter__()
    except postgres.UnavailableError as error:
        pytest.skip(str(error))
    yield server
    context.__exit__(None, None, None)


@pytest.fixture(scope="session")
def sqlite_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    path = str(tmp_path_factory.mktemp("server") / "server.db")
    with serving(path) as server, open_database(path) as database:
        place = Place("sqlite", path, database, server)
        yield place
        place.close()
        check_log(server)


@pytest.fixture(scope="session")
def postgres_place(pg: postgres.Postgres) -> Iterator[Place]:
    with serving(pg.url) as server, open_database(pg.url) as database:
        place = Place("postgres", pg.url, database, server)
        yield place
        place.close()
        check_log(server)


def check_log(server: Serving) -> None:
    """Whatever the tests have sent, nothing failed inside.

    Which tests ran here, and whether they sent anything, differs from worker to worker. So this sends
    a request of its own: when the log has that, it has all that came before, and can be believed.
    """
    caller = Caller(server.url)
    assert caller.call("GET", "/healthz").status == 200
    caller.close()
    wait_until(lambda: '"route": "/healthz"' in server.log().rpartition('"event": "request"')[2])
    log = server.log()
    assert '"internal' not in log
    assert '"status": 500' not in log


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.test)])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """The same tests on both databases."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    yield found
    found.close()


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "server.db"


@pytest.fixture
def pg_url(pg: postgres.Postgres) -> str:
    """An empty database."""
    return pg.make_database(f"db{next(_databases)}")


_databases = itertools.count(1)
