"""Threads for what blocks, given out in turns.

They are daemons: a commit that waits for a standby does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edge_mrl_server.http.load.turns import (
    READ,
    WRITE,
    Job,
    TooManyError,
    TurnLimits,
    Turns,
    Who,
)
from edge_mrl_server.http.refusals import Refusal
from edge_mrl_server.logs import LOGGER

__all__ = ["Threads"]

T = TypeVar("T")
#: How long a request waits for others to end.
START_S = 10.0
RETRY_S = 2
_NOBODY = Who("")


@dataclass(eq=False, slots=True)
class _Call(Job):
    """A function that a thread is to call, and what became of it."""

    function: Callable[[], Any] = lambda: None
    started: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    result: Any = None
    error: BaseException | None = None
    left: bool = False


class Threads:
    """A few threads that write or read, of which some only read. Used by one event loop.

    Args:
        limits: How many threads there are, and whose work they do at once.
        writes_s: Seconds after which a request that writes is answered, whether it has ended or not.
        start_s: Seconds that a request waits for others to end; None for as long as that takes.
    """

    def __init__(
        self, limits: TurnLimits, *, writes_s: float, start_s: float | None = START_S
    ) -> None:
        self._writes_s = writes_s
        self._start_s = start_s
        self._turns = Turns(limits)
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = 0

    async def run(self, function: Callable[[], T], *, who: Who = _NOBODY, kind: str = READ) -> T:
        """What a function returns or raises.

        A function that writes and does not end in time keeps its thread until it ends.

        Args:
            function: The function.
            who: For whom: tenants take turns, and their devices do.
            kind: What it does: reads or writes.

        Raises:
            Refusal: All threads stay busy, or the function writes and takes too long.
        """
        call = _Call(who, kind, function)
        try:
            self._turns.add(call)
        except TooManyError as error:
            raise _busy("too much is waiting already: wait") from error
        self._start_next()
        writes = kind == WRITE
        start_s = self._start_s
        if writes:
            start_s = self._writes_s if start_s is None else min(start_s, self._writes_s)
        try:
            await _wait(call.started, start_s)
        finally:
            if not call.started.is_set():
                self._turns.drop(call)
        if not call.started.is_set():
            raise _busy("too much is going on: wait")
        try:
            await _wait(call.ended, self._writes_s if writes else None)
        finally:
            call.left = not call.ended.is_set()
        if call.left:
            raise _busy("the database takes too long to confirm: wait")
        if call.error is not None:
            raise call.error
        result: T = call.result
        return result

    def _start_next(self) -> None:
        while (call := self._turns.next()) is not None:
            assert isinstance(call, _Call)
            call.started.set()
            self._start(call)

    def _start(self, call: _Call) -> None:
        loop = asyncio.get_running_loop()

        def end() -> None:
            self._idle += 1
            self._turns.done(call)
            call.ended.set()
            if call.left:
                error = call.error and str(call.error)
                LOGGER.warning("ended late", extra={"fields": {"error": error}})
            self._start_next()

        def job() -> None:
            try:
                call.result = call.function()
            except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
                call.error = error
            except BaseException as error:  # noqa: BLE001 - what ends a program must not end this one
                call.error = RuntimeError(f"{type(error).__name__}: {error}")
                call.error.__cause__ = error
            # The loop is closed when the process ends.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(end)

        if self._idle:
            self._idle -= 1
        else:
            threading.Thread(target=self._work, daemon=True).start()
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            self._jobs.get()()


async def _wait(event: asyncio.Event, most_s: float | None) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), most_s)


def _busy(message: str) -> Refusal:
    return Refusal(503, "busy", message, retry_after_s=RETRY_S)
