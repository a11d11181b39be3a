"""Sync in Kotlin: a device in Kotlin, one in Python and a real server hold the same documents."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mrl import Document, Encoder, Index, SyncClient, __version__
from edge_mrl.search.rerank import doubt, merge
from edge_mrl.store import Store, check
from edge_mrl.sync.credentials import Credentials
from edge_mrl.sync.enrollment import enroll
from tests.android.devices import PASSAGE, KotlinDevice
from tests.android.probe import KotlinError, Probe
from tests.server.test_making import PROGRAM
from tests.support.bundles import TINY, TINY_STATIC
from tests.support.processes import wait_until
from tests.support.relays import Relay, make_certificates
from tests.support.serving import Serving, admin, invitations, serving

pytestmark = [pytest.mark.test, pytest.mark.timeout(300)]

NewInvitation = Callable[[], str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("server") / "server.db") as running:
        yield running


@pytest.fixture
def new_invitation(server: Serving) -> Iterator[NewInvitation]:
    """Makes invitations of one tenant."""
    with invitations(server) as make:
        yield make


class PythonDevice:
    """A store that Python has open, and its client."""

    def __init__(
        self,
        path: Path,
        url: str,
        invitation: str,
        *,
        with_text: bool = False,
        keep_full: str | None = None,
    ) -> None:
        self.index = Index.open(path, TINY, threads=1, keep_full=keep_full, **PASSAGE)
        enroll(self.index.store, url, invitation, with_text=with_text)
        self.client = SyncClient.open(self.index)

    def close(self) -> None:
        self.client.close()
        self.index.close()


@pytest.fixture
def python(server: Serving, new_invitation: NewInvitation, tmp_path: Path) -> Iterator[Any]:
    made: list[PythonDevice] = []

    def make(name: str = "python", **options: Any) -> PythonDevice:
        made.append(PythonDevice(tmp_path / f"{name}.db", server.url, new_invitation(), **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def device(
    kotlin: Probe, server: Serving, new_invitation: NewInvitation, tmp_path: Path
) -> Iterator[Any]:
    made: list[KotlinDevice] = []

    def make(name: str = "kotlin", *, keep_full: str | None = None, **options: Any) -> KotlinDevice:
        made.append(KotlinDevice(kotlin, tmp_path / f"{name}.db", keep_full=keep_full))
        made[-1].enroll(server.url, new_invitation(), **options)
        return made[-1]

    yield make
    for one in made:
        one("close")
    kotlin("sync.clock", ahead_ms=0)


def assert_done(outcome: Any) -> None:
    assert outcome["waiting"] is None, outcome


def rows(path: Path) -> Any:
    """Documents and codes of a store, its live versions, and their sums."""
    with Store.open(path) as store:
        assert check(store).sound, check(store)
        with store.locked() as (connection, _):
            documents = connection.execute(
                "SELECT id, text, metadata, codes FROM documents LEFT JOIN passages ON key = document"
            ).fetchall()
            versions = connection.execute(
                "SELECT id, stamp, device FROM versions WHERE NOT deleted"
            ).fetchall()
            sums = connection.execute("SELECT sums FROM agreement").fetchone()
    return sorted(documents), sorted(versions), sums


def stamp_of(path: Path, name: str) -> int:
    """The stamp of a document's version in a store."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        query = "SELECT stamp FROM versions WHERE id = ?"
        return int(connection.execute(query, (name,)).fetchone()[0])


def documents(*names: str) -> list[Document]:
    return [
        Document(name, f"the {name} text of a small harbour, and lanterns {n}", {"n": n, "é": name})
        for n, name in enumerate(names)
    ]


def test_version_is_that_of_the_distribution(kotlin: Probe) -> None:
    # Letters about what could not be stored name it, and another one tries again.
    assert kotlin("sync.version") == __version__


