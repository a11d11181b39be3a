"""A device whose store and client are in Kotlin: what ``device`` calls, passed on to a Java process.

Java is killed with the device's process, and by the harness before it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from edge_mrl import Document
from edge_mrl.errors import NetworkError, StoreBusyError
from tests.android.devices import KotlinDevice
from tests.android.probe import KotlinError, Probe
from tests.support import children

__all__ = ["KotlinClient", "KotlinIndex"]

#: What Java throws where the network fails or a server refuses.
_NETWORK = frozenset(
    {"NetworkException", "ServerException", "IntermediaryException", "OversizedAnswerException"}
)
#: What an outcome says that only another enrollment ends, in both languages.
_AGAIN = "enroll with a new invitation"


class KotlinIndex:
    """An index in a Java process, as far as a device of the harness uses one.

    Args:
        store: The store's file.
        bundle: The bundle.
        keep_full: What a new store keeps of full vectors.
        ahead_ms: How far the device's clock is ahead.
    """

    def __init__(self, store: Path, bundle: Path, keep_full: str | None, *, ahead_ms: int) -> None:
        self._probe = Probe(wrapped=children.ending_with_us)
        self.pid = self._probe.process.pid
        self._probe("sync.clock", ahead_ms=ahead_ms)
        self._device = KotlinDevice(self._probe, store, keep_full=keep_full, bundle=bundle)
        self.store = SimpleNamespace(path=store, locked=self._locked)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self("close")
        self._probe.__exit__(kind, error, trace)

    def __call__(self, command: str, **arguments: Any) -> Any:
        """A command of the device; what it throws is what Python would raise."""
        try:
            return self._device(command, **arguments)
        except KotlinError as error:
            if error.kind in _NETWORK:
                raise NetworkError(str(error)) from error
            if error.kind == "StoreBusyException":
                raise StoreBusyError(str(error)) from error
            raise

    def put(self, documents: Sequence[Document]) -> None:
        """Store documents."""
        self._device.put(documents)

    def delete(self, ids: Sequence[str]) -> None:
        """Delete documents."""
        self._device.delete(ids)

    def get(self, ids: Sequence[str]) -> dict[str, Document]:
        """Documents by id."""
        found = self._device.get(ids)
        return {name: Document(name, one["text"], one["metadata"]) for name, one in found.items()}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[tuple[sqlite3.Connection, None]]:
        with contextlib.closing(sqlite3.connect(self.store.path, timeout=10)) as connection:
            yield connection, None


class KotlinClient:
    """A client in the same process.

    Args:
        index: The index, enrolled.
        timeouts: Seconds for a connection, for a read, and for all.
    """

    def __init__(self, index: KotlinIndex, timeouts: Sequence[float]) -> None:
        self._index = index
        index("client", timeouts=[float(one) for one in timeouts])

    def sync_once(self, *, attempts: int) -> Any:
        """Sync; the outcome's words are Python's where the harness looks for them."""
        said = self._index("once", attempts=attempts)
        waiting = said["waiting"]
        if waiting is not None and _AGAIN in waiting:
            waiting = f"{waiting} (edge-mrl enroll)"
        return SimpleNamespace(done=waiting is None, waiting=waiting, cause=said["cause"])

    def status(self) -> Any:
        """Where the sync stands."""
        said = self._index("status")
        return SimpleNamespace(device=said["device"], queue=SimpleNamespace(items=said["queue"]))

    def close(self) -> None:
        """Nothing: the index closes its client."""
