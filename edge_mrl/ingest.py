"""Documents become entries of a store: split into passages and embedded, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_mrl.documents import Document, PassageRule, check_metadata, shorten
from edge_mrl.encode import passage_rule, split_passages
from edge_mrl.errors import BindingError, UsageError
from edge_mrl.store import Entry, reindex, text_hash

if TYPE_CHECKING:
    from edge_mrl.encode import Encoder
    from edge_mrl.store import Store

__all__ = [
    "MOST_CHANGES",
    "REINDEX_DOCUMENTS",
    "Stored",
    "batches",
    "embed",
    "embed_again",
    "put_documents",
    "rule_for",
]

#: The most documents, and about the most characters, that are embedded and committed together. An
#: interruption loses one such batch: some 100 passages, a second or two on a laptop, ten or twenty on
#: a small ARM board.
BATCH_DOCUMENTS = 256
BATCH_CHARS = 100_000
#: Documents that reindexing commits together.
REINDEX_DOCUMENTS = 64
#: How often other processes may change the bundle during one call.
MOST_CHANGES = 3


@dataclass(frozen=True, slots=True)
class Stored:
    """What a put did.

    Attributes:
        added: New documents.
        updated: Documents whose text was replaced.
        unchanged: Documents whose text was stored already, and was not embedded again.
        passages: Passages that were embedded.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    passages: int = 0

    @property
    def documents(self) -> int:
        """All documents that were put, including unchanged ones."""
        return self.added + self.updated + self.unchanged

    def __add__(self, other: Stored) -> Stored:
        return Stored(
            self.added + other.added,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.passages + other.passages,
        )


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Group documents into batches of bounded size. No batch has an id twice.

    Raises:
        UsageError: A document cannot be stored. Those before it have been yielded.
    """
    batch: dict[str, Document] = {}
    chars, refused = 0, None
    following = iter(documents)
    while refused is None:
        try:
            document = _checked(next(following, None))
        except UsageError as error:
            document, refused = None, error
        if batch and (document is None or document.id in batch):
            yield list(batch.values())
            batch, chars = {}, 0
        if document is None:
            break
        batch[document.id] = document
        chars += len(document.text)
        if len(batch) >= BATCH_DOCUMENTS or chars >= BATCH_CHARS:
            yield list(batch.values())
            batch, chars = {}, 0
    if refused is not None:
        raise refused


def _checked(document: object) -> Document | None:
    """The document, before anything is made of it; None as it is.

    Raises:
        UsageError: It is no document, or a store cannot keep its metadata.
    """
    if document is None:
        return None
    if not isinstance(document, Document):
        raise UsageError(f"{shorten(document)} is {type(document).__name__}, expected a Document")
    check_metadata(document.metadata, f"document {document.id!r}")
    return document


def embed(
    encoder: Encoder, documents: Sequence[Document], rule: PassageRule, keep_full: str | None
) -> list[Entry]:
    """Split documents into passages and embed them.

    Args:
        encoder: The bundle.
        documents: Any number; their passages are embedded together.
        rule: The longest passage, and the overlap of neighbours.
        keep_full: How the store keeps full vectors; None if it does not, which drops them here.

    Returns:
        An entry for each document, in order.
    """
    cut = [(document, split_passages(encoder, document.text, rule)) for document in documents]
    texts = (document.text[start:end] for document, spans in cut for start, end in spans)
    encoding = encoder.encode(texts, kind="document")
    entries, first = [], 0
    for document, spans in cut:
        rows = slice(first, first + len(spans))
        full = None if keep_full is None or encoding.full is None else encoding.full[rows]
        entries.append(Entry(document, spans, encoding.coarse[rows], full))
        first += len(spans)
    return entries


def put_documents(
    store: Store,
    encoder: Callable[[], Encoder],
    documents: Iterable[Document],
    *,
    committed: Callable[[Stored], None] | None = None,
) -> Stored:
    """Embed documents whose text is new, and store all of them, batch by batch.

    Args:
        store: The store.
        encoder: Gives the encoder of the store's present bundle; asked again if another process changes
            the bundle.
        documents: Any iterable; read as it is needed.
        committed: Called after each commit with the totals so far.

    Returns:
        How many documents were added, updated and unchanged.

    Raises:
        UsageError: A document's metadata cannot be kept. The documents before it are stored.
        StoreError: The current batch was not stored.
    """
    total = Stored()
    for batch in batches(documents):
        total += _put_batch(store, encoder, batch)
        if committed is not None:
            committed(total)
    return total


def _put_batch(store: Store, encoder: Callable[[], Encoder], batch: list[Document]) -> Stored:
    known = store.hashes([document.id for document in batch])
    same: list[Document] = []
    fresh: list[Document] = []
    for document in batch:
        unchanged = known.get(document.id) == text_hash(document.text)
        (same if unchanged else fresh).append(document)
    entries, stale = _store_all(store, encoder, fresh, same)
    if stale:
        again, _ = _store_all(store, encoder, stale, [])
        entries += again
    return Stored(
        added=sum(entry.document.id not in known for entry in entries),
        updated=sum(entry.document.id in known for entry in entries),
        unchanged=len(same) - len(stale),
        passages=sum(len(entry.spans) for entry in entries),
    )


def _store_all(
    store: Store, encoder: Callable[[], Encoder], fresh: list[Document], same: list[Document]
) -> tuple[list[Entry], list[Document]]:
    """Embed and store, and do so again if another process changes the bundle meanwhile.

    Returns:
        The entries of ``fresh``, and those of ``same`` whose text another process has changed.
    """
    for left in reversed(range(MOST_CHANGES)):
        rule = store.rule
        entries = embed(encoder(), fresh, rule, store.keep_full) if fresh else []
        try:
            return entries, store.put(entries, unchanged=same)
        except BindingError:
            if not left:
                raise
    raise AssertionError("unreachable")


def rule_for(
    encoder: Encoder, now: PassageRule, max_tokens: int | None, overlap: int | None
) -> PassageRule:
    """The passage rule for a store after reindexing.

    Args:
        encoder: The new bundle's.
        now: The store's present rule.
        max_tokens: The longest passage, in tokens; None if not asked for.
        overlap: The overlap of neighbouring passages, in tokens; None if not asked for.

    Returns:
        The present rule if nothing is asked for and the new model can read such passages; else what is
        asked for, and the new model's defaults for the rest.

    Raises:
        UsageError: The new model cannot read passages of that length.
    """
    if max_tokens is None and overlap is None:
        try:
            return passage_rule(encoder, max_tokens=now.max_tokens, overlap=now.overlap)
        except UsageError:  # the new model reads less
            return passage_rule(encoder)
    return passage_rule(encoder, max_tokens=max_tokens, overlap=overlap)


def embed_again(
    store: Store,
    encoder: Encoder,
    wanted: reindex.Reindexing,
    progress: Callable[[int, int], None] | None,
) -> int:
    """Embed all texts of a store with another bundle, then change to it in one transaction.

    Goes on where the same change was interrupted.

    Args:
        store: The store.
        encoder: The new bundle's.
        wanted: What the store is changed to.
        progress: Called with documents done and documents in all.

    Returns:
        The number of documents that this call embedded.

    Raises:
        UsageError: The store keeps full vectors and the new bundle gives none.
    """
    done = reindex.begin(store, wanted)
    embedded, last = 0, 0
    while True:
        batch = reindex.pending(store, limit=REINDEX_DOCUMENTS, after=last)
        if not batch:
            if reindex.finish(store):
                return embedded
            last = 0  # documents before this one were changed in the meantime
            continue
        entries = embed(encoder, [document for _, document in batch], wanted.rule, wanted.keep_full)
        rows = [(key, entry) for (key, _), entry in zip(batch, entries, strict=True)]
        reindex.stage(store, wanted, rows)
        embedded, last = embedded + len(batch), batch[-1][0]
        if progress is not None:
            progress(done + embedded, max(reindex.progress(store)[1], done + embedded))
