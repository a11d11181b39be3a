"""Pushing: a store's queue into a real server, by batches, with answers that are lost."""

from __future__ import annotations

import sqlite3

import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import NetworkError
from edge_mrl.store import replica
from edge_mrl.sync.client import SyncClient
from edge_mrl.sync.enrollment import enroll
from edge_mrl.sync.pushes.body import LEAST_BODY_BYTES, BodySize
from edge_mrl.wire import MAX_BODY_BYTES
from edge_mrl_server.storage import accounts, open_database
from tests.support.serving import Serving
from tests.sync.conftest import NewDevice
from tests.sync.parts import Parts, Shelf, enrollment_of, remote_of


def documents(n: int, words: str = "the cat") -> list[Document]:
    return [Document(f"d{number:03}", f"{words} {number}") for number in range(n)]


def test_queue_goes_out_in_batches_that_fit_and_ends_empty(new_device: NewDevice) -> None:
    device, other = new_device("one"), new_device("other")
    device.index.put(documents(60))
    body = BodySize()
    body.size_bytes = 2_000
    with remote_of(device.index.store) as remote:
        parts = Parts(device.index, remote, body=body)
        parts.pusher().push()
        assert sum(remote.pushed) == 60
        assert len(remote.pushed) > 1
        assert remote.pushed[0] < remote.pushed[1]  # what goes through makes room for more
    assert replica.queue_of(device.index.store).items == 0
    assert (parts.outcome.pushed, parts.outcome.stale, parts.outcome.dead) == (60, 0, 0)
    assert [step.pushed for step in parts.steps] == [
        sum(remote.pushed[: number + 1]) for number in range(len(remote.pushed))
    ]
    assert (parts.outcome.bytes_sent, parts.outcome.bytes_received) == remote.traffic
    assert other.client.sync_once().pulled == 60


@pytest.mark.parametrize("deleted", [False, True], ids=["kept", "deleted"])
def test_lost_answer_is_asked_for_and_nothing_is_doubled(
    new_device: NewDevice, *, deleted: bool
) -> None:
    device, other = new_device("one"), new_device("other")
    device.index.put(documents(3))
    with remote_of(device.index.store) as remote:
        remote.lost_answers = 1
        parts = Parts(device.index, remote)
        with pytest.raises(NetworkError, match="lost"):
            parts.pusher().push()
        assert enrollment_of(device.index.store).is_open
        assert replica.queue_of(device.index.store).items == 3
        if deleted:
            device.index.delete(["d001"])
        parts.pusher().settle()
        now = enrollment_of(device.index.store)
        assert (now.is_open, now.push, now.answered) == (False, 1, 1)
        parts.pusher().push()
    assert parts.outcome.pushed == 3
    assert replica.queue_of(device.index.store).items == 0
    assert other.client.sync_once().done
    assert len(other.index.get(["d000", "d001", "d002"])) == 3 - deleted


def test_push_that_did_not_arrive_is_refused_afterwards(new_device: NewDevice) -> None:
    device = new_device("one")
    store = device.index.store
    device.index.put(documents(2))
    assert replica.begin_push(store, 1, ["d000", "d001"])  # and nothing goes out
    with remote_of(store) as remote:
        parts = Parts(device.index, remote)
        parts.pusher().settle()
        assert enrollment_of(store).answered == 1
        parts.pusher().push()
    assert (parts.outcome.pushed, enrollment_of(store).push) == (2, 2)


def test_push_that_another_process_has_begun_is_settled_first(new_device: NewDevice) -> None:
    device = new_device("one")
    store = device.index.store
    device.index.put(documents(2))
    with remote_of(store) as remote:
        parts = Parts(device.index, remote)
        assert replica.begin_push(store, 1, ["d000"])
        parts.pusher().push()
        assert remote.pushed == [0, 2]  # a question about push 1, then push 2
    assert (parts.outcome.pushed, enrollment_of(store).is_open) == (2, False)


def test_document_that_no_body_can_hold_becomes_a_dead_letter(new_device: NewDevice) -> None:
    device = new_device("one")
    device.client.set_with_text(with_text=True)
    large = Document("large", " " * MAX_BODY_BYTES)  # nothing to embed
    device.index.put([large, Document("small", "a dog")])
    with remote_of(device.index.store) as remote:
        parts = Parts(device.index, remote)
        parts.pusher().push()
    assert (parts.outcome.pushed, parts.outcome.dead) == (1, 1)
    (letter,) = device.client.dead_letters()
    assert (letter.id, letter.reason, letter.document) == ("large", "too_large", large)


