"""Snapshots: all live documents of a tenant in one file, for devices that begin with nothing.

A file is made once for each state of the tenant and kind of code, and sent from the disk, whole or in
parts. It is named by what is in it: another server that made the same bytes may send the rest.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import tempfile
import threading
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_mrl.wire import Item, encode_items
from edge_mrl_server.http.heads import CodeKey, HeadCache
from edge_mrl_server.storage import Database, Head, live_pages, require_tenant

__all__ = ["Snapshot", "SnapshotCache", "coded"]

#: A snapshot may be older than the tenant's last change by so many times what making it took: however
#: often devices come and documents change, making them takes a tenth of one processor.
PATIENCE = 10.0
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A file.

    Attributes:
        path: Where it is.
        change: The tenant's last change in it.
        size_bytes: Its length.
        sha256: Of its bytes.
        made: When making it began, in seconds of the monotonic clock.
        took_s: How long that took.
    """

    path: Path
    change: int
    size_bytes: int
    sha256: bytes
    made: float
    took_s: float

    @property
    def etag(self) -> str:
        """A strong one: equal bytes have equal tags."""
        return f'"{self.sha256.hex()[:32]}"'

    @property
    def digest(self) -> str:
        """As Content-Digest and Repr-Digest have it."""
        return f"sha-256=:{b64encode(self.sha256).decode()}:"


@dataclass(eq=False)
class _Kind:
    """The last snapshot of a tenant, a code and a choice of text; locked while one is made."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    last: Snapshot | None = None


class SnapshotCache:
    """Snapshots on the disk, the least recently used deleted first. Thread-safe."""

    def __init__(self, folder: Path | None, *, max_bytes: int) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        # A folder of its own, so that what an earlier process left is never sent.
        self._folder = Path(tempfile.mkdtemp(prefix="edge-mrl-snapshots-", dir=folder))
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str, CodeKey, bool], _Kind] = {}
        self._files: OrderedDict[tuple[str, str], Snapshot] = OrderedDict()

    def get(
        self,
        database: Database,
        heads: HeadCache,
        tenant: str,
        code: CodeKey,
        *,
        text: bool,
        etag: str | None,
    ) -> Snapshot:
        """The snapshot that a device wants: the one it has a part of, if it is here, or a fresh one.

        Args:
            database: Where the documents are.
            heads: Where the code's head is looked up.
            tenant: Whose documents.
            code: The code to make.
            text: Whether with text and metadata.
            etag: The tag of the one that the device has a part of.

        Raises:
            Refusal: The head is not registered, or does not fit the code.
        """
        with self._lock:
            kind = self._kinds.setdefault((tenant, code, text), _Kind())
            known = self._files.get((tenant, etag or ""))
            if known is not None:
                self._files.move_to_end((tenant, etag or ""))
        with database.read() as transaction:
            row = require_tenant(transaction, tenant)
        if known is not None and known.change >= row.fence:
            return known
        head = heads.get(database, tenant, code, row.full_dim)
        with kind.lock:
            last = kind.last
            if last is not None and last.path.exists() and last.change >= row.fence:
                young = time.monotonic() - last.made < PATIENCE * last.took_s
                if last.change >= row.change or young:
                    return last
            kind.last = self._make(database, tenant, code, head, text=text)
            self._keep(tenant, kind.last)
            return kind.last

    def close(self) -> None:
        """Delete the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make(
        self, database: Database, tenant: str, code: CodeKey, head: Head, *, text: bool
    ) -> Snapshot:
        began = time.monotonic()
        handle = tempfile.NamedTemporaryFile(dir=self._folder, delete=False)  # noqa: SIM115
        sha, size = hashlib.sha256(), 0
        path = Path(handle.name)
        try:
            with handle as file, live_pages(database, tenant, text=text) as (row, pages):
                first: dict[str, object] = {
                    "cursor": row.change,
                    "epoch": row.epoch,
                    "documents": row.documents,
                }
                like = np.zeros((0, code.dim), np.int8)
                for page in _at_least_one(pages):
                    frame = encode_items(
                        first, [coded(item, code, head) for item in page], like=like
                    )
                    data = _LENGTH.pack(len(frame)) + frame
                    first = {}
                    file.write(data)
                    sha.update(data)
                    size += len(data)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        took = time.monotonic() - began
        return Snapshot(path, row.change, size, sha.digest(), began, took)

    def _keep(self, tenant: str, snapshot: Snapshot) -> None:
        with self._lock:
            before = self._files.pop((tenant, snapshot.etag), None)
            self._files[tenant, snapshot.etag] = snapshot
            if before is not None:
                before.path.unlink(missing_ok=True)
            total = sum(file.size_bytes for file in self._files.values())
            while total > self._max_bytes and len(self._files) > 1:
                # Whoever is sending it just now has it open, and goes on.
                _, oldest = self._files.popitem(last=False)
                oldest.path.unlink(missing_ok=True)
                total -= oldest.size_bytes


def coded(item: Item, code: CodeKey, head: Head) -> Item:
    """A document with coarse codes in place of its full vectors."""
    return Item(
        item.id,
        item.stamp,
        code.derive(head, item.vectors),
        item.deleted,
        item.device,
        item.text,
        item.metadata,
        item.spans,
    )


def _at_least_one(pages: Iterator[list[Item]]) -> Iterator[list[Item]]:
    """The pages, or a single empty one if there are no pages."""
    page: list[Item] | None = None
    for page in pages:
        yield page
    if page is None:
        yield []
