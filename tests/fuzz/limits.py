"""Limits of what one file may cost: processor time and memory."""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

__all__ = ["MOST_CPU_S", "CostError", "limited"]

MOST_CPU_S = 10.0
#: Bytes that reading a file may add to the process's memory, whatever its size, and for each of its
#: bytes. Seen: 18 MB for a store of 200 kB.
MOST_BYTES, MOST_BYTES_PER_BYTE = 48 << 20, 100
#: Where a reader asks for this much more it gets MemoryError, and the machine stays alive.
MOST_ADDRESSES = 2 << 30
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class CostError(BaseException):
    """A file cost too much; no reader may catch it."""


@contextlib.contextmanager
def limited(size_bytes: int) -> Iterator[None]:
    """Read a file of so many bytes within the limits.

    Raises:
        CostError: It took more.
    """
    with _limited_time(), _limited_memory(MOST_BYTES + MOST_BYTES_PER_BYTE * size_bytes):
        yield


@contextlib.contextmanager
def _limited_time() -> Iterator[None]:
    def ended(*_: object) -> None:
        raise CostError(f"it took more than {MOST_CPU_S:.0f} s")

    before = signal.signal(signal.SIGVTALRM, ended)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextlib.contextmanager
def _limited_memory(most: int) -> Iterator[None]:
    """Whatever allocates it: the kernel's own peak of this process, begun anew."""
    if not _CLEAR.exists():  # not Linux
        yield
        return
    addresses, before = _status("VmSize"), _status("VmRSS")
    _CLEAR.write_text("5")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (addresses + MOST_ADDRESSES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        took = _status("VmHWM") - before
        if took > most:
            raise CostError(f"it took {took:,} bytes of memory, expected at most {most:,}")


def _status(name: str) -> int:
    """Bytes that the kernel says of this process."""
    return 1024 * int(_STATUS.read_text("ascii").split(f"{name}:")[1].split()[0])
