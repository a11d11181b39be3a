"""New codes of a store's documents, made by its server, which has the full vectors of all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.sync.budget import Budget
from edge_mrl.sync.identity.marks import Marks
from edge_mrl.sync.link import Link
from edge_mrl.sync.outcome import Tally
from edge_mrl.sync.pull import Puller
from edge_mrl.wire import Version

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_mrl.store import Store

__all__ = ["ServerCodes"]


class ServerCodes:
    """Asks a store's server for the codes of another bundle of the same embedding space.

    Args:
        store: The enrolled store.
        folder: The other bundle's folder.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder

    def pages(
        self, groups: Collection[int]
    ) -> Iterator[list[tuple[str, Version, NDArray[np.int8]]]]:
        """Documents of some groups of ids, a page at a time: id, version and codes int8[n, dim].

        Raises:
            NetworkError: The server cannot be reached, or refuses.
            UsageError: The store's credentials are missing, or another's.
        """
        link = Link(self._store, None)
        try:
            remote = link.follow()
            budget = Budget()
            budget.start(remote)
            remote.marks = marks = Marks(self._store)
            try:
                link.renew(remote)
                puller = Puller(
                    self._store,
                    remote,
                    budget=budget,
                    tally=Tally(budget, None),
                    folder=self._folder,
                )
                for page in puller.coded(groups):
                    yield [
                        (item.id, Version(item.stamp, item.device or ""), entry.codes)
                        for item, entry in page
                        if entry is not None
                    ]
            finally:
                marks.keep()
                remote.marks = None
                link.keep(remote)
        finally:
            link.close()
