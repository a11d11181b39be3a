"""The ways to a server: TLS, proxies, tokens that end, connections that are cut."""

from __future__ import annotations

import os
import random
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.documents import Document
from edge_mrl.index import Index
from edge_mrl.sync import remote
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.credentials import Credentials, credentials_path
from edge_mrl.sync.enrollment import enroll
from edge_mrl.wire.clock import now_ms
from edge_mrl_server.storage import open_database
from edge_mrl_server.storage.removal import purge
from tests.support.bundles import TINY
from tests.support.processes import run
from tests.support.relays import Certificates, HttpProxy, Relay, make_certificates
from tests.support.serving import Caller, Serving
from tests.sync.conftest import NewCode, NewDevice
from tests.sync.test_sync import alike, text

DAY_MS = 86_400_000
#: A name that is nobody's (RFC 6761): proxies are not used for this machine's own.
HOST = "server.test"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"), HOST)


@pytest.fixture(scope="module")
def tls(server: Serving, certificates: Certificates) -> Iterator[Relay]:
    """The server behind TLS."""
    with Relay(server.port, tls=certificates.server) as relay:
        yield relay


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy but those of the test."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with one document, not enrolled."""
    path = tmp_path / "store.db"
    with Index.open(path, TINY) as index:
        index.put([Document("a", "the cat")])
    return path


@pytest.mark.test
def test_own_authority_is_trusted_where_it_is_named_and_nowhere_else(
    tls: Relay, certificates: Certificates, new_code: NewCode, store: Path
) -> None:
    url, code = f"https://127.0.0.1:{tls.port}", new_code()
    command = ["enroll", "--store", store, "--invitation", code]
    distrusted = run(*command, "--server", url)
    assert distrusted.returncode == 4
    assert b"certificate verify failed" in distrusted.stderr
    assert b"Traceback" not in distrusted.stderr
    own = ["--ca", certificates.authority]
    # The certificate is for 127.0.0.1, and not for its name.
    another = run(*command, "--server", f"https://localhost:{tls.port}", *own)
    assert another.returncode == 4
    assert b"localhost" in another.stderr
    assert not credentials_path(store).exists()  # neither of them has spent the code
    assert run(*command, "--server", url, *own).returncode == 0
    synced = run("sync", "--store", store)
    assert synced.returncode == 0, synced.stderr
    assert b"1 sent" in synced.stdout
    # What was trusted once is looked at again each time.
    found = Credentials.read(store)
    assert found is not None
    replace(found, ca=None).write(store)
    with SyncClient.open(store) as client:
        outcome = client.sync_once(attempts=1)
    assert outcome.cause == "network"
    assert "certificate" in str(outcome.waiting)


def test_proxy_of_the_environment_carries_tls_and_sees_no_token(
    tls: Relay,
    certificates: Certificates,
    new_code: NewCode,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"https://{HOST}:{tls.port}"
    with HttpProxy(tls.port) as proxy, Index.open(store) as index:
        monkeypatch.setenv("HTTPS_PROXY", f"http://us%65r:word@127.0.0.1:{proxy.port}")
        enroll(index.store, url, new_code(), ca=str(certificates.authority))
        with SyncClient.open(index) as client:
            assert client.sync_once().pushed == 1
        tunnel = f"CONNECT {HOST}:{tls.port} ".encode()
        assert all(head.startswith(tunnel) for head in proxy.heads)
        assert all(b"Basic dXNlcjp3b3Jk" in head for head in proxy.heads)
        assert not any(b"Bearer" in head for head in proxy.heads)
        # And the straight way, where the environment wants that.
        seen = len(proxy.heads)
        resolve: Any = socket.getaddrinfo
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda host, *args, **named: resolve(
                "127.0.0.1" if host == HOST else host, *args, **named
            ),
        )
        monkeypatch.setenv("NO_PROXY", f"elsewhere.test,{HOST}")
        index.put([Document("b", "a dog")])
        with SyncClient.open(index) as client:
            assert client.sync_once().pushed == 1
        assert len(proxy.heads) == seen


