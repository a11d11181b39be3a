"""What comes with a push: whether vectors are valid, and a version that comes again is the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_mrl.wire import Item
from edge_mrl_server.storage.database import Transaction
from edge_mrl_server.storage.records import Row, Tenant

__all__ = ["other_contents", "valid_vectors"]

#: Vectors are float16 of unit length: rounding moves the length of 4,096 of them by less than 0.1 %.
LENGTH_TOLERANCE = 0.01
#: Vectors of one text that were made twice are this near at least (float16, other batches). Where no
#: text is sent, texts whose vectors are as near are found by the same queries.
SAME_COSINE = 0.99


def other_contents(
    transaction: Transaction,
    sender: tuple[Tenant, str],
    items: Mapping[int, Item],
    known: Mapping[str, Row],
) -> set[int]:
    """Places of items whose version is there with another content.

    One device never gives a version twice, so these were written by copies of a store whose clock was
    behind: "applied" would leave one of the two contents on one machine alone, for ever. The contents
    themselves are compared, not hashes of them: vectors that were made again differ in their last bits.
    """
    tenant, device = sender
    same = {
        place: item
        for place, item in items.items()
        if item.id in known
        and (known[item.id]["stamp"], known[item.id]["device"]) == (item.stamp, device)
    }
    if not same:
        return set()
    names = [item.id for item in same.values()]
    found = transaction.documents(tenant.name, "id, deleted, text, metadata", names)
    there = {row["id"]: row for row in found}
    vectors = transaction.vectors(tenant.name, names)
    none = np.zeros((0, 1), np.float16)
    return {
        place
        for place, item in same.items()
        if not _equal(item, there[item.id], vectors.get(item.id, none))
    }


def _equal(item: Item, row: Row, vectors: NDArray[np.float16]) -> bool:
    """Whether an item is what a row holds. What was sent once without its text may come with it."""
    if bool(row["deleted"]) != item.deleted or len(item.vectors) != len(vectors):
        return False
    if item.text is not None and row["text"] is not None:
        metadata = None if row["metadata"] is None else json.loads(bytes(row["metadata"]))
        return bytes(row["text"]).decode() == item.text and (metadata or {}) == (
            dict(item.metadata or {})
        )
    cosines = np.einsum("ij,ij->i", item.vectors.astype(np.float32), vectors.astype(np.float32))
    return bool((cosines >= SAME_COSINE).all())


def valid_vectors(items: Sequence[Item]) -> NDArray[np.bool_]:
    """Which vectors are finite and of unit length."""
    parts = [item.vectors for item in items if len(item.vectors)]
    if not parts:
        return np.zeros(0, bool)
    whole = np.concatenate(parts).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", whole, whole))
    # A comparison with what is not finite is False.
    valid: NDArray[np.bool_] = np.abs(lengths - 1) <= LENGTH_TOLERANCE
    return valid
