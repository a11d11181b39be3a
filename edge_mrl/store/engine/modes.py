"""Who may read a store's files: their owner alone, from the first byte, whatever the umask."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from edge_mrl.machine import BINARY

__all__ = ["PRIVATE", "create_private", "tighten"]

#: Read and written by the owner, by nobody else.
PRIVATE = 0o600
#: What a store's files are called after the store: SQLite's own, the code file, those of sync, and
#: unfinished ones.
_SUFFIXES = (
    "",
    "-wal",
    "-shm",
    "-journal",
    "-codes",
    "-codes-new",
    "-sync.json",
    "-sync.part",
    "-damaged",
)


def create_private(path: Path) -> None:
    """Make an empty file that only its owner can read, unless there is a file.

    SQLite gives a database's log and index the database's mode.

    Raises:
        OSError: The file cannot be made.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, PRIVATE))


def tighten(store: Path) -> None:
    """Take everybody else's rights from a store's files, where this process's user owns them.

    Files of stores that older releases made had the umask's mode.
    """
    if not hasattr(os, "geteuid"):  # Windows: access lists, inherited from the folder
        return
    user = os.geteuid()
    for suffix in _SUFFIXES:
        file = store.with_name(store.name + suffix)
        with suppress(OSError):  # it is gone by now, or its file system has no modes
            status = file.stat()
            if status.st_mode & 0o077 and status.st_uid == user:
                file.chmod(status.st_mode & 0o700)
