"""Enrolling a store, moving it to another address, and the connection that follows."""

from __future__ import annotations

import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import NotEnrolledError, ServerError, UsageError
from edge_mrl.index import Index
from edge_mrl.store import replica
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.credentials import Credentials, credentials_path
from edge_mrl.sync.enrollment import enroll, move
from edge_mrl.sync.link import Link
from edge_mrl.sync.pulls.forms import PageForm
from edge_mrl.sync.status import status_of
from tests.support.bundles import TINY, TINY_COARSE
from tests.support.processes import run
from tests.support.serving import Serving
from tests.sync.conftest import NewCode


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with two documents, not enrolled."""
    store = tmp_path / "store.db"
    with Index.open(store, TINY) as index:
        index.put([Document("a", "the cat"), Document("b", "a dog")])
    return store


def test_enrolling_queues_everything_and_keeps_the_token_beside_the_store(
    path: Path, server: Serving, new_code: NewCode
) -> None:
    with Index.open(path) as index:
        status = enroll(index.store, server.url, new_code(), name="laptop", with_text=True)
        assert status == status_of(index.store)
        assert (status.server, status.queue.items, status.dead) == (server.url, 2, 0)
        assert (status.cursor, status.success_ms, status.with_text) == (0, None, True)
        found = Credentials.read(path)
        assert found is not None
        assert (found.device, found.tenant) == (status.device, status.tenant)
        assert stat.S_IMODE(credentials_path(path).stat().st_mode) == 0o600
        assert found.token.encode() not in path.read_bytes()
        index.put([Document("c", "a model")])
        assert status_of(index.store).queue.items == 3


def test_invitation_works_once_and_a_refused_one_changes_nothing(
    path: Path, server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    invitation = new_code()
    with Index.open(path) as index:
        with pytest.raises(ServerError):
            enroll(index.store, server.url, "wrong")
        assert not credentials_path(path).exists()
        with pytest.raises(NotEnrolledError):
            status_of(index.store)
        lost = enroll(index.store, server.url, invitation)  # as if its answer had been lost
        assert enroll(index.store, server.url, invitation).device == lost.device
        with SyncClient.open(index) as client:
            assert client.sync_once().pushed == 2
    with Index.open(tmp_path / "second.db", TINY) as second:
        with pytest.raises(ServerError):
            enroll(second.store, server.url, invitation)
        with pytest.raises(NotEnrolledError):
            Link(second.store, None).follow()


def test_former_name_of_the_invitation_works_with_a_warning(
    path: Path, server: Serving, new_code: NewCode
) -> None:
    with Index.open(path) as index:
        with pytest.warns(DeprecationWarning, match="invitation"):
            enroll(index.store, server.url, code=new_code())
        assert status_of(index.store).queue.items == 2
        with pytest.raises(TypeError, match="invitation"):
            enroll(index.store, server.url)


def test_store_that_cannot_be_synced_spends_no_invitation(
    tmp_path: Path, server: Serving, new_code: NewCode
) -> None:
    invitation = new_code()
    with (
        Index.open(tmp_path / "coarse.db", TINY_COARSE) as index,
        pytest.raises(UsageError, match="no full vectors"),
    ):
        enroll(index.store, server.url, invitation)
    with Index.open(tmp_path / "full.db", TINY) as index:
        assert enroll(index.store, server.url, invitation).queue.items == 0


def test_every_way_to_an_unknown_server_names_the_same_command(path: Path) -> None:
    with Index.open(path) as index:
        for ask in (
            lambda: move(index.store, server="https://elsewhere.test"),
            lambda: status_of(index.store),
            lambda: Link(index.store, None).follow(),
            lambda: replica.resend(index.store),
        ):
            with pytest.raises(NotEnrolledError) as caught:
                ask()
            assert str(caught.value) == str(NotEnrolledError(path))
    assert f"edge-mrl enroll --server URL --invitation INVITATION --store {path}" in str(
        NotEnrolledError(path)
    )
    assert not credentials_path(path).exists()


def test_moving_changes_address_and_certificates_alone(
    path: Path, server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    with Index.open(path) as index:
        enroll(index.store, server.url, new_code())
        before = Credentials.read(path)
        assert before is not None
        move(index.store, server="elsewhere.test/search/")
        assert Credentials.read(path) == replace(before, server="https://elsewhere.test/search")
        assert status_of(index.store).server == "https://elsewhere.test/search"
        with pytest.raises(UsageError, match="anybody on the network"):
            move(index.store, server="http://elsewhere.test")
        move(index.store, ca=str(tmp_path / "own.pem"))
        now = Credentials.read(path)
        assert now is not None
        assert (now.ca, now.token) == (str(tmp_path / "own.pem"), before.token)


def test_enrolling_again_sends_only_what_was_not_sent(
    path: Path, server: Serving, new_code: NewCode
) -> None:
    """Whichever of two names is the larger one: what the server has stays as it is."""
    with Index.open(path) as index:
        enroll(index.store, server.url, new_code())
        with SyncClient.open(index) as client:
            assert client.sync_once().pushed == 2
        before = Credentials.read(path)
        assert before is not None
        for number in range(2):
            index.put([Document(f"c{number}", "a model")])
            again = enroll(index.store, server.url, new_code())
            assert again.queue.items == 1
            with SyncClient.open(index) as client:
                outcome = client.sync_once()
                assert (outcome.pushed, outcome.pulled, outcome.resent) == (1, 0, None)
        # The server has the others under the former name, whichever name is the greater one.
        with index.store.locked() as (connection, _):
            found = dict(connection.execute("SELECT id, device FROM versions"))
        assert found["a"] == found["b"] == before.device
        assert found["c0"] != before.device


def test_what_waited_when_a_store_was_enrolled_again_wins_over_nothing_that_came_later(
    path: Path, server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    with Index.open(path) as index, Index.open(other, TINY) as elsewhere:
        enroll(index.store, server.url, new_code(), with_text=True)
        enroll(elsewhere.store, server.url, new_code(), with_text=True)
        with SyncClient.open(index) as client:
            assert client.sync_once().done
        with SyncClient.open(elsewhere) as client:
            assert client.sync_once().done
            index.put([Document("c", "written first"), Document("mine", "written here alone")])
            elsewhere.put([Document("c", "written later")])
            assert client.sync_once().done
        enroll(index.store, server.url, new_code(), with_text=True)
        for one in (index, elsewhere):
            with SyncClient.open(one) as client:
                assert client.sync_once().done
        for one in (index, elsewhere):
            texts = {name: found.text for name, found in one.get(["c", "mine"]).items()}
            assert texts == {"c": "written later", "mine": "written here alone"}


def test_what_was_written_under_a_former_name_is_still_this_devices(
    path: Path, server: Serving, new_code: NewCode
) -> None:
    with Index.open(path) as index:
        enroll(index.store, server.url, new_code())
        with SyncClient.open(index) as client:
            assert client.sync_once().done
        enroll(index.store, server.url, new_code())
        assert replica.forget_received(index.store) == 0
        index.reindex(TINY, max_tokens=8)
        assert replica.forget_received(index.store) == 0


def test_enrolling_that_was_interrupted_is_finished_by_the_next_connection(
    path: Path, server: Serving, new_code: NewCode, tmp_path: Path
) -> None:
    """The token is written before the store: what is between is a store that knows nothing of it."""
    before = tmp_path / "before.db"
    shutil.copyfile(path, before)
    with Index.open(path) as index:
        enroll(index.store, server.url, new_code())
    shutil.copyfile(credentials_path(path), credentials_path(before))
    credentials_path(path).unlink()
    with Index.open(before, TINY) as index:
        link = Link(index.store, None)
        remote = link.follow()
        assert status_of(index.store).queue.items == 2
        assert remote.pull(0, form=PageForm("none")).items == []
        assert link.follow() is remote  # one connection for all runs
        found = Credentials.read(before)
        assert found is not None
        replace(found, ca=None, token="another").write(before)
        other = link.follow()
        assert (other is remote, other.token) == (False, "another")
        link.close()
    with Index.open(path) as index, pytest.raises(UsageError, match="is a copy"):
        Link(index.store, None).follow()


@pytest.mark.test
def test_command_takes_an_invitation_and_warns_of_its_former_name(
    path: Path, server: Serving, new_code: NewCode
) -> None:
    command = ["enroll", "--server", server.url, "--store", path]
    missing = run(*command)
    assert (missing.returncode, b"--invitation" in missing.stderr) == (2, True)
    both = run(*command, "--invitation", "a", "--code", "b")
    assert both.returncode == 2
    good = run(*command, "--invitation", new_code())
    assert (good.returncode, good.stderr) == (0, b""), good.stderr
    assert b"2 documents queued" in good.stdout
    old = run(*command, "--code", new_code(), "--json")
    assert old.returncode == 0, old.stderr
    assert old.stderr == b"edge-mrl: warning: --code is now --invitation\n"
    text = run("enroll", "--help").stdout
    assert b"--invitation" in text
    assert b"--code" not in text
