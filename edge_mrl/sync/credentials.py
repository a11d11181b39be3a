"""A store's token. It lies beside the store, not in it, so that a copied store is not a second device."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from edge_mrl.errors import StoreError, UsageError
from edge_mrl.machine import BINARY, sync_path
from edge_mrl.store import PrivateData, Store, private_data

__all__ = ["Credentials", "credentials_path"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a device needs to talk to its server.

    Attributes:
        server: The server's address.
        tenant: The tenant whose documents the device syncs.
        device: The device's id at the server.
        token: The secret that is sent with each request.
        expires_ms: When the token expires, in milliseconds since 1970; None if it does not.
        ca: A file of certificates to trust instead of the system's.
        insecure: Whether http:// to other machines was allowed.
        previous: The token before this one. It is valid until this one was used, and again if the server
            is restored from a copy of before that.
        replaces: The device that the store was before it was enrolled anew; None if it was none.
    """

    server: str
    tenant: str
    device: str
    token: str
    expires_ms: int | None = None
    ca: str | None = None
    insecure: bool = False
    previous: str | None = None
    replaces: str | None = None

    def __repr__(self) -> str:
        """Leave out the secret: what is printed may end up in logs."""
        return f"Credentials({self.server!r}, {self.tenant!r}, {self.device!r})"

    @classmethod
    def read(cls, store: Store | Path) -> Credentials | None:
        """Read a store's credentials.

        Args:
            store: The open store; or the file of a plain one.

        Returns:
            The credentials, or None if there is no file of them.

        Raises:
            StoreError: The file cannot be read, or edge-mrl did not write it.
        """
        path = _place(store)
        named = path if isinstance(path, Path) else path.name
        try:
            values = json.loads(path.read_bytes())
            # What a newer release keeps here is no damage.
            known = {field.name for field in fields(cls)}
            found = cls(**{name: value for name, value in values.items() if name in known})
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{named} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreError(f"{named} is damaged: delete it and enroll again") from error
        wanted = (found.server, found.tenant, found.device, found.token)
        if not all(isinstance(value, str) and value for value in wanted):
            raise StoreError(f"{named} is damaged: delete it and enroll again")
        return found

    def write(self, store: Store | Path) -> None:
        """Write the credentials of a store, atomically; only the file's owner can read them.

        They are on the storage device when this returns, the folder's entry too: a power cut leaves the
        former file or this one, whole.

        Args:
            store: The open store; or the file of a plain one.

        Raises:
            UsageError: The file cannot be written.
        """
        path = _place(store)
        if not isinstance(path, Path):
            path.write_bytes(json.dumps(asdict(self)).encode())
            return
        part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
        try:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
            with os.fdopen(file, "w", encoding="utf-8") as stream:
                json.dump(asdict(self), stream, indent=1)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
            sync_path(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error

    def replace(self, store: Store, fresh: Credentials) -> Credentials:
        """Write other credentials in place of these, unless another process has replaced them already.

        Args:
            store: The store; its write lock makes comparing and writing one step.
            fresh: The other ones.

        Returns:
            What is on disk now: those, or what another process wrote.

        Raises:
            UsageError: The file cannot be written.
            StoreError: The store is busy.
        """
        with store.writing():
            there = Credentials.read(store)
            if there not in (None, self):
                assert there is not None
                return there
            fresh.write(store)
        return fresh


def _place(store: Store | Path) -> Path | PrivateData:
    """Where credentials are: in a file beside a plain store, in the database of an encrypted one."""
    return credentials_path(store) if isinstance(store, Path) else private_data(store, "sync.json")


def credentials_path(store: Path) -> Path:
    """The file with a plain store's credentials."""
    return store.with_name(f"{store.name}-sync.json")
