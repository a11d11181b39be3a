"""The face of the store: documents in, answers out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from edge_mrl.bundle import Manifest, read_manifest
from edge_mrl.encoder import Encoder
from edge_mrl.errors import BindingError, BundleError, UsageError
from edge_mrl.passages import PassageRule, passage_rule, split
from edge_mrl.search import Match, nearest
from edge_mrl.store import Binding, Counts, Entry, Store, text_hash

if TYPE_CHECKING:
    from edge_mrl.documents import Document

__all__ = ["Hit", "Index", "Stored"]

#: Documents, or characters, that are embedded and committed together. An interruption loses one
#: such batch: some 100 passages, a second or two on a laptop, ten or twenty on a small ARM board.
BATCH_DOCUMENTS = 256
BATCH_CHARS = 100_000


@dataclass(frozen=True, slots=True)
class Hit:
    """A document found by a search, with the passage that answers best.

    Attributes:
        id: The document's id.
        text: The passage.
        start: Where it starts in the document's text, in characters.
        end: Where it ends.
        score: Cosine of query and passage, in [-1, 1], of their int8 codes.
        metadata: The document's metadata.
    """

    id: str
    text: str
    start: int
    end: int
    score: float
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stored:
    """What a put did.

    Attributes:
        added: New documents.
        updated: Documents whose text was replaced.
        unchanged: Documents whose text was stored already: not embedded again.
        passages: Passages embedded.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    passages: int = 0

    @property
    def documents(self) -> int:
        """Documents put, unchanged ones included."""
        return self.added + self.updated + self.unchanged

    def __add__(self, other: Stored) -> Stored:
        return Stored(
            self.added + other.added,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.passages + other.passages,
        )


