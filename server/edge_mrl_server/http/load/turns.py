"""Whose turn it is: tenants take turns, and within a tenant its devices do.

It only decides; ``threads.py`` runs what it gives out. Not thread-safe: one event loop uses it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

__all__ = [
    "HEALTH",
    "READ",
    "STRANGERS",
    "WRITE",
    "Job",
    "TooManyError",
    "TurnLimits",
    "Turns",
    "Who",
    "limits_for",
    "one_each",
]

READ, WRITE = "read", "write"
#: Groups beside the tenants, whose names have no spaces.
STRANGERS, HEALTH = " strangers", " health"
#: Groups and members of whom it is remembered when they had their last turn.
MAX_SERVED = 10_000


@dataclass(frozen=True, slots=True)
class Who:
    """Whose work it is.

    Attributes:
        group: A tenant; or ``STRANGERS``, who have not shown a token yet; or ``HEALTH``.
        member: A device of the tenant; of strangers their address.
    """

    group: str
    member: str = ""


@dataclass(eq=False, slots=True)
class Job:
    """Something to do for somebody.

    Attributes:
        who: For whom.
        kind: ``READ`` or ``WRITE``.
    """

    who: Who
    kind: str = READ


class TooManyError(Exception):
    """So much is waiting already that more would wait in vain."""


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """How much may run and wait at once.

    Attributes:
        running: Jobs that run in all.
        group: Of one group.
        member: Of one member of a group.
        special: Of the groups that are no tenants.
        kinds: Of a kind, in all.
        group_kinds: Of a kind, of one group.
        waiting: Jobs of one group that wait.
        waiting_all: Jobs that wait in all.
    """

    running: int
    group: int
    member: int
    special: Mapping[str, int]
    kinds: Mapping[str, int]
    group_kinds: Mapping[str, int]
    waiting: int = 256
    waiting_all: int = 4_096


def limits_for(threads: int, *, writers: int) -> TurnLimits:
    """The limits for so many threads.

    A tenant gets half of them, and half of those for writes: while its writes wait for a standby, its
    reads go on, and while it uses all that it may, other tenants start at once.

    Args:
        threads: How many there are.
        writers: How many of them may write at once.
    """
    group = max(1, threads // 2)
    return TurnLimits(
        running=threads,
        group=group,
        member=max(1, group // 2),
        special={STRANGERS: max(1, threads // 4), HEALTH: 1},
        kinds={WRITE: writers},
        group_kinds={WRITE: max(1, group // 2)},
    )


def one_each(threads: int, *, waiting: int, waiting_all: int) -> TurnLimits:
    """The limits for long jobs in threads of their own: one job of a group at a time.

    Args:
        threads: How many there are.
        waiting: Jobs of one group that wait.
        waiting_all: Jobs that wait in all.
    """
    return TurnLimits(
        running=threads,
        group=1,
        member=1,
        special={},
        kinds={},
        group_kinds={},
        waiting=waiting,
        waiting_all=waiting_all,
    )


@dataclass(eq=False)
class Turns:
    """Jobs that wait, and counts of those that run."""

    limits: TurnLimits
    _waiting: dict[str, dict[str, deque[Job]]] = field(default_factory=dict)
    _served: OrderedDict[Hashable, int] = field(default_factory=OrderedDict)
    _clock: int = 0
    _counts: Counter[Hashable] = field(default_factory=Counter)
    _waits: Counter[str] = field(default_factory=Counter)

    def add(self, job: Job) -> None:
        """Let a job wait.

        Raises:
            TooManyError: Its group, or all together, have too many that wait.
        """
        group, limits = job.who.group, self.limits
        if self._waits[group] >= limits.waiting or self._waits.total() >= limits.waiting_all:
            raise TooManyError
        members = self._waiting.setdefault(group, {})
        members.setdefault(job.who.member, deque()).append(job)
        self._waits[group] += 1

    def drop(self, job: Job) -> None:
        """Forget a job that waits."""
        jobs = self._waiting[job.who.group][job.who.member]
        jobs.remove(job)
        self._gone(job, jobs)

    def next(self) -> Job | None:
        """The job whose turn it is, which counts as running now; None where none may start."""
        if self._counts[None] >= self.limits.running:
            return None
        for group in sorted(self._waiting, key=self._last):
            if self._counts[group] >= self.limits.special.get(group, self.limits.group):
                continue
            members = self._waiting[group]
            for member in sorted(members, key=lambda name: self._last((group, name))):
                if self._counts[group, member] >= self.limits.member:
                    continue
                job = next((job for job in members[member] if self._is_open(job)), None)
                if job is not None:
                    return self._take(job, members[member])
        return None

    def done(self, job: Job) -> None:
        """A job has ended that was given out."""
        for name in _names(job):
            self._counts[name] -= 1
            if not self._counts[name]:
                del self._counts[name]

    def _is_open(self, job: Job) -> bool:
        limits, kind = self.limits, job.kind
        return self._counts["kind", kind, None] < limits.kinds.get(
            kind, limits.running
        ) and self._counts["kind", kind, job.who.group] < limits.group_kinds.get(
            kind, limits.running
        )

    def _last(self, name: Hashable) -> int:
        """When a group or member had its last turn."""
        return self._served.get(name, 0)

    def _take(self, job: Job, jobs: deque[Job]) -> Job:
        group, member = job.who.group, job.who.member
        jobs.remove(job)
        self._gone(job, jobs)
        self._clock += 1
        for name in (group, (group, member)):
            self._served[name] = self._clock
            self._served.move_to_end(name)
        while len(self._served) > MAX_SERVED:
            self._served.popitem(last=False)
        self._counts.update(_names(job))
        return job

    def _gone(self, job: Job, jobs: deque[Job]) -> None:
        group = job.who.group
        self._waits[group] -= 1
        if not jobs:
            del self._waiting[group][job.who.member]
        if not self._waiting[group]:
            del self._waiting[group], self._waits[group]


def _names(job: Job) -> tuple[Hashable, ...]:
    group, member, kind = job.who.group, job.who.member, job.kind
    return (None, group, (group, member), ("kind", kind, None), ("kind", kind, group))
