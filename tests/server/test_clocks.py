"""A server whose clock was wrong once: no device waits for it, and its stamps can be brought back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from edge_mrl import Document, Index, SyncClient
from edge_mrl.sync.enrollment import enroll as enroll_store
from edge_mrl.sync.enrollment import move
from edge_mrl.wire import COUNTER_BITS, now_ms
from edge_mrl_server.storage import pushes
from tests.server.conftest import Place
from tests.support.clock import clock_off
from tests.support.serving import Caller, Serving, admin, enroll, item

pytestmark = pytest.mark.test

BUNDLE = Path(__file__).parents[1] / "golden" / "tiny-bert-16"
DAY_S = 86_400
MINUTES_5 = 5 * 60_000


@contextmanager
def serving_at(database: Path, offset_s: int, *arguments: str) -> Iterator[Serving]:
    with clock_off(offset_s * 10**9):
        server = Serving(database, *arguments)
    try:
        yield server
    finally:
        server.kill()


class Device:
    """A device with a real store."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self.index = stack.enter_context(Index.open(path, BUNDLE, threads=1))

    def enroll(self, database: Path, server: Serving) -> None:
        invitation = admin(database, "invitations", "create", "default")["invitation"]
        enroll_store(self.index.store, server.url, invitation, with_text=True)

    def put(self, **documents: str) -> None:
        self.index.put([Document(name, text) for name, text in documents.items()])

    def sync(self, server: Serving) -> None:
        move(self.index.store, server=server.url)
        with SyncClient.open(self.index) as client:
            outcome = client.sync_once(attempts=1)
            assert outcome.done, outcome
            assert client.status().queue.items == 0, outcome

    def newest(self) -> int:
        """The newest stamp, in milliseconds."""
        with closing(sqlite3.connect(self.path)) as connection:
            (stamp,) = connection.execute("SELECT max(stamp) FROM versions").fetchone()
            (last, floor) = connection.execute("SELECT last, floor FROM sync").fetchone()
        return int(max(stamp, last, floor)) >> COUNTER_BITS

    def texts(self) -> dict[str, str]:
        with closing(sqlite3.connect(self.path)) as connection:
            return dict(connection.execute("SELECT id, text FROM documents").fetchall())


def test_server_that_was_ahead_stops_no_device_and_can_be_brought_back(tmp_path: Path) -> None:
    database = tmp_path / "s.db"
    with ExitStack() as stack:
        a, b, c, away = (Device(tmp_path / f"{n}.db", stack) for n in ("a", "b", "c", "away"))
        with serving_at(database, 0) as server:
            for device in (a, b, away):
                device.enroll(database, server)
            away.put(early="written by the one that goes away")
            away.sync(server)
        with serving_at(database, 30 * DAY_S) as server:
            for n in range(2):
                a.put(**{f"ahead{n}": f"written while the clock was wrong {n}"})
                a.sync(server)
            a.put(early="changed while the clock was wrong")
            a.sync(server)
            away.sync(server)
        away.put(early="changed again, offline", mine="offline too")
        with serving_at(database, 0, "--admin-port", "0") as server:
            assert "clock behind" in server.log()
            c.enroll(database, server)
            for turn in range(2):
                for device in (a, b, c):
                    device.put(**{f"{device.path.stem}{turn}": f"right again {turn}"})
                    device.sync(server)
            b.put(ahead1="what was ahead is changed")
            b.sync(server)
            for device in (away, a, b, c):
                device.sync(server)
            caller = Caller(server.url)
            ready = caller.call("GET", "/readyz").json
            caller.close()
            assert 29 * DAY_S < ready["clock_behind_s"] < 31 * DAY_S
            assert a.texts() == b.texts() == c.texts() == away.texts()
            assert a.texts()["early"] == "changed again, offline"
            assert a.texts()["ahead1"] == "what was ahead is changed"

            # The repair: said first, done once, and taken over by devices with all that they have.
            before = a.texts()
            away.put(ahead1="changed by one that knows nothing of the repair")
            for _ in range(2):
                assert admin(database, "restamp", "default", "--dry-run")["documents"] == 2
            done = admin(database, "restamp", "default")
            assert done["documents"] == 2
            assert done["before_ms"] - done["after_ms"] > 29 * DAY_S * 1000
            assert admin(database, "restamp", "default")["documents"] == 0
            for device in (a, away, b, c, a, away, b):
                device.sync(server)
            wanted = before | {"ahead1": "changed by one that knows nothing of the repair"}
            for device in (a, b, c, away):
                assert device.texts() == wanted
                assert device.newest() <= now_ms() + MINUTES_5
            a.put(ahead0="after the repair")
            a.sync(server)
            for device in (b, c, away):
                device.sync(server)
                assert device.texts()["ahead0"] == "after the repair"
        with closing(sqlite3.connect(database)) as connection:
            (newest,) = connection.execute("SELECT max(stamp) FROM documents").fetchone()
            (kept,) = connection.execute("SELECT newest FROM tenants").fetchone()
        assert max(newest, kept) >> COUNTER_BITS <= now_ms() + MINUTES_5
        with serving_at(database, 0) as server:
            assert "clock behind" not in server.log()


