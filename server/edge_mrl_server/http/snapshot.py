"""Snapshots: all live documents of a tenant in one file, for devices that begin with nothing.

A file is made once for each state of the tenant and kind of code, and sent from the disk, whole or in
parts. It is named by what is in it: another server that made the same bytes may send the rest.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
import threading
import time
from base64 import b64encode
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from edge_mrl.wire import Item, encode_items
from edge_mrl_server.http.heads import CodeKey, HeadCache
from edge_mrl_server.http.limits import Buckets
from edge_mrl_server.http.load.folder import OwnFolder
from edge_mrl_server.http.making import Progress
from edge_mrl_server.storage import (
    Database,
    Head,
    LivePages,
    live_pages,
    present_tenant,
    require_space,
)

__all__ = ["Opened", "Snapshot", "SnapshotCache", "SnapshotKey", "coded"]

#: A snapshot may be older than the tenant's last change by so many times what making it took: however
#: often devices come and documents change, making them takes a tenth of one processor.
PATIENCE = 10.0
#: Kinds of snapshots that are remembered of one tenant, and of all. A bundle needs one or two.
MAX_KINDS, MAX_KINDS_ALL = 16, 4_096
#: Further kinds of one tenant: another one in so many seconds.
NEW_KIND_S = 300.0
#: The part of the disk's bytes that one tenant's files may take while others have some too.
TENANT_SHARE = 0.5
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


@dataclass(frozen=True, slots=True)
class Opened:
    """A snapshot with its file open: whoever deletes it meanwhile takes nothing away."""

    snapshot: Snapshot
    file: BinaryIO

    def close(self) -> None:
        """Close the file."""
        self.file.close()


@dataclass(eq=False)
class _Kind:
    """The last snapshot of a tenant, a code and a choice of text; locked while one is made."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    last: Snapshot | None = None


#: A tenant, a code, and whether with text and metadata.
SnapshotKey = tuple[str, CodeKey, bool]


