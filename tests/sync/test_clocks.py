"""Clocks that are a month ahead or behind, the server's and each device's, and come back, in all orders.

Each way is: three clocks (the server's, A's, B's) at first, and when the devices are enrolled; three
others then; and all of them right in the end, when a third device comes. The promise (docs/sync.md,
docs/server.md): whoever has seen a version and writes the next one wins, nothing waits, nothing is lost,
and all copies are one.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import NetworkError
from edge_mrl.index import Index
from edge_mrl.store.replica.outbox import Stamps
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.enrollment import enroll
from edge_mrl.sync.pull import Puller
from edge_mrl.wire import clock, next_stamp
from edge_mrl_server.storage import accounts, open_database
from tests.faults.proxy import Proxy
from tests.support.bundles import TINY
from tests.support.clock import Stepped
from tests.support.serving import Serving, serving
from tests.sync.conftest import Clock

pytestmark = [pytest.mark.test, pytest.mark.timeout(900)]

DAY_MS = 86_400_000
AHEAD, RIGHT, BEHIND = 30, 0, -30
#: Days that the server's clock, A's and B's are off.
Clocks = tuple[int, int, int]
ALL: list[Clocks] = list(itertools.product((AHEAD, RIGHT, BEHIND), repeat=3))
#: Before each merge: the server's clock is ahead once, behind once, and one that comes back from either;
#: devices disagree with it and with each other.
SOME: list[tuple[Clocks, Clocks]] = [
    ((RIGHT, RIGHT, RIGHT), (AHEAD, BEHIND, RIGHT)),
    ((BEHIND, AHEAD, BEHIND), (AHEAD, RIGHT, AHEAD)),
    ((AHEAD, BEHIND, AHEAD), (BEHIND, AHEAD, RIGHT)),
]
NUMBERS = itertools.count(1)


class World:
    """A tenant with its devices, and clocks that jump."""

    def __init__(
        self,
        folder: Path,
        server: Serving,
        stepped: Stepped,
        clocks: Clock,
        stack: ExitStack,
        *,
        url: str = "",
    ) -> None:
        self._url = url or server.url
        self.folder, self.server, self._stepped, self._clocks = folder, server, stepped, clocks
        self._stack = stack
        self._days = dict.fromkeys("sabc", 0)
        self._stores: dict[str, tuple[Index, SyncClient]] = {}
        self._tenant = f"clocks{next(NUMBERS)}"
        self.log: list[str] = []
        with open_database(server.database, connections=1) as database, database.write() as writes:
            accounts.create_tenant(writes, self._tenant)

    def set(self, clocks: Clocks) -> None:
        """Put the server's clock, A's and B's so many days off."""
        self.log.append(f"clocks {clocks}")
        self._days |= dict(zip("sab", clocks, strict=True))
        self._stepped.jump(clocks[0] * DAY_MS * 1_000_000)

    def enroll(self, name: str) -> None:
        """A device comes."""
        self._here("s")
        with (
            open_database(self.server.database, connections=1) as database,
            database.write() as writes,
        ):
            invitation = accounts.create_invitation(writes, self._tenant)
        self._here(name)
        index = self._stack.enter_context(Index.open(self.folder / f"{name}.db", TINY, threads=1))
        enroll(index.store, self._url, invitation, name=name, with_text=True)
        client = self._stack.enter_context(SyncClient.open(index))
        self._stores[name] = index, client

    def put(self, name: str, **texts: str) -> None:
        """A device writes."""
        self._here(name)
        self._stores[name][0].put([Document(key, text) for key, text in texts.items()])

    def delete(self, name: str, key: str) -> None:
        """A device deletes."""
        self._here(name)
        self._stores[name][0].delete([key])

    def sync(self, names: str) -> None:
        """Devices sync, one after the other; each is done at once: nothing waits for a clock."""
        for name in names:
            self._here(name)
            client = self._stores[name][1]
            outcome = client.sync_once(attempts=1)
            assert outcome.done, (self.log, name, outcome)
            assert client.status().queue.items == 0, (self.log, name, outcome)
            self.log.append(f"{name} synced")

    def texts(self, name: str) -> dict[str, str]:
        """What a device has."""
        with closing(sqlite3.connect(self.folder / f"{name}.db")) as connection:
            return dict(connection.execute("SELECT id, text FROM documents"))

    def served(self) -> dict[str, str]:
        """What the server has."""
        sql = "SELECT id, text FROM documents WHERE tenant = ? AND NOT deleted"
        with closing(sqlite3.connect(self.server.database, timeout=10)) as connection:
            rows = connection.execute(sql, (self._tenant,)).fetchall()
        return {name: bytes(text).decode() for name, text in rows}

    def _here(self, name: str) -> None:
        self._clocks.ahead_ms = self._days[name] * DAY_MS


