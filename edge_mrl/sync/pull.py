"""Pulling: the changes of other devices into a store, or everything into a new store."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, TypeVar

import numpy as np

from edge_mrl.bundle import derive_codes, read_head, read_manifest
from edge_mrl.documents import Document
from edge_mrl.errors import NetworkError, ServerError, WireError
from edge_mrl.store import Entry, find_bundle, replica
from edge_mrl.sync.remote import CodeKey
from edge_mrl.wire import Item, decode_items, decode_message

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.store import Agreed, Store
    from edge_mrl.sync.budget import Budget
    from edge_mrl.sync.outcome import Tally
    from edge_mrl.sync.remote import ChangePage, Remote

__all__ = ["Puller"]

T = TypeVar("T")

#: Documents of a snapshot that are committed together: each commit flushes to disk and rewrites pages.
BATCH_DOCUMENTS = 4_096
#: Most documents in one frame of a snapshot.
FRAME_ITEMS = 65_536
#: How often a snapshot may change while it is read; then changes are pulled instead.
SNAPSHOT_TRIES = 3
_HEAD_BYTES = 1_024
_LENGTH = struct.Struct("<I")


class Puller:
    """Brings a server's documents into a store.

    Args:
        store: The store.
        remote: The server.
        budget: What the run may use.
        tally: Told after each commit.

    Raises:
        UsageError: The store's bundle is not where it was.
    """

    def __init__(self, store: Store, remote: Remote, *, budget: Budget, tally: Tally) -> None:
        self._store = store
        self._remote = remote
        self._budget = budget
        self._tally = tally
        self._folder = find_bundle(store)
        self._manifest = read_manifest(self._folder)
        self._code = CodeKey.of(self._manifest)
        # A store that keeps full vectors makes its codes from them.
        self._full = store.keep_full in ("fp16", "int8")
        self._matrix: NDArray[np.float32] | None = None
        self._read_matrix = False

    def changes(self) -> None:
        """Pull what changed since the last time.

        Raises:
            ServerError: "fenced": the server has forgotten deletions since then. "restored": the server
                was restored from an older copy. In both cases ``everything`` has to be pulled.
        """
        while True:
            now = replica.enrollment_of(self._store)
            since, epoch, push = (now.cursor, now.epoch, now.answered) if now else (0, "", 0)
            page = self._page(since, epoch=epoch, push=push)
            self._apply(page.items, cursor=page.cursor, epoch=page.epoch, offset_ms=page.offset_ms)
            if not page.more:
                return

    def bootstrap(self) -> Agreed | None:
        """Fill a store that has pulled nothing yet.

        Returns:
            What ``everything`` returns if it was needed; None if a snapshot was enough.
        """
        store = self._store
        if self._full or replica.ever_acknowledged(store) or replica.queue_of(store).items:
            # A snapshot has no deletions, and may be older than what this device has sent since. What
            # waits may have been sent already, its answer lost, and deleted by others.
            return self.everything()
        for _ in range(SNAPSHOT_TRIES):
            try:
                if self._snapshot():
                    return None
            except ServerError as error:
                if error.status not in (404, 412, 416, 501):
                    raise
                Path(self._part).unlink(missing_ok=True)
        return self.everything()

    def everything(self) -> Agreed:
        """Pull from the beginning, and agree with the server on what is missing there.

        It must be known whether the last push arrived (``Pusher.settle``).
        """
        now = replica.enrollment_of(self._store)
        there: dict[str, int] = {}
        since, fence, epoch = 0, None, None
        while True:
            page = self._page(since, fence=fence, epoch=epoch)
            there.update((item.id, item.stamp) for item in page.items)
            self._apply(page.items, cursor=None, offset_ms=page.offset_ms)
            since, fence, epoch = page.cursor, page.fence, page.epoch
            if not page.more:
                break
        push = now.push if now else 0
        server = replica.ServerPosition(page.cursor, page.fence, page.epoch, page.kept)
        agreed = replica.reconcile(self._store, there, server, push=push)
        self._tally.pulled(0, agreed.deleted)
        return agreed

    def _page(
        self, since: int, *, fence: int | None = None, epoch: str | None = None, push: int = 0
    ) -> ChangePage:
        vectors = "full" if self._full else "coarse"

        def ask() -> ChangePage:
            return self._remote.pull(
                since, code=self._code, vectors=vectors, fence=fence, epoch=epoch, push=push
            )

        return self._with_head(ask)

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

    def _apply(
        self,
        items: Sequence[Item],
        *,
        cursor: int | None,
        epoch: str = "",
        offset_ms: int | None = None,
    ) -> None:
        pairs = [(item, self._entry(item)) for item in items]
        applied = replica.apply_pulled(
            self._store, pairs, cursor=cursor, epoch=epoch, offset_ms=offset_ms
        )
        self._tally.pulled(applied.put, applied.deleted)

    def _entry(self, item: Item) -> Entry | None:
        """A document as the store keeps it."""
        if item.deleted:
            return None
        codes, full = self._codes(item)
        spans: Sequence[tuple[int, int]] = item.spans
        if item.text is None:
            spans = [(0, 0)] * len(codes)
        document = Document(item.id, item.text or "", item.metadata or {})
        return Entry(document, spans, codes, full)

    def _codes(self, item: Item) -> tuple[NDArray[np.int8], NDArray[np.float32] | None]:
        manifest = self._manifest
        rows = item.vectors
        kind, width = ("float16", manifest.full_dim) if self._full else ("int8", manifest.dim)
        if len(rows) and (rows.dtype.name != kind or rows.shape[1] != width):
            raise NetworkError(
                f"the server sent {rows.dtype}[n, {rows.shape[1]}] for document {item.id!r}, "
                f"expected {kind}[n, {width}]"
            )
        if not len(rows):
            empty = np.empty((0, manifest.full_dim or 1), np.float32)
            return np.empty((0, manifest.dim), np.int8), empty
        if not self._full:
            return rows, None
        full = rows.astype(np.float32)
        codes = derive_codes(
            full,
            self._head(),
            dim=manifest.dim,
            layer_norm=manifest.head.layer_norm,
            scale=manifest.code.scale,
        )
        return codes, full

    # --- the snapshot

    @property
    def _part(self) -> Path:
        return self._store.path.with_name(f"{self._store.path.name}-sync.part")

    def _snapshot(self) -> bool:
        """Fetch and apply a snapshot; returns False if it changed meanwhile."""
        with _PartFile(self._part, self._code) as part:
            while not part.complete:
                ask = partial(self._remote.snapshot, self._code, start=part.size, etag=part.etag)
                got = self._with_head(ask)
                part.add(got.data, size_bytes=got.size_bytes, etag=got.etag, digest=got.digest)
            if not part.sound():
                part.remove()
                return False
            self._take(part)
            part.remove()
        return True

    def _take(self, part: _PartFile) -> None:
        batch: list[Item] = []
        cursor, epoch = 0, ""
        for number, frame in enumerate(part.frames()):
            try:
                message = decode_message(frame)
                items = decode_items(message, most=FRAME_ITEMS)
            except WireError as error:
                raise NetworkError(f"the snapshot: {error}") from error
            if number == 0:
                first = message.header.get("cursor")
                if not isinstance(first, int) or first < 0:
                    raise NetworkError("the snapshot: cursor: expected a number")
                cursor, epoch = first, str(message.header.get("epoch", ""))
            batch += items
            if len(batch) >= BATCH_DOCUMENTS:
                self._apply(batch, cursor=None)
                batch = []
        # The cursor moves only now: applying a snapshot twice is harmless, missing a part is not.
        self._apply(batch, cursor=cursor, epoch=epoch)


class _PartFile:
    """The part of a snapshot that was received, kept so that an interrupted device continues there.

    The file begins with JSON that says which snapshot it is; the received bytes follow.
    """

    def __init__(self, path: Path, code: CodeKey) -> None:
        self._path = path
        self._code = repr(code)
        self._file: BinaryIO | None = None
        self.size = 0
        self.etag: str | None = None
        self._digest: str | None = None
        self._whole = -1

    def __enter__(self) -> Self:
        with suppress(OSError, ValueError, KeyError, TypeError):
            self._resume()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def complete(self) -> bool:
        """Whether the whole snapshot is there."""
        return self._whole >= 0 and self.size >= self._whole

    def add(self, data: bytes, *, size_bytes: int, etag: str, digest: str | None) -> None:
        """Append what was received."""
        if self._file is None:
            self._begin(size_bytes, etag, digest)
        elif size_bytes != self._whole:
            raise NetworkError("the snapshot changed while it was read")
        file = self._opened
        file.seek(_HEAD_BYTES + self.size)
        file.write(data)
        file.flush()
        self.size += len(data)

    def sound(self) -> bool:
        """Whether size and digest are those that the server announced."""
        file, sha = self._opened, hashlib.sha256()
        file.seek(_HEAD_BYTES)
        while part := file.read(1 << 20):
            sha.update(part)
        whole = f"sha-256=:{b64encode(sha.digest()).decode()}:"
        return self.size == self._whole and self._digest in (None, whole)

    def frames(self) -> Iterator[bytes]:
        """The snapshot's frames, in order.

        Raises:
            NetworkError: The snapshot ends within a frame.
        """
        file, at = self._opened, 0
        file.seek(_HEAD_BYTES)
        while at < self.size:
            head = file.read(_LENGTH.size)
            length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else self.size
            at += _LENGTH.size + length
            if at > self.size:
                raise NetworkError("the snapshot ends within a frame")
            yield file.read(length)

    def remove(self) -> None:
        """Delete the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._path.unlink(missing_ok=True)

    @property
    def _opened(self) -> BinaryIO:
        assert self._file is not None
        return self._file

    def _begin(self, size_bytes: int, etag: str, digest: str | None) -> None:
        facts = {"code": self._code, "etag": etag, "size": size_bytes, "digest": digest}
        head = json.dumps(facts).encode().ljust(_HEAD_BYTES)
        if len(head) > _HEAD_BYTES:
            raise NetworkError("the snapshot's ETag is too long")
        with suppress(FileNotFoundError):
            self._path.unlink()
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(handle, "w+b")
        self._file.write(head)
        self.size, self.etag, self._digest, self._whole = 0, etag, digest, size_bytes

    def _resume(self) -> None:
        file = self._path.open("r+b")
        try:
            facts = json.loads(file.read(_HEAD_BYTES))
            same = facts["code"] == self._code
            etag, whole, digest = str(facts["etag"]), int(facts["size"]), facts["digest"]
            size = min(self._path.stat().st_size - _HEAD_BYTES, whole)
        except BaseException:
            file.close()
            raise
        if not same or size < 0:
            file.close()
            return
        self._file, self.size, self.etag = file, size, etag
        self._whole, self._digest = whole, digest
