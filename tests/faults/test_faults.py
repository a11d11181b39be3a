"""Whatever the network, the power and the disks do: 0 lost, 0 doubled, 0 resurrected (docs/faults.md)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_mrl import Document, Index, SyncClient
from edge_mrl.store import Store, check
from edge_mrl.sync.enrollment import enroll as enroll_store
from tests.faults.databases import Database, PostgresCluster, SqliteFiles
from tests.faults.device import BUNDLE, PASSAGE
from tests.faults.disk import DIM, MIB, Disk, NotAllowedError, fill, run_device, small_disk
from tests.faults.failover import fail_over
from tests.faults.places import databases
from tests.faults.plan import WORDS, make_plan
from tests.faults.report import Report
from tests.faults.run import run_seed
from tests.faults.sabotage import SABOTAGES
from tests.faults.world import CONVERGE_S, World
from tests.support.postgres import Postgres, UnavailableError
from tests.support.processes import wait_until
from tests.support.serving import Serving, admin, enroll

pytestmark = [pytest.mark.test, pytest.mark.timeout(300)]

#: Of every plan's exchanges; some plans have few.
LEAST_FAULTY = 0.2


@pytest.fixture(scope="module")
def sqlite_files() -> Iterator[Database]:
    with databases("sqlite") as database:
        yield database


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Database]:
    try:
        with databases("postgresql") as database:
            yield database
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A seed on SQLite that has run, and what is left of it."""
    folder = tmp_path_factory.mktemp("world")
    world = World(make_plan(8, database_dies=False), 8, SqliteFiles(folder), folder)
    world.run()
    return world


def assert_lossless(report: Report) -> None:
    assert not report.problems, str(report)
    assert sum(report.faults.values()) >= LEAST_FAULTY * report.exchanges > 0
    assert report.converge_s <= CONVERGE_S


# 12: the server's clock is a month ahead for a while. 19: a copy of a running server is put back. 21: the
# files as they lie, and a clock that is a day behind. 32: a device's store is copied. 3: that, and a
# restore.
@pytest.mark.parametrize(
    "seed", [12, 32, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (3, 6, 19, 21))]
)
def test_faults_lose_nothing_on_sqlite(seed: int, sqlite_files: Database) -> None:
    assert_lossless(run_seed(seed, sqlite_files))


@pytest.mark.parametrize("seed", [102, pytest.param(104, marks=pytest.mark.nightly)])
def test_faults_lose_nothing_on_postgresql(seed: int, postgresql: Database) -> None:
    assert_lossless(run_seed(seed, postgresql))


#: Those that cost least; the others are tried at night.
QUICKEST = ("forgets",)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICKEST else pytest.mark.nightly) for n in SABOTAGES],
)
def test_broken_product_is_caught(name: str) -> None:
    broken, reports = SABOTAGES[name], []
    try:
        with databases(broken.database, **broken.config) as database:
            for seed in broken.seeds:
                reports.append(run_seed(seed, database, broken=name))
                if broken.found(reports[-1].problems):
                    return
    except UnavailableError as error:
        pytest.skip(str(error))
    raise AssertionError("\n".join(map(str, reports)))


def test_server_that_lost_what_it_acknowledged_is_caught(world: World) -> None:
    assert_lossless(world.report)
    rows = world.held().rows
    live = [row.id for row in rows if not row.deleted and row.passages]
    dead = [row.id for row in rows if row.deleted]
    statements = {
        f"LOST {live[0]}": ("DELETE FROM documents WHERE id = ?", live[0]),
        f"RESURRECTED {dead[0]}": ("UPDATE documents SET deleted = 0 WHERE id = ?", dead[0]),
        f"{live[1]}: 0 passages": ("DELETE FROM vectors WHERE id = ?", live[1]),
        f"{live[2]}: vectors of another text": (
            (
                "UPDATE vectors SET vectors = (SELECT vectors FROM vectors v JOIN documents d USING "
                "(id) WHERE id <> ?1 AND d.passages = (SELECT passages FROM documents WHERE id = ?1)) "
                "WHERE id = ?1"
            ),
            live[2],
        ),
    }
    for expected, (sql, name) in statements.items():
        with sqlite3.connect(world.served.url) as connection:
            before = connection.total_changes
            connection.execute(sql, (name,))
            assert connection.total_changes > before
        connection.close()
        assert any(expected in problem for problem in world.compare()), expected


def test_failover_loses_nothing_acknowledged() -> None:
    try:
        report = fail_over(2)
    except UnavailableError as error:
        pytest.skip(str(error))
    assert not report.lost
    assert report.rounds == 2
    assert report.acknowledged > 10
    assert 500 not in report.refused


# --- disks that are full


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> Iterator[Disk]:
    try:
        with small_disk(request.param) as disk:
            yield disk
    except NotAllowedError as error:
        pytest.skip(str(error))


