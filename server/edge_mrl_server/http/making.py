"""Snapshots in the making: each once, in threads of their own, while all requests go on.

A device that asks meanwhile is told at once to ask again, and how far it is: no request waits for long,
and none holds a thread. A tenant has one snapshot in the making, however many devices and codes it has.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_mrl_server.http.load.turns import Who, one_each
from edge_mrl_server.http.refusals import Refusal
from edge_mrl_server.http.threads import Threads
from edge_mrl_server.logs import LOGGER, first_line

if TYPE_CHECKING:
    from edge_mrl_server.http.snapshot import Opened, Snapshot, SnapshotKey

__all__ = ["MAKERS", "Making", "Progress", "preparing"]

#: Threads that make snapshots; each uses the database for a page at a time.
MAKERS = 2
#: Snapshots that wait to be made, of one tenant and of all.
MAX_WAITING, MAX_ALL_WAITING = 16, 256
#: A small snapshot is made while its request waits, which takes no thread. In seconds.
SOON_S = 2.0
#: Seconds after which devices are told to ask again. Clients of before give up a run at more than 8.
LEAST_RETRY_S, MOST_RETRY_S = 1, 5
#: Failures that are remembered until somebody asks.
MAX_FAILED = 256


@dataclass(slots=True)
class Progress:
    """How far a snapshot is. One thread writes, the event loop reads.

    Attributes:
        done: Documents that are in it.
        documents: Documents that the tenant had when it was begun; 0 before that.
        began: When it was begun, in seconds of the monotonic clock; 0 while it waits for its turn.
    """

    done: int = 0
    documents: int = 0
    began: float = 0.0

    def begin(self, documents: int) -> None:
        """Note that it is begun."""
        self.documents, self.began = documents, time.monotonic()

    def retry_s(self) -> int:
        """Seconds after which it may be ready, within limits."""
        if not self.done or not self.began:
            return MOST_RETRY_S
        each_s = (time.monotonic() - self.began) / self.done
        left_s = each_s * max(self.documents - self.done, 0)
        return int(min(max(left_s + 0.5, LEAST_RETRY_S), MOST_RETRY_S))


@dataclass(eq=False, slots=True)
class _Task:
    """A snapshot that somebody has asked for."""

    future: asyncio.Future[Snapshot]
    asked: float
    progress: Progress = field(default_factory=Progress)


class Making:
    """Has snapshots made. Used by one event loop."""

    def __init__(self) -> None:
        limits = one_each(MAKERS, waiting=MAX_WAITING, waiting_all=MAX_ALL_WAITING)
        self._threads = Threads(limits, writes_s=0.0, start_s=None)
        self._tasks: dict[SnapshotKey, _Task] = {}
        self._failed: OrderedDict[SnapshotKey, BaseException] = OrderedDict()

    async def wait(self, key: SnapshotKey, make: Callable[[Progress], Opened]) -> Snapshot:
        """Have a snapshot made, if it is not already, and wait for a moment.

        Args:
            key: Which: a tenant, a code, and whether it has text.
            make: Makes it, in a thread.

        Returns:
            The snapshot, which was made in that moment.

        Raises:
            Refusal: "preparing": it takes longer, and the device has to ask again; or it was refused.
            Exception: It could not be made; whoever asks next has it made anew.
        """
        failed = self._failed.pop(key, None)
        if failed is not None:
            raise failed
        task = self._tasks.get(key) or self._begin(key, make)
        soon = task.asked + SOON_S - time.monotonic()
        if soon > 0:
            await asyncio.wait({task.future}, timeout=soon)
        if not task.future.done():
            raise preparing(task.progress)
        self._failed.pop(key, None)
        return task.future.result()

    def _begin(self, key: SnapshotKey, make: Callable[[Progress], Opened]) -> _Task:
        progress = Progress()

        def run() -> Snapshot:
            opened = make(progress)
            opened.close()
            return opened.snapshot

        future = asyncio.ensure_future(self._threads.run(run, who=Who(key[0])))
        task = self._tasks[key] = _Task(future, time.monotonic(), progress)
        future.add_done_callback(lambda done: self._end(key, done))
        return task

    def _end(self, key: SnapshotKey, done: asyncio.Future[Snapshot]) -> None:
        del self._tasks[key]
        error = None if done.cancelled() else done.exception()
        if error is None:
            return
        if not isinstance(error, Refusal):
            fields = {"tenant": key[0], "error": first_line(error)}
            LOGGER.error("snapshot failed", extra={"fields": fields})
        self._failed[key] = error
        if len(self._failed) > MAX_FAILED:
            self._failed.popitem(last=False)


def preparing(progress: Progress) -> Refusal:
    """The answer to a device that has to ask again."""
    return Refusal(
        503,
        "preparing",
        "a snapshot of the tenant's documents is being made: ask again",
        retry_after_s=progress.retry_s(),
        done=progress.done,
        documents=progress.documents,
    )
