"""What only PostgreSQL can be asked: several servers, fail-over, an index over vectors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from edge_mrl.wire.frames import Item, decode_items, decode_message
from edge_mrl_server.errors import DatabaseError, UnavailableError
from edge_mrl_server.storage import accounts, open_database
from edge_mrl_server.storage.engines import postgres as storage
from edge_mrl_server.storage.pulls import PullQuery, changes_after
from edge_mrl_server.storage.pushes import Push, push
from edge_mrl_server.storage.records import Principal
from tests.server.conftest import Place
from tests.support import postgres
from tests.support.processes import wait_until
from tests.support.serving import SPACE, Caller, enroll, item, serving, units

pytestmark = pytest.mark.test


def batch(*items: Item, dim: int = 8) -> Push:
    return Push(SPACE, items, dim, 0)


def test_puller_never_misses_a_lower_number_that_is_committed_later(postgres_place: Place) -> None:
    """One connection has taken a number and not committed; another writes, a third pulls."""
    database, tenant = postgres_place.database, postgres_place.tenant()
    other = postgres_place.tenant()
    slow, quick = Principal(tenant, "a", {}), Principal(tenant, "b", {})
    done = threading.Event()

    def write_second() -> None:
        push(database, quick, batch(item("second")))
        done.set()

    with ThreadPoolExecutor(1) as pool:
        with database.write() as transaction:
            found = transaction.lock_tenant(tenant)
            assert found is not None
            assert found.change == 0
            second = pool.submit(write_second)
            # Another tenant is not held up by that, the same one is: its number must come later.
            push(database, Principal(other, "c", {}), batch(item("x")))
            assert not done.wait(0.3)
            assert changes_after(database, tenant, PullQuery(0)).cursor == 0
            transaction.run("UPDATE tenants SET change = 1 WHERE tenant = ?", tenant)
        second.result(10)
    push(database, slow, batch(item("third")))
    changes = changes_after(database, tenant, PullQuery(0, vectors=False))
    assert ([i.id for i in changes.items], changes.cursor) == (["second", "third"], 3)


def test_pullers_see_every_change_once_while_several_servers_write(pg: postgres.Postgres) -> None:
    """Two server processes on one database; four devices write, one pulls all the while."""
    url = pg.make_database("two")
    with serving(url) as first, serving(url) as second:
        assert first.invitation is not None
        assert second.invitation is None
        with open_database(url) as database:
            invitations = []
            for _ in range(5):
                with database.write() as transaction:
                    invitations.append(accounts.create_invitation(transaction, "default"))
        writers = [enroll((first, second)[n % 2].url, one) for n, one in enumerate(invitations[:4])]
        reader = enroll(second.url, invitations[4])
        running = threading.Event()
        running.set()

        def write(number: int, caller: Caller) -> None:
            for turn in range(15):
                # Documents of one's own, and one that all write again and again.
                mine = item(f"{number}-{turn}", seed=turn)
                assert caller.statuses(mine, item("shared", after=turn))[0] == "applied"

        def read() -> dict[str, int]:
            seen: dict[str, int] = {}
            cursor, last = 0, False
            while True:
                reply = reader.call("GET", f"/v1/pull?since={cursor}&limit=7&vectors=none")
                message = decode_message(reply.body)
                for got in decode_items(message):
                    assert got.id == "shared" or got.id not in seen, "a change came twice"
                    assert got.stamp >= seen.get(got.id, 0)
                    seen[got.id] = got.stamp
                cursor = message.header["cursor"]
                if last and not message.header["more"]:
                    return seen
                last = not running.is_set()

        with ThreadPoolExecutor(5) as pool:
            reading = pool.submit(read)
            list(pool.map(write, range(4), writers))
            running.clear()
            seen = reading.result(30)
        assert len(seen) == 4 * 15 + 1
        # What one server has written is what another answers with.
        reply = reader.query("/v1/rerank", {"ids": list(seen)}, units(1)[0])
        assert reply.json["missing"] == []
        for caller in (*writers, reader):
            caller.close()


def test_index_never_returns_too_few_of_a_tenant_with_few_rows(
    pg: postgres.Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another tenant's rows are nearer than all of ours: a plain index scan would find those alone."""
    url = pg.make_database("indexed")
    dim = storage.PREFIX + 32
    query = units(1, dim, seed=1)[0].astype(np.float32)
    crowd = query + 0.02 * np.random.default_rng(2).standard_normal((3_000, dim))
    crowd = (crowd / np.linalg.norm(crowd, axis=1, keepdims=True)).astype(np.float16)
    mine = units(300, dim, seed=3)
    with open_database(url) as database:
        assert isinstance(database, storage.PostgresDatabase)
        for name, vectors in (("crowd", crowd), ("mine", mine)):
            with database.write() as transaction:
                accounts.create_tenant(transaction, name)
            for start in range(0, len(vectors), 500):
                part = vectors[start : start + 500]
                items = [item(f"{start + n:05}", n=0) for n in range(len(part))]
                items = [Item(i.id, i.stamp, part[n : n + 1]) for n, i in enumerate(items)]
                push(database, Principal(name, "d", {}), batch(*items, dim=dim))
        database.make_index()
        exact = _search(database, "mine", query, 50)
        assert len(exact) == 50
        monkeypatch.setattr(storage, "EXACT_PASSAGES", 10)
        # The planner has other ways to so few rows; here it shall take the index.
        with database.read() as transaction:
            transaction.run("SET LOCAL enable_seqscan = off")
            transaction.run("SET LOCAL enable_bitmapscan = off")
            transaction.run("SET LOCAL enable_sort = off")
            prefix = f"subvector(vector, 1, {storage.PREFIX})::halfvec({storage.PREFIX})"
            plain = transaction.rows(
                "SELECT id FROM passages WHERE tenant = 'mine' "
                f"AND vector_dims(vector) >= {storage.PREFIX} "
                f"ORDER BY {prefix} <=> "
                f"subvector(?::halfvec, 1, {storage.PREFIX})::halfvec({storage.PREFIX}) LIMIT 50",
                storage._as_text(query),
            )
            assert len(plain) < 50, "the trap is not set"
        with database.read() as transaction:
            transaction.run("SET LOCAL enable_seqscan = off")
            transaction.run("SET LOCAL enable_bitmapscan = off")
            transaction.run("SET LOCAL enable_sort = off")
            tenant = accounts.require_tenant(transaction, "mine")
            found = transaction.search(tenant, query, 50)
        assert [name for name, _ in found][:10] == [name for name, _ in exact][:10]
        assert len(found) == 50
        # Scores are those of the full vectors, best first.
        assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)
        database.drop_index()
        assert len(_search(database, "mine", query, 50)) == 50


