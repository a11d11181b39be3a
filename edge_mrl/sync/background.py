"""A thread that keeps a store level: soon after each write, and to see what others wrote."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from edge_mrl.errors import StoreError
from edge_mrl.store import replica

if TYPE_CHECKING:
    from edge_mrl.store import DeadLetter, Store
    from edge_mrl.sync.policy import Backoff
    from edge_mrl.sync.run import Outcome

__all__ = ["Runner", "Syncing"]

#: Seconds between two looks for what this device wrote, which cost a row of the store each.
LOOK_S = 1.0


class Syncing(Protocol):
    """What is run again and again."""

    @property
    def store(self) -> Store:
        """The store."""

    def attempt(self, *, now: bool, step: Callable[[Outcome], None] | None) -> Outcome:
        """Sync once, each request being sent once; whatever goes wrong is part of the outcome."""

    def dead_letters(self) -> list[DeadLetter]:
        """Versions that will not be sent, by id."""


class Runner:
    """A thread that syncs again and again.

    Args:
        syncing: What it runs.
        interval_s: Seconds between two pulls.
        backoff: How long it waits after failures.
        told: Called after each run, with new dead letters, and after each commit.
    """

    def __init__(
        self,
        syncing: Syncing,
        interval_s: float,
        backoff: Backoff,
        told: tuple[
            Callable[[Outcome], None] | None,
            Callable[[Sequence[DeadLetter]], None] | None,
            Callable[[Outcome], None] | None,
        ],
    ) -> None:
        self._syncing = syncing
        self._interval_s = interval_s
        self._backoff = backoff
        self._notify, self._notify_dead, self._step = told
        self._condition = threading.Condition()
        self._stopping = False
        self._woken = False
        self._now = False
        self._thread = threading.Thread(target=self._loop, name="edge-mrl-sync", daemon=True)

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def stop(self, timeout_s: float | None) -> None:
        """End."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def wake(self, *, now: bool) -> None:
        """Run at once."""
        with self._condition:
            self._woken, self._now = True, self._now or now
            self._condition.notify_all()

    def _loop(self) -> None:
        while not self._stopping:
            seen = self._newest()
            outcome = self._run_once()
            wait_s = self._wait_after(outcome)
            self._sleep(wait_s, seen, look=outcome.done)

    def _run_once(self) -> Outcome:
        with self._condition:
            now, self._now, self._woken = self._now, False, False
        outcome = self._syncing.attempt(now=now, step=self._step)
        if outcome.dead and self._notify_dead is not None:
            self._notify_dead(self._syncing.dead_letters())
        if self._notify is not None:
            self._notify(outcome)
        return outcome

    def _wait_after(self, outcome: Outcome) -> float:
        if outcome.done:
            self._backoff.succeeded()
            return self._interval_s
        if outcome.cause == "policy":
            return self._interval_s
        if outcome.pushed or outcome.pulled or outcome.deleted:
            self._backoff.succeeded()  # it gets on
        return self._backoff.failed(outcome.retry_after_s)

    def _sleep(self, wait_s: float, seen: int, *, look: bool) -> None:
        """Wait, but not longer than until something is written here, where the network is well."""
        until = time.monotonic() + wait_s
        with self._condition:
            while not self._stopping and not self._woken:
                left = until - time.monotonic()
                if left <= 0 or (look and self._newest() != seen):
                    return
                self._condition.wait(min(left, LOOK_S) if look else left)

    def _newest(self) -> int:
        """The newest stamp that waits: another one means that something was written."""
        try:
            return replica.newest_queued(self._syncing.store)
        except StoreError:
            return 0