@pytest.mark.parametrize(
    ("with_text", "keep_full"),
    [
        (True, None),
        (False, "fp16"),
        pytest.param(False, None, marks=pytest.mark.nightly),
        pytest.param(True, "fp16", marks=pytest.mark.nightly),
        pytest.param(True, "int8", marks=pytest.mark.nightly),
    ],
)
def test_kotlin_and_python_hold_the_same(
    device: Any, python: Any, with_text: bool, keep_full: str | None
) -> None:
    one = device(with_text=with_text, keep_full=keep_full)
    other = python(with_text=with_text, keep_full=keep_full)
    one.put(documents("a", "b", "é/🙂", "gone"))
    outcome = one.sync()
    assert_done(outcome)
    assert outcome["pushed"] == 4
    assert other.client.sync_once().pulled == 4
    one.delete(["gone"])
    other.index.put(documents("a", "mine"))
    other.index.put([Document("b", "another text of b")])
    assert other.client.sync_once().done
    outcome = one.sync()
    assert_done(outcome)
    assert (outcome["pushed"], outcome["pulled"]) == (1, 2)
    assert other.client.sync_once().done
    assert_done(one.sync())
    one("close")
    here, there = rows(one.path), rows(other.index.store.path)
    assert here[1:] == there[1:]
    if with_text:
        assert [row[:3] for row in here[0]] == [row[:3] for row in there[0]]
    assert {row[0]: row[3] for row in here[0]}.keys() == {"a", "b", "é/🙂", "mine"}


def test_python_goes_on_where_kotlin_was_and_back(
    kotlin: Probe, server: Serving, new_invitation: NewInvitation, tmp_path: Path, python: Any
) -> None:
    """One store, in turn: what one language has left open, the other one sends."""
    path = tmp_path / "shared.db"
    one = KotlinDevice(kotlin, path)
    one.put(documents("a", "b"))
    one.enroll(server.url, new_invitation(), with_text=True)
    name = one("status")["device"]
    assert_done(one.sync())
    one.put(documents("c"))
    one.delete(["a"])
    one("close")
    with Index.open(path, TINY, threads=1) as index, SyncClient.open(index) as client:
        assert client.status().device == name
        assert client.status().queue.items == 2
        outcome = client.sync_once()
        assert (outcome.pushed, outcome.done) == (2, True)
        index.put([Document("d", "what Python wrote behind Kotlin")])
    one = KotlinDevice(kotlin, path)
    one("client")
    assert one("status")["queue"] == 1
    outcome = one.sync()
    assert (outcome["pushed"], outcome["waiting"]) == (1, None)
    one("close")
    fresh = python("fresh", with_text=True)
    assert fresh.client.sync_once().pulled == 3
    assert set(fresh.index.get(["a", "b", "c", "d"])) == {"b", "c", "d"}
    assert rows(path)[1:] == rows(fresh.index.store.path)[1:]


def test_letters_are_kept_and_sent_again(device: Any, python: Any, tmp_path: Path) -> None:
    one, other = device(with_text=True), python(with_text=True)
    one.put(documents("a", "b"))
    assert_done(one.sync())
    assert other.client.sync_once().done
    # Written here, and deleted there by a version that is newer.
    one.put([Document("a", "an edit that nobody has seen")])
    other.index.delete(["a"])
    while stamp_of(other.index.store.path, "a") < stamp_of(one.path, "a"):  # their clocks differ
        other.index.put([Document("a", "again")])
        other.index.delete(["a"])
    assert other.client.sync_once().done
    outcome = one.sync()
    assert_done(outcome)
    letters = one("dead")
    assert [letter[:4] for letter in letters] == [
        ["a", "deleted_elsewhere", False, "an edit that nobody has seen"]
    ]
    assert one.get(["a"]) == {}
    assert one("retry") == 1
    assert_done(one.sync())
    assert one("dead") == []
    assert other.client.sync_once().done
    assert other.index.get(["a"])["a"].text == "an edit that nobody has seen"


def test_document_that_is_too_large_costs_no_other(device: Any, python: Any) -> None:
    one = device(with_text=True)
    large = "a" * (1 << 20)
    one.put([*documents("a"), Document("large", large), *documents("b")])
    outcome = one.sync()
    assert_done(outcome)
    assert (outcome["pushed"], outcome["dead"]) == (2, 1)
    assert [letter[:2] for letter in one("dead")] == [["large", "too_large"]]
    assert one("drop") == 1
    assert one("status")["dead"] == 0
    other = python()
    assert other.client.sync_once().pulled == 2


def test_token_is_renewed_and_a_lost_answer_changes_nothing(device: Any, server: Serving) -> None:
    one = device()
    before = Credentials.read(one.path)
    assert before is not None
    one("expire", left_ms=86_400_000)
    assert_done(one.sync())
    after = Credentials.read(one.path)
    assert after is not None
    assert (after.token != before.token, after.previous) == (True, before.token)
    # The server has never seen the new token in use before the next request; the old one has ended.
    one.put(documents("a"))
    assert one.sync()["pushed"] == 1


