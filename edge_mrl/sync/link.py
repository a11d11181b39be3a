"""A store's way to its server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_mrl.bundle import read_manifest
from edge_mrl.errors import NotEnrolledError, ServerError, UsageError
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
#: A clock that was further off than this has been wrong, and was or will be set.
WRONG_MS = 86_400_000


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
        self._store.refresh()
        space_id = self._store.binding.space_id
        before = self._remote
        if before is not None and found == self._credentials and before.space_id == space_id:
            return before
        if before is not None:
            before.close()
        self._remote = remote = Remote(found, space_id, timeouts=self._timeouts)
        self._credentials = found
        return remote

    def renew(self, remote: Remote, *, refused: bool = False) -> None:
        """Ask for a new token when the present one expires soon.

        A kill or a power cut at any step leaves a token that works. What is drawn for the request is on
        disk before it is sent, so that the next request, of whichever process, gets the same token. Both
        tokens are on disk before the new one is used, and the old one is valid until then. It is kept
        behind that too: a server that is restored from a copy may know that one alone.

        Args:
            remote: The server.
            refused: Whether the server has just refused the token: it may have expired by its clock, and
                is good for a new one for a while.

        Raises:
            ServerError: "token": the server gives this device no token any more.
            NetworkError: The server cannot be reached.
        """
        found = self._credentials
        if found is None or not (refused or self._expires_soon(found, remote.offset_ms)):
            return
        there = Credentials.read(self._store)
        if there not in (None, found) and there is not None and there.device == found.device:
            self._take_over(remote, there)  # another process has renewed it
            return
        nonce = replica.draw_nonce(self._store, found.token)
        try:
            token, expires_ms = remote.new_token(nonce)
        except ServerError as error:
            # Too many requests, or a server in trouble: the present token is good for some days yet.
            if refused or error.code == "token":
                raise
            return
        # Whichever of the two tokens the server knew: that is the former one now.
        fresh = replace(found, token=token, previous=remote.token, expires_ms=expires_ms)
        self._take_over(remote, found.replace(self._store, fresh))

    def keep(self, remote: Remote) -> None:
        """Write down which token the server knows, if that is the former one: it is renewed next."""
        found = self._credentials
        if found is not None and remote.token == found.previous:
            fresh = replace(found, token=remote.token, previous=found.token, expires_ms=0)
            self._take_over(remote, found.replace(self._store, fresh))

    def _take_over(self, remote: Remote, found: Credentials) -> None:
        """Use the tokens that are on disk, and no others: using one ends all that are not."""
        self._credentials, remote.token, remote.spare = found, found.token, found.previous

    def _expires_soon(self, found: Credentials, offset_ms: int | None) -> bool:
        """Whether it does by the server's clock, as this run knows it, or else as an earlier one did."""
        if found.expires_ms is None:
            return False
        if offset_ms is None:  # nothing was to be sent, and nothing is pulled
            enrollment = replica.enrollment_of(self._store)
            offset_ms = 0 if enrollment is None else enrollment.offset_ms
            if abs(offset_ms) > WRONG_MS:  # the clock may have been set right since
                return False
        return found.expires_ms - (now_ms() + offset_ms) <= RENEW_MS

    def close(self) -> None:
        """Close the connection."""
        if self._remote is not None:
            self._remote.close()

    def _own_credentials(self) -> Credentials:
        """The credentials beside the store, if they are the store's own."""
        path = self._store.path
        file = credentials_path(path).name
        again = f"run `edge-mrl enroll --server URL --invitation - --store {path}`"
        found = Credentials.read(self._store)
        enrollment = replica.enrollment_of(self._store)
        if found is None:
            if enrollment is None:
                raise NotEnrolledError(path)
            raise UsageError(
                f"{path} is a copy, or its file {file} was deleted. Two stores must not be one device: "
                f"{again}"
            )
        if enrollment is None or found.device != enrollment.device == found.replaces:
            self._finish_enrolling(found)  # it was interrupted after the server's answer
        elif enrollment.device != found.device:
            raise UsageError(
                f"{path} is device {enrollment.device}, but its file {file} belongs to device "
                f"{found.device}: one of them was copied or restored; {again}"
            )
        return found

    def _finish_enrolling(self, found: Credentials) -> None:
        asked = replica.enrolling_of(self._store)
        wanted = Enrollment(found.server, found.tenant, found.device)
        if asked is not None:
            wanted = replace(wanted, with_text=asked.with_text, max_queue=asked.max_queue)
        full_dim = read_manifest(find_bundle(self._store)).full_dim
        replica.enroll(self._store, wanted, full_dim=full_dim)
