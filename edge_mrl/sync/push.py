"""Pushing: a store's queue, sent in batches until nothing waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mrl.errors import (
    EdgeMrlError,
    EncoderError,
    IntermediaryError,
    NetworkError,
    NotEnrolledError,
    ServerError,
    UsageError,
    reason,
)
from edge_mrl.store import Outgoing, Verdict, replica
from edge_mrl.sync.answers.fields import is_count
from edge_mrl.sync.budget import OUT_OF_STEP
from edge_mrl.sync.pushes.body import BodySize
from edge_mrl.sync.pushes.items import estimated_bytes, unsendable, without_content
from edge_mrl.sync.targets.target import PushBatch, PushResult
from edge_mrl.wire import (
    MAX_BODY_BYTES,
    Item,
    Version,
    encode_items,
    format_stamp,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.encode import Encoder
    from edge_mrl.store import Enrollment, Store
    from edge_mrl.sync.budget import Budget
    from edge_mrl.sync.outcome import Tally
from edge_mrl.sync.targets.target import PushTarget

__all__ = ["Pusher"]

#: Versions that a server is told it has lost, at most.
MAX_LOST = 16
_BEHIND = (
    "the server's clock is behind a version that it accepted earlier, and documents that are above it "
    "wait: on the server, `edge-mrl admin restamp TENANT` gives such versions the present time"
)


class _RefusedError(Exception):
    """A push was refused as a whole, because of its size or because of a document in it.

    Args:
        batch: What was sent.
        reason: The reason of a dead letter, if it is a single document.
        message: What was said.
    """

    def __init__(self, batch: PushBatch, reason: str, message: str) -> None:
        super().__init__(message)
        self.batch = batch
        self.reason = reason


class Pusher:
    """Sends a store's queue to a server.

    Args:
        store: The store.
        target: The server.
        encoder: Opens the store's encoder, for documents whose vectors were not kept.
        body: How much is sent in one request. It changes, and is kept from run to run.
        budget: What the run may use.
        tally: Told after each commit.
    """

    def __init__(
        self,
        store: Store,
        target: PushTarget,
        *,
        encoder: Callable[[], Encoder],
        body: BodySize,
        budget: Budget,
        tally: Tally,
    ) -> None:
        self._store = store
        self._target = target
        self._encoder = encoder
        self._body = body
        body.begin()  # once in a run, however often something is sent
        self._budget = budget
        self._tally = tally
        self._dim = store.binding.full_dim or 1
        self._refused_alone: set[tuple[str, int]] = set()
        #: Of pushes whose answer said so: changes that need not be pulled.
        self.spans: list[replica.Span] = []
        self._first = False

    def push_new(self) -> None:
        """Send what no server has had yet, before everything is pulled.

        What has to wait for that stays in the queue: documents that the server may have had, and those
        that are not above the deletions that it has forgotten.

        Raises:
            ServerError: The server refused for another reason than these.
            NetworkError: The server did not answer.
            OverBudgetError: The run's bytes are used up.
        """
        after = 0
        self._first = True
        try:
            while waiting := replica.outgoing(
                self._store, limit=self._body.items, after=after, new=True
            ):
                after = waiting[0].stamp - 1  # what is before that is not new
                try:
                    verdicts = self._push_some(waiting)
                except _RefusedError as refused:
                    self._halve(refused)
                    continue
                if any(verdict.status == "clock_ahead" for verdict in verdicts):
                    return
        except ServerError as error:
            if error.code not in OUT_OF_STEP:
                raise
            # What has to wait may be older than deletions that are forgotten: no snapshot tells that.
            replica.drop_floor(self._store)
        finally:
            self._first = False
        if self._enrollment.is_open:
            self.settle()

    def stand(self) -> None:
        """Note where the server stands, while nothing was exchanged with it; see ``Puller.bootstrap``."""
        if replica.is_blank(self._store) and self._target.numbered:
            span = self.settle()
            if span is not None:
                replica.set_floor(self._store, span)

    def push(self) -> None:
        """Send until nothing waits.

        A push that is refused as a whole is sent again in halves, down to the document that is the
        reason: that one becomes a dead letter, and the others arrive.

        Raises:
            ServerError: The server refused a push.
            NetworkError: The server did not answer, or does not accept this device's stamps yet.
            OverBudgetError: The run's bytes are used up.
        """
        rounds_ahead = 0
        while waiting := replica.outgoing(self._store, limit=self._body.items):
            try:
                verdicts = self._push_some(waiting)
            except _RefusedError as refused:
                self._halve(refused)
                continue
            statuses = {verdict.status for verdict in verdicts}
            rounds_ahead = rounds_ahead + 1 if statuses == {"clock_ahead"} else 0
            # After the first time, the queue got new stamps by the server's clock. What is left is above
            # a version that the server has, and stands behind everything else in the queue.
            if rounds_ahead > 1:
                raise NetworkError(_BEHIND)

    def settle(self, *, lost: Sequence[tuple[str, Version]] = ()) -> replica.Span | None:
        """Ask whether the last push arrived; if it did not, the server refuses it from now on.

        Returns:
            Where the server stands, if it says so and knows of no push that this store does not know of.

        Args:
            lost: Versions that the server has had, and lacks now, by id: reason enough for it to begin a
                new epoch, if it believes that.
        """
        now = self._enrollment
        number = now.push if now.is_open else now.push + 1
        header = self._header(now, number)
        if lost:
            header["lost"] = [
                {"id": name, "v": format_stamp(one.stamp), "by": one.device}
                for name, one in lost[:MAX_LOST]
            ]
        frame = encode_items(header, [], like=self._no_vectors)
        try:
            result = self._budget.attempt(lambda: self._target.push(PushBatch((), frame)))
            refused, span = result.refused, result.span
        except ServerError as error:
            last = error.details.get("push")
            if error.code != "superseded" or not is_count(last):
                raise
            # This store is an older copy of itself: what it sent since then may have arrived.
            number, refused, span = last, (), None
        replica.settle_push(self._store, number, refused=refused)
        return span if refused is None else None

    def _header(self, now: Enrollment, number: int) -> dict[str, Any]:
        """What a numbered push says beside its documents."""
        receipt = replica.receipt_of(self._store)
        # What comes before everything is pulled says so: its documents are new in any epoch.
        cursor, epoch = (0, "") if self._first else (now.cursor, now.epoch)
        return {"cursor": cursor, "push": number, "epoch": epoch, "receipt": receipt}

    def _require_space(self) -> None:
        """Make sure that the store's vectors are what the target was told that they are.

        Raises:
            NetworkError: Another process has changed the store to another bundle.
        """
        said = getattr(self._target, "space_id", None)  # targets of an application need not say
        if said not in (None, self._store.binding.space_id):
            raise NetworkError("the store was changed to another bundle meanwhile: try again")

    @property
    def _enrollment(self) -> Enrollment:
        found = replica.enrollment_of(self._store)
        if found is None:
            raise NotEnrolledError(self._store.path)
        return found

    @property
    def _no_vectors(self) -> NDArray[np.float16]:
        return np.empty((0, self._dim), np.float16)

    def _push_some(self, waiting: Sequence[Outgoing]) -> list[Verdict]:
        """Send the first of the documents that wait.

        Returns:
            What became of them; empty if another process has begun a push in the meantime.
        """
        verdicts = without_content(waiting)
        if verdicts:
            return self._take(verdicts)
        items, verdicts = self._items(waiting, with_text=self._enrollment.with_text)
        self._require_space()
        if verdicts:
            return self._take(verdicts)
        now = self._enrollment
        batch = self._batch(items, now)
        if batch is None:
            return self._take([Verdict(items[0].id, items[0].stamp, "too_large")])
        self._budget.require(len(batch.frame))
        number = now.push + 1 if self._target.numbered else 0
        if number and not replica.begin_push(
            self._store, number, [item.id for item in batch.items]
        ):
            self.settle()
            return []
        try:
            result = self._budget.attempt(lambda: self._send(batch))
        except ServerError as error:
            if error.code == "malformed":
                raise _RefusedError(batch, "invalid", str(error)) from error
            raise
        pairs = zip(batch.items, result.results, strict=True)
        verdicts = [Verdict(item.id, item.stamp, *said) for item, said in pairs]
        return self._take(verdicts, result=result, number=number)

    def _halve(self, refused: _RefusedError) -> None:
        """Go on with less after a push of which nothing was stored."""
        if self._target.numbered and self._enrollment.is_open:
            self.settle()
        items = refused.batch.items
        if len(items) > 1:
            self._body.refuse(len(refused.batch.frame), len(items))
            return
        name, stamp = items[0].id, items[0].stamp
        if (
            name,
            stamp,
        ) not in self._refused_alone:  # what was damaged on its way gets another chance
            self._refused_alone.add((name, stamp))
            return
        self._take([Verdict(name, stamp, refused.reason, detail=str(refused))])

    def _take(
        self, verdicts: list[Verdict], *, result: PushResult | None = None, number: int = 0
    ) -> list[Verdict]:
        """Write into the store what became of documents; returns the same verdicts."""
        offset_ms = self._enrollment.offset_ms if result is None else result.offset_ms
        span = None if result is None else result.span
        self._note_span(span)
        again = replica.acknowledge(
            self._store, verdicts, offset_ms=offset_ms, number=number, span=span
        )
        self._tally.pushed([one.status for one in verdicts if one.id not in again])
        return verdicts

    def _note_span(self, span: replica.Span | None) -> None:
        """Remember changes that are this device's; those that follow each other are one span."""
        if span is None or span.first == span.last:
            return
        before = self.spans[-1] if self.spans else None
        if before is not None and (before.last, before.epoch) == (span.first, span.epoch):
            self.spans[-1] = replace(before, last=span.last)
        else:
            self.spans.append(span)

    def _items(
        self, waiting: Sequence[Outgoing], *, with_text: bool
    ) -> tuple[list[Item], list[Verdict]]:
        """Documents as they are sent, and what cannot be sent at all."""
        made, failed = self._embed(
            [one for one in waiting if one.vectors is None and not one.deleted]
        )
        items, verdicts = [], []
        for one in waiting:
            document = one.document
            if one.id in failed:
                verdicts.append(
                    Verdict(one.id, one.stamp, replica.NO_VECTORS, detail=failed[one.id])
                )
                continue
            if one.deleted or document is None:
                none = self._no_vectors
                items.append(Item(one.id, one.stamp, none, deleted=True, device=one.device))
                continue
            vectors: NDArray[Any] = made[one.id] if one.vectors is None else one.vectors
            item = Item(one.id, one.stamp, vectors, device=one.device)
            if with_text:
                text, metadata, spans = document.text, document.metadata, one.spans
                item = replace(item, text=text, metadata=metadata, spans=spans)
            problem = unsendable(item)
            if problem:
                verdicts.append(Verdict(one.id, one.stamp, "invalid", detail=problem))
            else:
                items.append(item)
        return items, verdicts

    def _embed(
        self, waiting: Sequence[Outgoing]
    ) -> tuple[dict[str, NDArray[np.float16]], dict[str, str]]:
        """Vectors of documents whose vectors were not kept, and what is wrong with texts that fail.

        A text that the model cannot take costs its own document alone.
        """
        try:
            return self._embed_all(waiting), {}
        except EncoderError as error:
            if len(waiting) == 1:
                return {}, {waiting[0].id: f"its text cannot be embedded: {reason(error)}"}
        except (EdgeMrlError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever the model's runtime raises for a text
            if len(waiting) == 1:
                return {}, {waiting[0].id: f"its text cannot be embedded: {reason(error)}"}
        made: dict[str, NDArray[np.float16]] = {}
        failed: dict[str, str] = {}
        for one in waiting:
            good, bad = self._embed([one])
            made |= good
            failed |= bad
        return made, failed

    def _embed_all(self, batch: Sequence[Outgoing]) -> dict[str, NDArray[np.float16]]:
        """Vectors of documents whose vectors were not kept, made from their text again."""
        if not batch:
            return {}
        # Loads the tokenizer, which most runs do not need.
        from edge_mrl.encode import embedded_texts

        encoder, rule = self._encoder(), self._store.rule
        texts = [
            text
            for one in batch
            if one.document is not None
            for text in embedded_texts(encoder, one.document, one.spans, rule)
        ]
        full = encoder.encode(texts, kind="document").full
        if full is None:
            raise UsageError(
                f"the bundle of {self._store.path} gives no full vectors (it was exported with "
                "--coarse-only): sync needs them"
            )
        ends = np.cumsum([len(one.spans) for one in batch])
        parts = np.split(full.astype(np.float16), ends[:-1])
        return {one.id: part for one, part in zip(batch, parts, strict=True)}

    def _batch(self, items: Sequence[Item], now: Enrollment) -> PushBatch | None:
        """As many of the first items as fit into one body; None if not even the first one does."""
        limit = self._body.size_bytes
        left = self._budget.left_bytes
        if left is not None:
            limit = min(limit, max(left, 0))
        size, count = 0, 0
        for item in items:
            size += estimated_bytes(item)
            if count and size > limit:
                break
            count += 1
        header = self._header(now, now.push + 1) if self._target.numbered else {}
        while count:
            frame = encode_items(header, items[:count], like=self._no_vectors)
            if len(frame) <= MAX_BODY_BYTES:
                return PushBatch(items[:count], frame)
            count //= 2
        return None

    def _send(self, batch: PushBatch) -> PushResult:
        try:
            result = self._target.push(batch)
        except (ServerError, IntermediaryError) as error:
            if error.status == 413:
                raise _RefusedError(batch, "too_large", str(error)) from error
            raise
        except NetworkError:
            self._body.shrink()
            raise
        self._body.grow()
        return result
