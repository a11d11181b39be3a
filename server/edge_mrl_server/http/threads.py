"""Threads for what blocks.

They are daemons: a commit that waits for a standby does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar

from edge_mrl_server.http.refusals import Refusal
from edge_mrl_server.logs import LOGGER

__all__ = ["Threads"]

T = TypeVar("T")
#: How long a request waits for others to end.
START_S = 10.0
RETRY_S = 2


class Threads:
    """A few threads that write or read, of which some only read. Used by one event loop.

    Args:
        most: How many threads there are.
        writers: How many of them may write at once.
        writes_s: Seconds after which a request that writes is answered, whether it has ended or not.
    """

    def __init__(self, most: int, *, writers: int, writes_s: float) -> None:
        self._writes_s = writes_s
        self._all = asyncio.Semaphore(most)
        self._writers = asyncio.Semaphore(writers)
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = 0

    async def run(self, function: Callable[[], T], *, writes: bool = False) -> T:
        """What a function returns or raises.

        A function that writes and does not end in time keeps its thread until it ends.

        Raises:
            Refusal: All threads stay busy, or the function writes and takes too long.
        """
        gates = [self._writers, self._all] if writes else [self._all]
        try:
            async with asyncio.timeout(min(START_S, self._writes_s) if writes else START_S):
                await _enter(gates)
        except TimeoutError as error:
            raise Refusal(
                503, "busy", "too much is going on: wait", retry_after_s=RETRY_S
            ) from error
        ended = self._start(function, gates)
        try:
            await asyncio.wait([ended], timeout=self._writes_s if writes else None)
            if ended.done():
                return ended.result()
        finally:
            ended.cancel()
        raise Refusal(
            503, "busy", "the database takes too long to confirm: wait", retry_after_s=RETRY_S
        )

    def _start(
        self, function: Callable[[], T], gates: list[asyncio.Semaphore]
    ) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def end(result: Any, error: BaseException | None) -> None:
            self._idle += 1
            for gate in gates:
                gate.release()
            if future.done():
                LOGGER.warning("ended late", extra={"fields": {"error": error and str(error)}})
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def job() -> None:
            result, failed = None, None
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                failed = error
            # The loop is closed when the process ends.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(end, result, failed)

        if self._idle:
            self._idle -= 1
        else:
            threading.Thread(target=self._work, daemon=True).start()
        self._jobs.put(job)
        return future

    def _work(self) -> None:
        while True:
            self._jobs.get()()


async def _enter(gates: list[asyncio.Semaphore]) -> None:
    async with AsyncExitStack() as stack:
        for gate in gates:
            await stack.enter_async_context(gate)
        stack.pop_all()
