"""Encrypting a store, changing its key, and decrypting it: a new file, synced, then renamed over the old.

A kill at any moment leaves the old store or the new one, whole. Nobody can have the store open meanwhile.
Afterwards the old file's bytes are overwritten; what flash media and copies keep of them, nobody can say.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edge_mrl.errors import StoreBusyError, StoreError, UsageError
from edge_mrl.machine import sync_path
from edge_mrl.store.codefile.file import GENERATION_BYTES
from edge_mrl.store.codefile.state import read_state, write_state
from edge_mrl.store.engine.cipher import Key, attach, database_errors, key_bytes, open_encrypted
from edge_mrl.store.engine.explaining import reporting, unwritable
from edge_mrl.store.engine.making import remove_with_log, unfinished_path
from edge_mrl.store.engine.modes import create_private
from edge_mrl.store.engine.private import carry_out
from edge_mrl.store.engine.traces import former_path, wipe
from edge_mrl.store.file import APPLICATION_ID, connect, transaction

__all__ = ["Conversion", "convert"]

#: How long to wait until nobody has the store open, in seconds.
PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Conversion:
    """What encrypting, changing the key or decrypting did.

    Attributes:
        path: The store's file.
        encrypted: Whether it is encrypted now.
        size_bytes: Bytes of its database.
        wiped: Names of files whose former bytes were overwritten.
    """

    path: str
    encrypted: bool
    size_bytes: int
    wiped: tuple[str, ...]


def convert(
    path: str | os.PathLike[str],
    *,
    key: Key | None,
    new_key: Key | None,
    timeout_s: float = PATIENCE_S,
) -> Conversion:
    """Write a store anew, with another key or without one.

    Args:
        path: The store's file.
        key: Its key now; None for a plain store.
        new_key: Its key from then on; None for a plain store.
        timeout_s: How long to wait until nobody else has the store open.

    Raises:
        NoStoreError: There is no store.
        StoreKeyError: The store is encrypted with another key, or is not encrypted.
        StoreBusyError: A program has the store open.
        StoreError: There is not enough space, or the store is damaged. It is as it was.
    """
    store = Path(os.path.realpath(path))
    old = None if key is None else key_bytes(key)
    new = None if new_key is None else key_bytes(new_key)
    if old == new:
        raise UsageError("the new key is the old one: nothing was changed")
    opened = connect(store, fill=None, timeout_s=timeout_s, key=key)  # it is one, and up to date
    opened.connection.close()
    if opened.obstacle is not None:
        raise unwritable(store, opened.obstacle)
    unfinished = unfinished_path(store)
    with reporting(store), _alone(store, old, timeout_s) as source:
        try:
            remove_with_log(unfinished)
            create_private(unfinished)
            _export(source, unfinished, new)
            _finish(unfinished, new)
            if new is None:
                carry_out(source, store)
            sync_path(unfinished)
            wiped = _replace(unfinished, store)
        except OSError as error:
            raise StoreError(f"{store} cannot be written anew: {error.strerror}") from error
        finally:
            with suppress(OSError):
                wipe(unfinished, everything=new is None)
                remove_with_log(unfinished)
    connect(store, fill=None, timeout_s=timeout_s, key=new_key).connection.close()
    return Conversion(os.fspath(path), new is not None, store.stat().st_size, wiped)


@contextmanager
def _alone(store: Path, key: bytes | None, timeout_s: float) -> Iterator[sqlite3.Connection]:
    """Lock everybody else out; yields a connection of SQLCipher's driver that reads the store."""
    options = f"{store.as_uri()}?mode=rw"
    if key is None:
        guard = sqlite3.connect(options, uri=True, timeout=timeout_s, isolation_level=None)
    else:
        guard = open_encrypted(store, "mode=rw", timeout_s, key)
    with closing(guard):
        guard.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            # Folds the log into the file. It needs the file to itself, and keeps it from then on.
            (mode,) = guard.execute("PRAGMA journal_mode = DELETE").fetchone()
            guard.execute("BEGIN EXCLUSIVE")
            guard.execute("COMMIT")
        except database_errors() as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            mode = "busy"
        if mode != "delete":
            raise StoreBusyError(f"{store} is open in another program: close it, and try again")
        if key is not None:
            yield guard
            return
        # The lock is the guard's: this connection takes none, and is closed after the file was replaced.
        with closing(open_encrypted(store, "mode=ro&nolock=1", timeout_s, None)) as source:
            yield source


def _export(source: sqlite3.Connection, target: Path, key: bytes | None) -> None:
    (version,) = source.execute("PRAGMA user_version").fetchone()
    attach(source, target, key)
    source.execute("SELECT sqlcipher_export('target')").fetchone()
    source.execute(f"PRAGMA target.user_version = {version}")
    source.execute(f"PRAGMA target.application_id = {APPLICATION_ID}")
    source.execute("DETACH target")


def _finish(target: Path, key: bytes | None) -> None:
    """Let the new store have no code file yet, and no private data in the clear."""
    if key is None:
        connection = sqlite3.connect(f"{target.as_uri()}?mode=rw", uri=True, isolation_level=None)
    else:
        connection = open_encrypted(target, "mode=rw", 0.0, key)
    with closing(connection):
        with transaction(connection, "IMMEDIATE"):
            state = read_state(connection)
            generation = os.urandom(GENERATION_BYTES)
            write_state(connection, replace(state, filed=0, generation=generation))
            connection.execute("DELETE FROM segments")
            if key is None:
                connection.execute("DROP TABLE IF EXISTS private")
        connection.execute("PRAGMA journal_mode = WAL").fetchone()


def _replace(unfinished: Path, store: Path) -> tuple[str, ...]:
    """Rename the new store over the old one; returns the names of files that were wiped."""
    former = former_path(store)
    former.unlink(missing_ok=True)
    with suppress(OSError):  # a file system without links: the old bytes are freed as they are
        os.link(store, former)
    unfinished.replace(store)
    sync_path(store.parent)
    # The old file is locked still: who waits for it finds that it is no store, and looks again.
    if not wipe(former):
        return ()
    former.unlink(missing_ok=True)
    return (store.name,)
