"""Connections that take no locks, and when they may be closed.

POSIX drops all locks that a process has on a file when any descriptor of that file is closed. SQLite
minds that among connections with locks. One without is closed only when this process has no other
connection to the file; until then it is put aside.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

__all__ = ["LOCKLESS", "counted", "counting"]

#: The option of a URI that opens a database without locks.
LOCKLESS = "vfs=unix-none"

_LOCK = threading.RLock()
#: Open connections to files, by device and inode; and those without locks that wait to be closed.
_OPEN: dict[tuple[int, int], int] = {}
_ASIDE: dict[tuple[int, int], list[Any]] = {}


def counting(base: Any) -> Any:
    """A driver's class of connections, with those that are open counted by file."""

    def close(self: Any) -> None:
        place, self.place = self.place, None
        if place is None:
            base.close(self)
            return
        with _LOCK:
            _OPEN[place] -= 1
            if self.lockless and _OPEN[place]:
                _ASIDE.setdefault(place, []).append(self)
                return
            base.close(self)
            if not _OPEN[place]:
                del _OPEN[place]
                for waiting in _ASIDE.pop(place, ()):
                    base.close(waiting)

    return type("Connection", (base,), {"close": close, "place": None, "lockless": False})


def counted(connection: Any, path: Path, options: str) -> None:
    """Count a connection of such a class that was opened just now."""
    status = path.stat()
    with _LOCK:
        connection.place = (status.st_dev, status.st_ino)
        connection.lockless = LOCKLESS in options
        _OPEN[connection.place] = _OPEN.get(connection.place, 0) + 1
