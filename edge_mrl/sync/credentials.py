"""A store's token. It lies beside the store, not in it, so that a copied store is not a second device."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.errors import StoreError, UsageError
from edge_mrl.machine import sync_path

if TYPE_CHECKING:
    from edge_mrl.store import Store

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
    def read(cls, store: Path) -> Credentials | None:
        """Read a store's credentials.

        Args:
            store: The store's file.

        Returns:
            The credentials, or None if there is no file of them.

        Raises:
            StoreError: The file cannot be read, or edge-mrl did not write it.
        """
        path = credentials_path(store)
        try:
            values = json.loads(path.read_text("utf-8"))
            # What a newer release keeps here is no damage.
            known = {field.name for field in fields(cls)}
            found = cls(**{name: value for name, value in values.items() if name in known})
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} is damaged: delete it and enroll again") from error
        named = (found.server, found.tenant, found.device, found.token)
        if not all(isinstance(value, str) and value for value in named):
            raise StoreError(f"{path} is damaged: delete it and enroll again")
        return found

    def write(self, store: Path) -> None:
        """Write the credentials of a store, atomically; only the file's owner can read them.

        They are on the storage device when this returns, the folder's entry too: a power cut leaves the
        former file or this one, whole.

        Args:
            store: The store's file.

        Raises:
            UsageError: The file cannot be written.
        """
        path = credentials_path(store)
        part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
        try:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
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
            there = Credentials.read(store.path)
            if there not in (None, self):
                assert there is not None
                return there
            fresh.write(store.path)
        return fresh


def credentials_path(store: Path) -> Path:
    """The file with a store's credentials."""
    return store.with_name(f"{store.name}-sync.json")
