"""The parts of a sync, put together as a run does, and lines to a real server that fail on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edge_mrl.errors import NetworkError
from edge_mrl.index import Index
from edge_mrl.store import Enrollment, Store, replica
from edge_mrl.sync.budget import Budget
from edge_mrl.sync.credentials import Credentials
from edge_mrl.sync.outcome import Outcome, Tally
from edge_mrl.sync.pull import Puller
from edge_mrl.sync.push import Pusher
from edge_mrl.sync.pushes.body import BodySize
from edge_mrl.sync.remote import Remote
from edge_mrl.sync.targets.target import PushBatch, PushResult, PushTarget

__all__ = ["FaultyRemote", "Parts", "Shelf", "enrollment_of", "remote_of"]


class FaultyRemote(Remote):
    """A real connection that counts its requests, and loses answers when told to.

    Attributes:
        asked: What was asked, in order: "push", "pull", "snapshot" or "put_head".
        pushed: Documents of each push.
        lost_answers: So many answers to pushes are lost after the server has done its work.
        changed_page: Changes pages on their way.
    """

    def __init__(self, credentials: Credentials, space_id: str) -> None:
        super().__init__(credentials, space_id)
        self.asked: list[str] = []
        self.pushed: list[int] = []
        self.lost_answers = 0
        self.changed_page: Callable[[Any], Any] = lambda page: page

    def push(self, batch: PushBatch) -> PushResult:
        self.asked.append("push")
        self.pushed.append(len(batch.items))
        result = super().push(batch)
        if self.lost_answers:
            self.lost_answers -= 1
            raise NetworkError("the answer was lost")
        return result

    def pull(self, since: int, **options: Any) -> Any:
        self.asked.append("pull")
        return self.changed_page(super().pull(since, **options))

    def snapshot(self, *args: Any, **options: Any) -> Any:
        self.asked.append("snapshot")
        return super().snapshot(*args, **options)

    def put_head(self, *args: Any, **options: Any) -> None:
        self.asked.append("put_head")
        super().put_head(*args, **options)


def remote_of(store: Store) -> FaultyRemote:
    """A connection of a store's own."""
    found = Credentials.read(store.path)
    assert found is not None
    return FaultyRemote(found, store.binding.space_id)


def enrollment_of(store: Store) -> Enrollment:
    found = replica.enrollment_of(store)
    assert found is not None
    return found


class Parts:
    """A pusher and a puller of a store, as one run has them.

    Attributes:
        steps: The outcomes after each commit.
    """

    def __init__(
        self,
        index: Index,
        target: PushTarget,
        *,
        attempts: int = 1,
        max_bytes: int | None = None,
        body: BodySize | None = None,
    ) -> None:
        self._index = index
        self._target = target
        self.steps: list[Outcome] = []
        self.body = body or BodySize()
        self.budget = Budget(max_bytes=max_bytes, attempts=attempts)
        self.budget.start(target)
        self.tally = Tally(self.budget, self.steps.append)

    @property
    def outcome(self) -> Outcome:
        return self.tally.outcome

    def pusher(self) -> Pusher:
        return Pusher(
            self._index.store,
            self._target,
            encoder=lambda: self._index.encoder,
            body=self.body,
            budget=self.budget,
            tally=self.tally,
        )

    def puller(self) -> Puller:
        assert isinstance(self._target, Remote)
        return Puller(self._index.store, self._target, budget=self.budget, tally=self.tally)


class Shelf:
    """A target in memory that is no server: it keeps the newest version of each document."""

    numbered = False

    def __init__(self) -> None:
        self.documents: dict[str, int] = {}
        self.traffic = (0, 0)
        self.closed = False

    def push(self, batch: PushBatch) -> PushResult:
        results: Sequence[tuple[str, int]] = [("applied", 0)] * len(batch.items)
        self.documents |= {item.id: item.stamp for item in batch.items}
        self.traffic = (self.traffic[0] + len(batch.frame), self.traffic[1] + 1)
        return PushResult(results)

    def close(self) -> None:
        self.closed = True
