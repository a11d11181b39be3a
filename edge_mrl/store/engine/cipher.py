"""Encrypted databases: SQLCipher's driver, how its files are told apart, and its errors.

SQLCipher (extra ``encrypted``) encrypts each page with AES-256 and signs it with HMAC-SHA-512, in the
database, its log and its journal. Its driver has the interface of Python's ``sqlite3``.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from edge_mrl.errors import MissingDependencyError, UsageError
from edge_mrl.store.engine.lockless import counting

__all__ = [
    "KEY_BYTES",
    "Key",
    "attach",
    "database_errors",
    "has_magic",
    "key_bytes",
    "looking",
    "open_encrypted",
]

#: Gives the 32 bytes of a store's key; called when the store is opened.
Key = Callable[[], bytes]

KEY_BYTES = 32
#: Begins the salt, which is the beginning of the file: how an encrypted store is told from any file.
MAGIC = b"eMRLcryp"
SALT_BYTES = 16
_DRIVER = "sqlcipher3.dbapi2"

#: Encrypted databases that this process has open, by device and inode, with how many connections.
#: POSIX drops a process's locks on a file when any descriptor of it is closed, and two copies of
#: SQLite in one process know nothing of each other's: a file that is open here is not looked into.
_HELD: dict[tuple[int, int], int] = {}
_LOCK = threading.RLock()


def database_errors() -> tuple[type[Exception], ...]:
    """The error classes of the drivers that are loaded, and of messages that quote damaged bytes."""
    loaded = sys.modules.get(_DRIVER)
    known = (sqlite3.Error, UnicodeDecodeError)
    return known if loaded is None else (*known, loaded.Error)


def key_bytes(key: Key) -> bytes:
    """Ask for a key.

    Raises:
        UsageError: It is none.
    """
    if not callable(key):
        raise UsageError(f"key is {type(key).__name__}, expected a function that gives the key")
    found = key()
    if not isinstance(found, bytes | bytearray) or len(found) != KEY_BYTES:
        size = f"{len(found)} bytes" if isinstance(found, bytes | bytearray) else "no bytes"
        raise UsageError(f"the key has {size}, expected {KEY_BYTES} random bytes")
    return bytes(found)


@contextmanager
def looking(path: Path) -> Iterator[bool]:
    """Look into a file; yields whether it is an encrypted store that this process has open already."""
    with _LOCK:
        yield _identity(path) in _HELD


def has_magic(path: Path) -> bool:
    """Whether a file begins as an encrypted store does. Call it within ``looking``."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def open_encrypted(
    path: Path, options: str, timeout_s: float, key: bytes | None
) -> sqlite3.Connection:
    """Open an encrypted database, or an empty file as one; without a key, a plain one.

    Args:
        path: The file.
        options: Of the URI, such as "mode=rw".
        timeout_s: How long to wait for another process.
        key: 32 bytes, or None.

    Raises:
        MissingDependencyError: The extra is not installed.
        Exception: One of ``database_errors``; a wrong key is noticed at the first read.
    """
    driver = _driver(path)
    with _LOCK:
        identity = _identity(path)
        _HELD[identity] = _HELD.get(identity, 0) + 1
    try:
        # SQLCipher writes what it finds to standard error. Errors say it, too.
        quiet = driver.connect(":memory:")
        quiet.execute("PRAGMA cipher_log_level = NONE")
        quiet.close()
        connection = driver.connect(
            f"{path.absolute().as_uri()}?{options}",
            uri=True,
            timeout=timeout_s,
            isolation_level=None,
            check_same_thread=False,
            factory=_holding(driver),
        )
    except BaseException:
        _release(identity)
        raise
    connection.identity = identity
    salt = _new_salt() if path.stat().st_size == 0 else b""
    if key is not None:
        connection.execute(f'PRAGMA key = "{_literal(key, salt)}"')
    # Sorting and VACUUM use no file, which would be encrypted, but large and slow.
    connection.execute("PRAGMA temp_store = MEMORY")
    return cast("sqlite3.Connection", connection)


def attach(connection: sqlite3.Connection, path: Path, key: bytes | None) -> None:
    """Attach an empty file as ``target``, to be encrypted with a key, or not."""
    secret = "" if key is None else _literal(key, _new_salt())
    connection.execute(f'ATTACH DATABASE ? AS target KEY "{secret}"', (str(path),))


def _literal(key: bytes, salt: bytes) -> str:
    """A raw key as SQLCipher takes it: no passphrase, so nothing is derived from it slowly."""
    return f"x'{key.hex()}{salt.hex()}'"


def _new_salt() -> bytes:
    return MAGIC + os.urandom(SALT_BYTES - len(MAGIC))


def _driver(path: Path) -> ModuleType:
    try:
        import sqlcipher3.dbapi2 as driver
    except ImportError as error:
        raise MissingDependencyError(
            f'{path} is encrypted, which needs {error.name}: pip install "edge-mrl[encrypted]"'
        ) from error
    return cast("ModuleType", driver)


def _holding(driver: ModuleType) -> Any:
    """A class of connections that say when they are closed."""
    counts = counting(driver.Connection)

    def close(connection: Any) -> None:
        counts.close(connection)
        identity, connection.identity = connection.identity, None
        if identity is not None:
            _release(identity)

    return type("Connection", (counts,), {"close": close, "identity": None})


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino


def _release(identity: tuple[int, int]) -> None:
    with _LOCK:
        left = _HELD.get(identity, 0) - 1
        if left > 0:
            _HELD[identity] = left
        else:
            _HELD.pop(identity, None)
