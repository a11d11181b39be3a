"""Durable files: what was written reaches the storage device before anything relies on it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from edge_mrl.machine.positional import BINARY

__all__ = ["advice_about", "obstacle_to_writing", "sync_path"]

#: What is written to see whether anything can be: SQLite's shared memory needs half of it.
TRIAL_BYTES = 65_536
_FULL = "its card or disk is full"
_FOLDER = "its folder is read-only for this user"
#: Why nothing can be written, by the system's error.
_OBSTACLES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "this user's disk quota is used up",
    errno.EFBIG: "this process may write no larger files",
    errno.EROFS: "its card or disk is mounted read-only",
    errno.EACCES: _FOLDER,
    errno.EPERM: _FOLDER,
}
#: What to do about some of them.
_ADVICE = {
    _OBSTACLES[errno.ENOSPC]: "free some space on it",
    _OBSTACLES[errno.EDQUOT]: "delete some files of this user's",
    _OBSTACLES[errno.EFBIG]: "raise the limit on the size of files",
    _OBSTACLES[errno.EROFS]: "mount it to be written; a card that fails makes the system do this",
}


def sync_path(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to the storage device (fsync).

    Windows cannot open folders; there a rename is as durable as the file system makes it.

    Args:
        path: A file or a folder that exists.

    Raises:
        OSError: The path cannot be opened or flushed.
    """
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | BINARY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def obstacle_to_writing(folder: Path) -> str | None:
    """Why files in a folder cannot be made or grow, in words; None if they can.

    Free bytes tell neither quotas nor limits, so a small file is written. It has no name, or loses it.

    Args:
        folder: A folder.
    """
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".edge-mrl-", buffering=0) as file:
            data = os.urandom(TRIAL_BYTES)  # some file systems keep no zeros
            written = 0
            while written < TRIAL_BYTES:
                written += file.write(data[written:])
            os.fsync(file.fileno())
    except OSError as error:
        return _OBSTACLES.get(error.errno or 0, f"nothing can be written: {error.strerror}")
    return None


def advice_about(obstacle: str) -> str | None:
    """What to do about an obstacle to writing, in words; None for one that somebody may have wanted."""
    return _ADVICE.get(obstacle)
