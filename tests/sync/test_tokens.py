"""Enrollment and tokens: whatever is doubled, late, lost, killed or cut off, no device is locked out."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import ServerError
from edge_mrl.index import Index
from edge_mrl.store import Store, replica
from edge_mrl.sync import credentials, enrollment, link, remote
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.credentials import Credentials, credentials_path
from edge_mrl.sync.enrollment import enroll
from edge_mrl.wire import now_ms
from edge_mrl_server.storage import open_database
from tests.support.bundles import TINY
from tests.support.serving import Caller, Serving, admin, back_up, put_back, serving
from tests.sync.conftest import NewCode

pytestmark = pytest.mark.test

DAY_MS = 86_400_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with a document, not enrolled."""
    store = tmp_path / "store.db"
    with Index.open(store, TINY) as index:
        index.put([Document("a", "the cat")])
    return store


def ask(server: Serving, path: str, token: str | None = None, **body: str) -> tuple[int, Any]:
    caller = Caller(server.url, token)
    data = json.dumps(body).encode() if body else None
    reply = caller.call("POST", path, data, {"Edge-MRL-Space": None}, kind="application/json")
    caller.close()
    return reply.status, reply.json


def works(server: Serving, token: str) -> bool:
    caller = Caller(server.url, token)
    reply = caller.call("GET", "/v1/pull?since=0&vectors=none", headers={"Edge-MRL-Space": None})
    caller.close()
    return reply.status == 200


def sync(path: Path) -> Any:
    with SyncClient.open(path) as client:
        return client.sync_once()


def run_sql(server: Serving, sql: str, *arguments: object) -> None:
    with open_database(server.database) as database, database.write() as transaction:
        transaction.run(sql, *arguments)


def age(server: Serving, path: Path, days: float) -> Credentials:
    """Let a device have been in a drawer; what its file and its server know of it is so old."""
    found = Credentials.read(path)
    assert found is not None
    late = now_ms() - int(days * DAY_MS)
    run_sql(
        server,
        "UPDATE tokens SET created_ms = ?, expires_ms = ? WHERE device = ?",
        late,
        late + 90 * DAY_MS,
        found.device,
    )
    run_sql(
        server,
        "UPDATE devices SET created_ms = ?, pushed_ms = ?, pulled_ms = ? WHERE device = ?",
        *(late, late, late),
        found.device,
    )
    return found


# --- requests that come twice, late, or from older clients


def test_doubled_enrollment_gives_one_token_with_a_nonce_and_valid_ones_without(
    server: Serving, new_code: NewCode
) -> None:
    code, nonce = new_code(), secrets.token_hex(16)
    first, again = (ask(server, "/v1/enroll", code=code, name="d", nonce=nonce) for _ in range(2))
    assert first[1]["token"] == again[1]["token"]
    assert works(server, first[1]["token"])
    late = ask(server, "/v1/enroll", code=code, name="d", nonce=nonce)
    assert late[0] == 403
    assert works(server, first[1]["token"])
    code = new_code()
    tokens = [ask(server, "/v1/enroll", code=code, name="d")[1]["token"] for _ in range(3)]
    assert len(set(tokens)) == 3
    assert works(server, tokens[0])  # a device that got the first answer
    assert [works(server, token) for token in tokens] == [True, False, False]


def test_doubled_and_late_renewals_lock_nobody_out(server: Serving, new_code: NewCode) -> None:
    old = ask(server, "/v1/enroll", code=new_code(), name="d")[1]["token"]
    nonce = secrets.token_hex(16)
    new, again = (ask(server, "/v1/token", old, nonce=nonce)[1]["token"] for _ in range(2))
    assert new == again
    plain = [ask(server, "/v1/token", old)[1]["token"] for _ in range(3)]
    assert works(server, old)
    assert works(server, new)
    assert not works(server, old)
    assert ask(server, "/v1/token", old, nonce=nonce)[0] == 401  # delivered late
    assert works(server, new)
    assert not any(works(server, token) for token in plain)
    # The same request by the holder of the new token is another request.
    assert ask(server, "/v1/token", new, nonce=nonce)[1]["token"] != new


def test_many_lost_answers_leave_a_bounded_number_of_tokens(
    server: Serving, new_code: NewCode
) -> None:
    code = new_code()
    for _ in range(70):
        _, said = ask(server, "/v1/enroll", code=code, name="d")
        if "token" not in said:  # the limit of an address
            break
    with open_database(server.database) as database, database.read() as transaction:
        sql = "SELECT count(*) AS n FROM tokens WHERE tenant = ?"
        (row,) = transaction.rows(sql, code.partition("_")[0])
    assert 1 <= row["n"] <= 64


