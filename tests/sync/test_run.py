"""One run: what it does in which order, and what its outcome says."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import DamagedError, NetworkError, ServerError
from edge_mrl.index import Index
from edge_mrl.store import replica
from edge_mrl.sync.budget import Budget
from edge_mrl.sync.credentials import Credentials
from edge_mrl.sync.link import Link
from edge_mrl.sync.outcome import Outcome
from edge_mrl.sync.pushes.body import BodySize
from edge_mrl.sync.run import Run
from edge_mrl.sync.targets.target import PushBatch, PushResult
from tests.support.bundles import TINY
from tests.sync.conftest import Device, NewDevice
from tests.sync.parts import Shelf, enrollment_of
from tests.sync.test_sync import codes


def run(index: Index, *, max_bytes: int | None = None, attempts: int = 1, **more: Any) -> Outcome:
    """Sync once, as ``SyncClient`` does."""
    link = Link(index.store, None)
    try:
        return Run(
            store=index.store,
            link=link,
            encoder=lambda: index.encoder,
            budget=Budget(max_bytes=max_bytes, attempts=attempts),
            body=BodySize(),
            **more,
        ).sync()
    finally:
        link.close()


def put(device: Device, *names: str) -> None:
    device.index.put([Document(name, f"the cat {name}") for name in names])


def test_run_pushes_then_pulls_and_notes_the_success(new_device: NewDevice) -> None:
    one, other = new_device("one"), new_device("other")
    put(other, "b", "c")
    assert other.client.sync_once().done
    put(one, "a")
    assert one.client.status().success_ms is None
    steps: list[Outcome] = []
    outcome = run(one.index, step=steps.append)
    assert (outcome.pushed, outcome.pulled, outcome.done, outcome.cause) == (1, 2, True, None)
    assert outcome.bytes_sent > 0
    assert outcome.bytes_received > 0
    assert one.client.status().success_ms is not None
    counts = [(step.pushed, step.pulled, step.bytes_sent) for step in steps]
    assert counts == sorted(counts)
    assert max(step.pushed + step.pulled for step in steps) == 3
    again = run(one.index)
    assert (again.pushed, again.pulled, again.done) == (0, 0, True)
    assert codes(one.index).keys() == {"a", "b", "c"}


def test_run_that_only_pushes_brings_nothing(new_device: NewDevice) -> None:
    one, other = new_device("one"), new_device("other")
    put(other, "b")
    assert other.client.sync_once().done
    put(one, "a")
    outcome = run(one.index, push_only=True)
    assert (outcome.pushed, outcome.pulled, outcome.done) == (1, 0, True)
    assert codes(one.index).keys() == {"a"}
    assert run(one.index).pulled == 1


def test_store_that_is_not_enrolled_is_refused_with_the_command_to_type(tmp_path: Path) -> None:
    with Index.open(tmp_path / "s.db", TINY) as index:
        outcome = run(index)
    assert outcome.cause == "refused"
    assert "is not enrolled: run `edge-mrl enroll" in str(outcome.waiting)
    assert (outcome.bytes_sent, outcome.bytes_received) == (0, 0)


def test_server_that_is_away_leaves_the_queue_as_it_was(new_device: NewDevice) -> None:
    device = new_device("one")
    put(device, "a")
    found = Credentials.read(device.index.path)
    assert found is not None
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    replace(found, server=nowhere).write(device.index.path)
    outcome = run(device.index)
    assert (outcome.cause, outcome.done, outcome.pushed) == ("network", False, 0)
    assert nowhere in str(outcome.waiting)
    assert device.client.status().queue.items == 1
    assert device.client.status().success_ms is None


def test_run_ends_where_its_bytes_are_used_up_and_the_next_goes_on(new_device: NewDevice) -> None:
    device = new_device("one")
    put(device, *(str(number) for number in range(9)))
    outcomes = [run(device.index, max_bytes=400) for _ in range(20)]
    assert outcomes[0].cause == "policy"
    assert outcomes[0].waiting == "this run's 400 bytes are used up"
    assert sum(outcome.pushed for outcome in outcomes) == 9
    assert device.client.status().queue.items == 0


def test_push_without_an_answer_is_settled_before_anything_else(new_device: NewDevice) -> None:
    device = new_device("one")
    put(device, "a")
    assert replica.begin_push(device.index.store, 1, ["a"])
    assert enrollment_of(device.index.store).is_open
    outcome = run(device.index)
    assert (outcome.pushed, outcome.done) == (1, True)
    now = enrollment_of(device.index.store)
    assert (now.push, now.is_open) == (2, False)  # the first one is refused from now on


def test_target_is_pushed_to_and_the_server_is_not_asked(new_device: NewDevice) -> None:
    device, shelf = new_device("one"), Shelf()
    put(device, "a", "b")
    found = Credentials.read(device.index.path)
    assert found is not None
    replace(found, server="http://127.0.0.1:9").write(device.index.path)
    outcome = run(device.index, target=shelf)
    assert (outcome.pushed, outcome.done) == (2, True)
    assert shelf.documents.keys() == {"a", "b"}
    assert (outcome.bytes_sent, outcome.bytes_received) == shelf.traffic
    assert not shelf.closed


class Refusing(Shelf):
    """A target that always fails in the same way."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def push(self, batch: PushBatch) -> PushResult:
        del batch
        raise self.error


@pytest.mark.parametrize(
    ("error", "cause", "retry_after_s"),
    [
        (NetworkError("cut", retry_after_s=40), "network", 40),
        (ServerError("busy", status=503, retry_after_s=50), "network", 50),
        (ServerError("damaged", status=400, code="digest"), "network", None),
        (ServerError("no", status=403, code="forbidden"), "refused", None),
    ],
    ids=["network", "busy", "damaged", "refused"],
)
def test_outcome_names_the_cause(
    new_device: NewDevice, error: NetworkError, cause: str, retry_after_s: float | None
) -> None:
    device = new_device("one")
    put(device, "a")
    outcome = run(device.index, target=Refusing(error))
    assert (outcome.cause, outcome.waiting, outcome.retry_after_s) == (
        cause, str(error), retry_after_s,
    )  # fmt: skip
    assert device.client.status().queue.items == 1


def test_fault_of_the_store_is_no_outcome(new_device: NewDevice) -> None:
    device = new_device("one")
    put(device, "a")
    with pytest.raises(DamagedError):
        run(device.index, target=Refusing(DamagedError("a row is damaged")))
