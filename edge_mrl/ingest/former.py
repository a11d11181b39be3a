"""Former names of this room, which warn; they go with the next minor version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.ingest.again import recode

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_mrl.encode import Encoder
    from edge_mrl.ingest.embedding import Refused
    from edge_mrl.store import Store, reindex

__all__: list[str] = []


def embed_again(
    store: Store,
    encoder: Encoder,
    wanted: reindex.Reindexing,
    progress: Callable[[int, int], None] | None,
    refused: list[Refused] | None = None,
) -> int:
    """Embed all texts of a store with another bundle, then change to it: ``recode`` with known=None.

    Args:
        store: The store.
        encoder: The new bundle's.
        wanted: What the store is changed to.
        progress: Called with documents done and documents in all.
        refused: Documents whose texts the bundle cannot take are added to this list.

    Returns:
        The number of documents that this call embedded.

    Raises:
        UsageError: The store keeps full vectors and the new bundle gives none.
    """
    tally = recode(store, encoder, wanted, progress=progress, known=None)
    if refused is not None:
        refused.extend(tally.refused)
    return tally.embedded + len(tally.refused)
