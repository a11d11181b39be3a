"""The files of a SQLite database: who has them open, whether they are damaged, and how they are replaced.

Beside ``server.db`` and SQLite's own ``-wal``, ``-shm`` and ``-journal`` there are:

- ``server.db-lock``: every process of ours that has the database open holds a shared lock on it for as
  long as it lives. Who replaces the database holds it alone.
- ``server.db-restoring``: a whole, checked and flushed database that is to take the place of the
  present one. The rename that makes it is the moment from which on a restore has happened: whoever
  opens the database next finishes what a kill cut short.
- ``server.db-damaged``: SQLite has said that the database is malformed. Nobody writes until it is
  restored, or found sound.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from edge_mrl_server.errors import DatabaseError, DatabaseInUseError, UnavailableError

if sys.platform != "win32":  # there a file that is open cannot be replaced
    import fcntl

__all__ = [
    "Files",
    "alone",
    "aside_of",
    "check_log",
    "finish",
    "hold",
    "hold_alone",
    "sync_file",
    "sync_folder",
]

#: How long a process waits that opens a database while another replaces it.
WAIT_S = 10.0
_PAUSE_S = 0.05
#: Where SQLite's own locks lie in a database (sqlite.org/fileformat2.html, "the lock-byte page"):
#: a process that has read a database in WAL mode holds a shared lock in here until it closes it.
_LOCK_BYTES = (0x4000_0000, 512)


class Files:
    """The names of a database's files."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.log = _beside(database, "-wal")
        self.journal = _beside(database, "-journal")
        self.shared = _beside(database, "-shm")
        self.lock = _beside(database, "-lock")
        self.incoming = _beside(database, "-restoring")
        self.part = _beside(database, "-restoring-part")
        self.damage = _beside(database, "-damaged")

    @property
    def has_log(self) -> bool:
        """Whether there are commits outside the database's own file."""
        return any(_size(path) for path in (self.log, self.journal))

    def mark_damaged(self, problem: str) -> None:
        """Remember, for every process and the next start, that the database is malformed."""
        with contextlib.suppress(OSError):
            text = json.dumps({"since_ms": time.time_ns() // 1_000_000, "problem": problem})
            self.damage.write_text(text, "utf-8")

    def damage_said(self) -> str | None:
        """What was found when the database was last seen to be malformed; None if it was not."""
        try:
            return str(json.loads(self.damage.read_text("utf-8"))["problem"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return "found before"


@contextmanager
def hold(files: Files) -> Iterator[None]:
    """Keep others from replacing the database; finish a replacement that was cut short.

    Raises:
        UnavailableError: The database is being replaced, or the folder cannot be written.
        DatabaseError: There is no database, and its log lies there.
    """
    lock = _open(files)
    try:
        _share(files, lock)
        check_log(files)
        yield
    finally:
        os.close(lock)


def check_log(files: Files) -> None:
    """Check, before SQLite sees it, that a log can be of its database; nothing was changed if it cannot.

    Raises:
        DatabaseError: The database is missing, or is a finished copy: those have no log, so the log is of
            the database that was there before, and SQLite would replay it into the copy.
    """
    if not _size(files.log):
        return
    if not _size(files.database):
        raise DatabaseError(
            f"{files.database} is missing or empty, and its log {files.log.name} is there: nothing was "
            "changed. Put the database back, or restore a copy (`edge-mrl admin restore COPY`)"
        )
    with files.database.open("rb") as file:
        head = file.read(20)
    # "File format write version" and "read version" (sqlite.org/fileformat2.html): 1 is without a log.
    if head[18:20] == b"\1\1":
        raise DatabaseError(
            f"{files.log.name} does not belong to {files.database}, which was finished without a log: it "
            "is of the database that was there before. Nothing was changed. Keep both elsewhere, and "
            "run `edge-mrl admin restore COPY` with the copy"
        )


@contextmanager
def hold_alone(files: Files) -> Iterator[None]:
    """Be the only process of ours that has the database open.

    Raises:
        DatabaseInUseError: Another one has.
        UnavailableError: The folder cannot be written.
    """
    lock = _open(files)
    try:
        if not _take(lock, exclusive=True):
            raise _in_use(files)
        yield
    finally:
        os.close(lock)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Be the only process that has a database open, of whatever program: SQLite's own locks say so.

    Meanwhile this process must not open it through SQLite.

    Raises:
        DatabaseInUseError: Another process has it open.
    """
    if sys.platform == "win32" or not path.exists():
        yield
        return
    try:
        file = path.open("r+b")
    except PermissionError:  # on a read-only medium; nobody writes there
        yield
        return
    with file:
        try:
            start, size = _LOCK_BYTES
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, size, start)
        except OSError as error:
            raise DatabaseInUseError(
                f"another process has {path} open: stop it, and try again"
            ) from error
        yield


def finish(files: Files) -> Path | None:
    """Put the incoming database in the place of the present one, which is kept; call while alone.

    A kill at any moment leaves the incoming file, and the next call goes on.

    Returns:
        Where the former database is now; None if there was none.

    Raises:
        DatabaseInUseError: Another program has the database open.
    """
    aside = aside_of(files.database, int(files.incoming.stat().st_mtime))
    with alone(files.database):
        # Its log goes with the former database, and before the new one comes: it is never replayed
        # into that.
        for path in (files.log, files.journal):
            if path.exists():
                path.replace(_beside(aside, path.name.removeprefix(files.database.name)))
        files.shared.unlink(missing_ok=True)
        kept = _keep(files.database, aside)
        sync_folder(files.database)
        files.incoming.replace(files.database)
        sync_folder(files.database)
    files.damage.unlink(missing_ok=True)
    return kept


def aside_of(database: Path, at_s: int) -> Path:
    """Where a database is kept that was replaced at a time, in seconds since 1970.

    The time is that of the incoming file: it is the same when the work is taken up again.
    """
    return _beside(database, f".before-{datetime.fromtimestamp(at_s, UTC):%Y%m%dT%H%M%SZ}")


def sync_file(path: Path) -> None:
    """Flush a file to the disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Flush the folder of a file, so that its name is on the disk."""
    if os.name != "posix":
        return
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _keep(database: Path, aside: Path) -> Path | None:
    """Give a database a second name. It keeps the first one until something takes that place."""
    if not database.exists():
        return aside if aside.exists() else None
    if aside.exists() and not aside.samefile(database):
        # The place was empty for a moment, and another program has made a database there.
        aside = next(
            free
            for number in range(2, 1_000_000)
            if not (free := _beside(aside, f"-{number}")).exists()
        )
    if not aside.exists():
        try:
            os.link(database, aside)
        except OSError:  # a file system without second names
            database.replace(aside)
    return aside


def _open(files: Files) -> int:
    try:
        return os.open(files.lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError as error:
        raise UnavailableError(
            f"SQLite: unable to open {files.lock}: {error.strerror or error}"
        ) from error


def _share(files: Files, lock: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        if _take(lock, exclusive=False):
            if not files.incoming.exists():
                return
            _release(lock)
            if _take(lock, exclusive=True):
                if files.incoming.exists():
                    finish(files)
                _release(lock)
                continue
        if time.monotonic() > deadline:
            raise UnavailableError(f"{files.database} is being restored by another process: wait")
        time.sleep(_PAUSE_S)


def _take(lock: int, *, exclusive: bool) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _release(lock: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(lock, fcntl.LOCK_UN)


def _in_use(files: Files) -> DatabaseInUseError:
    return DatabaseInUseError(
        f"a server, or another command, has {files.database} open: stop every server process, and try "
        "again"
    )


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
