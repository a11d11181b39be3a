"""What a person can do about a refusal that concerns the device itself, added to the server's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.store import replica
from edge_mrl.sync.answers.fields import is_word

if TYPE_CHECKING:
    from edge_mrl.errors import ServerError
    from edge_mrl.store import Store

__all__ = ["advised"]


def advised(store: Store, error: ServerError) -> str:
    """A refusal in words, with what to do next.

    Args:
        store: The store that was refused.
        error: The refusal.
    """
    again = (
        f"run `edge-mrl enroll --server URL --invitation - --store {store.path}` with a new invitation; "
        "what waits here is kept, and sent then"
    )
    if error.code == "cloned":
        return f"{error}: {again}"
    if error.code == "token":
        return f"{error}: {again}"
    if error.code == "space":
        return f"{error}{_received(store, error)}"
    return str(error)


def _received(store: Store, error: ServerError) -> str:
    """What to do about documents that came from there before spaces were compared."""
    space = error.details.get("space")
    found = replica.note_foreign(store, space) if is_word(space) else 0
    if not found:
        return ""
    return (
        f". {found} documents here came from a server before spaces were compared, and cannot be "
        "searched with this bundle: `edge-mrl reindex` with a bundle of the server's space keeps them, "
        f"`edge-mrl sync --forget-received --store {store.path}` deletes them here and nowhere else"
    )
