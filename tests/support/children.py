"""Processes that tests start, and what these start themselves: none of them may outlive its test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = [
    "all_end",
    "children_of",
    "descendants",
    "ending_with_us",
    "is_alive",
    "left_over",
    "mark",
]

#: In the environment of what is started here, and so of all that it starts; the value is our process id.
MARK = "EDGE_MRL_TEST_PROCESS"


def mark() -> dict[str, str]:
    """What the environment of a process needs, so that ``left_over`` finds it."""
    return {MARK: str(os.getpid())}


def left_over() -> list[int]:
    """Process ids of what was started with ``mark`` by this process and still runs, orphans too."""
    wanted = f"{MARK}={os.getpid()}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0") and is_alive(
                int(folder.name)
            ):
                found.append(int(folder.name))
    return found


def children_of(pid: int) -> list[int]:
    """Process ids of a process's own children (Linux)."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(child) for child in listed.read_text().split()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """Process ids of a process's children, their children, and so on."""
    found = []
    for child in children_of(pid):
        found += [child, *descendants(child)]
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def all_end(pids: Iterable[int], limit_s: float) -> bool:
    """Wait until processes have ended; returns whether they have, in time."""
    pids = list(pids)
    deadline = time.monotonic() + limit_s
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def ending_with_us(command: Sequence[str], sign: signal.Signals = signal.SIGKILL) -> list[str]:
    """A command that gets a signal when this process ends, however it ends (Linux; else as it is).

    It must be started by a thread that lives as long as what it starts.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return list(command)
    name = sign.name.removeprefix("SIG")
    return [setpriv, "--pdeathsig", name, "--", *command]
