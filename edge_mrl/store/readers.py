"""Further connections to a store, so that threads which search wait for nobody and hold up nobody.

A store has one connection, which its threads use in turn. A search takes long enough to be in others'
way, so where there are other threads it uses a connection of its own, with the codes that this one has
read. Connections are kept for the next searches.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge_mrl.errors import EdgeMrlError
from edge_mrl.store.file import inode

if TYPE_CHECKING:
    from edge_mrl.store.store import Store
    from edge_mrl.store.view import View

__all__ = ["Readers"]


#: Threads that search at once; one more waits. Each has 24 bytes a passage in memory.
MOST = 4


class Readers:
    """Opens further copies of a store as they are needed, and lends them.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._file = inode(store.path)
        self._idle: list[Store] = []
        self._seats = threading.BoundedSemaphore(MOST)
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def searching(self) -> Iterator[View]:
        """Show one state of the store throughout a block.

        In a process of one thread, the store's own connection does. So it does for an encrypted store,
        whose codes are in memory once, and for one that can only be read now: threads search in turn.
        """
        alone = threading.active_count() == 1
        if alone or self._store.encrypted or not self._store.writable:
            with self._store.reading() as view:
                yield view
            return
        with self._seats:
            store = self._take()
            try:
                with (store or self._store).reading() as view:
                    yield view
            finally:
                if store is not None:
                    self._give_back(store)

    def close(self) -> None:
        """Close those that are idle now, and the others when their block ends."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for store in idle:
            store.close()

    def _take(self) -> Store | None:
        with self._lock:
            if self._idle:
                return self._idle.pop()  # the last one used: the others' memory may be given up
        if self._closed or inode(self._store.path) != self._file:
            return None  # another file has its name now
        try:
            return self._store.open(self._store.path)
        except EdgeMrlError:
            return None  # too many open files, a full disk: the store's own connection is there

    def _give_back(self, store: Store) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(store)
                return
        store.close()
