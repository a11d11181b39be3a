"""A store's first moment: made under another name, synced, and renamed when it is whole.

So a power cut leaves no store or a whole one. An empty file holds the store's place meanwhile: it is
locked, so that of processes that start at once one makes the store and the others open it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_mrl.errors import StoreBusyError
from edge_mrl.machine import BINARY, sync_path
from edge_mrl.store.engine.modes import PRIVATE, create_private

__all__ = ["has_rollback_journal", "make_whole", "remove_with_log", "unfinished_path"]

#: The beginning of a rollback journal (SQLite, "Database File Format", section 3).
_JOURNAL = bytes.fromhex("d9d505f920a163d7")
#: What may be left beside a file that is gone or empty: none of it belongs to the new store.
_LEFT = ("-wal", "-shm", "-journal")
_RETRY_S = 0.02


def has_rollback_journal(path: Path) -> bool:
    """Whether a rollback journal lies beside a database: a transaction was cut off."""
    with suppress(OSError), path.with_name(f"{path.name}-journal").open("rb") as file:
        return file.read(len(_JOURNAL)) == _JOURNAL
    return False


def make_whole(path: Path, make: Callable[[Path], None], *, timeout_s: float) -> bool:
    """Make a store where there is no file, or an empty one.

    Args:
        path: The store's file.
        make: Makes the whole store at the path that it is given, and closes it.
        timeout_s: How long to wait for another process that makes it.

    Returns:
        Whether there is a store now, made here or by another process. False if this file system has
        no locks: then SQLite's own protect the store while it is made in place.

    Raises:
        StoreBusyError: Another process is still making it.
        OSError: The file cannot be made.
    """
    target = Path(os.path.realpath(path))
    deadline = time.monotonic() + timeout_s
    while True:
        with _place(target, deadline) as state:
            if state == "unlocked":
                return False
            if state == "taken":
                return True
            if state == "ours":
                _make(target, make)
                return True
        # The file that was locked is not at the path any more.
        if time.monotonic() > deadline:
            raise _busy(path)


@contextmanager
def _place(target: Path, deadline: float) -> Iterator[str]:
    """Hold an empty file at the path: "ours", "taken" by a whole store, "unlocked" or "gone"."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield "unlocked"
        return
    before = target.exists()
    if before and target.stat().st_size:  # not opened: closing it would drop locks on it
        yield "taken"
        return
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | BINARY, PRIVATE)
    made = False
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Java has only these; they do not keep threads of one process apart.
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise _busy(target) from None
                time.sleep(_RETRY_S)
            except OSError:
                yield "unlocked"
                return
        state = _state(target, descriptor)
        yield state
        made = True
    finally:
        # What could not be made leaves no empty file, unless that was there before.
        try:
            if not before and not made and _state(target, descriptor) == "ours":
                with suppress(OSError):
                    target.unlink(missing_ok=True)
        finally:
            os.close(descriptor)  # with it the lock goes, whatever the medium says


def _state(target: Path, descriptor: int) -> str:
    mine = os.fstat(descriptor)
    try:
        there = target.stat()
    except OSError:
        return "gone"
    if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
        return "gone"
    return "taken" if there.st_size else "ours"


def _make(target: Path, make: Callable[[Path], None]) -> None:
    temporary = unfinished_path(target)
    remove_with_log(temporary)
    try:
        create_private(temporary)
        make(temporary)
        sync_path(temporary)
        for end in _LEFT:
            target.with_name(target.name + end).unlink(missing_ok=True)
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            remove_with_log(temporary)
        raise
    sync_path(target.parent)


def unfinished_path(target: Path) -> Path:
    """Where a store is made that will be renamed to ``target``."""
    return target.with_name(f".{target.name}-edge-mrl-new")


def remove_with_log(path: Path) -> None:
    """Delete a database that nobody has open, with its log and journal."""
    for end in ("", *_LEFT):
        path.with_name(path.name + end).unlink(missing_ok=True)


def _busy(path: Path) -> StoreBusyError:
    return StoreBusyError(f"{path} is being made by another process: try again in a moment")