def test_enrolling_again_with_the_same_invitation_is_harmless(
    kotlin: Probe, server: Serving, new_invitation: NewInvitation, tmp_path: Path
) -> None:
    one = KotlinDevice(kotlin, tmp_path / "again.db")
    one.put(documents("a", "b"))
    invitation = new_invitation()
    first = one("enroll", server=server.url, invitation=invitation)
    # As if it had been killed before the answer was written down.
    file = one.path.with_name("again.db-sync.json")
    kept = file.read_text()
    again = one("enroll", server=server.url, invitation=invitation)
    assert (again["device"], again["queue"]) == (first["device"], 2)
    file.write_text(kept)
    one("client")
    assert one.sync()["pushed"] == 2
    one("close")
    copy = tmp_path / "copy.db"
    copy.write_bytes(one.path.read_bytes())
    other = KotlinDevice(kotlin, copy)
    with pytest.raises(KotlinError, match="is a copy"):
        other("client")
    other("close")


def test_conditions_and_budget_hold(device: Any) -> None:
    one = device()
    one.put(documents(*(f"d{n}" for n in range(40))))
    one("client", metered=True)
    assert one.sync()["waiting"] == "the connection is metered"
    assert one.sync(now=True)["pushed"] == 40
    one.put(documents(*(f"e{n}" for n in range(40))))
    one("client", max_bytes=3_000)
    outcome = one.sync()
    assert outcome["cause"] == "policy"
    assert 0 < outcome["pushed"] < 40
    while outcome["cause"] == "policy":
        outcome = one.sync()
    assert_done(outcome)
    assert one("status")["queue"] == 0


def test_scores_come_from_the_server_or_not_at_all(device: Any, server: Serving) -> None:
    one = device()
    one.put([Document("a", "a lantern"), Document("b", "harbours")])
    assert_done(one.sync())
    with Encoder.open(TINY, threads=1) as encoder:
        full = encoder.encode(["a lantern"], kind="document").full
    assert full is not None
    query = [float(value) for value in full[0]]
    scores = one("rerank", ids=["a", "nowhere", "b"], query=query, deadline_s=5.0)
    assert scores.keys() == {"a", "b"}
    assert scores["a"] == pytest.approx(1.0, abs=2e-3)  # float16 at both ends
    with pytest.raises(KotlinError, match="within 0 ms"):
        one("rerank", ids=["a"], query=query, deadline_s=0.0)


def test_another_space_is_refused_before_anything_is_stored(
    kotlin: Probe, server: Serving, new_invitation: NewInvitation, python: Any, tmp_path: Path
) -> None:
    other = python()
    other.index.put(documents("a"))
    assert other.client.sync_once().pushed == 1
    one = KotlinDevice(kotlin, tmp_path / "foreign.db", bundle=TINY_STATIC)
    with pytest.raises(KotlinError, match="space"):
        one("enroll", server=server.url, invitation=new_invitation())
    one("close")


def test_tls_trusts_the_named_authority_and_no_other(
    kotlin: Probe, server: Serving, new_invitation: NewInvitation, tmp_path: Path
) -> None:
    certificates = make_certificates(tmp_path, "localhost")
    one = KotlinDevice(kotlin, tmp_path / "tls.db")
    one.put(documents("a"))
    invitation, own = new_invitation(), str(certificates.authority)
    with Relay(server.port, tls=certificates.server) as relay:
        url = f"https://127.0.0.1:{relay.port}"
        with pytest.raises(KotlinError, match="NetworkException"):
            one("enroll", server=url, invitation=invitation)
        with pytest.raises(KotlinError, match="no certificates"):
            one("enroll", server=url, invitation=invitation, ca=str(one.path))
        with pytest.raises(KotlinError, match="anybody on the network"):
            one("enroll", server="http://sync.example.org", invitation=invitation)
        one("enroll", server=url, invitation=invitation, ca=own)
        one("client")
        assert one.sync()["pushed"] == 1
    one("close")


@pytest.mark.parametrize(
    "changed", ["token", *(pytest.param(n, marks=pytest.mark.nightly) for n in ("copy", "space"))]
)
def test_header_that_changes_on_its_way_locks_no_device_out(
    device: Any, server: Serving, changed: str
) -> None:
    one = device()
    one.put(documents("a"))
    headers = {"token": b"Bearer ", "copy": b"Edge-MRL-Copy: ", "space": b"Edge-MRL-Space: "}
    with Relay(server.port) as relay:
        one("move", server=f"http://127.0.0.1:{relay.port}")
        one("client")
        name = headers[changed]
        relay.damage = (name, name + b"0")
        outcome = one.sync()
        assert relay.damage is None
        assert_done(outcome)
    assert outcome["pushed"] == 1


