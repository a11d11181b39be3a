"""Documents that arrived, as a store keeps them; those that it cannot keep, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.bundle import bundle_codes
from edge_mrl.documents import Document
from edge_mrl.errors import NetworkError, reason
from edge_mrl.store import Entry, replica
from edge_mrl.wire import Item, UnreadableItem, Version

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.bundle import Manifest

__all__ = ["Entries", "withheld"]

#: float16 vectors of unit length: rounding moves the length of 4,096 values by less than 0.1 %.
LENGTH_TOLERANCE = 0.01


class Entries:
    """Makes entries of items.

    Args:
        manifest: The bundle's.
        full: Whether items have full vectors, of which codes are made here.
        head: Reads the projection head.
    """

    def __init__(
        self, manifest: Manifest, *, full: bool, head: Callable[[], NDArray[np.float32] | None]
    ) -> None:
        self._manifest = manifest
        self._full = full
        self._head = head

    def of(
        self, items: Sequence[Item], unreadable: Sequence[UnreadableItem] = ()
    ) -> tuple[list[tuple[Item, Entry | None]], list[replica.Withheld]]:
        """Documents that can be stored, and the others.

        Args:
            items: What arrived.
            unreadable: What arrived with them and could not even be read.

        Raises:
            NetworkError: The vectors of the whole page have another type or number of dimensions.
        """
        self._check_kind(items)
        pairs: list[tuple[Item, Entry | None]] = []
        others = [_unreadable(item) for item in unreadable]
        for item in items:
            try:
                pairs.append((item, self._entry(item)))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this document's alone
                others.append(withheld(item, error))
        return pairs, others

    def _check_kind(self, items: Sequence[Item]) -> None:
        manifest = self._manifest
        packed = manifest.code.packing.bytes(manifest.dim)
        expected = (
            {"float16": manifest.full_dim}
            if self._full
            else {"int8": manifest.dim, "uint8": packed}
        )
        for item in items:
            rows = item.vectors
            if len(rows) and expected.get(rows.dtype.name) != rows.shape[1]:
                kinds = " or ".join(f"{kind}[n, {width}]" for kind, width in expected.items())
                raise NetworkError(
                    f"the server sent {rows.dtype}[n, {rows.shape[1]}] for document {item.id!r}, "
                    f"expected {kinds}"
                )

    def _entry(self, item: Item) -> Entry | None:
        """A document as the store keeps it."""
        if item.deleted:
            return None
        codes, full = self._codes(item)
        spans: Sequence[tuple[int, int]] = item.spans
        if item.text is None:
            spans = [(0, 0)] * len(codes)
        document = Document(item.id, item.text or "", item.metadata or {})
        return Entry(document, spans, codes, full)

    def _codes(self, item: Item) -> tuple[NDArray[np.int8], NDArray[np.float32] | None]:
        manifest, rows = self._manifest, item.vectors
        if not len(rows):
            empty = np.empty((0, manifest.full_dim or 1), np.float32)
            return np.empty((0, manifest.dim), np.int8), empty
        if rows.dtype == np.uint8:
            return manifest.code.packing.representatives(rows, manifest.dim), None
        if not self._full:
            return rows, None
        full = rows.astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.linalg.norm(full, axis=1)
        # A comparison with what is not finite is False.
        if not (np.abs(lengths - 1) <= LENGTH_TOLERANCE).all():
            raise ValueError("a vector that is not finite, or not of unit length")
        codes = bundle_codes(full, self._head(), manifest)
        return codes, full


def withheld(item: Item, error: Exception) -> replica.Withheld:
    """A document that cannot be stored, as it is remembered."""
    version = Version(item.stamp, item.device or "")
    return replica.Withheld(item.id, version, item.deleted, replica.UNREADABLE, reason(error))


def _unreadable(item: UnreadableItem) -> replica.Withheld:
    version = Version(item.stamp, item.device or "")
    return replica.Withheld(item.id, version, item.deleted, replica.UNREADABLE, item.problem)
