"""One bit of every dimension of every vector, in memory: which documents are worth a closer look.

SQLite has no index over vectors. The signs of 100,000 vectors of 384 dimensions take 5 MB, and all of
them are compared in a few milliseconds; the nearest are then scored with their full vectors.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_mrl_server.storage.database import Transaction
from edge_mrl_server.storage.records import Tenant

__all__ = ["BitCache"]

#: Tenants whose bits are kept: the last used, together at most so large.
MAX_BYTES = 256 << 20
#: Documents whose full vectors are looked at, at least. Of 30,000 clustered vectors, 200 find as many of
#: the ten nearest as 1,000 do (99.7 %).
SHORTLIST = 500
PAGE = 2_000


@dataclass(eq=False)
class _Bits:
    """A tenant's bits as of a change.

    Rows of what was replaced stay, without a name, until all are read anew.
    """

    change: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    names: list[str | None] = field(default_factory=list)
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    bits: NDArray[np.uint64] | None = None
    used: int = 0
    dead: int = 0


class BitCache:
    """Bits of the tenants that were searched last. Thread-safe."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._tenants: OrderedDict[str, _Bits] = OrderedDict()

    def shortlist(
        self, transaction: Transaction, tenant: Tenant, query: NDArray[np.float32], k: int
    ) -> list[str]:
        """Ids of the documents whose signs are nearest to the query's.

        Args:
            transaction: A transaction, to read what is new since the last search.
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
            if entry.change > tenant.change or entry.dead * 2 > max(entry.used, PAGE):
                _reset(entry)  # a transaction from before the cache, or one half of it is useless
            _catch_up(entry, transaction, tenant.name, tenant.change)
            names = _nearest(entry, query, max(SHORTLIST, 10 * k))
        self._evict(key)
        return names

    def _evict(self, keep: str) -> None:
        with self._lock:
            size = sum(e.bits.nbytes for e in self._tenants.values() if e.bits is not None)
            while size > self._max_bytes and next(iter(self._tenants)) != keep:
                _, entry = self._tenants.popitem(last=False)
                size -= entry.bits.nbytes if entry.bits is not None else 0


def _reset(entry: _Bits) -> None:
    entry.change, entry.used, entry.dead = 0, 0, 0
    entry.names, entry.rows, entry.bits = [], {}, None


def _catch_up(entry: _Bits, transaction: Transaction, tenant: str, change: int) -> None:
    while entry.change < change:
        rows = transaction.rows(
            "SELECT id, change, deleted FROM documents WHERE tenant = ? AND change > ? "
            "ORDER BY change LIMIT ?",
            tenant,
            entry.change,
            PAGE,
        )
        live = [row["id"] for row in rows if not row["deleted"]]
        arrays = transaction.vectors(tenant, live)
        for row in rows:
            _forget(entry, row["id"])
        _append(entry, arrays)
        entry.change = rows[-1]["change"] if len(rows) == PAGE else change


def _forget(entry: _Bits, name: str) -> None:
    start, count = entry.rows.pop(name, (0, 0))
    entry.names[start : start + count] = [None] * count
    entry.dead += count


def _append(entry: _Bits, arrays: Mapping[str, NDArray[np.float16]]) -> None:
    for name, vectors in arrays.items():
        entry.rows[name] = (len(entry.names), len(vectors))
        entry.names += [name] * len(vectors)
    if not arrays:
        return
    packed = _pack(np.concatenate(list(arrays.values())))
    if entry.bits is None:
        entry.bits = np.zeros((max(PAGE, len(packed)), packed.shape[1]), np.uint64)
    if entry.used + len(packed) > len(entry.bits):
        grown = np.zeros((2 * (entry.used + len(packed)), packed.shape[1]), np.uint64)
        grown[: entry.used] = entry.bits[: entry.used]
        entry.bits = grown
    entry.bits[entry.used : entry.used + len(packed)] = packed
    entry.used += len(packed)


def _pack(vectors: NDArray[np.float16] | NDArray[np.float32]) -> NDArray[np.uint64]:
    """uint64[n, ceil(dim / 64)]: the signs."""
    packed = np.packbits(vectors > 0, axis=1)
    padded = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)


def _nearest(entry: _Bits, query: NDArray[np.float32], count: int) -> list[str]:
    if entry.bits is None:
        return []
    wanted = _pack(query[None])[0]
    distances = np.zeros(entry.used, np.uint16)
    for word in range(len(wanted)):
        distances += np.bitwise_count(entry.bits[: entry.used, word] ^ wanted[word])
    # A document may have several passages near, and rows without a name may be among the nearest.
    take = min(entry.used, 2 * count + entry.dead)
    near = np.argpartition(distances, take - 1)[:take]
    near = near[np.argsort(distances[near], kind="stable")]
    names = dict.fromkeys(entry.names[place] for place in near.tolist())
    return [name for name in names if name is not None][:count]
