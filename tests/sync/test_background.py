"""The thread that keeps a store in sync: when it runs, whom it tells, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import UsageError
from edge_mrl.store import DeadLetter, Store
from edge_mrl.sync.background import BackgroundSync, Listener
from edge_mrl.sync.outcome import Outcome
from edge_mrl.sync.policy import Backoff
from tests.sync.conftest import Device, NewDevice

#: How long something that must happen may take on a busy machine.
PATIENCE_S = 30.0
#: How long nothing must happen.
QUIET_S = 0.6


class Scripted:
    """Runs that end as they are told, over a real store; then nothing is left to do."""

    def __init__(self, store: Store, outcomes: Sequence[Outcome] = ()) -> None:
        self.store = store
        self.outcomes = list(outcomes)
        self.asked: list[bool] = []
        self.ran = threading.Condition()

    def attempt(self, *, now: bool, step: Callable[[Outcome], None] | None) -> Outcome:
        outcome = self.outcomes.pop(0) if self.outcomes else Outcome()
        if step is not None and outcome.pushed:
            step(outcome)
        with self.ran:
            self.asked.append(now)
            self.ran.notify_all()
        return outcome

    def dead_letters(self) -> list[DeadLetter]:
        return [DeadLetter("a", "invalid", 0, deleted=False, document=None)]

    def wait_for(self, runs: int) -> bool:
        with self.ran:
            return self.ran.wait_for(lambda: len(self.asked) >= runs, PATIENCE_S)


class Notes(Listener):
    """Everything that was said, in order."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def committed(self, outcome: Outcome) -> None:
        self.said.append(f"committed {outcome.pushed}")

    def dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        self.said.append(f"dead {[letter.id for letter in letters]}")

    def ran(self, outcome: Outcome) -> None:
        self.said.append(f"ran {outcome.waiting}")


@pytest.fixture
def device(new_device: NewDevice) -> Device:
    return new_device("one")


def background(
    scripted: Scripted, *, interval_s: float = 600.0, listener: Listener | None = None
) -> BackgroundSync:
    backoff = Backoff(cap_s=0.05, first_s=0.01)
    return BackgroundSync(scripted, interval_s=interval_s, backoff=backoff, listener=listener)


def test_listener_hears_commits_then_dead_letters_then_the_end(device: Device) -> None:
    scripted, notes = Scripted(device.index.store, [Outcome(pushed=2, dead=1)]), Notes()
    thread = background(scripted, listener=notes)
    thread.start()
    assert scripted.wait_for(1)
    thread.stop(PATIENCE_S)
    assert notes.said == ["committed 2", "dead ['a']", "ran None"]


def test_failures_are_tried_again_soon_and_refusals_of_the_policy_are_not(device: Device) -> None:
    failed = Outcome(waiting="cut", cause="network")
    scripted = Scripted(device.index.store, [failed] * 4)
    thread = background(scripted)
    thread.start()
    assert scripted.wait_for(5)  # four failures, then all is done
    thread.stop(PATIENCE_S)
    scripted = Scripted(device.index.store, [Outcome(waiting="metered", cause="policy")] * 9)
    thread = background(scripted)
    thread.start()
    assert scripted.wait_for(1)
    time.sleep(QUIET_S)
    assert len(scripted.asked) == 1
    thread.stop(PATIENCE_S)


def test_server_that_asks_for_time_gets_it(device: Device) -> None:
    busy = Outcome(waiting="busy", cause="network", retry_after_s=600)
    scripted = Scripted(device.index.store, [busy])
    thread = background(scripted)
    thread.start()
    assert scripted.wait_for(1)
    time.sleep(QUIET_S)
    assert len(scripted.asked) == 1
    thread.wake(now=True)  # the user knows better
    assert scripted.wait_for(2)
    thread.stop(PATIENCE_S)
    assert scripted.asked == [False, True]


def test_every_interval_it_looks_for_what_others_wrote(device: Device) -> None:
    scripted = Scripted(device.index.store)
    thread = background(scripted, interval_s=0.05)
    thread.start()
    assert scripted.wait_for(3)
    thread.stop(PATIENCE_S)
    assert scripted.asked[:3] == [False] * 3


@pytest.mark.test
def test_write_here_ends_the_waiting_and_nothing_else_does(device: Device) -> None:
    scripted = Scripted(device.index.store)
    thread = background(scripted)
    thread.start()
    assert scripted.wait_for(1)
    time.sleep(QUIET_S)
    assert len(scripted.asked) == 1
    device.index.put([Document("a", "the cat")])
    assert scripted.wait_for(2)
    thread.stop(PATIENCE_S)


def test_stopping_does_not_wait_for_the_interval_and_works_in_the_thread(device: Device) -> None:
    scripted = Scripted(device.index.store)
    thread = background(scripted)
    thread.start()
    assert scripted.wait_for(1)
    started = time.monotonic()
    thread.stop(None)
    assert time.monotonic() - started < PATIENCE_S

    class Stopping(Listener):
        def ran(self, outcome: Outcome) -> None:
            del outcome
            inner.stop(None)

    scripted = Scripted(device.index.store)
    inner = background(scripted, interval_s=0.01, listener=Stopping())
    inner.start()
    assert scripted.wait_for(1)
    inner.stop(PATIENCE_S)
    assert len(scripted.asked) == 1


@pytest.mark.test
def test_runner_sends_what_is_written_without_being_asked(new_device: NewDevice) -> None:
    device = new_device("one")
    outcomes: list[Outcome] = []
    steps: list[Outcome] = []
    device.client.start(interval_s=600, notify=outcomes.append, step=steps.append)
    with pytest.raises(UsageError, match="already running"):
        device.client.start()
    for count, name in enumerate(("a", "b"), start=1):
        device.index.put([Document(name, "the cat")])
        end = time.monotonic() + 30
        # Until the run has ended: what is written while it pushes goes with it.
        while sum(run.pushed for run in outcomes) < count and time.monotonic() < end:
            time.sleep(0.05)
        assert device.client.status().queue.items == 0
    device.client.stop()
    assert sum(outcome.pushed for outcome in outcomes) == 2
    assert max(step.pushed for step in steps) == 1  # each run counts its own
    with pytest.raises(UsageError, match="not running"):
        device.client.sync_now()
