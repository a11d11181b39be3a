"""Where a store's sync stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_mrl.errors import NotEnrolledError
from edge_mrl.store import Queue, replica

if TYPE_CHECKING:
    from edge_mrl.store import Store

__all__ = ["Status", "status_of"]


@dataclass(frozen=True, slots=True)
class Status:
    """Where a store's sync stands.

    Attributes:
        server: The server's address.
        tenant: The tenant whose documents the store syncs.
        device: This store's name at the server.
        queue: What waits to be sent.
        dead: How many versions are dead letters: they will not be sent.
        cursor: The last change of the server that was pulled; 0 for none.
        success_ms: When a sync last succeeded, in milliseconds since 1970; None for never.
        with_text: Whether text and metadata are sent.
        waiting: Why the last run ended early; None if it did not.
        differs: In how many of 256 groups of ids store and server held different documents when they were
            last compared, after the groups were pulled again; 0 if they held the same.
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
    differs: int = 0


def status_of(store: Store, waiting: str | None = None) -> Status:
    """Where a store's sync stands.

    Args:
        store: An open store.
        waiting: Why the last run ended early, if the caller knows.

    Raises:
        NotEnrolledError: The store is not enrolled.
    """
    found = replica.enrollment_of(store)
    if found is None:
        raise NotEnrolledError(store.path)
    return Status(
        server=found.server,
        tenant=found.tenant,
        device=found.device,
        queue=replica.queue_of(store),
        dead=replica.count_dead_letters(store),
        cursor=found.cursor,
        success_ms=found.success_ms or None,
        with_text=found.with_text,
        waiting=waiting,
        differs=replica.agreement_of(store).differs,
    )
