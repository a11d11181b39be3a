"""Whether a store and its server hold the same documents; groups that differ are pulled again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from edge_mrl.store import replica
from edge_mrl.wire import now_ms

if TYPE_CHECKING:
    from edge_mrl.store import Store
    from edge_mrl.sync.outcome import Tally
    from edge_mrl.sync.pull import Puller
    from edge_mrl.sync.pulls.page import ChangePage
    from edge_mrl.wire import Version

__all__ = ["Comparison"]


class Claim(Protocol):
    """Tells a server which versions it lacks."""

    def __call__(self, *, lost: Sequence[tuple[str, Version]]) -> object:
        """Name versions by id."""


class Comparison:
    """Compares a store with its server, at the end of a pull.

    Args:
        store: The store.
        puller: Pulls groups again.
        tally: Told what that changed.
    """

    def __init__(self, store: Store, puller: Puller, tally: Tally) -> None:
        self._store = store
        self._puller = puller
        self._tally = tally

    def agrees(self, page: ChangePage, *, claim: Claim) -> bool:
        """Whether nothing is left to do; otherwise something was queued, or pulled again.

        Args:
            page: The last page of the pull.
            claim: Tells the server which versions it has lost.

        Raises:
            ServerError: "restored": the server has begun a new epoch.
        """
        groups = replica.agreement_of(self._store).pending
        differs = 0
        if not groups:
            groups = self._differing(page)
            differs = len(groups)
        if not groups:
            return True
        settled = self._settle(groups, differs=differs)
        if settled.claims:
            claim(lost=settled.claims)
            self._puller.changes()  # which a server that believes it refuses: "restored"
            self._settle(groups, differs=0, claimed=True)
        return False

    def _settle(
        self, groups: frozenset[int], *, differs: int, claimed: bool = False
    ) -> replica.Settled:
        there, offers = self._puller.groups(groups, differs=differs)
        settled = replica.settle_groups(self._store, there, groups, offers=offers, claimed=claimed)
        self._tally.settled(settled)
        return settled

    def _differing(self, page: ChangePage) -> frozenset[int]:
        """The groups that are to be pulled again: those that differ, if it is time for that."""
        here = replica.local_sums(self._store)
        if page.sum is None or (here.cursor, here.epoch) != (page.cursor, page.epoch):
            return frozenset()
        now = replica.agreement_of(self._store)
        if here.sums.total == page.sum:
            self._tally.differs(0)
            if now.tries or now.differs or now.there:
                replica.note_agreed(self._store)
            return frozenset()
        if (now.there, now.here) == (page.sum, here.sums.total):
            return frozenset()
        if now_ms() < now.next_ms:
            self._tally.differs(now.differs)
            return frozenset()
        return self._differing_groups()

    def _differing_groups(self) -> frozenset[int]:
        page = self._puller.sums()
        here = replica.local_sums(self._store, anew=True)
        if page.sums is None or (here.cursor, here.epoch) != (page.cursor, page.epoch):
            return frozenset()
        groups = frozenset(here.sums.differing(page.sums)) - here.excused
        if not groups:
            replica.note_explained(self._store, there=page.sums.total, here=here.sums.total)
            return groups
        replica.note_difference(self._store, groups)
        self._tally.differs(len(groups))
        return groups