def _search(
    database: storage.PostgresDatabase,
    tenant: str,
    query: np.ndarray[tuple[int], np.dtype[np.float32]],
    k: int,
) -> list[tuple[str, float]]:
    with database.read() as transaction:
        return transaction.search(accounts.require_tenant(transaction, tenant), query, k)


@pytest.fixture(scope="module")
def own() -> Iterator[postgres.Postgres]:
    """A PostgreSQL that may be killed, of the oldest version that is taken."""
    try:
        context = postgres.started(version=postgres.OLDEST)
        server = context.__enter__()
    except postgres.UnavailableError as error:
        pytest.skip(str(error))
    yield server
    context.__exit__(None, None, None)


def test_killed_database_loses_nothing_acknowledged_and_servers_go_on(
    own: postgres.Postgres,
) -> None:
    with serving(own.url) as server:
        assert server.invitation is not None
        device = enroll(server.url, server.invitation)
        for turn in range(2):
            assert device.statuses(item(f"before-{turn}")) == ["applied"]
            own.kill()
            reply = device.push(item("lost"))
            assert (reply.status, reply.code) == (503, "busy")
            assert "retry-after" in reply.headers
            assert device.call("GET", "/readyz").status == 503
            assert device.call("GET", "/healthz").status == 200
            own.start()
            wait_until(lambda: device.call("GET", "/readyz").status == 200, 20)
            reply = device.query("/v1/rerank", {"ids": [f"before-{turn}", "lost"]}, units(1)[0])
            assert reply.json["missing"] == ["lost"]
        assert device.query("/v1/search", {"k": 9}, units(1)[0]).json["hits"][1:]
        device.close()
        assert '"internal' not in server.log()


def test_commit_that_no_standby_confirms_is_not_acknowledged(own: postgres.Postgres) -> None:
    url = own.make_database("standby")
    waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    with open_database(url) as database, ThreadPoolExecutor(1) as pool:
        with database.write() as transaction:
            accounts.create_tenant(transaction, "t")
        device, one = Principal("t", "d", {}), item("a")
        with alone(own):
            # Again: by then it is there, but on one disk alone.
            for _ in range(2):
                pushing = pool.submit(push, database, device, batch(one))
                wait_until(lambda: own.query(f"SELECT count(*) {waiting}") == "1")
                assert not pushing.done()
                own.query(f"SELECT pg_cancel_backend(pid) {waiting}")
                with pytest.raises(UnavailableError, match="standby"):
                    pushing.result(20)
            pushing = pool.submit(push, database, device, batch(one))
            wait_until(lambda: own.query(f"SELECT count(*) {waiting}") == "1")
        assert [r.status for r in pushing.result(20).results] == ["applied"]


