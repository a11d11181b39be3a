"""A store as a device of a server: enrolled, where it stands, and its way to the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.bundle import read_manifest
from edge_mrl.errors import NotEnrolledError, UsageError
from edge_mrl.index import find_bundle
from edge_mrl.store import MAX_QUEUE_BYTES, Enrollment, Queue, replica
from edge_mrl.sync.credentials import Credentials
from edge_mrl.sync.remote import Remote
from edge_mrl.sync.remote import enroll as ask_to_enroll
from edge_mrl.sync.transport import Timeouts, Transport, server_address
from edge_mrl.wire import now_ms

if TYPE_CHECKING:
    from edge_mrl.documents import Document
    from edge_mrl.encode import Encoder
    from edge_mrl.store import Store

__all__ = ["Link", "Status", "enroll", "move", "retry_letters", "status_of"]

#: A token is renewed when less than this is left of it.
RENEW_MS = 14 * 86_400_000


@dataclass(frozen=True, slots=True)
class Status:
    """Where a store's sync stands.

    Attributes:
        server: The server's address.
        tenant: Whose documents these are.
        device: This store's name there.
        queue: What waits.
        dead: Versions that will not be sent.
        cursor: The server's last change that was pulled.
        success_ms: When a sync last went through, in milliseconds since 1970; None for never.
        with_text: Whether text and metadata are sent.
        waiting: Why it waits; None where nothing failed.
    """

    server: str
    tenant: str
    device: str
    queue: Queue
    dead: int
    cursor: int
    success_ms: int | None
    with_text: bool
    waiting: str | None


def enroll(  # noqa: PLR0913 - each is a choice of its own, made once
    store: Store,
    server: str,
    code: str,
    *,
    name: str | None = None,
    ca: str | None = None,
    insecure: bool = False,
    with_text: bool = False,
    max_queue: int = MAX_QUEUE_BYTES,
) -> Status:
    """Make a store a device of a tenant; every document that is there is queued.

    Args:
        store: An open store.
        server: The server's address.
        code: The one-time code from its administrator.
        name: What the device is called there, for people; None for this machine's name.
        ca: A file of certificates to trust instead of the system's.
        insecure: Allow http:// to other machines.
        with_text: Send text and metadata too.
        max_queue: Bytes of vectors that may wait in the store.

    Raises:
        UsageError: The address is none, or the bundle gives no full vectors.
        NetworkError: The server cannot be reached, or refuses the code.
    """
    full_dim = read_manifest(find_bundle(store)).full_dim
    if full_dim is None or not store.writable:
        raise UsageError(
            f"{store.path} cannot be synced: "
            + (
                "its bundle gives no full vectors (it was exported with --coarse-only)"
                if full_dim is None
                else "it is read-only"
            )
        )
    if name is None:
        import socket

        name = socket.gethostname()
    with Transport(server, ca=ca, insecure=insecure) as transport:
        grant = ask_to_enroll(transport, code, name)
        address = transport.server
    found = Credentials(
        address,
        grant.tenant,
        grant.device,
        grant.token,
        grant.expires_ms,
        None if ca is None else str(Path(ca).resolve()),
        insecure,
    )
    # The code is spent: the token first, then the store, which is bound to what the file says.
    found.write(store.path)
    wanted = Enrollment(
        address, grant.tenant, grant.device, offset_ms=grant.offset_ms, with_text=with_text,
        max_queue=max_queue,
    )  # fmt: skip
    replica.enroll(store, wanted, full_dim=full_dim)
    return status_of(store)


def move(store: Store, *, server: str | None = None, ca: str | None = None) -> None:
    """Note the same server's new address, or new certificates to trust.

    Raises:
        UsageError: The store is not enrolled, or the address is none.
    """
    found = Credentials.read(store.path)
    if found is None:
        raise NotEnrolledError(store.path)
    if server is not None:
        found = replace(found, server=server_address(server, insecure=found.insecure))
    if ca is not None:
        found = replace(found, ca=str(Path(ca).resolve()))
    found.write(store.path)
    replica.set_server(store, found.server)


class Link:
    """A store's way to its server, by the file of its credentials. For one thread at a time.

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
        """The server by the credentials' file, which another process may have replaced.

        Raises:
            UsageError: The store is not enrolled, or is a copy of one that is.
        """
        found = Credentials.read(self._store.path)
        enrollment = replica.enrollment_of(self._store)
        where = self._store.path
        again = f"`edge-mrl enroll --server URL --invitation INVITATION --store {where}`"
        if found is None:
            if enrollment is None:
                raise NotEnrolledError(where)
            raise UsageError(
                f"{where} is a copy, or its file {where.name}-sync.json is gone: two stores must not "
                f"be one device; enroll this one, {again}"
            )
        if enrollment is None:  # enrolling was interrupted behind the server's answer
            wanted = Enrollment(found.server, found.tenant, found.device)
            full_dim = read_manifest(find_bundle(self._store)).full_dim
            replica.enroll(self._store, wanted, full_dim=full_dim)
        elif enrollment.device != found.device:
            raise UsageError(
                f"{where} is device {enrollment.device}, its file {where.name}-sync.json is of device "
                f"{found.device}: it was copied or restored; {again}"
            )
        if found != self._credentials or self._remote is None:
            if self._remote is not None:
                self._remote.close()
            space_id = self._store.binding.space_id
            self._remote = Remote(found, space_id, timeouts=self._timeouts)
            self._credentials = found
        return self._remote

    def renew(self, remote: Remote) -> None:
        """Ask for a new token in good time; the old one lives until the new one is used."""
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


def status_of(store: Store, waiting: str | None = None) -> Status:
    """Where a store's sync stands.

    Raises:
        UsageError: It is not enrolled.
    """
    found = replica.enrollment_of(store)
    if found is None:
        raise NotEnrolledError(store.path)
    return Status(
        found.server,
        found.tenant,
        found.device,
        replica.queue_of(store),
        replica.count_dead_letters(store),
        found.cursor,
        found.success_ms or None,
        found.with_text,
        waiting,
    )


def retry_letters(
    store: Store, encoder: Callable[[], Encoder], ids: Iterable[str] | None = None
) -> int:
    """Queue dead letters again; documents that were deleted elsewhere are embedded and put again."""
    queued, documents = replica.requeue_dead_letters(store, ids)
    return queued + _put_again(store, encoder, documents)


def _put_again(store: Store, encoder: Callable[[], Encoder], documents: Sequence[Document]) -> int:
    if not documents:
        return 0
    from edge_mrl.ingest import embed

    store.put(embed(encoder(), documents, store.rule, store.keep_full))
    return len(documents)
