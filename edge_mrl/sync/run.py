"""One run of a sync: push what waits, then pull what changed; what stops it is part of its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_mrl.errors import (
    EdgeMrlError,
    NetworkError,
    NotEnrolledError,
    ServerError,
    UsageError,
)
from edge_mrl.store import replica
from edge_mrl.sync.budget import (
    OUT_OF_STEP,
    Budget,
    OverBudgetError,
    attempt_backoff,
    is_temporary,
)
from edge_mrl.sync.identity.advice import advised
from edge_mrl.sync.identity.marks import Marks
from edge_mrl.sync.outcome import Cause, Outcome, Tally, internal_fault
from edge_mrl.sync.pull import Puller
from edge_mrl.sync.pulls.comparison import Comparison
from edge_mrl.sync.push import Pusher
from edge_mrl.sync.pushes.body import BodySize
from edge_mrl.wire import MAX_ITEMS

if TYPE_CHECKING:
    from edge_mrl.encode import Encoder
    from edge_mrl.store import Enrollment, Store
    from edge_mrl.sync.link import Link
    from edge_mrl.sync.pulls.page import ChangePage
    from edge_mrl.sync.remote import Remote
    from edge_mrl.sync.targets.target import PushTarget

__all__ = ["Run"]

#: How often one run catches up with a server: one reason may follow another, and two processes may push
#: from one store.
CATCH_UPS = 8
#: Refusals that concern the device itself: a pull would be refused too.
OF_THE_DEVICE = frozenset({"token", "space", "cloned", "copy_unsure"})


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
            cause: Cause = "network" if is_temporary(error) else "refused"
            tally.stop(advised(self.store, error), cause, error.retry_after_s)
        except NetworkError as error:
            tally.stop(str(error), "network", error.retry_after_s)
        except UsageError as error:
            tally.stop(str(error), "refused")
        except EdgeMrlError:
            raise
        except Exception as error:  # noqa: BLE001 - it is part of the outcome, and logged
            tally.stop(*internal_fault(error))
        return tally.outcome

    def _sync_with_server(self, tally: Tally) -> None:
        remote = self.link.follow()
        self.budget.start(remote)
        remote.marks = marks = Marks(self.store)
        try:
            self._as_itself(remote, tally)
        finally:
            marks.keep()
            remote.marks = None
            self.link.keep(remote)

    def _as_itself(self, remote: Remote, tally: Tally) -> None:
        """Push and pull with a token that works, as long as the server gives one.

        A token is renewed after that: by then the server has said what time it is. Before, this machine's
        clock may be wrong, or just set right, and an image of the card from before a needless renewal
        would be refused.
        """
        remote.forget_clock()
        try:
            self._push_and_pull(remote, tally)
        except (NetworkError, OverBudgetError) as error:
            if not isinstance(error, ServerError) or error.code != "token":
                if remote.offset_ms is not None:  # it was reached
                    with suppress(NetworkError):
                        self.link.renew(remote)
                raise
            # By the server's clock it has expired, whatever this machine's clock says.
            self.link.renew(remote, refused=True)
            self._push_and_pull(remote, tally)
        self.link.renew(remote)

    def _push_and_pull(self, remote: Remote, tally: Tally) -> None:
        pusher = self._pusher(remote, tally)
        if self._enrollment.is_open:
            pusher.settle()
        puller = None if self.push_only else self._puller(remote, tally)
        if puller is not None:
            self._fill(pusher, puller, tally)
        replica.ask_for_unreadable(self.store)
        backoff = attempt_backoff()
        for _ in range(CATCH_UPS):
            try:
                page = self._exchange(pusher, puller)
                if puller is None or page is None:
                    return
                comparison = Comparison(self.store, puller, tally)
                if comparison.agrees(page, claim=pusher.settle):
                    return
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
                    pusher.push_new()
                    # Deletions were forgotten, or the server was restored from an older copy.
                    tally.agreed((puller or self._puller(remote, tally)).everything())
        raise NetworkError(
            f"{remote.transport.server} changed again and again during this run: trying again later"
        )

    def _fill(self, pusher: Pusher, puller: Puller, tally: Tally) -> None:
        """Bring everything where little or nothing was brought yet."""
        puller.own = pusher.spans
        if self._enrollment.cursor and replica.sweep_of(self.store) is None:
            return
        # This device's documents first, however long it takes to bring the others'.
        if replica.queue_of(self.store).items:
            pusher.stand()
            pusher.push_new()
        tally.agreed(puller.bootstrap())

    def _exchange(self, pusher: Pusher, puller: Puller | None) -> ChangePage | None:
        """Push, then pull; pull too where the push has to wait, whatever it waits for.

        Returns:
            The last page that was pulled.

        Raises:
            NetworkError: The push failed, or the pull.
        """
        if puller is not None and self._many_wait:
            # What this device sends need not be pulled, if nothing of others is before it.
            puller.changes()
        try:
            pusher.push()
        except NetworkError as error:
            code = error.code if isinstance(error, ServerError) else ""
            if puller is None or code in OUT_OF_STEP or code in OF_THE_DEVICE:
                raise
            with suppress(NetworkError), self.budget.once():
                puller.changes()
            raise
        return None if puller is None else puller.changes()

    @property
    def _many_wait(self) -> bool:
        """Whether more waits than a push takes, and all bytes may be used: else sending comes first."""
        left = self.budget.left_bytes
        return left is None and replica.queue_of(self.store).items > MAX_ITEMS

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
