"""Several processes behind one port: each is started again when it dies, and all end together."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import FrameType

from edge_mrl_server.logs import LOGGER

__all__ = ["supervise"]

#: A process that died sooner than this is not started again at once: it would only die again.
SHORT_LIFE_S = 5.0
PAUSE_S = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def supervise(jobs: Sequence[Callable[[], None]], *, buried: Callable[[int], None]) -> None:
    """Run each job in a process of its own until a signal comes; then let all finish.

    Args:
        jobs: What to run. This process must have no threads yet.
        buried: Called with the number of each process that has ended.
    """
    stopping = False
    running: dict[int, tuple[Callable[[], None], float]] = {}

    def stop(sign: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal stopping
        stopping = True
        for pid in running:
            os.kill(pid, signal.SIGTERM)

    for sign in _SIGNALS:
        signal.signal(sign, stop)
    for job in jobs:
        running[_start(job)] = (job, time.monotonic())
    while running:
        pid, status = os.wait()
        job, began = running.pop(pid)
        buried(pid)
        if stopping:
            continue
        fields = {"pid": pid, "exit_code": os.waitstatus_to_exitcode(status)}
        LOGGER.error("process ended", extra={"fields": fields})
        if time.monotonic() - began < SHORT_LIFE_S:
            time.sleep(PAUSE_S)
        if not stopping:
            running[_start(job)] = (job, time.monotonic())


def _start(job: Callable[[], None]) -> int:
    # A signal between the fork and the table of processes would miss the new one.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        pid = os.fork()
        if pid:
            return pid
        for sign in _SIGNALS:
            signal.signal(sign, signal.SIG_DFL)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        job()
    except BaseException:  # noqa: BLE001 - nothing of the parent's may run in this process
        traceback.print_exc(file=sys.stderr)
        os._exit(1)
    os._exit(0)
