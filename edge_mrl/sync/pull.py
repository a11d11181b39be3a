"""Pulling: the changes of other devices into a store, or everything into a new store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edge_mrl.bundle import read_head, read_manifest
from edge_mrl.errors import (
    IntermediaryError,
    NetworkError,
    OversizedAnswerError,
    ServerError,
    WireError,
)
from edge_mrl.store import PrivateData, find_bundle, private_data, replica
from edge_mrl.sync.answers.fields import is_count, is_word
from edge_mrl.sync.budget import PREPARING
from edge_mrl.sync.pulls.entries import Entries, withheld
from edge_mrl.sync.pulls.forms import CodeKey, PageForm
from edge_mrl.sync.pulls.page import UnreadablePageError, outline, prepared
from edge_mrl.sync.pulls.part_file import PartFile
from edge_mrl.wire import Item, UnreadableItem, Version, decode_message, decode_readable_items

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_mrl.store import Agreed, Enrollment, Entry, Store
    from edge_mrl.sync.budget import Budget
    from edge_mrl.sync.outcome import Tally
    from edge_mrl.sync.pulls.page import ChangePage
    from edge_mrl.sync.remote import Remote

__all__ = ["Puller"]

T = TypeVar("T")
#: Documents of a snapshot that are committed together: each commit flushes to disk and rewrites pages.
BATCH_DOCUMENTS = 4_096
#: Most documents in one frame of a snapshot.
FRAME_ITEMS = 65_536
#: How often a snapshot may change while it is read; then changes are pulled instead.
SNAPSHOT_TRIES = 3
#: How often everything is pulled from the beginning, because the server has changed meanwhile.
SWEEPS = 3
#: Bytes of a part of a snapshot at least, where few bytes are left.
LEAST_PART_BYTES = 1 << 12


@dataclass(frozen=True, slots=True)
class _Position:
    """What a page says beside its documents: the cursor, its epoch, and the clock."""

    cursor: int | None = None
    epoch: str = ""
    offset_ms: int | None = None


_NOWHERE = _Position()


class Puller:
    """Brings a server's documents into a store.

    Args:
        store: The store.
        remote: The server.
        budget: What the run may use.
        tally: Told after each commit.
        folder: Another bundle, for ``coded`` alone; None for the store's.

    Raises:
        UsageError: The store's bundle is not where it was.
    """

    def __init__(
        self,
        store: Store,
        remote: Remote,
        *,
        budget: Budget,
        tally: Tally,
        folder: Path | None = None,
    ) -> None:
        self._store = store
        self._remote = remote
        self._budget = budget
        self._tally = tally
        self._folder = find_bundle(store) if folder is None else folder
        self._manifest = read_manifest(self._folder)
        self._code = CodeKey.of(self._manifest)
        self._made_for = (self._manifest.space_id, self._manifest.code_id)
        # A store that keeps full vectors makes its codes from them.
        self._full = folder is None and store.keep_full in ("fp16", "int8")
        self._matrix: NDArray[np.float32] | None = None
        self._read_matrix = False
        self._item_bytes = 0.0
        #: Changes that are this device's own pushes: they need not be pulled.
        self.own: Sequence[replica.Span] = ()
        self._entries = Entries(self._manifest, full=self._full, head=self._head)
        self._form = PageForm("full" if self._full else "coarse", self._code)

    def changes(self) -> ChangePage:
        """Pull what changed since the last time.

        Returns:
            The last page.

        Raises:
            ServerError: "fenced": the server has forgotten deletions since then. "restored": the server
                was restored from an older copy. In both cases ``everything`` has to be pulled.
        """
        while True:
            now = replica.enrollment_of(self._store)
            for span in self.own:
                if now is not None and span.first <= now.cursor < span.last:
                    replica.pass_over(self._store, span)
                    now = replica.enrollment_of(self._store)
            since, epoch, push = (now.cursor, now.epoch, now.answered) if now else (0, "", 0)
            page = self._page(since, epoch=epoch, push=push)
            self._apply(page, cursor=page.cursor)
            if not page.more:
                return page

    def sums(self) -> ChangePage:
        """Pull what changed since the last time, with the sums of the tenant's documents."""
        before, self._form = self._form, replace(self._form, sums=True)
        try:
            return self.changes()
        finally:
            self._form = before

    def groups(
        self, groups: Collection[int], *, differs: int
    ) -> tuple[dict[str, tuple[Version, bool]], int | None]:
        """Pull all documents of some groups again.

        Args:
            groups: Which.
            differs: In how many of them this store and the server differ; 0 where that is not the reason.

        Returns:
            Versions that the server has of them, by id, and whether they are deletions; and the largest
            stamp of other devices' versions that it takes.
        """
        there: dict[str, tuple[Version, bool]] = {}
        since, fence, epoch = 0, None, None
        before, self._form = self._form, replace(self._form, groups=groups, differs=differs)
        try:
            while True:
                page = self._page(since, fence=fence, epoch=epoch)
                for item in (*page.items, *page.unreadable):
                    assert isinstance(item, Item | UnreadableItem)
                    there[item.id] = Version(item.stamp, item.device or ""), item.deleted
                self._apply(page, cursor=None)
                since, fence, epoch = page.cursor, page.fence, page.epoch
                if not page.more:
                    return there, page.offers
        finally:
            self._form = before

    def coded(self, groups: Collection[int]) -> Iterator[list[tuple[Item, Entry | None]]]:
        """Documents of some groups with the bundle's codes, a page at a time; nothing is stored.

        Args:
            groups: Which. An older server sends all documents.
        """
        since, fence, epoch = 0, None, None
        self._form = replace(self._form, groups=groups, text=False)
        while True:
            page = self._page(since, fence=fence, epoch=epoch)
            self._require_space(page.items)
            yield self._entries.of(page.items)[0]
            since, fence, epoch = page.cursor, page.fence, page.epoch
            if not page.more:
                return

    def bootstrap(self) -> Agreed | None:
        """Fill a store that has pulled nothing yet.

        Returns:
            What ``everything`` returns if it was needed; None if a snapshot was enough.
        """
        store = self._store
        floor = replica.floor_of(store)
        used = replica.queue_of(store).items or replica.ever_acknowledged(store)
        unknown = floor is None and used
        if self._full or unknown or replica.sweep_of(store) is not None:
            # A snapshot has no deletions, and may be older than what this device has sent since. What
            # waits may have been sent already, its answer lost, and deleted by others. So there has to be
            # a change from which on all deletions that concern this store are pulled.
            return self.everything()
        if floor is not None and not floor.first:
            replica.pass_floor(store, floor)  # the server had nothing else
            return None
        for _ in range(SNAPSHOT_TRIES):
            try:
                if self._snapshot():
                    return None
            except ServerError as error:
                if error.status not in (404, 412, 416, 501):
                    raise
                self._part.unlink(missing_ok=True)
            except OversizedAnswerError:  # a server that knows no ranges: in pages, then
                break
        return self.everything()

    def everything(self) -> Agreed:
        """Pull from the beginning, and agree with the server on what is missing there.

        If that was interrupted, it goes on from there, whatever was pushed meanwhile. It must be known
        whether the last push arrived (``Pusher.settle``).
        """
        for _ in range(SWEEPS):
            try:
                page, push = self._sweep()
            except ServerError as error:
                begun = replica.sweep_of(self._store) is not None
                if error.code not in ("fenced", "restored") or not begun:
                    raise
            else:
                if replica.is_sweep_sound(self._store):
                    break
            replica.forget_sweep(self._store)
        else:
            raise NetworkError(
                "the server changed again and again while everything was pulled: trying again later"
            )
        server = replica.ServerPosition(page.cursor, page.fence, page.epoch, page.kept, page.offers)
        agreed = replica.reconcile(self._store, server, push=push)
        self._tally.pulled(0, agreed.deleted)
        return agreed

    def _sweep(self) -> tuple[ChangePage, int | None]:
        """Pull what is left of everything.

        Returns:
            The last page; and the number of the last push before it was asked for, None if that was open.
        """
        at = replica.sweep_of(self._store)
        while True:
            now = replica.enrollment_of(self._store)
            push = None if now is None or now.is_open else now.push
            if at is None:
                page = self._page(0)
                if now is not None and page.restamp is not None:
                    self._take_restamp(page.restamp, now)
            else:
                page = self._page(at.since, fence=at.fence, epoch=at.epoch)
            self._apply(page, cursor=None)
            seen = {item.id: item.stamp for item in page.items}
            seen |= {item.id: item.stamp for item in page.unreadable}
            now_at = replica.Sweep(page.cursor, page.fence, page.epoch)
            at = replica.note_swept(self._store, seen, now_at, before=at)
            if not page.more:
                return page, push

    def _take_restamp(self, said: replica.Restamp, now: Enrollment) -> None:
        """Take over that the server has brought stamps back, unless this store knows of it."""
        new = not now.epoch and not now.cursor
        if not new and now.epoch not in said.epochs:
            replica.take_restamp(self._store, said)

    def _page(
        self, since: int, *, fence: int | None = None, epoch: str | None = None, push: int = 0
    ) -> ChangePage:
        """The next changes. One that makes its whole page unreadable comes alone, by its version."""

        def ask(form: PageForm) -> ChangePage:
            form = replace(form, limit=self._fitting(form.limit))
            before = self._budget.traffic[1]
            page = self._with_head(
                lambda: self._remote.pull(since, form=form, fence=fence, epoch=epoch, push=push)
            )
            count = len(page.items) + len(page.unreadable)
            if count:
                self._item_bytes = (self._budget.traffic[1] - before) / count
            return page

        try:
            page = ask(self._form)
        except (UnreadablePageError, ServerError, IntermediaryError) as error:
            # A server that fails at a document answers 500 to each page that has it.
            if not isinstance(error, UnreadablePageError) and error.status != 500:
                raise
            if self._form.limit > 1:
                self._form = replace(self._form, limit=max(self._form.limit // 8, 1))
                with self._budget.once():
                    return self._page(since, fence=fence, epoch=epoch, push=push)
            plain = replace(self._form, vectors="none", text=False, limit=1)
            return outline(ask(plain))
        self._form = replace(self._form, limit=min(self._form.limit * 8, PageForm("none").limit))
        return page

    def _fitting(self, limit: int) -> int:
        """How many documents to ask for, by the last page: no more than the bytes that are left take."""
        left = self._budget.left_bytes
        if left is None or not self._item_bytes:
            return limit
        return max(min(limit, int(left / self._item_bytes)), 1)

    def _with_head(self, ask: Callable[[], T]) -> T:
        """Send a request; register the bundle's projection head first if the server does not know it."""
        try:
            return self._budget.attempt(ask)
        except ServerError as error:
            matrix = self._head()
            if error.code != "head_unknown" or matrix is None:
                raise
        name, layer_norm = self._code.head, self._manifest.head.layer_norm
        self._budget.attempt(lambda: self._remote.put_head(name, matrix, layer_norm=layer_norm))
        return self._budget.attempt(ask)

    def _head(self) -> NDArray[np.float32] | None:
        if not self._read_matrix:
            self._matrix = read_head(self._folder, self._manifest)
            self._read_matrix = True
        return self._matrix

    def _apply(self, page: ChangePage, *, cursor: int | None) -> None:
        """Store a page. A document that cannot be stored is said, and stops nothing else."""
        self._store_items(
            page.items,
            page.unreadable,
            _Position(cursor, page.epoch if cursor is not None else "", page.offset_ms),
        )

    def _store_items(
        self, items: Sequence[Item], unreadable: Sequence[UnreadableItem], position: _Position
    ) -> None:
        self._require_space(items)
        pairs, others = self._entries.of(items, unreadable)
        try:
            self._take(pairs, others, position)
        except Exception as error:
            if not replica.concerns_documents(error) or not pairs:
                raise
            self._take_apart(pairs, error)
            self._take([], others, position)

    def _require_space(self, items: Sequence[Item]) -> None:
        """Have a server that has not named its space compare it before vectors are used."""
        if not self._remote.names_space and any(len(item.vectors) for item in items):
            full_dim = self._manifest.full_dim or 1
            self._budget.attempt(lambda: self._remote.ask_space(full_dim))

    def _take_apart(self, pairs: Sequence[tuple[Item, Entry | None]], error: Exception) -> None:
        """Store documents in halves, down to those that cannot be stored."""
        if len(pairs) == 1:
            self._take([], [withheld(pairs[0][0], error)], _NOWHERE)
            return
        middle = len(pairs) // 2
        for half in (pairs[:middle], pairs[middle:]):
            try:
                self._take(half, [], _NOWHERE)
            except Exception as fault:
                if not replica.concerns_documents(fault):
                    raise
                self._take_apart(half, fault)

    def _take(
        self,
        pairs: Sequence[tuple[Item, Entry | None]],
        others: Sequence[replica.Withheld],
        position: _Position,
    ) -> None:
        applied = replica.apply_pulled(
            self._store,
            pairs,
            cursor=position.cursor,
            epoch=position.epoch,
            offset_ms=position.offset_ms,
            withheld=others,
            code=self._made_for,
        )
        self._tally.pulled(
            applied.put, applied.deleted, applied.withheld, conflicts=applied.conflicts
        )

    # --- the snapshot

    @property
    def _part(self) -> Path | PrivateData:
        return private_data(self._store, "sync.part")

    def _snapshot(self) -> bool:
        """Fetch and apply a snapshot; returns False if it changed meanwhile."""
        with PartFile(self._part, f"{self._code!r} {self._manifest.space_id}") as part:
            while not part.complete:
                ask = partial(self._remote.snapshot, self._code, most=self._part_bytes())
                ask = partial(ask, start=part.size, etag=part.etag)
                got = self._when_prepared(ask)
                part.add(got.data, size_bytes=got.size_bytes, etag=got.etag, digest=got.digest)
            if not part.sound():
                part.remove()
                return False
            self._take_snapshot(part)
            part.remove()
        return True

    def _part_bytes(self) -> int | None:
        """How much of a snapshot to ask for: what is left of the run's bytes, if that is less."""
        left = self._budget.left_bytes
        return None if left is None else max(left, LEAST_PART_BYTES)

    def _when_prepared(self, ask: Callable[[], T]) -> T:
        """Send a request for a snapshot; again while the server makes it, as it asks for."""
        while True:
            try:
                return self._with_head(ask)
            except ServerError as error:
                if error.code != PREPARING:
                    raise
                self._tally.waits(prepared(error.details))
                self._budget.wait_prepared(error)

    def _take_snapshot(self, part: PartFile) -> None:
        batch: list[Item] = []
        unreadable: list[UnreadableItem] = []
        cursor, epoch = 0, ""
        for number, frame in enumerate(part.frames()):
            try:
                message = decode_message(frame)
                items, bad = decode_readable_items(message, most=FRAME_ITEMS)
            except WireError as error:
                raise NetworkError(f"the snapshot: {error}") from error
            if number == 0:
                self._remote.require_answer(message.header, self._code)
                first = message.header.get("cursor")
                named = message.header.get("epoch", "")
                if not is_count(first) or not (named == "" or is_word(named)):
                    raise NetworkError("the snapshot: expected cursor as a number, epoch as text")
                cursor, epoch = first, named
                replica.set_floor(self._store, replica.Span(cursor, cursor, epoch))
            batch += items
            unreadable += bad
            if len(batch) >= BATCH_DOCUMENTS:
                self._store_items(batch, unreadable, _NOWHERE)
                batch, unreadable = [], []
        # The cursor moves only now: applying a snapshot twice is harmless, missing a part is not.
        self._store_items(batch, unreadable, _NOWHERE)
        # What this device has sent may have been deleted since: so from where it began. In another epoch
        # the server says so, and everything is pulled.
        floor = replica.floor_of(self._store) or replica.Span(cursor, cursor, epoch)
        cursor = min(cursor, floor.first) if floor.epoch == epoch else floor.first
        replica.pass_floor(self._store, replica.Span(cursor, cursor, floor.epoch))
