"""One run of a sync: push what waits, then pull what changed; what stops it is part of its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_mrl.errors import NetworkError, NotEnrolledError, ServerError, UsageError
from edge_mrl.store import replica
from edge_mrl.sync.budget import (
    OUT_OF_STEP,
    Budget,
    OverBudgetError,
    attempt_backoff,
    is_temporary,
)
from edge_mrl.sync.outcome import Outcome, Tally
from edge_mrl.sync.pull import Puller
from edge_mrl.sync.push import BodySize, Pusher

if TYPE_CHECKING:
    from edge_mrl.encode import Encoder
    from edge_mrl.store import Enrollment, Store
    from edge_mrl.sync.link import Link
    from edge_mrl.sync.remote import Remote
    from edge_mrl.sync.targets.target import PushTarget

__all__ = ["Run"]

#: How often one run catches up with a server: one reason may follow another, and two processes may push
#: from one store.
CATCH_UPS = 8


@dataclass(kw_only=True, slots=True, eq=False)
class Run:
    """One run.

    Attributes:
        store: The store.
        link: The store's way to its server.
        encoder: Opens the store's encoder.
        budget: What the run may use.
        target: Where to push instead of to the server; then nothing is pulled.
        body: How much is sent in one request, as earlier runs found it.
        push_only: Push, and do not pull.
        step: Called after each commit with the outcome so far.
    """

    store: Store
    link: Link
    encoder: Callable[[], Encoder]
    budget: Budget
    target: PushTarget | None = None
    body: BodySize
    push_only: bool = False
    step: Callable[[Outcome], None] | None = None

    def sync(self) -> Outcome:
        """Push and pull. Failures of the network and refusals of the server are part of the outcome.

        Raises:
            StoreError: The store cannot be used.
        """
        tally = Tally(self.budget, self.step)
        try:
            if self.target is None:
                self._sync_with_server(tally)
            else:
                self.budget.start(self.target)
                self._pusher(self.target, tally).push()
            replica.mark_success(self.store)
        except OverBudgetError as error:
            tally.stop(str(error), "policy")
        except ServerError as error:
            tally.stop(
                str(error), "network" if is_temporary(error) else "refused", error.retry_after_s
            )
        except NetworkError as error:
            tally.stop(str(error), "network", error.retry_after_s)
        except UsageError as error:
            tally.stop(str(error), "refused")
        return tally.outcome

    def _sync_with_server(self, tally: Tally) -> None:
        remote = self.link.follow()
        self.budget.start(remote)
        self.link.renew(remote)
        pusher = self._pusher(remote, tally)
        if self._enrollment.is_open:
            pusher.settle()
        puller = None if self.push_only else self._puller(remote, tally)
        if puller is not None and self._enrollment.cursor == 0:
            # Before anything is sent: see Puller.bootstrap.
            tally.agreed(puller.bootstrap())
        backoff = attempt_backoff()
        for _ in range(CATCH_UPS):
            try:
                pusher.push()
                if puller is not None:
                    puller.changes()
            except ServerError as error:
                if error.code not in OUT_OF_STEP:
                    raise
                another_pushes = error.code == "superseded"
                if another_pushes:  # from this store: let it finish
                    time.sleep(backoff.failed())
                # What became of the last push must be known before everything is pulled: otherwise it
                # could arrive meanwhile.
                pusher.settle()
                if not another_pushes:
                    # Deletions were forgotten, or the server was restored from an older copy.
                    tally.agreed((puller or self._puller(remote, tally)).everything())
            else:
                return
        raise NetworkError(
            f"{remote.transport.server} changed again and again during this run: trying again later"
        )

    def _pusher(self, target: PushTarget, tally: Tally) -> Pusher:
        return Pusher(
            self.store,
            target,
            encoder=self.encoder,
            body=self.body,
            budget=self.budget,
            tally=tally,
        )

    def _puller(self, remote: Remote, tally: Tally) -> Puller:
        return Puller(self.store, remote, budget=self.budget, tally=tally)

    @property
    def _enrollment(self) -> Enrollment:
        found = replica.enrollment_of(self.store)
        if found is None:
            raise NotEnrolledError(self.store.path)
        return found
