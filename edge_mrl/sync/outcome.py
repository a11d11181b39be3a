"""What one run of a sync did, and why it ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from edge_mrl.errors import reason

if TYPE_CHECKING:
    from edge_mrl.store import Agreed, replica
    from edge_mrl.sync.budget import Budget

__all__ = ["Cause", "Outcome", "Tally", "internal_fault"]

#: Why a run ended before everything was done. "policy": the application does not allow more; "network":
#: the network failed, or the server is busy; "refused": the server refuses until a person changes
#: something; "store": the store cannot be used now; "internal": the program has a fault.
Cause = Literal["policy", "network", "refused", "store", "internal"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run did.

    Attributes:
        pushed: Versions that the server stored.
        stale: Versions that the server did not store because it had newer ones.
        pulled: Documents received from other devices.
        deleted: Documents deleted here because other devices deleted them.
        dead: Versions that became dead letters (see ``SyncClient.dead_letters``).
        unreadable: Those of them that arrived from other devices, and cannot be stored here.
        bytes_sent: Bytes of the bodies sent, including those of failed requests.
        bytes_received: Bytes of the bodies received.
        waiting: Why the run ended before everything was done, in plain words; None if all was done.
        cause: The kind of that reason.
        differs: In how many of 256 groups of ids the store and the server still hold different documents,
            after they were pulled again; 0 if they hold the same, or the server does not say.
        retry_after_s: Seconds that the server asked to wait before the next run, if it did.
        resent: Documents and deletions that were queued again because the server had been restored from
            an older copy; None if it had not.
        conflicts: Documents received that took the place of another text of this device's, because both
            devices gave it the same id; that text is a dead letter now.
    """

    pushed: int = 0
    stale: int = 0
    pulled: int = 0
    deleted: int = 0
    dead: int = 0
    unreadable: int = 0
    differs: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    waiting: str | None = None
    cause: Cause | None = None
    retry_after_s: float | None = None
    resent: int | None = None
    conflicts: int = 0

    @property
    def done(self) -> bool:
        """Whether everything was sent and received."""
        return self.waiting is None


def internal_fault(error: BaseException) -> tuple[str, Cause]:
    """How an error that nobody expected is reported; its traceback goes to the log."""
    logging.getLogger("edge_mrl.sync").error("a sync failed", exc_info=error)
    text = (
        f"an internal error: {type(error).__name__}: {reason(error)}; what is queued stays queued"
    )
    return text, "internal"


class Tally:
    """Adds up what a run does, and reports the sum after each commit.

    Args:
        budget: Knows how many bytes the run has used.
        step: Called after each commit with the outcome so far, and with what the run waits for.
    """

    def __init__(self, budget: Budget, step: Callable[[Outcome], None] | None) -> None:
        self._budget = budget
        self._step = step
        self._outcome = Outcome()

    @property
    def outcome(self) -> Outcome:
        """What was done so far."""
        sent, received = self._budget.traffic
        return replace(self._outcome, bytes_sent=sent, bytes_received=received)

    def pushed(self, statuses: Sequence[str]) -> None:
        """Count versions that were sent, given their statuses."""
        pushed, stale = statuses.count("applied"), statuses.count("stale")
        dead = len(statuses) - pushed - stale - statuses.count("clock_ahead")
        now = self._outcome
        self._outcome = replace(
            now, pushed=now.pushed + pushed, stale=now.stale + stale, dead=now.dead + dead
        )
        self._report()

    def pulled(self, put: int, deleted: int, withheld: int = 0, *, conflicts: int = 0) -> None:
        """Count documents that were received, deleted because others had, and could not be stored."""
        now = self._outcome
        self._outcome = replace(
            now,
            pulled=now.pulled + put,
            deleted=now.deleted + deleted,
            dead=now.dead + withheld,
            unreadable=now.unreadable + withheld,
            conflicts=now.conflicts + conflicts,
        )
        self._report()

    def agreed(self, agreed: Agreed | None) -> None:
        """Note what was queued again, after everything was pulled."""
        if agreed is not None and agreed.resent is not None:
            self._outcome = replace(self._outcome, resent=agreed.resent)

    def settled(self, settled: replica.Settled) -> None:
        """Count what agreeing with the server changed."""
        now = self._outcome
        resent = (now.resent or 0) + settled.queued
        self._outcome = replace(
            now,
            deleted=now.deleted + settled.deleted,
            dead=now.dead + settled.given_up,
            resent=resent if resent or now.resent is not None else None,
        )

    def differs(self, groups: int) -> None:
        """Note in how many groups store and server differ."""
        self._outcome = replace(self._outcome, differs=groups)

    def stop(self, reason: str, cause: Cause, retry_after_s: float | None = None) -> None:
        """Note why the run ended before everything was done."""
        self._outcome = replace(
            self._outcome, waiting=reason, cause=cause, retry_after_s=retry_after_s
        )

    def waits(self, reason: str) -> None:
        """Report what the run waits for just now."""
        if self._step is not None:
            self._step(replace(self.outcome, waiting=reason))

    def _report(self) -> None:
        if self._step is not None:
            self._step(self.outcome)
