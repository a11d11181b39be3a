"""A header that changes on its way, which only TLS prevents, locks no device out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from edge_mrl.documents import Document
from edge_mrl.sync import transport
from edge_mrl.sync.credentials import Credentials
from edge_mrl.wire import seen_headers
from tests.support.relays import Relay
from tests.support.serving import Serving
from tests.sync.conftest import Device, NewDevice

pytestmark = pytest.mark.test

#: What is put in place of what. Each makes a server refuse a device until a person does something.
DAMAGE = {
    "the token": (b"Bearer emrl_", b"Bearer emrl-"),
    "no token": (b"\r\nAuthorization: ", b"\r\nAuthorizatiom: "),
    "the protocol": (b"\r\nEdge-MRL-Protocol: 1", b"\r\nEdge-MRL-Protocol: 3"),
    "the space": (b"\r\nEdge-MRL-Space: ", b"\r\nEdge-MRL-Space: f00d"),
}


@pytest.fixture
def relay(server: Serving) -> Iterator[Relay]:
    with Relay(server.port) as found:
        yield found


@pytest.fixture
def device(relay: Relay, new_device: NewDevice) -> Device:
    """Behind a line that changes what it is told to; its token is to be renewed, and is its first one."""
    made = new_device("device", url=f"http://127.0.0.1:{relay.port}")
    found = Credentials.read(made.index.store)
    assert found is not None
    assert found.previous is None
    replace(found, expires_ms=0).write(made.index.store)
    made.index.put([Document("a", "the cat")])
    return made


@pytest.mark.parametrize("what", DAMAGE)
def test_refusal_of_what_was_not_sent_is_a_fault_of_the_network(
    what: str, relay: Relay, device: Device
) -> None:
    if what == "the space":  # which the request for a token does not need
        assert device.client.sync_once().done
        device.index.put([Document("b", "a dog")])
    relay.damage = DAMAGE[what]
    outcome = device.client.sync_once(attempts=1)
    assert relay.damage is None, "nothing was changed"
    assert outcome.cause == "network", outcome
    assert "what this device did not send" in str(outcome.waiting)
    assert device.client.sync_once().done


def test_refusal_that_does_not_say_what_it_refuses_counts(
    relay: Relay, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a server of before; and the twin of the test above."""
    monkeypatch.setattr(transport, "SEEN", "Edge-MRL-Nothing")
    # In every request: a device whose token is refused once asks for another, and goes on.
    always = property(lambda _: DAMAGE["the token"], lambda *_: None)
    monkeypatch.setattr(Relay, "damage", always, raising=False)
    assert device.client.sync_once(attempts=1).cause == "refused"


def test_refusal_of_a_wrong_token_counts(device: Device) -> None:
    found = Credentials.read(device.index.store)
    assert found is not None
    replace(found, token=f"{found.token[:-1]}-").write(device.index.store)
    outcome = device.client.sync_once(attempts=1)
    assert (outcome.cause, "401" in str(outcome.waiting)) == ("refused", True)


def test_headers_are_seen_whatever_their_case_and_spaces() -> None:
    sent = {"Authorization": "Bearer x", "Edge-MRL-Protocol": "1", "Range": "bytes=0-"}
    assert seen_headers(sent) == seen_headers(
        {"authorization": " Bearer x ", "edge-mrl-protocol": "1"}
    )
    assert seen_headers(sent) != seen_headers(sent | {"Authorization": "Bearer y"})
    assert seen_headers(sent) != seen_headers(sent | {"Edge-MRL-Space": ""})
    assert len(seen_headers({})) == 16
