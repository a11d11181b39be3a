"""A folder of temporary files that goes with its process, or with the next one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

__all__ = ["OwnFolder"]

_PREFIX = "edge-mrl-snapshots-"
#: Another process that clears up may delete a folder before it is locked: so often it is tried again.
_TRIES = 100


class OwnFolder:
    """A new folder for one process, which holds its lock as long as it lives.

    What processes have left that were killed is deleted first: nobody holds their locks.

    Args:
        parent: Where; None for the folder of temporary files.
    """

    def __init__(self, parent: Path | None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        parent.mkdir(parents=True, exist_ok=True)
        _clear(parent)
        for _ in range(_TRIES):
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            self._lock = _locked(self.path)
            if self.path.exists() and (self._lock is not None or os.name != "posix"):
                return
        raise OSError(f"cannot keep a folder in {parent}")

    def close(self) -> None:
        """Delete it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _clear(parent: Path) -> None:
    if os.name != "posix":  # there a killed process's folder stays
        return
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            # Another user's in a shared folder is none of ours.
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            lock = _locked(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _locked(folder: Path) -> int | None:
    """Take a folder's lock; None where another process has it, or there is none."""
    if os.name != "posix":
        return None
    import fcntl

    with contextlib.suppress(OSError):
        lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
        else:
            return lock
    return None