class Index:
    """A store together with the bundle it was made with. Safe to share between threads."""

    def __init__(
        self, store: Store, encoder: Encoder | None, *, open_encoder: Callable[[Path], Encoder]
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._open_encoder = open_encoder
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        bundle: str | os.PathLike[str] | None = None,
        *,
        max_tokens: int | None = None,
        overlap: int | None = None,
        threads: int | None = None,
        low_memory: bool = False,
    ) -> Index:
        """Open a store, or make one if a bundle is given.

        Args:
            path: The store's file.
            bundle: The bundle's folder. Needed to make a store and, later, only if the bundle has
                moved: a store remembers it, both in itself and seen from the store's folder.
            max_tokens: Most tokens in a passage. Fixed when the store is made (default: what the
                model reads, at most some 250).
            overlap: Tokens that passages next to each other share. Fixed when the store is made
                (default: an eighth of ``max_tokens``).
            threads: Threads for embedding; None is one per core.
            low_memory: Embed with the smallest memory, slower.

        Raises:
            UsageError: No store and no bundle, or passage options unlike the store's.
            BundleError: The bundle cannot be trusted or opened.
            StoreError: The store cannot be used; BindingError if it belongs to another bundle.
        """
        open_encoder = partial(Encoder.open, threads=threads, low_memory=low_memory)
        opened: list[Encoder] = []
        store = None
        try:
            if bundle is None:
                store = Store.open(path)
            else:
                folder = Path(bundle).resolve()
                binding = _binding(read_manifest(folder), folder)

                def create() -> tuple[Binding, PassageRule]:
                    opened.append(open_encoder(folder))
                    rule = passage_rule(opened[0], max_tokens=max_tokens, overlap=overlap)
                    return binding, rule

                store = Store.open(path, create=create)
                store.require(binding)
            _require_rule(store, max_tokens, overlap)
        except BaseException:
            for thing in (*opened, store):
                if thing is not None:
                    thing.close()
            raise
        return cls(store, opened[0] if opened else None, open_encoder=open_encoder)

    @property
    def path(self) -> Path:
        """The store's file."""
        return self._store.path

    @property
    def rule(self) -> PassageRule:
        """How documents are cut into passages."""
        return self._store.rule

    @property
    def binding(self) -> Binding:
        """The space and code that the store holds, and its bundle's path."""
        return self._store.binding

    @property
    def encoder(self) -> Encoder:
        """The bundle, opened when first needed.

        Raises:
            UsageError: It is not where it was.
            BindingError: What is there now is of another space or code.
        """
        with self._lock:
            if self._encoder is None:
                self._encoder = self._open_encoder(_find_bundle(self._store))
            return self._encoder

    def put(
        self,
        documents: Iterable[Document],
        *,
        committed: Callable[[Stored], None] | None = None,
    ) -> Stored:
        """Store documents: each replaces that of its id; unchanged text is not embedded again.

        Documents are read, embedded and committed in batches, in order, with bounded memory. A
        document is stored whole or not at all, and is durable once its batch is committed.

        Args:
            documents: Any iterable.
            committed: Called after each commit with all that was stored so far.

        Raises:
            UsageError: Metadata that JSON cannot carry.
            StoreError: The current batch was not stored.
        """
        total = Stored()
        for batch in _batches(documents):
            total += self._put_batch(batch)
            if committed is not None:
                committed(total)
        return total

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents; returns how many were there."""
        return self._store.delete(ids)

    def get(self, ids: Iterable[str]) -> dict[str, Document]:
        """Those of the documents that are there, by id."""
        return self._store.get(ids)

    def count(self) -> Counts:
        """Count documents and passages."""
        return self._store.count()

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """Find the k documents that answer a query best: ``search_many`` for one."""
        return self.search_many([query], k=k)[0]

    def search_many(self, queries: Sequence[str], *, k: int = 10) -> list[list[Hit]]:
        """Find the documents that answer each query best, by exact search over all codes.

        A document of several passages counts by its best one and comes once.

        Args:
            queries: In the user's words; the bundle's prompt for queries is added.
            k: Most documents for each.

        Returns:
            For each query at most k hits by score, equals by id. The hits of one call come from
            one state of the store.

        Raises:
            TypeError: ``queries`` is a single string.
            UsageError: k is below 1.
        """
        if k < 1:
            raise UsageError(f"k is {k}, expected at least 1")
        codes = self.encoder.encode(queries, kind="query").coarse
        with self._store.reading():
            found = nearest(codes, self._store.codes(), k=k)
            keys = sorted({match.key for row in found for match in row})
            documents = self._store.documents(keys)
            return [[self._hit(match, documents[match.key]) for match in row] for row in found]

    def close(self) -> None:
        """Close the store and the bundle."""
        if self._encoder is not None:
            self._encoder.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _put_batch(self, batch: list[Document]) -> Stored:
        known = self._store.hashes([document.id for document in batch])
        same: list[Document] = []
        fresh: list[Document] = []
        for document in batch:
            unchanged = known.get(document.id) == text_hash(document.text)
            (same if unchanged else fresh).append(document)
        entries = self._embed(fresh)
        stale = self._store.put(entries, unchanged=same)
        if stale:
            again = self._embed(stale)
            self._store.put(again)
            entries += again
        return Stored(
            added=sum(entry.document.id not in known for entry in entries),
            updated=sum(entry.document.id in known for entry in entries),
            unchanged=len(same) - len(stale),
            passages=sum(len(entry.spans) for entry in entries),
        )

    def _embed(self, documents: list[Document]) -> list[Entry]:
        if not documents:
            return []
        cut = [(document, split(self.encoder, document.text, self.rule)) for document in documents]
        texts = (document.text[start:end] for document, spans in cut for start, end in spans)
        codes = self.encoder.encode(texts, kind="document").coarse
        entries, first = [], 0
        for document, spans in cut:
            entries.append(Entry(document, spans, codes[first : first + len(spans)]))
            first += len(spans)
        return entries

    def _hit(self, match: Match, document: Document) -> Hit:
        start, end = self._store.span(match.key, match.position)
        text = document.text[start:end]
        return Hit(document.id, text, start, end, match.score, document.metadata)


def _require_rule(store: Store, max_tokens: int | None, overlap: int | None) -> None:
    rule = store.rule
    if max_tokens not in (None, rule.max_tokens) or overlap not in (None, rule.overlap):
        raise UsageError(
            f"{store.path} has passages of up to {rule.max_tokens} tokens, overlap {rule.overlap}, "
            "and keeps them so: leave these options out, or make another store"
        )


def _find_bundle(store: Store) -> Path:
    """The store's bundle: beside it as it was, or where it was."""
    wrong: BindingError | None = None
    for folder in store.bundle_candidates():
        try:
            binding = _binding(read_manifest(folder), folder.resolve())
            store.require(binding)
        except BindingError as error:
            wrong = error
        except (UsageError, BundleError):
            continue
        else:
            return folder
    if wrong is not None:
        raise wrong
    raise UsageError(
        f"the bundle of {store.path} is not at {store.binding.bundle} any more: "
        "say where it is with --bundle DIR"
    )


def _binding(manifest: Manifest, folder: Path) -> Binding:
    return Binding(
        manifest.space_id, manifest.code_id, manifest.dim, manifest.code.scale, str(folder)
    )


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents in batches of bounded size; an id comes once in a batch."""
    batch: dict[str, Document] = {}
    chars = 0
    for document in documents:
        if document.id in batch:
            yield list(batch.values())
            batch, chars = {}, 0
        batch[document.id] = document
        chars += len(document.text)
        if len(batch) >= BATCH_DOCUMENTS or chars >= BATCH_CHARS:
            yield list(batch.values())
            batch, chars = {}, 0
    if batch:
        yield list(batch.values())