def test_document_without_text_and_vectors_becomes_a_dead_letter(
    new_device: NewDevice, server: Serving
) -> None:
    one, other = new_device("one"), new_device("other")
    one.index.put([Document("a", "the cat")])
    assert one.client.sync_once().done
    assert other.client.sync_once().pulled == 1  # codes alone came
    with open_database(server.database) as database, database.write() as session:
        tenant = f"second-{enrollment_of(other.index.store).tenant}"
        accounts.create_tenant(session, tenant)
        invitation = accounts.create_invitation(session, tenant)
    enroll(other.index.store, server.url, invitation)
    other.index.put([Document("b", "a dog")])
    with SyncClient.open(other.index) as client:
        outcome = client.sync_once()
        assert (outcome.pushed, outcome.dead) == (1, 1)
        (letter,) = client.dead_letters()
    assert (letter.id, letter.reason) == ("a", "no_vectors")
    assert other.index.get(["a"])


def test_damaged_documents_are_set_aside_and_the_others_arrive(new_device: NewDevice) -> None:
    device, other = new_device("one"), new_device("other")
    device.index.put(documents(6))
    with sqlite3.connect(device.index.path, isolation_level=None) as connection:
        connection.execute("UPDATE documents SET text = 'forged' WHERE id = 'd001'")
        connection.execute("UPDATE passages SET crc = crc + 1 WHERE document = 3")
        connection.execute("UPDATE fulls SET vectors = x'00' WHERE document = 4")
        connection.execute("UPDATE outbox SET crc = crc + 1 WHERE id = 'd004'")
        connection.execute("UPDATE outbox SET id = 'd009' WHERE id = 'd005'")  # no such document
    connection.close()
    outcome = device.client.sync_once()
    assert outcome.done
    assert (outcome.pushed, outcome.dead) == (4, 2)
    assert replica.queue_of(device.index.store).items == 0
    letters = device.client.dead_letters()
    assert [(one.id, one.reason, one.document and one.document.text) for one in letters] == [
        ("d001", "damaged", None),
        ("d002", "damaged", "the cat 2"),
    ]
    assert all("put it again, or delete it" in one.detail for one in letters)
    assert other.client.sync_once().pulled == 4
    device.index.put(documents(6))  # as the letters say
    assert device.client.dead_letters() == []
    assert device.client.sync_once().pushed == 2
    assert other.client.sync_once().pulled == 2
    assert other.client.sync_once().done


def test_vectors_that_were_not_kept_are_made_again(new_device: NewDevice) -> None:
    device, other = new_device("one"), new_device("other")
    device.index.put(documents(5))
    with device.index.store.writing(), device.index.store.locked() as (connection, _):
        connection.execute("DELETE FROM fulls")
    with remote_of(device.index.store) as remote:
        parts = Parts(device.index, remote)
        parts.pusher().push()
    assert parts.outcome.pushed == 5
    assert other.client.sync_once().pulled == 5
    hits = [index.search("the cat 3", k=1)[0] for index in (device.index, other.index)]
    assert hits[0].id == hits[1].id
    assert hits[0].score == pytest.approx(hits[1].score, abs=0.02)  # a code may be off by one


@pytest.mark.test
def test_body_shrinks_where_answers_are_lost_and_grows_again(new_device: NewDevice) -> None:
    device = new_device("one")
    device.index.put(documents(1))
    with remote_of(device.index.store) as remote:
        parts = Parts(device.index, remote, attempts=3)
        remote.lost_answers = 2
        parts.pusher().push()
        assert remote.pushed == [1, 1, 1]
    assert parts.outcome.pushed == 1
    assert parts.body.size_bytes == MAX_BODY_BYTES // 2  # halved twice, doubled once
    for _ in range(20):
        parts.body.shrink()
    assert parts.body.size_bytes == LEAST_BODY_BYTES
    for _ in range(20):
        parts.body.grow()
    assert parts.body.size_bytes == MAX_BODY_BYTES


def test_target_without_numbers_empties_the_queue_and_counts_no_push(new_device: NewDevice) -> None:
    device, shelf = new_device("one"), Shelf()
    device.index.put(documents(3))
    device.index.delete(["d001"])
    parts = Parts(device.index, shelf)
    parts.pusher().push()
    assert shelf.documents.keys() == {"d000", "d001", "d002"}
    assert parts.outcome.pushed == 3
    now = enrollment_of(device.index.store)
    assert (now.push, now.answered) == (0, 0)