def goes_on(store: Path, arguments: tuple[object, ...], disk: Disk | None) -> None:
    """A device meets its full disk, and goes on when there is space again."""
    with run_device(store, BUNDLE, *arguments) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            pytest.fail(process.communicate()[1])
        said = json.loads(line)
        if disk is not None:
            disk.make_room()
        output, errors = process.communicate("\n", timeout=120)
        assert process.returncode == 0, errors
    assert said["errors"]
    assert all("Traceback" not in error and str(store.name) in error for error in said["errors"])
    assert json.loads(output) == {"waiting": None, "queue": 0}
    with Store.open(store) as opened:
        names = {*said["acknowledged"], "more"}
        assert set(opened.get(names)) == names
        assert check(opened).sound


@pytest.mark.parametrize("limit", [400_000])
def test_device_beyond_its_quota_loses_nothing(limit: int, tmp_path: Path) -> None:
    server = Serving(tmp_path / "server.db", "--quiet")
    try:
        goes_on(tmp_path / "notes.db", (server.url, server.invitation, limit), None)
        assert_same(tmp_path / "notes.db", SqliteFiles(tmp_path), server.database)
    finally:
        server.kill()


@pytest.mark.parametrize("disk", [4 * MIB], indirect=True)
def test_device_with_a_full_disk_loses_nothing(disk: Disk, tmp_path: Path) -> None:
    server = Serving(tmp_path / "server.db", "--quiet")
    try:
        disk.leave(MIB)
        goes_on(disk.path / "notes.db", (server.url, server.invitation, 0), disk)
        assert_same(disk.path / "notes.db", SqliteFiles(tmp_path), server.database)
    finally:
        server.kill()


def assert_same(store: Path, database: Database, url: str) -> None:
    """A device's store and a server's database hold the same documents."""
    with Store.open(store) as opened, opened.reading(), opened.locked() as (connection, _):
        here = {row[0] for row in connection.execute("SELECT id FROM documents")}
    held = database.read(url)
    assert {row.id for row in held.rows if not row.deleted} == here
    assert held.vectors.keys() == here


def refused_pushes(index: Index, client: SyncClient) -> int:
    """Put documents until the server takes no more of them; returns how many were put."""
    for count in range(0, 6_400, 64):
        index.put(
            [Document(str(count + n), f"{WORDS[n % 50]} {count + n} " * 20) for n in range(64)]
        )
        outcome = client.sync_once(attempts=1)
        if not outcome.done:
            assert outcome.cause == "network", outcome
            assert client.status().queue.items
            return count + 64
    raise AssertionError("a full disk took everything")


def serves_on(database: Database, url: str, disk: Disk, tmp_path: Path) -> None:
    """A server whose database's disk fills up refuses clearly, keeps its word, and goes on."""
    server = Serving(url, "--quiet")
    try:
        caller = enroll(server.url, str(server.invitation))
        admin(url, "tenants", "create", "other")
        invitation = admin(url, "invitations", "create", "other")["invitation"]
        with Index.open(tmp_path / "notes.db", BUNDLE, threads=1, **PASSAGE) as index:
            enroll_store(index.store, server.url, invitation)
            acknowledged, refused, reply = fill(caller)
            assert (reply.status, reply.code) == (503, "busy"), (reply, server.log()[-2000:])
            assert "retry-after" in reply.headers
            disk.leave(0)
            read = caller.call("GET", "/v1/pull?since=0&limit=8&vectors=full")
            assert read.status == 200, read  # what is there can still be read
            with SyncClient.open(index) as client:
                count = refused_pushes(index, client)
                disk.make_room()
                if database.dies:
                    database.kill()  # it may have ended by itself: a log that cannot grow
                    database.start()
                wait_until(lambda: caller.push(*refused, dim=DIM).status == 200, CONVERGE_S)
                assert client.sync_once().done
                assert client.status().queue.items == 0
        held = database.read(url)
        assert {row.id for row in held.rows} == {
            *acknowledged,
            *(item.id for item in refused),
            *map(str, range(count)),
        }
        for name, item in acknowledged.items():
            assert np.array_equal(held.vectors[name], item.vectors)
        assert "internal error" not in server.log()
        caller.close()
    finally:
        server.kill()


@pytest.mark.parametrize("disk", [8 * MIB], indirect=True)
def test_sqlite_server_with_a_full_disk_loses_nothing(disk: Disk, tmp_path: Path) -> None:
    disk.leave(2 * MIB)
    serves_on(SqliteFiles(disk.path), str(disk.path / "server.db"), disk, tmp_path)


@pytest.mark.parametrize("disk", [192 * MIB], indirect=True)
def test_postgresql_server_with_a_full_disk_loses_nothing(disk: Disk, tmp_path: Path) -> None:
    # A small log, so that it is the tables that meet the end of the disk first.
    config = {"min_wal_size": "32MB", "max_wal_size": "32MB", "shared_buffers": "1MB"}
    postgres = Postgres(disk.path / "a", config=config)
    try:
        postgres.create()
    except UnavailableError as error:
        pytest.skip(str(error))
    try:
        cluster = PostgresCluster(postgres)
        url = cluster.new("full")
        disk.leave(24 * MIB)
        serves_on(cluster, url, disk, tmp_path)
    finally:
        postgres.kill()