@contextmanager
def alone(server: postgres.Postgres) -> Iterator[None]:
    """No commit is confirmed: the only standby does not exist."""
    server.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    server.query("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        server.query("ALTER SYSTEM RESET synchronous_standby_names")
        server.query("SELECT pg_reload_conf()")


def test_servers_answer_while_no_standby_confirms_and_go_on_with_one(
    own: postgres.Postgres,
) -> None:
    url = own.make_database("lonely")
    waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = 'lonely'"
    pull = "/v1/pull?since=0&vectors=none"
    with serving(url, "--write-timeout", "1.5") as server, ExitStack() as stack:
        with open_database(url) as database, database.write() as transaction:
            for n in range(9):
                accounts.create_tenant(transaction, f"t{n}")
            invitations = [accounts.create_invitation(transaction, f"t{n}") for n in range(9)]
        devices = [enroll(server.url, one) for one in invitations]
        for device in devices:
            stack.callback(device.close)
            assert device.statuses(item("before")) == ["applied"]
        pool = stack.enter_context(ThreadPoolExecutor(9))
        after = item("after")
        with alone(own):
            wait_until(lambda: own.query("SHOW synchronous_standby_names") == "nobody")
            # An operator ends the wait: what is on one disk alone is not acknowledged.
            cancelled = pool.submit(devices[0].push, after)
            wait_until(lambda: own.query(f"SELECT count(*) {waiting}") == "1")
            own.query(f"SELECT pg_cancel_backend(pid) {waiting}")
            assert (cancelled.result(20).status, cancelled.result().code) == (503, "busy")
            wait_until(lambda: "standby did not confirm" in server.log())
            # More wait than there are threads that write; nobody waits for ever.
            replies = list(pool.map(lambda device: device.push(after), devices))
            assert {(reply.status, reply.code) for reply in replies} == {(503, "busy")}
            assert all("retry-after" in reply.headers for reply in replies)
            assert own.query(f"SELECT count(*) {waiting}") == "6"
            for device in devices[1:]:
                reply = device.call("GET", pull)
                assert reply.status == 200
                assert [got.id for got in decode_items(decode_message(reply.body))] == ["before"]
            assert device.call("GET", "/healthz").status == 200
            assert device.call("GET", "/readyz").status == 200
        wait_until(lambda: own.query(f"SELECT count(*) {waiting}") == "0")
        for device in devices:
            assert device.statuses(after) == ["applied"]
            reply = device.call("GET", pull)
            assert len(decode_items(decode_message(reply.body))) == 2
        with alone(own):
            wait_until(lambda: own.query("SHOW synchronous_standby_names") == "nobody")
            assert devices[0].push(item("last")).status == 503
            assert own.query(f"SELECT count(*) {waiting}") == "1"
            # A commit that waits keeps no server from ending.
            assert server.stop() == 0
        assert '"internal' not in server.log()


def test_database_that_is_away_is_said_clearly() -> None:
    url = f"postgresql://u:secret@127.0.0.1:{postgres.free_port()}/x"
    with pytest.raises(UnavailableError) as raised:
        open_database(url)
    assert "secret" not in str(raised.value)


def test_database_of_a_newer_server_is_refused(pg: postgres.Postgres) -> None:
    url = pg.make_database("newer")
    with open_database(url) as database, database.write() as transaction:
        transaction.run("INSERT INTO migrations (version, name, applied_ms) VALUES (99, 'x', 0)")
    with pytest.raises(DatabaseError, match="newer"):
        open_database(url)


def test_several_servers_may_start_at_once_on_an_empty_database(pg: postgres.Postgres) -> None:
    url = pg.make_database("race")
    with ThreadPoolExecutor(4) as pool:
        for database in pool.map(lambda _: open_database(url, connections=2), range(4)):
            database.close()


def test_connections_flush_before_they_acknowledge_whatever_the_cluster_does(
    pg: postgres.Postgres,
) -> None:
    url = pg.make_database("careless")
    pg.query("ALTER DATABASE careless SET synchronous_commit = off")
    with open_database(url) as database, database.write() as transaction:
        (row,) = transaction.rows("SHOW synchronous_commit")
        assert row["synchronous_commit"] == "on"
