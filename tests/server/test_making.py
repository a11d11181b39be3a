"""While a snapshot is made, requests go on: counts of answers; the snapshots wait for a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from edge_mrl.bundle import head_id
from edge_mrl.index import Index
from edge_mrl.sync import SyncClient
from edge_mrl.sync import enroll as enroll_store
from edge_mrl.sync.outcome import Outcome
from edge_mrl_server.http import making
from tests.support.bundles import TINY
from tests.support.processes import wait_until
from tests.support.serving import Caller, Reply, Serving, admin, enroll, item, serving

pytestmark = pytest.mark.test

PATH = f"/v1/snapshot/coarse?head={head_id(None, layer_norm=False)}&dim=4&text="
#: Tenants whose snapshots wait, devices of each, and requests of another tenant meanwhile.
SLOW, DEVICES, ASKED = 3, 4, 20

#: Run before the server: the pages of such a tenant's snapshot come when a file is there.
PROGRAM = """
import pathlib, time
from edge_mrl_server.http import making
from edge_mrl_server.storage import pulls

def pages(database, tenant, *, text, real=pulls._pages):
    folder = pathlib.Path({folder!r})
    with (folder / "begun").open("a") as file:
        print(tenant.name, file=file)
    while tenant.name.startswith("slow") and not (folder / "open").exists():
        time.sleep(0.01)
    if (folder / "broken").exists():
        raise OSError("no space is left")
    return real(database, tenant, text=text)

pulls._pages = pages
making.SOON_S, making.MOST_RETRY_S = 0.2, 1
"""
#: And after that, for the twin: the server as it was, which made snapshots in the threads of requests.
IN_REQUESTS = """
from edge_mrl_server.http import service
from edge_mrl_server.http.load.turns import Who
services = []

def init(self, *arguments, real=service.Service.__init__):
    real(self, *arguments)
    services.append(self)

async def wait(self, key, make):
    opened = await services[0].work(make, making.Progress(), who=Who(key[0], str(id(make))))
    return opened.snapshot

service.Service.__init__ = init
making.Making.wait = wait
"""


class Slow:
    """A server, tenants whose snapshots wait, and one whose requests are counted."""

    def __init__(self, server: Serving, folder: Path) -> None:
        self.server = server
        self._folder = folder
        self._made: list[Caller] = []
        self.devices = [self.device(f"slow{n}") for n in range(SLOW) for _ in range(DEVICES)]
        self.quiet = self.device("quiet")

    def invitation(self, tenant: str) -> str:
        with suppress(AssertionError):
            admin(self.server.database, "tenants", "create", tenant)
        made = admin(self.server.database, "invitations", "create", tenant)
        return str(made["invitation"])

    def device(self, tenant: str) -> Caller:
        caller = enroll(self.server.url, self.invitation(tenant))
        caller.statuses(item(f"{tenant}{len(self._made)}", text="words", spans=[(0, 5)]))
        self._made.append(caller)
        return caller

    @property
    def begun(self) -> Counter[str]:
        """How often a snapshot of each tenant was begun."""
        file = self._folder / "begun"
        return Counter(file.read_text().split() if file.exists() else [])

    def open(self) -> None:
        """Let the snapshots be made."""
        (self._folder / "open").touch()

    def fail(self) -> None:
        """Let them fail."""
        (self._folder / "broken").touch()
        self.open()

    def mend(self) -> None:
        (self._folder / "broken").unlink()

    def ask_all(self, pool: ThreadPoolExecutor) -> list[Callable[[], Reply]]:
        """Have all devices of the slow tenants ask for a snapshot at once."""
        return [pool.submit(_ask, device).result for device in self.devices]

    def answered(self) -> int:
        """How many of the other tenant's requests are answered, of which none has long to wait."""
        count = 0
        with suppress(TimeoutError):
            for _ in range(ASKED):
                connection = self.quiet._connection
                connection.timeout = 2.0
                if connection.sock is not None:
                    connection.sock.settimeout(2.0)
                count += self.quiet.call("GET", "/v1/pull?since=0&vectors=none").status == 200
        return count

    def close(self) -> None:
        for one in self._made:
            one.close()


@contextmanager
def slow(folder: Path, *, program: str = "") -> Iterator[Slow]:
    with serving(folder / "s.db", program=PROGRAM.format(folder=str(folder)) + program) as server:
        made = Slow(server, folder)
        try:
            yield made
        finally:
            made.open()
            made.close()


def _ask(device: Caller) -> Reply:
    return device.call("GET", PATH)


def test_requests_go_on_while_snapshots_are_made_and_each_is_made_once(tmp_path: Path) -> None:
    with slow(tmp_path) as place, ThreadPoolExecutor(SLOW * DEVICES) as pool:
        replies = [result() for result in place.ask_all(pool)]
        assert {(reply.status, reply.code) for reply in replies} == {(503, "preparing")}
        assert {reply.headers["retry-after"] for reply in replies} == {"1"}
        assert place.answered() == ASKED
        # Of a tenant one at a time, and of all a few; those that ask again begin nothing.
        assert {_ask(device).status for device in place.devices} == {503}
        assert set(place.begun.values()) == {1}
        assert len(place.begun) == making.MAKERS
        place.open()
        wait_until(lambda: {_ask(device).status for device in place.devices} == {200})
        assert place.begun == {f"slow{n}": 1 for n in range(SLOW)}
        error = replies[-1].json["error"]
        assert (error["done"], error["documents"] in (0, DEVICES)) == (0, True)


def test_requests_wait_where_snapshots_are_made_in_their_threads(tmp_path: Path) -> None:
    """The test above can fail: so it was before."""
    with slow(tmp_path, program=IN_REQUESTS) as place, ThreadPoolExecutor(SLOW * DEVICES) as pool:
        results = place.ask_all(pool)
        wait_until(lambda: sum(place.begun.values()) >= 2)
        assert place.answered() < ASKED
        place.open()
        assert {result().status for result in results} == {200}


def test_snapshot_that_fails_is_said_to_who_asks_next_and_made_anew(tmp_path: Path) -> None:
    with slow(tmp_path) as place:
        device = place.devices[0]
        assert _ask(device).code == "preparing"
        place.fail()
        wait_until(lambda: '"snapshot failed"' in place.server.log())
        assert _ask(device).status == 500
        place.mend()
        wait_until(lambda: _ask(device).status == 200)
        assert place.begun["slow0"] == 2


def test_device_waits_for_the_snapshot_and_says_so(tmp_path: Path) -> None:
    with slow(tmp_path) as place, Index.open(tmp_path / "new.db", TINY) as index:
        tenant = "slow-of-one-device"
        enroll_store(index.store, place.server.url, place.invitation(tenant))
        said: list[str] = []

        def step(outcome: Outcome) -> None:
            said.append(outcome.waiting or "")
            place.open()

        with SyncClient.open(index) as client:
            assert client.sync_once(step=step).done
        assert said[0].startswith("the server prepares its documents")
        assert place.begun[tenant] == 1
