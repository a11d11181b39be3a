"""Several processes behind one port: each is started again when it dies, and all end together."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from edge_mrl_server.logs import LOGGER

__all__ = ["supervise"]

#: A process that died sooner than this is not started again at once: it would only die again.
SHORT_LIFE_S = 5.0
PAUSE_S = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def supervise(jobs: Sequence[Callable[[], None]], *, on_end: Callable[[int], None]) -> None:
    """Run each job in a process of its own until a signal comes; then let all of them finish.

    If this process dies without a word (SIGKILL, out of memory), the others notice and finish as well:
    none goes on answering at a port that a new server is to listen on.

    Args:
        jobs: What to run. This process must have no threads yet.
        on_end: Called with the process id of each process that has ended.
    """
    supervisor = _Supervisor()
    for sign in _SIGNALS:
        signal.signal(sign, supervisor.stop)
    for job in jobs:
        supervisor.start(job)
    supervisor.wait(on_end)


class _Supervisor:
    """The processes that run, by process id, each with its job and when it was started."""

    def __init__(self) -> None:
        self._stopping = False
        self._running: dict[int, tuple[Callable[[], None], float]] = {}
        # Nothing is ever written: the read end tells a process that the supervisor has ended.
        self._life_line, self._held = os.pipe()

    def stop(self, sign: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        """Ask every process to finish, and start no other."""
        self._stopping = True
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)

    def start(self, job: Callable[[], None]) -> None:
        """Run a job in a new process, unless all are to stop."""
        # A signal between the fork and the entry in the table would miss the new process.
        with _signals_blocked():
            if self._stopping:
                return
            pid = os.fork()
            if pid:
                self._running[pid] = (job, time.monotonic())
                return
            os.close(self._held)
            for sign in _SIGNALS:
                signal.signal(sign, signal.SIG_DFL)
        _run(job, self._life_line)

    def wait(self, on_end: Callable[[int], None]) -> None:
        """Start again what dies; return when all have finished."""
        while self._running:
            pid, status = os.wait()
            job, began = self._running.pop(pid)
            on_end(pid)
            if self._stopping:
                continue
            fields = {"pid": pid, "exit_code": os.waitstatus_to_exitcode(status)}
            LOGGER.error("process ended", extra={"fields": fields})
            if time.monotonic() - began < SHORT_LIFE_S:
                time.sleep(PAUSE_S)
            self.start(job)
        os.close(self._life_line)
        os.close(self._held)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _run(job: Callable[[], None], life_line: int) -> None:
    """Do a job in a process that was forked for it, and end that process."""
    try:
        threading.Thread(target=_end_with_supervisor, args=(life_line,), daemon=True).start()
        job()
    except BaseException:  # noqa: BLE001 - nothing of the parent's may run in this process
        traceback.print_exc(file=sys.stderr)
        os._exit(1)
    os._exit(0)


def _end_with_supervisor(life_line: int) -> None:
    # Returns when no process holds the other end any more.
    os.read(life_line, 1)
    os.kill(os.getpid(), signal.SIGTERM)