def live(world: World, before: Clocks, after: Clocks) -> None:
    """Devices write in turn, each after it has seen what it replaces; then all copies are compared."""
    world.set(before)
    for name in "ab":
        world.enroll(name)
    world.put("a", shared="first, by a", gone="of a", a="of a alone")
    world.sync("ab")
    world.put("b", shared="second, by b", b="of b alone")
    world.sync("ba")
    world.set(after)
    world.put("a", shared="third, by a", both="by a, who knows nothing of b's")
    world.put("b", both="by b, who knows nothing of a's", later="of b, later")
    world.sync("aba")
    assert world.texts("b")["shared"] == "third, by a", world.log
    world.put("b", shared="fourth, by b")
    world.delete("b", "gone")
    world.sync("ba")
    assert world.texts("a")["shared"] == "fourth, by b", world.log
    assert "gone" not in world.texts("a"), world.log
    world.set((RIGHT, RIGHT, RIGHT))
    world.enroll("c")
    world.put("a", shared="fifth, by a", again="of a, right again")
    world.put("b", b="of b alone, changed", gone="of b, after it was deleted")
    world.sync("abcab")
    world.put("c", shared="the last, by c")
    world.sync("cab")
    wanted = {
        "shared": "the last, by c", "a": "of a alone", "b": "of b alone, changed",
        "later": "of b, later", "again": "of a, right again",
        "gone": "of b, after it was deleted",
    }  # fmt: skip
    copies = [world.served(), *map(world.texts, "abc")]
    assert copies == copies[:1] * 4, world.log
    assert {key: text for key, text in copies[0].items() if key != "both"} == wanted, world.log
    assert copies[0]["both"].startswith(("by a,", "by b,")), world.log


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stepped]:
    stepped = Stepped(tmp_path_factory.mktemp("clock") / "offset")
    yield stepped
    stepped.close()


@pytest.fixture(scope="module")
def server(stepped: Stepped, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One server for all; its clock jumps while it runs."""
    path = tmp_path_factory.mktemp("server") / "server.db"
    with serving(path, "--quiet", program=stepped.program) as running:
        yield running


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the tests' process, which is whichever device's acts."""
    clocks = Clock()
    clocks.ahead_ms = 0
    monkeypatch.setattr(clock, "time", SimpleNamespace(time_ns=clocks.time_ns))
    return clocks


def try_all(
    ways: Sequence[tuple[Clocks, Clocks]], folder: Path, server: Serving, stepped: Stepped,
    clocks: Clock,
) -> None:  # fmt: skip
    for number, (before, after) in enumerate(ways):
        with ExitStack() as stack:
            place = folder / str(number)
            place.mkdir()
            live(World(place, server, stepped, clocks, stack), before, after)


@pytest.mark.parametrize("way", SOME, ids=str)
def test_wrong_clocks_freeze_nothing_and_the_last_writer_wins(
    way: tuple[Clocks, Clocks], tmp_path: Path, server: Serving, stepped: Stepped, clocks: Clock
) -> None:
    try_all([way], tmp_path, server, stepped, clocks)


def test_later_write_wins_where_the_answer_to_the_earlier_one_was_lost(
    tmp_path: Path, server: Serving, stepped: Stepped, clocks: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The device does not know that the server has a version that is ahead of the time."""

    def fail(_: Puller) -> None:
        raise NetworkError("the network is gone")

    place = ("127.0.0.1", server.port)
    with Proxy(place, seed=0, rate=0.0) as proxy, ExitStack() as stack:
        world = World(tmp_path, server, stepped, clocks, stack, url=proxy.url)
        world.set((AHEAD, RIGHT, RIGHT))
        for name in "ab":
            world.enroll(name)
        world.put("a", note="first", gone="first")
        proxy.deaf = True
        with monkeypatch.context() as patch:
            patch.setattr(Puller, "changes", fail)  # which would tell what arrived
            with pytest.raises(AssertionError, match="network"):
                world.sync("a")
        proxy.deaf = False
        world.set((RIGHT, RIGHT, RIGHT))
        world.put("a", note="second")
        world.delete("a", "gone")
        world.sync("aba")
        assert world.texts("a") == world.texts("b") == world.served() == {"note": "second"}


@pytest.mark.nightly
@pytest.mark.parametrize("before", ALL, ids=str)
def test_wrong_clocks_in_all_ways(
    before: Clocks, tmp_path: Path, server: Serving, stepped: Stepped, clocks: Clock
) -> None:
    try_all([(before, after) for after in ALL], tmp_path, server, stepped, clocks)


def test_stamps_that_follow_a_devices_clock_alone_are_caught(
    tmp_path: Path, server: Serving, stepped: Stepped, clocks: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(Stamps, "next_after", lambda *_, **__: next_stamp(0))
    with pytest.raises(AssertionError):
        try_all(SOME[:1], tmp_path, server, stepped, clocks)


def test_server_that_waits_for_its_clock_is_caught(tmp_path: Path, clocks: Clock) -> None:
    stepped = Stepped(tmp_path / "offset")
    program = (
        f"{stepped.program}\nfrom tests.faults import sabotage\n"
        "sabotage.break_server('waits for its clock')\n"
    )
    with (
        serving(tmp_path / "s.db", "--quiet", program=program) as server,
        pytest.raises(AssertionError, match="gives such versions the present time"),
    ):
        try_all(SOME[:1], tmp_path, server, stepped, clocks)
    stepped.close()