@pytest.mark.parametrize("nonce", ["", "x", "A" * 32, "0" * 31, "0" * 65])
def test_wrong_nonce_is_refused_and_spends_nothing(
    nonce: str, server: Serving, new_code: NewCode
) -> None:
    code = new_code()
    assert ask(server, "/v1/enroll", code=code, name="d", nonce=nonce)[0] == 400
    status, said = ask(server, "/v1/enroll", code=code, name="d")
    assert status == 200
    assert ask(server, "/v1/token", said["token"], nonce=nonce)[0] == 400
    assert works(server, said["token"])


# --- a season in a drawer


def test_device_comes_back_by_itself_within_the_limit(
    server: Serving, new_code: NewCode, path: Path
) -> None:
    with Store.open(path) as store:
        enroll(store, server.url, new_code())
    assert sync(path).done
    before = age(server, path, 200)
    assert not works(
        server, before.token
    )  # an expired token is good for a new one, and for nothing else
    assert sync(path).done
    after = Credentials.read(path)
    assert after is not None
    assert (after.token != before.token, after.previous) == (True, before.token)
    assert works(server, after.token)
    age(server, path, 366)
    outcome = sync(path)
    assert (outcome.cause, "enroll" in str(outcome.waiting)) == ("refused", True)


def test_tenant_has_a_limit_of_its_own_and_a_revoked_device_never_comes_back(
    server: Serving, new_code: NewCode, path: Path
) -> None:
    with Store.open(path) as store:
        enroll(store, server.url, new_code())
    assert sync(path).done
    found = age(server, path, 200)
    admin(server.database, "tenants", "limit", found.tenant, "grace_days=0")
    assert sync(path).cause == "refused"
    admin(server.database, "tenants", "limit", found.tenant, "grace_days=1000")
    age(server, path, 900)
    assert sync(path).done
    age(server, path, 200)
    admin(server.database, "tokens", "revoke", found.tenant, found.device)
    assert sync(path).cause == "refused"


def test_server_has_a_limit_for_all_tenants(tmp_path: Path, path: Path) -> None:
    with serving(tmp_path / "server.db", "--grace-days", "10") as server:
        assert server.invitation is not None
        with Store.open(path) as store:
            enroll(store, server.url, server.invitation)
        assert sync(path).done
        age(server, path, 91)
        assert sync(path).cause == "refused"


def test_device_whose_clock_does_not_know_that_its_token_has_expired_renews_it(
    server: Serving, new_code: NewCode, path: Path
) -> None:
    with Store.open(path) as store:
        enroll(store, server.url, new_code())
    assert sync(path).done
    found = age(server, path, 100)
    assert found.expires_ms is not None
    assert found.expires_ms > now_ms()  # what its file says: it sees no reason to renew
    assert sync(path).done
    assert Credentials.read(path) != found


