"""What lies in the clear beside an encrypted store: taken over, overwritten, removed.

Overwriting reaches the bytes of the file. It does not reach what a flash medium keeps in worn cells,
what a file system keeps in snapshots or writes elsewhere (copy on write), or what backups have.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.machine import BINARY, write_at
from edge_mrl.store.engine.making import remove_with_log, unfinished_path
from edge_mrl.store.engine.private import carry_in

if TYPE_CHECKING:
    import sqlite3

__all__ = ["clear_traces", "former_path", "wipe"]

_BLOCK_BYTES = 1 << 20
#: The code file, and one that was not finished.
_CODES = ("-codes", "-codes-new")
#: What a conversion that was killed may leave. Nobody reads or writes it while a connection has the
#: store open in write-ahead logging.
_JOURNAL = "-journal"


def former_path(store: Path) -> Path:
    """The name of a store's former file while its bytes are overwritten."""
    return store.with_name(f".{store.name}-edge-mrl-old")


def wipe(path: Path, *, everything: bool = True) -> bool:
    """Overwrite a file with zeros, to the storage device; the file stays.

    Args:
        path: The file.
        everything: False if nothing in it is secret.

    Returns:
        Whether it was overwritten: not where it is not there, or has other names.
    """
    if not everything:
        return False
    try:
        descriptor = os.open(path, os.O_RDWR | BINARY)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if status.st_nlink > 1:  # somebody keeps it under another name
            return False
        for first in range(0, status.st_size, _BLOCK_BYTES):
            write_at(descriptor, bytes(min(_BLOCK_BYTES, status.st_size - first)), first)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True


def clear_traces(connection: sqlite3.Connection, store: Path) -> None:
    """Bring an encrypted store's token and partial snapshot into its database, and remove the rest.

    What is beside it was left by the plain store that it was, or by a command that was interrupted.

    Args:
        connection: The store's, which can write.
        store: The store's file.
    """
    files = carry_in(connection, store)
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    left = (*_CODES, _JOURNAL) if mode == "wal" else _CODES
    files += [store.with_name(store.name + suffix) for suffix in left]
    files += [former_path(store), unfinished_path(store)]
    for file in files:
        with suppress(OSError):
            if file.exists() and not file.samefile(store):
                wipe(file)
                remove_with_log(file)
            elif file.exists():
                file.unlink()