def test_proxy_that_is_down_is_named_by_the_error_and_nothing_is_lost(
    server: Serving, new_code: NewCode, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpProxy(server.port) as proxy, Index.open(store) as index:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        enroll(index.store, f"http://{HOST}", new_code(), insecure=True)
        assert proxy.heads[0].startswith(f"POST http://{HOST}/v1/enroll ".encode())
        proxy.close()
        with SyncClient.open(index) as client:
            outcome = client.sync_once(attempts=1)
            assert (outcome.cause, client.status().queue.items) == ("network", 1)
            assert HOST in str(outcome.waiting)


def test_token_is_renewed_before_it_ends_and_the_old_one_ends_then(
    new_device: NewDevice, server: Serving
) -> None:
    device = new_device("one")
    device.index.put([Document("a", "the cat")])
    path = device.index.path
    first = Credentials.read(path)
    assert first is not None
    assert device.client.sync_once().done
    assert Credentials.read(path) == first  # there is time
    replace(first, expires_ms=now_ms() + DAY_MS).write(path)
    before = os.umask(0)
    try:
        assert device.client.sync_once().done
    finally:
        os.umask(before)
    second = Credentials.read(path)
    assert second is not None
    assert second.token != first.token
    assert second.expires_ms is not None
    assert second.expires_ms - now_ms() > 14 * DAY_MS
    assert stat.S_IMODE(credentials_path(path).stat().st_mode) == 0o600
    assert device.client.sync_once().done  # it is used from the next run on
    old = Caller(server.url, first.token, space=device.index.store.binding.space_id)
    assert old.call("GET", "/v1/pull?since=0&vectors=none").status == 401
    old.close()
    device.index.put([Document("b", "a dog")])
    with SyncClient.open(path) as fresh:  # a process that reads the file
        assert fresh.sync_once().pushed == 1


RANGE_BYTES = 4_096
#: A connection of so many bytes ends within its fourth range.
CUT_BYTES = int(3.5 * RANGE_BYTES)


@pytest.mark.test
def test_cut_snapshot_goes_on_and_nothing_is_fetched_twice(
    new_device: NewDevice, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "SNAPSHOT_BYTES", RANGE_BYTES)
    one, rng = new_device("one"), random.Random(1)
    one.index.put([Document(f"d{n:03}", text(rng)) for n in range(400)])
    assert one.client.sync_once().pushed == 400
    with Relay(server.port) as relay:
        other = new_device("other", url=f"http://127.0.0.1:{relay.port}")
        relay.cut_after = CUT_BYTES
        cut = other.client.sync_once(attempts=1)
        assert (cut.cause, cut.pulled) == ("network", 0)
        part = other.index.path.with_name("other.db-sync.part")
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
        assert relay.ranges[-1] > 0  # it had got on
        asked = list(relay.ranges)
        relay.cut_after = None
        with SyncClient.open(other.index) as fresh:
            outcome = fresh.sync_once()
        assert (outcome.done, outcome.pulled) == (True, 400)
        # The range that was cut is asked for again, and none before it.
        assert relay.ranges[len(asked)] == asked[-1]
        assert sorted({*relay.ranges}) == [*asked, *relay.ranges[len(asked) + 1 :]]
        assert len(relay.ranges) > 2 * len(asked)
        assert not part.exists()
    assert alike(one, other)
    assert other.index.check().sound


def test_page_after_another_change_than_asked_for_is_none(
    new_device: NewDevice, server: Serving
) -> None:
    one = new_device("one")
    one.index.put([Document("a", "the cat")])
    assert one.client.sync_once().done
    with Relay(server.port) as relay:
        other = new_device("other", url=f"http://127.0.0.1:{relay.port}")
        assert other.client.sync_once().pulled == 1
        since = other.client.status().cursor
        one.index.put([Document("b", "a dog")])
        assert one.client.sync_once().done
        # Without TLS, nothing else protects a request's first line.
        relay.damage = (f"since={since}&".encode(), f"since={since + 1}&".encode())
        damaged = other.client.sync_once(attempts=1)
        assert relay.damage is None
        assert (damaged.cause, other.client.status().cursor) == ("network", since)
        assert other.client.sync_once().pulled == 1
        assert other.index.get(["b"])


@pytest.mark.parametrize("forgotten", [False, True], ids=["remembered", "forgotten"])
def test_document_whose_answer_was_lost_stays_deleted(
    new_device: NewDevice, server: Serving, *, forgotten: bool
) -> None:
    other = new_device("other")
    with Relay(server.port) as relay:
        one = new_device("one", url=f"http://127.0.0.1:{relay.port}")
        one.index.put([Document("x", "the cat"), Document("z", "a model")])
        if forgotten:
            settled = new_device("third")
            settled.index.put([Document("y", "a dog")])
            assert settled.client.sync_once().done
            assert other.client.sync_once().done
        relay.cut_after = 0
        with SyncClient.open(one.index, push_only=True) as client:
            assert client.sync_once(attempts=1).cause == "network"
        one.index.put([Document("late", "never sent")])
        assert other.client.sync_once().pulled == 2
        other.index.delete(["x"])
        assert other.client.sync_once().pushed == 1
        if forgotten:
            with open_database(server.database) as database:
                tenant = other.client.status().tenant
                assert purge(database, tenant, before_ms=now_ms() + DAY_MS)[0] == 1
        relay.cut_after = None
        for _ in range(2):
            assert one.client.sync_once().done
            assert other.client.sync_once().done
    for device in (one, other):
        assert not device.index.get(["x"])
        assert len(device.index.get(["late", "z"])) == 2
        assert device.index.check().sound
    (letter,) = one.client.dead_letters()
    assert (letter.reason, letter.document) == ("deleted_elsewhere", Document("x", "the cat"))


def test_what_could_not_go_out_or_was_refused_is_not_taken_for_sent(
    new_device: NewDevice, server: Serving
) -> None:
    one, other = new_device("one"), new_device("other")
    one.index.put([Document("a", "the cat")])
    assert one.client.sync_once().done
    assert other.client.sync_once().done
    other.index.put([Document("x", "a dog")])
    right = Credentials.read(other.index.path)
    assert right is not None
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for wrong in (replace(right, token="wrong"), replace(right, server=nowhere)):
        wrong.write(other.index.path)
        assert not other.client.sync_once(attempts=1).done
    right.write(other.index.path)
    one.index.delete(["a"])
    assert one.client.sync_once().done
    with open_database(server.database) as database:
        purge(database, one.client.status().tenant, before_ms=now_ms() + DAY_MS)
    assert other.client.sync_once().pushed == 1
    assert one.client.sync_once().pulled == 1
    assert set(one.index.get(["a", "x"])) == set(other.index.get(["a", "x"])) == {"x"}
    assert not other.client.dead_letters()
