"""A device in Kotlin for tests of sync: a store with its bundle, and its client, in the probe."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge_mrl.documents import Document
from tests.android.probe import Probe
from tests.android.stores import sent_document
from tests.support.bundles import TINY

__all__ = ["PASSAGE", "KotlinDevice"]

#: Passages are short, so that small texts have several.
PASSAGE = {"max_tokens": 16, "overlap": 4}


class KotlinDevice:
    """A device that the probe has open.

    Args:
        probe: The process.
        path: Its store.
        keep_full: What a new store keeps of full vectors.
        bundle: Its bundle.
    """

    def __init__(
        self, probe: Probe, path: Path, *, keep_full: str | None = None, bundle: Path = TINY
    ) -> None:
        self._probe = probe
        self.path = path
        self("open", bundle=str(bundle), keep_full=keep_full, **PASSAGE)

    def __call__(self, command: str, **arguments: Any) -> Any:
        return self._probe(f"sync.{command}", path=str(self.path), **arguments)

    def store(self, command: str, **arguments: Any) -> Any:
        """A command of its store."""
        return self._probe(f"store.{command}", path=str(self.path), **arguments)

    def put(self, documents: Iterable[Document]) -> None:
        """Store documents as an index does."""
        self("put", documents=[sent_document(one) for one in documents])

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents."""
        return int(self.store("delete", ids=list(ids)))

    def get(self, ids: Iterable[str]) -> dict[str, Any]:
        """Documents by id, each with text, metadata and source."""
        return dict(self.store("get", ids=list(ids)))

    def enroll(self, server: str, invitation: str, **options: Any) -> None:
        """Enroll, and open the client."""
        self("enroll", server=server, invitation=invitation, **options)
        self("client")

    def sync(self, **options: Any) -> Any:
        """Sync once; the outcome."""
        return self("once", **options)
