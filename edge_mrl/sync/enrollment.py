"""Enrolling a store with a server, and following the server to a new address."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from edge_mrl.bundle import read_manifest
from edge_mrl.errors import NotEnrolledError, UsageError
from edge_mrl.store import MAX_QUEUE_BYTES, Enrollment, find_bundle, replica
from edge_mrl.sync.address import server_address
from edge_mrl.sync.budget import Budget
from edge_mrl.sync.credentials import Credentials
from edge_mrl.sync.identity.grant import request_enrollment
from edge_mrl.sync.status import Status, status_of
from edge_mrl.sync.transport import Transport

if TYPE_CHECKING:
    from edge_mrl.store import Store

__all__ = ["EnrollmentOptions", "enroll", "move"]


class EnrollmentOptions(TypedDict, total=False):
    """What may be chosen when a store is enrolled.

    Attributes:
        name: A name of the device for people (default: this machine's host name).
        ca: A file of certificates to trust instead of the system's.
        insecure: Allow http:// to other machines.
        with_text: Send text and metadata too.
        max_queue: Most bytes of vectors that wait in the store (default: 256 MiB). Further documents wait
            without their vectors, and are embedded again when they are sent.
    """

    name: str | None
    ca: str | None
    insecure: bool
    with_text: bool
    max_queue: int


def enroll(
    store: Store,
    server: str,
    invitation: str | None = None,
    *,
    code: str | None = None,
    **options: Unpack[EnrollmentOptions],
) -> Status:
    """Make a store a device of a tenant, and queue all its documents.

    Args:
        store: An open store.
        server: The server's address.
        invitation: The one-time secret from the server's administrator.
        code: The former name of ``invitation``; it goes with the next minor version.
        **options: See ``EnrollmentOptions``.

    Returns:
        Where the store's sync stands now.

    Raises:
        UsageError: The address is not one, the store is read-only, or its bundle gives no full vectors.
        NetworkError: The server cannot be reached, or refuses the invitation, or its tenant is of another
            embedding space. Calling this again with the same invitation is harmless.
    """
    invitation = _invitation(invitation, code)
    full_dim = _require_full_dim(store)
    name, ca, insecure = options.get("name"), options.get("ca"), options.get("insecure", False)
    if name is None:
        import socket

        name = socket.gethostname()
    before, space_id = replica.enrollment_of(store), store.binding.space_id
    with Transport(server, ca=ca, insecure=insecure) as transport:
        address = transport.server
        # On disk before it is sent: whatever is lost now, the same request gives the same token.
        asked = replica.begin_enrolling(
            store,
            invitation,
            with_text=options.get("with_text", False),
            max_queue=options.get("max_queue", MAX_QUEUE_BYTES),
        )
        grant = Budget().attempt(
            lambda: request_enrollment(
                transport, invitation, name, nonce=asked.nonce, space_id=space_id
            )
        )
    found = Credentials(
        server=address,
        tenant=grant.tenant,
        device=grant.device,
        token=grant.token,
        expires_ms=grant.expires_ms,
        ca=None if ca is None else str(Path(ca).resolve()),
        insecure=insecure,
        replaces=None if before is None else before.device,
    )
    # The invitation is used up now: the token is written first, then the store, which ``Link`` can bind
    # to what the file says.
    found.write(store)
    wanted = Enrollment(
        server=address,
        tenant=grant.tenant,
        device=grant.device,
        offset_ms=grant.offset_ms,
        with_text=asked.with_text,
        max_queue=asked.max_queue,
    )
    replica.enroll(store, wanted, full_dim=full_dim)
    return status_of(store)


def move(store: Store, *, server: str | None = None, ca: str | None = None) -> None:
    """Change the address of the store's server, or the certificates to trust.

    Args:
        store: An open store.
        server: The new address of the same server; None to keep the address.
        ca: A file of certificates to trust; None to keep what is trusted.

    Raises:
        NotEnrolledError: The store is not enrolled.
        UsageError: The address is not one.
    """
    found = Credentials.read(store)
    if found is None:
        raise NotEnrolledError(store.path)
    if server is not None:
        found = replace(found, server=server_address(server, insecure=found.insecure))
    if ca is not None:
        found = replace(found, ca=str(Path(ca).resolve()))
    found.write(store)
    replica.set_server(store, found.server)


def _invitation(invitation: str | None, code: str | None) -> str:
    if code is not None:
        warnings.warn(
            "enroll(code=...) is now enroll(invitation=...)", DeprecationWarning, stacklevel=3
        )
    wanted = code if invitation is None else invitation
    if wanted is None:
        raise TypeError("enroll() needs an invitation")
    return wanted


def _require_full_dim(store: Store) -> int:
    """Dimensions of the full vectors that are sent.

    Raises:
        UsageError: The store cannot be synced.
    """
    full_dim = read_manifest(find_bundle(store)).full_dim
    if full_dim is None:
        raise UsageError(
            f"{store.path} cannot be synced: its bundle gives no full vectors (it was exported with "
            "--coarse-only)"
        )
    if not store.writable:
        raise UsageError(f"{store.path} cannot be synced: it is read-only")
    return full_dim
