"""A store's way to its server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_mrl.bundle import read_manifest
from edge_mrl.errors import NotEnrolledError, UsageError
from edge_mrl.store import Enrollment, find_bundle, replica
from edge_mrl.sync.credentials import Credentials, credentials_path
from edge_mrl.sync.remote import Remote
from edge_mrl.wire import now_ms

if TYPE_CHECKING:
    from edge_mrl.store import Store
    from edge_mrl.sync.transport import Timeouts

__all__ = ["Link"]

#: A token is renewed when less than this is left of its life.
RENEW_MS = 14 * 86_400_000


class Link:
    """Opens the connection that a store's credentials describe. For one thread at a time.

    Args:
        store: The store.
        timeouts: How long to wait.
    """

    def __init__(self, store: Store, timeouts: Timeouts | None) -> None:
        self._store = store
        self._timeouts = timeouts
        self._remote: Remote | None = None
        self._credentials: Credentials | None = None

    def follow(self) -> Remote:
        """The server that the credentials name; another process may have replaced them.

        Raises:
            NotEnrolledError: The store is not enrolled.
            UsageError: The store is a copy of one that is.
        """
        found = self._own_credentials()
        if found != self._credentials or self._remote is None:
            if self._remote is not None:
                self._remote.close()
            space_id = self._store.binding.space_id
            self._remote = Remote(found, space_id, timeouts=self._timeouts)
            self._credentials = found
        return self._remote

    def renew(self, remote: Remote) -> None:
        """Ask for a new token when the old one expires soon; the old one is valid until then."""
        found = self._credentials
        if found is None or found.expires_ms is None:
            return
        enrollment = replica.enrollment_of(self._store)
        offset_ms = 0 if enrollment is None else enrollment.offset_ms
        if found.expires_ms - (now_ms() + offset_ms) > RENEW_MS:
            return
        token, expires_ms = remote.new_token()
        fresh = replace(found, token=token, expires_ms=expires_ms)
        fresh.write(self._store.path)
        self._credentials, remote.token = fresh, token

    def close(self) -> None:
        """Close the connection."""
        if self._remote is not None:
            self._remote.close()

    def _own_credentials(self) -> Credentials:
        """The credentials beside the store, if they are the store's own."""
        path = self._store.path
        file = credentials_path(path).name
        again = f"run `edge-mrl enroll --server URL --invitation INVITATION --store {path}`"
        found = Credentials.read(path)
        enrollment = replica.enrollment_of(self._store)
        if found is None:
            if enrollment is None:
                raise NotEnrolledError(path)
            raise UsageError(
                f"{path} is a copy, or its file {file} was deleted. Two stores must not be one device: "
                f"{again}"
            )
        if enrollment is None:  # enrolling was interrupted after the server's answer
            wanted = Enrollment(found.server, found.tenant, found.device)
            full_dim = read_manifest(find_bundle(self._store)).full_dim
            replica.enroll(self._store, wanted, full_dim=full_dim)
        elif enrollment.device != found.device:
            raise UsageError(
                f"{path} is device {enrollment.device}, but its file {file} belongs to device "
                f"{found.device}: one of them was copied or restored; {again}"
            )
        return found