def set_newest(place: Place, tenant: str, stamp: int) -> None:
    with place.database.write() as transaction:
        transaction.run("UPDATE tenants SET newest = ? WHERE tenant = ?", stamp, tenant)


def test_stamps_follow_the_tenants_newest_and_run_away_no_faster(place: Place) -> None:
    device = place.device(tenant := place.tenant())
    other = place.device()
    ahead = (now_ms() + 30 * DAY_S * 1000) << COUNTER_BITS
    assert device.statuses(item("a", after=30 * DAY_S * 1000)) == ["clock_ahead"]
    set_newest(place, tenant, ahead)
    near = item("a")
    at = type(near)(near.id, ahead + pushes.MAX_ABOVE_NEWEST, near.vectors)
    beyond = type(near)("b", ahead + 2 * pushes.MAX_ABOVE_NEWEST + 1, near.vectors)
    assert device.statuses(at, beyond) == ["applied", "clock_ahead"]
    assert device.statuses(item("c")) == ["applied"]
    # Another tenant has nothing of it.
    assert other.statuses(at) == ["clock_ahead"]


def test_rule_without_the_tenants_newest_is_caught(
    sqlite_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: by the clock alone, a document that is ahead cannot be changed for a month."""
    from edge_mrl_server.storage import Principal, Push, accounts, open_database, push
    from tests.support.serving import SPACE

    with open_database(str(sqlite_path)) as database:
        with database.write() as transaction:
            accounts.create_tenant(transaction, "t")
            ahead = (now_ms() + 30 * DAY_S * 1000) << COUNTER_BITS
            transaction.run("UPDATE tenants SET newest = ?", ahead)
        one = item("a")
        batch = Push(SPACE, [type(one)("a", ahead + 1, one.vectors)], 8, 0)
        principal = Principal("t", "d", {})
        with monkeypatch.context() as patch:
            patch.setattr(pushes, "MAX_ABOVE_NEWEST", -(1 << 62))
            assert [r.status for r in push(database, principal, batch).results] == ["clock_ahead"]
        assert [r.status for r in push(database, principal, batch).results] == ["applied"]


def test_restamp_keeps_the_order_and_what_is_right(place: Place) -> None:
    device = place.device(tenant := place.tenant())
    ahead = (now_ms() + DAY_S * 1000) << COUNTER_BITS
    set_newest(place, tenant, ahead)
    right = item("right")
    many = [type(right)(f"{n}", ahead - n, right.vectors, deleted=False) for n in range(5)]
    assert set(device.statuses(right, *many)) == {"applied"}
    admin(place.url, "restamp", tenant)
    with place.database.read() as transaction:
        rows = transaction.rows(
            "SELECT id, stamp FROM documents WHERE tenant = ? ORDER BY stamp", tenant
        )
    assert [row["id"] for row in rows] == ["right", "4", "3", "2", "1", "0"]
    assert rows[0]["stamp"] == right.stamp
    assert rows[-1]["stamp"] <= (now_ms() + MINUTES_5) << COUNTER_BITS
    reply = device.push(item("x"), cursor=10**15)
    assert reply.status in (200, 409)


def test_clock_that_is_behind_is_measured(sqlite_path: Path) -> None:
    from tests.server.test_commands import fetch

    with serving_at(sqlite_path, DAY_S) as server:
        device = enroll(server.url, str(server.invitation))
        assert device.statuses(item("a", after=DAY_S * 1000)) == ["applied"]
        device.close()
    with serving_at(sqlite_path, 0, "--admin-port", "0") as server:
        assert "clock behind" in server.log()
        _, metrics = fetch(server.admin_url, "/metrics")
        (line,) = [ln for ln in metrics.splitlines() if ln.startswith("edge_mrl_clock_behind")]
        assert float(line.split()[1]) > 0.9 * DAY_S
        assert "behind the newest document" in fetch(server.admin_url, "/")[1]