def test_interrupted_run_ends_soon_and_keeps_what_waits(device: Any) -> None:
    one = device()
    one.put(documents("a"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        one("move", server=f"http://127.0.0.1:{silent.getsockname()[1]}")
        one("client")
        outcome = one("interrupted", after_ms=300, wait_ms=20_000)
    assert outcome is not None, "the run went on"
    assert (outcome["cause"], "interrupted" in outcome["waiting"]) == ("network", True)
    assert one("status")["queue"] == 1


def test_stopped_run_ends_within_its_request_and_keeps_what_waits(device: Any) -> None:
    one = device()
    one.put(documents("a"))
    before = one("status")["server"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        one("move", server=f"http://127.0.0.1:{silent.getsockname()[1]}")
        one("client", timeouts=[600.0, 600.0, 600.0])  # it would not end by itself
        outcome = one("stopped", after_ms=300)
    assert (outcome["cause"], "stopped" in outcome["waiting"]) == ("policy", True)
    one("move", server=before)
    one("client")
    outcome = one("stopped", after_ms=0)
    assert (outcome["cause"], outcome["pushed"]) == ("policy", 0)
    outcome = one.sync()
    assert_done(outcome)
    assert outcome["pushed"] == 1


def test_store_that_leaves_keeps_what_waits(
    device: Any, server: Serving, new_invitation: NewInvitation
) -> None:
    one = device(with_text=True)
    one.put(documents("a"))
    assert_done(one.sync())
    one.put(documents("b"))
    assert one("enrolled")
    one("leave")
    one("leave")
    assert not one("enrolled")
    assert Credentials.read(one.path) is None
    assert one.sync()["cause"] == "refused"
    with pytest.raises(KotlinError, match="copy, or its file"):
        one("client")
    one.enroll(server.url, new_invitation(), with_text=True)
    outcome = one.sync()
    assert_done(outcome)
    assert outcome["pushed"] == 1  # and not "a" again


def test_enrolling_again_keeps_what_was_chosen(
    kotlin: Probe, server: Serving, new_invitation: NewInvitation, tmp_path: Path
) -> None:
    one = KotlinDevice(kotlin, tmp_path / "twice.db")
    invitation = new_invitation()
    for _ in range(2):  # the command is run again, since nobody knows if it worked
        one("enroll", server=server.url, invitation=invitation, with_text=True)
    one("client")
    assert one("status")["with_text"]
    one("close")


#: Kotlin's full vectors are not the bits of Python's.
SCORE = 2e-3


def test_search_is_ordered_by_the_server_as_in_python(device: Any, kotlin: Probe) -> None:
    one = device(with_text=True)
    names = [f"{n} {word}" for n, word in enumerate(["ferry", "bread", "salt", "oven", "fox"] * 3)]
    one.put(documents(*names))
    assert_done(one.sync())
    one.put(documents("late ferry"))  # it is not on the server, and its full vectors are here
    query = "when does the ferry leave"

    def asked(**options: Any) -> Any:
        return one("search", query=query, **{"k": 4, "deadline_s": 20.0, **options})

    found = asked()
    assert (found["by"], found["reason"], len(found["hits"])) == ("server", None, 4)
    assert asked(client=True)["hits"] == found["hits"]
    one("margin", margin=0.0)
    assert asked(auto=True)["hits"] == found["hits"]
    one("margin", margin=1e6)
    local = asked(auto=True)
    assert (local["by"], local["reason"]) == ("local", "the local order is not in doubt")
    assert "within 0 ms" in asked(deadline_s=0.0)["reason"]
    with pytest.raises(KotlinError, match="deadlineS is -1"):
        asked(deadline_s=-1.0)
    one("close")
    with Index.open(one.path, TINY, threads=1) as index:
        wanted = index.search(query, 4, rerank="always", deadline_ms=20_000)
        assert wanted.ranked_by == "server"
        assert [hit[0] for hit in found["hits"]] == [hit.id for hit in wanted]
        scores = [hit.score for hit in wanted]
        assert [hit[1] for hit in found["hits"]] == pytest.approx(scores, abs=SCORE)
        assert [hit[0] for hit in local["hits"]] == [hit.id for hit in index.search(query, 4)]


def test_scores_that_the_server_lacks_and_the_doubt_are_those_of_python(kotlin: Probe) -> None:
    rng = np.random.default_rng(7)
    for count in (1, 2, 4, 5, 30):
        local = sorted(rng.uniform(-1, 1, count).tolist(), reverse=True)
        pairs = [(f"d{n}", score) for n, score in enumerate(local)]
        server = {name: float(rng.uniform(-1, 1)) for name, _ in pairs if rng.random() < 0.7}
        own = {name: 0.5 for name, _ in pairs[:2]}
        said = kotlin("sync.merge", local=pairs, server=server, own=own)
        wanted = merge(pairs, server, partial(_among, own))
        assert said["scores"] == (None if wanted is None else pytest.approx(wanted, abs=1e-12))
        assert said["doubt"] == pytest.approx(doubt(local), abs=1e-12)


def _among(scores: dict[str, float], names: Sequence[str]) -> dict[str, float]:
    return {name: scores[name] for name in names if name in scores}


def until(holds: Callable[[], bool]) -> None:
    """Wait for something, a minute at most."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "it never happens"
        time.sleep(0.05)


def test_thread_keeps_a_store_in_sync(device: Any, python: Any) -> None:
    one, other = device(with_text=True), python(with_text=True)
    with pytest.raises(KotlinError, match="not running"):
        one("now")
    one("start", interval_s=600.0)
    with pytest.raises(KotlinError, match="already running"):
        one("start", interval_s=600.0)
    until(lambda: len(one("ran")) == 1)
    one.put(documents("a"))  # it looks for what is written here
    until(lambda: len(one("ran")) >= 2)
    assert other.client.sync_once().pulled == 1
    other.index.put(documents("b"))
    assert other.client.sync_once().done
    one("now")  # and is told to look there
    until(lambda: "b" in one.get(["b"]))
    one("stop")
    one("stop")
    runs = len(one("ran"))
    one.put(documents("c"))
    time.sleep(1.5)
    assert (len(one("ran")), one("status")["queue"]) == (runs, 1)


def test_thread_outlives_the_faults_of_its_application(device: Any) -> None:
    one = device()
    one("start", interval_s=0.05, breaks=True)
    until(lambda: len(one("ran")) >= 2)
    assert "the application's own fault" in one("status")["waiting"]
    one("stop")


def test_what_was_received_is_forgotten_here_and_comes_again(device: Any, python: Any) -> None:
    one, other = device(with_text=True), python(with_text=True)
    one.put(documents("mine"))
    other.index.put(documents("theirs", "too"))
    for _ in range(2):
        assert other.client.sync_once().done
        assert_done(one.sync())
    assert one("forget") == 2
    assert set(one.get(["mine", "theirs", "too"])) == {"mine"}
    assert_done(one.sync())
    assert set(one.get(["mine", "theirs", "too"])) == {"mine", "theirs", "too"}
    assert other.client.sync_once().deleted == 0


def test_new_device_is_filled_by_a_snapshot_and_goes_on_where_it_was_interrupted(
    device: Any, python: Any, kotlin: Probe
) -> None:
    other = python(with_text=True)
    other.index.put(documents(*(f"d{n}" for n in range(60))))
    other.index.delete(["d7"])
    assert other.client.sync_once().done
    one = device(with_text=True)
    part = one.path.with_name(f"{one.path.name}-sync.part")
    kotlin("sync.ranges", size_bytes=2_000)
    try:
        one("client", max_bytes=5_000)
        outcome = one.sync()
        assert (outcome["cause"], outcome["pulled"], part.exists()) == ("policy", 0, True)
        kept = part.stat().st_size - 1_024
        assert kept >= 4_000
        if sys.platform != "win32":
            assert part.stat().st_mode & 0o077 == 0
        one("client")
        rest = one.sync()
        assert_done(rest)
        assert (rest["pulled"], part.exists()) == (59, False)
        # Another new device, whose part is damaged by its disk, fetches all of it again.
        third = device("third", with_text=True)
        third("client", max_bytes=5_000)
        third.sync()
        part = third.path.with_name(f"{third.path.name}-sync.part")
        data = bytearray(part.read_bytes())
        data[1_100] ^= 1
        part.write_bytes(data)
        third("client")
        whole = third.sync()
        assert_done(whole)
        assert (whole["pulled"], part.exists()) == (59, False)
        assert whole["received"] > rest["received"] + kept
    finally:
        kotlin("sync.ranges", size_bytes=4 << 20)
    assert_done(one.sync())
    one("close")
    third("close")
    here, there = rows(one.path), rows(other.index.store.path)
    # Codes are a server's, of vectors that were rounded on their way.
    assert [row[:3] for row in here[0]] == [row[:3] for row in there[0]]
    assert here[1:] == there[1:]
    assert rows(third.path)[:2] == here[:2]


def test_new_device_waits_while_its_snapshot_is_made(kotlin: Probe, tmp_path: Path) -> None:
    program = PROGRAM.format(folder=str(tmp_path))
    with serving(tmp_path / "s.db", program=program) as slow:
        admin(slow.database, "tenants", "create", "slow")

        def invitation() -> str:
            made = admin(slow.database, "invitations", "create", "slow")
            return str(made["invitation"])

        other = PythonDevice(tmp_path / "other.db", slow.url, invitation())
        (tmp_path / "open").touch()
        other.index.put(documents("a", "b"))
        assert other.client.sync_once().done
        other.close()
        (tmp_path / "open").unlink()

        def open_later() -> None:
            wait_until(lambda: '"preparing"' in slow.log())
            (tmp_path / "open").touch()

        one = KotlinDevice(kotlin, tmp_path / "new.db")
        try:
            one.enroll(slow.url, invitation())
            opener = threading.Thread(target=open_later)
            opener.start()
            outcome = one.sync()
            opener.join()
            assert_done(outcome)
            assert outcome["pulled"] == 2
        finally:
            one("close")


#: Metadata that a server may hold and a device cannot store; the last one no reader of JSON takes either.
SPOILED = {
    "integer": b'{"n": 1' + b"0" * 309 + b"}",
    "surrogate": b'{"n": "\\ud800"}',
    "infinite": b'{"n": 1e999}',
    "deep": b'{"n": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}


def spoil(server: Serving, tenant: str, name: str, metadata: bytes) -> None:
    """Have a server hold what an older one took."""
    with contextlib.closing(sqlite3.connect(server.database)) as connection, connection:
        query = "UPDATE documents SET metadata = ? WHERE tenant = ? AND id = ?"
        assert connection.execute(query, (metadata, tenant, name)).rowcount == 1


@pytest.mark.parametrize(
    "kind", [pytest.param(n, marks=() if n == "deep" else pytest.mark.nightly) for n in SPOILED]
)
def test_document_that_cannot_be_read_is_a_letter_and_the_rest_arrives(
    kind: str, device: Any, python: Any, server: Serving
) -> None:
    one, other = device(with_text=True), python(with_text=True)
    one.put(documents("first"))
    assert_done(one.sync())
    other.index.put(documents("a", "evil", "b"))
    assert other.client.sync_once().done
    spoil(server, one("status")["tenant"], "evil", SPOILED[kind])
    outcome = one.sync()
    assert_done(outcome)
    assert (outcome["pulled"], outcome["unreadable"], outcome["differs"]) == (2, 1, 0)
    ((name, reason, _, _, writer, detail),) = one("dead")
    assert (name, reason, writer) == ("evil", "unreadable", other.client.status().device)
    assert detail
    again = one.sync()
    assert (again["waiting"], again["pulled"], again["dead"]) == (None, 0, 0)
    assert one("retry") == 1
    assert one.sync()["unreadable"] == 1  # still so
    other.index.put([Document("evil", "a newer version heals")])
    assert other.client.sync_once().done
    assert one.sync()["pulled"] == 1
    assert one("dead") == []
    assert one.get(["evil"])["evil"]["text"] == "a newer version heals"


@pytest.mark.nightly
def test_what_the_store_refuses_is_found_in_halves(device: Any, python: Any) -> None:
    one, other = device(), python()
    one.put(documents("mine"))
    assert_done(one.sync())
    other.index.put(documents(*(str(number) for number in range(20))))
    assert other.client.sync_once().done
    trigger = (
        "CREATE TRIGGER t BEFORE INSERT ON documents WHEN new.id IN ('7', '11') "
        "BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    with contextlib.closing(sqlite3.connect(one.path)) as connection:
        connection.execute(trigger)
    outcome = one.sync()
    assert (outcome["waiting"], outcome["pulled"], outcome["unreadable"]) == (None, 18, 2)
    assert [letter[:2] for letter in one("dead")] == [["11", "unreadable"], ["7", "unreadable"]]
    with contextlib.closing(sqlite3.connect(one.path)) as connection:
        connection.execute("DROP TRIGGER t")
    assert one("retry") == 2
    assert one.sync()["pulled"] == 2
    assert one("dead") == []
