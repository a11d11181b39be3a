"""One bit of every dimension of every vector, in memory: which documents are worth a closer look.

SQLite has no index over vectors. The signs of 100,000 vectors of 384 dimensions take 5 MB, and another
megabyte says whose they are. All are compared in a few milliseconds; the nearest are then scored with
their full vectors.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_mrl_server.storage.records import Tenant

__all__ = ["BitCache", "Page", "Source"]

#: Tenants whose bits are kept: the last used, together at most so large.
MAX_BYTES = 256 << 20
#: Documents whose full vectors are looked at, at least. Of 30,000 clustered vectors, 200 find as many of
#: the ten nearest as 1,000 do (99.7 %).
SHORTLIST = 500
PAGE = 2_000
#: Rows of what was replaced are given up when they are one of so many, and more than a page.
DEAD_SHARE = 50


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """What is new in some changes of a tenant.

    Attributes:
        change: The last of the changes.
        more: Whether there may be others behind it.
        owners: int64[n]: for each vector the change in which its document was written.
        vectors: float16[n, full_dim].
    """

    change: int
    more: bool
    owners: NDArray[np.int64]
    vectors: NDArray[np.float16]


class Source(Protocol):
    """Where documents are read from. A change is of one document, and only until that is written anew."""

    def page(self, tenant: str, change: int, limit: int) -> Page:
        """The documents of the next changes after one."""

    def live(self, tenant: str) -> NDArray[np.int64]:
        """int64: the changes of all documents that are there."""

    def names(self, tenant: str, changes: Sequence[int]) -> dict[int, str]:
        """Ids of the documents that are there, by their changes."""


@dataclass(eq=False)
class _Bits:
    """A tenant's bits as of a change.

    Rows of what was replaced stay until there are too many: no document has their change any more.
    """

    change: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    owners: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    bits: NDArray[np.uint64] | None = None
    used: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.owners.nbytes + (0 if self.bits is None else self.bits.nbytes)


class BitCache:
    """Bits of the tenants that were searched last. Thread-safe."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._tenants: OrderedDict[str, _Bits] = OrderedDict()

    def shortlist(
        self, source: Source, tenant: Tenant, query: NDArray[np.float32], k: int
    ) -> list[str]:
        """Ids of the documents whose signs are nearest to the query's.

        Args:
            source: A transaction, to read what is new since the last search.
            tenant: Whose, as this transaction sees it.
            query: float32[full_dim].
            k: How many documents are wanted in the end.
        """
        with self._lock:
            # Of this epoch: a tenant may be deleted, and another one made under its name.
            key = f"{tenant.name} {tenant.epoch}"
            entry = self._tenants.setdefault(key, _Bits())
            self._tenants.move_to_end(key)
        with entry.lock:
            if entry.change > tenant.change:
                _reset(entry)  # a transaction from before the cache
            _catch_up(entry, source, tenant)
            names = _nearest(entry, source, tenant.name, query, max(SHORTLIST, 10 * k))
        self._evict(key)
        return names

    def _evict(self, keep: str) -> None:
        with self._lock:
            size = sum(entry.nbytes for entry in self._tenants.values())
            while size > self._max_bytes and next(iter(self._tenants)) != keep:
                _, entry = self._tenants.popitem(last=False)
                size -= entry.nbytes


def _reset(entry: _Bits) -> None:
    entry.change, entry.used = 0, 0
    entry.owners, entry.bits = np.empty(0, np.int64), None


def _catch_up(entry: _Bits, source: Source, tenant: Tenant) -> None:
    while entry.change < tenant.change:
        page = source.page(tenant.name, entry.change, PAGE)
        _append(entry, page)
        entry.change = page.change if page.more else tenant.change
    if entry.used - tenant.passages > max(PAGE, entry.used // DEAD_SHARE):
        _give_up_dead(entry, source.live(tenant.name))


def _give_up_dead(entry: _Bits, live: NDArray[np.int64]) -> None:
    assert entry.bits is not None
    kept = np.isin(entry.owners[: entry.used], live)
    owners, bits = entry.owners[: entry.used][kept], entry.bits[: entry.used][kept]
    entry.owners, entry.bits, entry.used = owners, bits, len(owners)


def _append(entry: _Bits, page: Page) -> None:
    count = len(page.owners)
    if not count:
        return
    packed = _pack(page.vectors)
    if entry.bits is None:
        entry.bits = np.zeros((0, packed.shape[1]), np.uint64)
    if entry.used + count > len(entry.bits):
        size = max(PAGE, (entry.used + count) * 5 // 4)
        grown, owners = np.zeros((size, packed.shape[1]), np.uint64), np.zeros(size, np.int64)
        grown[: entry.used], owners[: entry.used] = (
            entry.bits[: entry.used],
            entry.owners[: entry.used],
        )
        entry.bits, entry.owners = grown, owners
    entry.bits[entry.used : entry.used + count] = packed
    entry.owners[entry.used : entry.used + count] = page.owners
    entry.used += count


def _pack(vectors: NDArray[np.float16] | NDArray[np.float32]) -> NDArray[np.uint64]:
    """uint64[n, ceil(dim / 64)]: the signs."""
    packed = np.packbits(vectors > 0, axis=1)
    padded = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)


def _nearest(
    entry: _Bits, source: Source, tenant: str, query: NDArray[np.float32], count: int
) -> list[str]:
    if entry.bits is None or not entry.used:
        return []
    wanted = _pack(query[None])[0]
    distances = np.zeros(entry.used, np.uint16)
    for word in range(len(wanted)):
        distances += np.bitwise_count(entry.bits[: entry.used, word] ^ wanted[word])
    # A document may have several passages near, and the nearest may be of what was replaced.
    take = 2 * count
    while True:
        take = min(entry.used, take)
        near = np.argpartition(distances, take - 1)[:take]
        near = near[np.argsort(distances[near], kind="stable")]
        changes = list(dict.fromkeys(entry.owners[near].tolist()))
        names = source.names(tenant, changes)
        found = [names[change] for change in changes if change in names]
        if len(found) >= count or take == entry.used:
            return found[:count]
        take *= 2