@pytest.mark.parametrize("days", [-20_000, 400])
def test_clock_that_is_set_right_between_two_runs_renews_no_token(
    days: int, server: Serving, new_code: NewCode, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board without a battery starts in 1970; an image of its card has the token that it had."""
    real = time.time_ns
    with Store.open(path) as store:
        enroll(store, server.url, new_code())
    with SyncClient.open(path) as client:
        monkeypatch.setattr(time, "time_ns", lambda: real() + days * DAY_MS * 1_000_000)
        for _ in range(2):
            assert client.sync_once().done
        first = Credentials.read(path)
        monkeypatch.setattr(time, "time_ns", real)
        for _ in range(2):
            assert client.sync_once().done
        assert Credentials.read(path) == first
    # In another process, too, which knows the clock's error from the store alone.
    assert sync(path).done
    assert Credentials.read(path) == first


def test_server_that_was_restored_to_before_a_renewal_lets_the_device_in(
    path: Path, tmp_path: Path
) -> None:
    database = tmp_path / "server.db"
    with serving(database) as server:
        assert server.invitation is not None
        with Store.open(path) as store:
            enroll(store, server.url, server.invitation)
        assert sync(path).done
        port = server.port
    back_up(database, tmp_path / "copy.db")
    with serving(database, port=port) as server:
        found = Credentials.read(path)
        assert found is not None
        run_sql(server, "UPDATE tokens SET expires_ms = ?", now_ms() + DAY_MS)
        Credentials(**credentials.asdict(found) | {"expires_ms": now_ms() + DAY_MS}).write(path)
        assert sync(path).done  # renews
        renewed = Credentials.read(path)
        assert renewed is not None
        assert renewed.token != found.token
        assert sync(path).done
    put_back(tmp_path / "copy.db", database)
    with serving(database, port=port) as server:
        assert sync(path).done
        assert sync(path).done
        assert works(server, getattr(Credentials.read(path), "token", ""))


# --- kills: a real process dies at each step


def kill_at(step: int, work: Callable[[], None]) -> bool:
    """Do something in a process that is killed before its step of that number.

    Steps are writes of the store and of credentials, flushes, and requests; returns whether it was.
    """
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
        return os.WIFSIGNALED(status)
    count = itertools.count()

    def before(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            if next(count) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            found = real(*args, **options)
            if next(count) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return wrapped

    try:
        steps: tuple[tuple[Any, str], ...] = (
            (os, "fsync"),
            (Path, "replace"),
            (enrollment, "request_enrollment"),
            (enrollment.replica, "begin_enrolling"),
            (enrollment.replica, "enroll"),
            (remote.Transport, "request"),
            (link.replica, "draw_mark"),
            (link.replica, "draw_nonce"),
            (link.replica, "keep_receipt"),
        )
        for module, name in steps:
            setattr(module, name, before(getattr(module, name)))
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the parent is told by the exit code
        import traceback

        traceback.print_exc()
        os._exit(1)


def each_step(work: Callable[[], None]) -> Iterator[int]:
    """Kill something before its first step, its second, and so on, until it ends by itself."""
    for step in range(200):
        if not kill_at(step, work):
            return
        yield step
    raise AssertionError("it never ends")


def test_kill_at_each_step_of_an_enrollment_leaves_a_device_that_syncs(
    server: Serving, new_code: NewCode, path: Path, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(path, begun / "store.db")
    code, store = [""], tmp_path / "try" / "store.db"

    def work() -> None:
        with Store.open(store) as opened:
            enroll(opened, server.url, code[0], with_text=True)

    def again() -> None:
        shutil.rmtree(store.parent, ignore_errors=True)
        shutil.copytree(begun, store.parent)
        code[0] = new_code()

    again()
    steps = 0
    for step in each_step(work):
        steps += 1
        if not credentials_path(store).exists():
            work()  # the same command once more, with the same invitation
        outcome = sync(store)
        assert (outcome.done, outcome.pushed) == (True, 1), step
        with Store.open(store) as opened:
            found = replica.enrollment_of(opened)
            assert found is not None
            assert found.with_text, step
        again()
    assert steps > 8


def test_kill_at_each_step_of_a_renewal_leaves_a_device_that_syncs(
    server: Serving, new_code: NewCode, path: Path
) -> None:
    with Store.open(path) as store:
        enroll(store, server.url, new_code())
    assert sync(path).done

    def work() -> None:
        found = Credentials.read(path)
        assert found is not None
        Credentials(**credentials.asdict(found) | {"expires_ms": now_ms() + DAY_MS}).write(path)
        sync(path)

    before = Credentials.read(path)
    steps = 0
    for step in each_step(work):
        steps += 1
        assert sync(path).done, step
    assert steps > 12
    assert Credentials.read(path) != before


def test_processes_that_renew_at_once_keep_a_token_that_works(
    server: Serving, new_code: NewCode, path: Path
) -> None:
    with Store.open(path) as store:
        enroll(store, server.url, new_code())
    assert sync(path).done
    for _ in range(5):
        found = Credentials.read(path)
        assert found is not None
        Credentials(**credentials.asdict(found) | {"expires_ms": now_ms() + DAY_MS}).write(path)
        pids = []
        for _ in range(3):
            pid = os.fork()
            if not pid:
                code = 1
                with suppress(BaseException):
                    sync(path)
                    code = 0
                os._exit(code)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)
        after = Credentials.read(path)
        assert after is not None
        assert after.token != found.token
        assert works(server, after.token)


def test_client_goes_on_with_the_token_that_another_process_has_got(
    server: Serving, new_code: NewCode, path: Path
) -> None:
    with Store.open(path) as store:
        enroll(store, server.url, new_code())
    with SyncClient.open(path) as client:
        assert client.sync_once().done
        real = client._link.follow

        def follow() -> Any:
            found = real()
            Credentials(**credentials.asdict(Credentials.read(path)) | {"expires_ms": 0}).write(
                path
            )
            assert sync(path).done
            client._link.follow = real
            return found

        client._link.follow = follow
        assert client.sync_once().done


# --- power cuts: what was not flushed is gone


class Disk:
    """A model of a disk with a volatile cache: what a power cut leaves of the file of credentials.

    A renamed file is there behind a flush of its folder; before that, the former one may be.
    """

    def __init__(self, store: Path, monkeypatch: pytest.MonkeyPatch, *, flushes: bool) -> None:
        self._path = credentials_path(store)
        self.durable = self._path.read_bytes() if self._path.exists() else None
        self.files: dict[int, bool] = {}
        real_fsync = os.fsync

        def fsync(file: int) -> None:
            real_fsync(file)
            target = Path(f"/proc/self/fd/{file}").readlink()
            if target.is_dir() and flushes and self._path.exists():
                self.durable = self._path.read_bytes()

        monkeypatch.setattr(os, "fsync", fsync)

    def after_a_cut(self) -> Credentials | None:
        return None if self.durable is None else Credentials(**json.loads(self.durable))


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, look: Callable[[], None]) -> Iterator[None]:
    """Look before and behind each request."""
    real = remote.Transport.request

    def request(self: Any, *args: Any, **options: Any) -> Any:
        look()
        try:
            return real(self, *args, **options)
        finally:
            look()

    with monkeypatch.context() as patch:
        patch.setattr(remote.Transport, "request", request)
        yield


@pytest.mark.parametrize("flushes", [True, False], ids=["flushes", "sabotaged"])
def test_power_cut_at_any_request_leaves_a_token_that_works(
    flushes: bool,
    server: Serving,
    new_code: NewCode,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Store.open(path) as store:
        enroll(store, server.url, new_code())
    assert sync(path).done
    disk = Disk(path, monkeypatch, flushes=flushes)
    left: list[Credentials] = []

    def look() -> None:
        found = disk.after_a_cut()
        assert found is not None
        left.append(found)

    with watched(monkeypatch, look):
        for _ in range(3):
            found = Credentials.read(path)
            assert found is not None
            soon = {"expires_ms": now_ms() + DAY_MS}
            Credentials(**credentials.asdict(found) | soon).write(path)
            outcome = sync(path)
            assert outcome.done
            if not flushes:
                assert sync(path).done  # with the new token, which ends the old one
            known = {left[-1].token, left[-1].previous}
            if not flushes:
                break
            assert any(works(server, token) for token in known if token)
    if not flushes:  # this test can fail: the token that works was never flushed
        assert not any(works(server, token) for token in known if token)


def test_power_cut_behind_an_enrollment_leaves_its_token(
    server: Serving, new_code: NewCode, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(path, monkeypatch, flushes=True)
    with Store.open(path) as store:
        enroll(store, server.url, new_code())
    found = disk.after_a_cut()
    assert found == Credentials.read(path)
    assert found is not None
    assert works(server, found.token)


def test_file_is_readable_by_its_owner_alone_from_its_first_byte(
    server: Serving, new_code: NewCode, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    real = os.open

    def opened(name: Any, *args: Any, **options: Any) -> int:
        file = real(name, *args, **options)
        if "-sync.json" in str(name):
            modes.append(os.fstat(file).st_mode & 0o777)
        return file

    monkeypatch.setattr(os, "open", opened)
    before = os.umask(0)
    try:
        with Store.open(path) as store:
            enroll(store, server.url, new_code())
    finally:
        os.umask(before)
    assert modes
    assert set(modes) == {0o600}


def test_file_of_an_earlier_and_of_a_later_release_is_read(path: Path) -> None:
    file = credentials_path(path)
    old = {"server": "http://127.0.0.1:1", "tenant": "t", "device": "d", "token": "x"}
    file.write_text(json.dumps(old))
    found = Credentials.read(path)
    assert found is not None
    assert (found.token, found.previous, found.replaces) == ("x", None, None)
    file.write_text(json.dumps(old | {"colour": "green"}))
    assert Credentials.read(path) == found


# --- where an invitation comes from, and devices that only read


def test_read_only_device_receives_and_what_it_sends_is_kept_as_a_dead_letter(
    server: Serving, new_code: NewCode, path: Path, tmp_path: Path
) -> None:
    code = new_code()
    with Store.open(path) as store:
        enroll(store, server.url, code)
    assert sync(path).pushed == 1
    tenant = code.partition("_")[0]
    made = admin(server.database, "invitations", "create", tenant, "--read-only")
    reader = tmp_path / "reader.db"
    with Index.open(reader, TINY) as index:
        index.put([Document("mine", "a dog")])
        enroll(index.store, server.url, made["invitation"])
    outcome = sync(reader)
    assert (outcome.done, outcome.pushed, outcome.pulled, outcome.dead) == (True, 0, 1, 1)
    with Index.open(reader) as index:
        (letter,) = replica.list_dead_letters(index.store)
        assert (letter.id, letter.reason) == ("mine", "forbidden")
    assert sync(path).pulled == 0
    listed = admin(server.database, "devices", "list", tenant)["devices"]
    assert sorted(device["read_only"] for device in listed) == [False, True]


def test_enrolling_again_keeps_what_was_chosen(
    server: Serving, new_code: NewCode, path: Path
) -> None:
    code = new_code()
    with Index.open(path, TINY, threads=1) as index:
        for _ in range(2):  # the command is run again, since nobody knows if it worked
            enroll(index.store, server.url, code, with_text=True)
        with SyncClient.open(index) as client:
            assert client.status().with_text


def test_refused_invitation_says_so_and_changes_nothing(server: Serving, path: Path) -> None:
    with Store.open(path) as store:
        with pytest.raises(ServerError, match="not a valid invitation"):
            enroll(store, server.url, "default_wrong")
        assert replica.enrollment_of(store) is None
    assert not credentials_path(path).exists()
