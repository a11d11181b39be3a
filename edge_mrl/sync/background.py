"""A thread that keeps a store in sync: it runs soon after each write here, and at regular intervals."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from edge_mrl.store import replica
from edge_mrl.sync.outcome import Outcome, internal_fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_mrl.store import DeadLetter, Store
    from edge_mrl.sync.policy import Backoff

__all__ = ["BackgroundSync", "Listener"]

#: Seconds between two looks for what was written here. Each look reads one row of the store.
LOOK_S = 1.0


class Listener:
    """Told about a background sync, in its thread. Override what you need."""

    def committed(self, outcome: Outcome) -> None:
        """A commit was made; ``outcome`` says what this run has done so far."""

    def dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """A run added dead letters; ``letters`` are all that there are now."""

    def ran(self, outcome: Outcome) -> None:
        """A run ended."""


class Syncing(Protocol):
    """What a ``BackgroundSync`` runs: a ``SyncClient``."""

    @property
    def store(self) -> Store:
        """The store."""

    def attempt(self, *, now: bool, step: Callable[[Outcome], None] | None) -> Outcome:
        """Sync once, sending each request once; whatever fails is part of the outcome."""

    def report(self, waiting: str) -> None:
        """Note why nothing is synced now."""

    def dead_letters(self) -> list[DeadLetter]:
        """Versions that will not be sent, by id."""


class BackgroundSync:
    """A thread that syncs again and again.

    Args:
        syncing: What it runs.
        interval_s: Seconds between two pulls.
        backoff: How long it waits after failures.
        listener: Told about each commit and each run, in the thread.
    """

    def __init__(
        self,
        syncing: Syncing,
        *,
        interval_s: float,
        backoff: Backoff,
        listener: Listener | None = None,
    ) -> None:
        self._syncing = syncing
        self._interval_s = interval_s
        self._backoff = backoff
        self._listener = listener or Listener()
        self._condition = threading.Condition()
        self._stopping = False
        self._woken = False
        self._now = False
        self._thread = threading.Thread(target=self._loop, name="edge-mrl-sync", daemon=True)

    def start(self) -> None:
        """Start the thread; it syncs at once."""
        self._thread.start()

    def stop(self, timeout_s: float | None) -> None:
        """End the thread after its current request, and wait for that, if not called in it.

        Args:
            timeout_s: Seconds to wait at most; None to wait until the thread has ended.
        """
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def wake(self, *, now: bool) -> None:
        """Sync without waiting any longer.

        Args:
            now: Whatever the policy says about the conditions.
        """
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
        """Sync once, and tell the listener. Whatever fails is reported, and the thread goes on."""
        with self._condition:
            now, self._now, self._woken = self._now, False, False
        try:
            outcome = self._syncing.attempt(now=now, step=self._listener.committed)
            if outcome.dead:
                self._listener.dead_letters(self._syncing.dead_letters())
        except BaseException as error:  # noqa: BLE001 - a thread that ends here would end in silence
            waiting, cause = internal_fault(error)
            self._syncing.report(waiting)
            outcome = Outcome(waiting=waiting, cause=cause)
        try:
            self._listener.ran(outcome)
        except BaseException as error:  # noqa: BLE001 - the application's own function
            waiting, cause = internal_fault(error)
            self._syncing.report(waiting)
            return replace(outcome, waiting=waiting, cause=cause)
        return outcome

    def _wait_after(self, outcome: Outcome) -> float:
        """Seconds to wait after a run."""
        if outcome.done:
            self._backoff.succeeded()
            return self._interval_s
        if outcome.cause == "policy":
            return self._interval_s
        if outcome.pushed or outcome.pulled or outcome.deleted:
            self._backoff.succeeded()  # it makes progress
        return self._backoff.failed(outcome.retry_after_s)

    def _sleep(self, wait_s: float, seen: int, *, look: bool) -> None:
        """Wait; after a run without failures, only until something is written here."""
        until = time.monotonic() + wait_s
        with self._condition:
            while not self._stopping and not self._woken:
                left = until - time.monotonic()
                if left <= 0 or (look and self._newest() != seen):
                    return
                self._condition.wait(min(left, LOOK_S) if look else left)

    def _newest(self) -> int:
        """The newest stamp that waits: when it changes, something was written."""
        try:
            return replica.newest_queued(self._syncing.store)
        except Exception:  # noqa: BLE001 - the run that follows says what is wrong
            return 0