class SnapshotCache:
    """Snapshots on the disk, the least recently used deleted first. Thread-safe.

    Args:
        folder: Where; None for the folder of temporary files. It gets a folder of this process's own, and
            loses those of processes that have ended.
        max_bytes: Bytes of all files at most, but the last one stays however large it is.
    """

    def __init__(self, folder: Path | None, *, max_bytes: int) -> None:
        self._folder = OwnFolder(folder)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kinds: OrderedDict[SnapshotKey, _Kind] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self._epochs: dict[str, str] = {}
        self._new = Buckets(
            1 / NEW_KIND_S, what="new codes of snapshots", burst_s=MAX_KINDS * NEW_KIND_S
        )
        self._files: OrderedDict[tuple[str, str], Snapshot] = OrderedDict()

    def find(
        self,
        database: Database,
        heads: HeadCache,
        tenant: str,
        code: CodeKey,
        *,
        text: bool,
        etag: str | None,
        space_id: str | None = None,
    ) -> Opened | None:
        """The snapshot that a device wants, if it is here: the one it has a part of, or a young one.

        Args:
            database: Where the documents are.
            heads: Where the code's head is looked up.
            tenant: Whose documents.
            code: The code of the snapshot.
            text: Whether with text and metadata.
            etag: The tag of the one that the device has a part of.
            space_id: The space of the device's store; None where it does not say.

        Raises:
            Refusal: The head is not registered, or does not fit the code.
            SpaceMismatchError: The tenant's vectors are of another space.
        """
        with database.read() as transaction:
            row = present_tenant(transaction, tenant)
        require_space(row, space_id)
        self._see(tenant, row.epoch)
        known = self._open(tenant, etag or "")
        if known is not None:
            if known.snapshot.change >= row.fence:
                return known
            known.close()
        heads.get(database, tenant, code, row.full_dim)
        with self._lock:
            kind = self._kinds.get(key := (tenant, code, text))
            last = None if kind is None else kind.last
            if kind is not None:
                self._kinds.move_to_end(key)
        if last is None or last.change < row.fence:
            return None
        young = time.monotonic() - last.made < PATIENCE * last.took_s
        if last.change < row.change and not young:
            return None
        return self._open(tenant, last.etag)

    def make(
        self,
        database: Database,
        heads: HeadCache,
        tenant: str,
        code: CodeKey,
        *,
        text: bool,
        progress: Progress | None = None,
    ) -> Opened:
        """Make a snapshot, unless there is one now that is young enough.

        Args:
            database: Where the documents are.
            heads: Where the code's head is looked up.
            tenant: Whose documents.
            code: The code to make.
            text: Whether with text and metadata.
            progress: Told how far it is.

        Raises:
            Refusal: The head is not registered, or does not fit the code; or too many codes.
        """
        kind = self._kind((tenant, code, text))
        with kind.lock:
            found = self.find(database, heads, tenant, code, text=text, etag=None)
            if found is not None:
                return found
            with database.read() as transaction:
                full_dim = present_tenant(transaction, tenant).full_dim
            head = heads.get(database, tenant, code, full_dim)
            pages = live_pages(database, tenant, text=text)
            kind.last, opened = self._keep(
                tenant, self._make(pages, code, head, progress or Progress())
            )
            return opened

    def _see(self, tenant: str, epoch: str) -> None:
        """Forget what is of another epoch: the database was restored, or the tenant is a new one."""
        with self._lock:
            if self._epochs.setdefault(tenant, epoch) == epoch:
                return
            self._epochs[tenant] = epoch
            for key in [key for key in self._kinds if key[0] == tenant]:
                self._forget(key)
            for name in [name for name in self._files if name[0] == tenant]:
                self._files.pop(name).path.unlink(missing_ok=True)

    def close(self) -> None:
        """Delete the files."""
        self._folder.close()

    def _kind(self, key: SnapshotKey) -> _Kind:
        """A kind, remembered from now on; one that was not known counts."""
        tenant = key[0]
        with self._lock:
            kind = self._kinds.get(key)
            if kind is None:
                self._new.take(tenant)
                kind = self._kinds[key] = _Kind()
                self._counts[tenant] += 1
                if self._counts[tenant] > MAX_KINDS:
                    self._forget(next(known for known in self._kinds if known[0] == tenant))
                elif len(self._kinds) > MAX_KINDS_ALL:
                    self._forget(next(iter(self._kinds)))
            self._kinds.move_to_end(key)
            return kind

    def _forget(self, key: SnapshotKey) -> None:
        del self._kinds[key]
        self._counts[key[0]] -= 1
        if not self._counts[key[0]]:
            del self._counts[key[0]]

    def _make(self, live: LivePages, code: CodeKey, head: Head, progress: Progress) -> Snapshot:
        began = time.monotonic()
        handle = tempfile.NamedTemporaryFile(dir=self._folder.path, delete=False)  # noqa: SIM115
        sha, size = hashlib.sha256(), 0
        path = Path(handle.name)
        try:
            with handle as file:
                row, pages = live
                progress.begin(row.documents)
                first: dict[str, object] = {
                    "cursor": row.change,
                    "epoch": row.epoch,
                    "documents": row.documents,
                    "space": row.space_id,
                    "code": code.as_json(),
                }
                for page in _at_least_one(pages):
                    frame = encode_items(
                        first, [coded(item, code, head) for item in page], like=code.none
                    )
                    data = _LENGTH.pack(len(frame)) + frame
                    first = {}
                    file.write(data)
                    sha.update(data)
                    size += len(data)
                    progress.done += len(page)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        took = time.monotonic() - began
        return Snapshot(path, row.change, size, sha.digest(), began, took)

    def _open(self, tenant: str, etag: str) -> Opened | None:
        """Open a file that is here."""
        with self._lock:
            snapshot = self._files.get((tenant, etag))
            if snapshot is None:
                return None
            try:
                opened = Opened(snapshot, snapshot.path.open("rb"))
            except FileNotFoundError:  # somebody cleared the folder
                del self._files[tenant, etag]
                return None
            self._files.move_to_end((tenant, etag))
            return opened

    def _keep(self, tenant: str, made: Snapshot) -> tuple[Snapshot, Opened]:
        """Remember a file; if there is one of the same bytes, that stays and is of the newer state."""
        with self._lock:
            before = self._files.pop((tenant, made.etag), None)
            snapshot, file = made, made.path.open("rb")
            if before is not None and before.path.exists():
                made.path.unlink()
                snapshot = replace(made, path=before.path)
            self._files[tenant, made.etag] = snapshot
            self._evict(tenant)
            return snapshot, Opened(snapshot, file)

    def _evict(self, tenant: str) -> None:
        # Whoever is sending one of them just now has it open, and goes on.
        total = sum(file.size_bytes for file in self._files.values())
        own = sum(file.size_bytes for key, file in self._files.items() if key[0] == tenant)
        while total > self._max_bytes and len(self._files) > 1:
            # A tenant with more than its share makes room for itself; it keeps its last one.
            greedy = own > self._max_bytes * TENANT_SHARE
            key = next(k for k in self._files if not greedy or k[0] == tenant)
            if key == next(reversed(self._files)):
                key = next(iter(self._files))
            oldest = self._files.pop(key)
            oldest.path.unlink(missing_ok=True)
            total -= oldest.size_bytes
            own -= oldest.size_bytes if key[0] == tenant else 0


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
