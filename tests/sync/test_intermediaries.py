"""What stands between a device and its server: limits of bodies, login pages, statuses of proxies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import ServerError
from edge_mrl.store import replica
from edge_mrl.sync.push import Pusher
from tests.support.gateway import Gateway
from tests.support.serving import Serving
from tests.sync.conftest import Device, NewDevice


def over(most_bytes: int, status: int = 413) -> Callable[[str, bytes], int | None]:
    """A rule: bodies of more bytes get a status."""
    return lambda _, body: status if len(body) > most_bytes else None


def put(device: Device, count: int, chars: int = 300) -> None:
    device.index.put([Document(f"d{n:03}", f"note {n} " + "x" * chars) for n in range(count)])


@pytest.fixture
def through(server: Serving, new_device: NewDevice) -> Any:
    """Makes a device that sends its text through a gateway."""

    def make(gateway: Gateway, name: str = "one") -> Device:
        device = new_device(name, url=gateway.url)
        replica.set_with_text(device.index.store, with_text=True)
        return device

    return make


@pytest.mark.test
def test_body_limit_of_a_proxy_halves_the_batch_until_it_fits(
    server: Serving, through: Any
) -> None:
    with Gateway(server.port, over(9_000)) as gateway:
        device = through(gateway)
        put(device, 60)
        outcome = device.client.sync_once()
        assert (outcome.done, outcome.pushed, outcome.dead) == (True, 60, 0), outcome
        assert max(gateway.passed) <= 9_000 < max(gateway.refused)
        # Each size is tried once: halved until it fits, and not tried again in this run.
        assert len(gateway.refused) <= 3
        assert len(set(gateway.refused)) == len(gateway.refused)
        put(device, 60, chars=280)
        seen = len(gateway.refused)
        assert device.client.sync_once().pushed == 60
        assert len(gateway.refused) - seen <= 1  # what was found is remembered


def test_single_document_beyond_the_limit_is_a_letter_and_others_go_on(
    server: Serving, through: Any
) -> None:
    with Gateway(server.port, over(9_000)) as gateway:
        device = through(gateway)
        device.index.put([Document("big", "x y " * 4_000)])
        put(device, 20)
        outcome = device.client.sync_once()
        assert (outcome.done, outcome.pushed, outcome.dead) == (True, 20, 1), outcome
        (letter,) = device.client.dead_letters()
        assert (letter.id, letter.reason) == ("big", "too_large")
        assert "answers 413 to" in letter.detail
        alone = [size for size in gateway.refused if size == gateway.refused[-1]]
        assert len(alone) >= 2  # only as the answer repeats
        gateway.rule = over(1 << 30)
        assert device.client.retry() == 1
        assert device.client.sync_once().pushed == 1


@pytest.mark.test
def test_proxy_that_lets_nothing_through_is_named_and_nothing_is_lost(
    server: Serving, through: Any
) -> None:
    with Gateway(server.port, over(-1)) as gateway:
        gateway.rule = over(1 << 30)
        device = through(gateway)
        put(device, 3)
        for status in (302, 403, 407, 511, 200):
            gateway.rule = over(-1, status)
            seen = len(gateway.refused)
            outcome = device.client.sync_once()
            assert (outcome.cause, outcome.pushed) == ("network", 0)
            assert "something between this device and" in str(outcome.waiting)
            assert f"answers {status}" in str(outcome.waiting)
            assert len(gateway.refused) - seen <= 8
        assert device.client.status().queue.items == 3
        gateway.rule = over(1 << 30)
        assert device.client.sync_once().pushed == 3


def test_server_that_cannot_read_one_document_gets_the_others(
    new_device: NewDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer server may refuse what an older client stored: the whole push is "malformed" then."""
    device = new_device("one")
    put(device, 21)
    real = Pusher._send

    def send(self: Any, batch: Any) -> Any:
        if any(item.id == "d013" for item in batch.items):
            raise ServerError("item 13: no", status=400, code="malformed")
        return real(self, batch)

    monkeypatch.setattr(Pusher, "_send", send)
    outcome = device.client.sync_once()
    assert (outcome.done, outcome.pushed, outcome.dead) == (True, 20, 1)
    (letter,) = device.client.dead_letters()
    assert (letter.id, letter.reason, letter.detail) == ("d013", "invalid", "item 13: no")


def test_document_that_cannot_be_written_into_a_message_stops_no_other(
    new_device: NewDevice,
) -> None:
    device = new_device("one")
    replica.set_with_text(device.index.store, with_text=True)
    put(device, 3)
    query = "UPDATE documents SET metadata = ?, crc = ? WHERE id = 'd001'"
    from edge_mrl.store.records import document_check

    with device.index.store.locked() as (connection, _):
        key, name, source, digest = connection.execute(
            "SELECT key, id, source, hash FROM documents WHERE id = 'd001'"
        ).fetchone()
        metadata = '{"n": Infinity}'  # an older version took it
        connection.execute(query, (metadata, document_check(key, name, metadata, source, digest)))
    outcome = device.client.sync_once()
    assert (outcome.done, outcome.pushed, outcome.dead) == (True, 2, 1), outcome
    (letter,) = device.client.dead_letters()
    assert (letter.id, letter.reason) == ("d001", "invalid")


def test_text_that_the_model_cannot_take_stops_no_other(
    new_device: NewDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = new_device("one")
    put(device, 3)
    with device.index.store.writing(), device.index.store.locked() as (connection, _):
        connection.execute("DELETE FROM fulls")  # as where the queue is full
    real = type(device.index.encoder).encode

    def encode(self: Any, texts: Any, **options: Any) -> Any:
        if any("note 1 " in text for text in texts):
            raise RuntimeError("indices element out of data bounds")
        return real(self, texts, **options)

    monkeypatch.setattr(type(device.index.encoder), "encode", encode)
    outcome = device.client.sync_once()
    assert (outcome.done, outcome.pushed, outcome.dead) == (True, 2, 1), outcome
    (letter,) = device.client.dead_letters()
    assert (letter.id, letter.reason) == ("d001", "no_vectors")
    assert "out of data bounds" in letter.detail
