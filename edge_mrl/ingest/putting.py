"""Documents into a store, batch by batch; unchanged ones are not embedded again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

from edge_mrl.arguments import check_call
from edge_mrl.documents import Document, check_metadata, id_problem, shorten
from edge_mrl.errors import BindingError, RefusedDocumentsError, UsageError
from edge_mrl.ingest.embedding import Advance, Refused, embed_or_refuse
from edge_mrl.ingest.engines import note_engine
from edge_mrl.ingest.pace import MOST_CHARS, Pace
from edge_mrl.store import replica, text_hash

if TYPE_CHECKING:
    from edge_mrl.encode import Encoder
    from edge_mrl.store import Entry, Store

__all__ = ["BATCH_DOCUMENTS", "MOST_CHANGES", "PutOptions", "Stored", "batches", "put_documents"]

#: The most documents, and about the most characters, that are looked up together. Those of them that are
#: embedded are committed in parts of some seconds each (``edge_mrl.ingest.pace``).
BATCH_DOCUMENTS = 256
BATCH_CHARS = MOST_CHARS
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
        conflicts: Documents of files that were left out because another device has written a document of
            this id since, and the file is as it was then; the text is among the dead letters.
        refused: Documents that were left out because the bundle cannot take their texts.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    passages: int = 0
    conflicts: int = 0
    refused: tuple[Refused, ...] = ()

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
            self.conflicts + other.conflicts,
            self.refused + other.refused,
        )


class PutOptions(TypedDict, total=False):
    """Options of ``put_documents``, as ``Index.put`` takes them too."""

    committed: Callable[[Stored], None] | None
    advance: Advance | None
    on_error: Literal["raise", "skip"]


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Group documents into batches of bounded size. No batch has an id twice.

    Where reading fails or a document cannot be stored, those before it are given first, and then the
    error is raised.

    Raises:
        UsageError: A document cannot be stored.
    """
    batch: dict[str, Document] = {}
    chars = 0
    if not isinstance(documents, Iterable) or isinstance(documents, str | bytes | Mapping):
        raise UsageError(
            f"documents is {shorten(documents)}, expected an iterable of Document, as in "
            'put([Document("id", "text")])'
        )
    following = iter(documents)
    failed: Exception | None = None
    while True:
        try:
            document: Document | None = _checked(next(following))
        except StopIteration:
            document = None
        except Exception as error:  # noqa: BLE001 - raised again below
            document, failed = None, error
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
    if failed is not None:
        raise failed


def _checked(document: object) -> Document:
    """The document, before anything is made of it.

    Raises:
        UsageError: It is no document, or a store cannot keep its metadata or its source.
    """
    if not isinstance(document, Document):
        raise UsageError(f"{shorten(document)} is {type(document).__name__}, expected a Document")
    check_metadata(document.metadata, f"document {document.id!r}")
    source = document.source
    if source is not None and (problem := id_problem(source)) is not None:
        raise UsageError(f"document {document.id!r}: its source {problem}")
    return document


def put_documents(
    store: Store,
    encoder: Callable[[], Encoder],
    documents: Iterable[Document],
    *,
    committed: Callable[[Stored], None] | None = None,
    advance: Advance | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> Stored:
    """Embed documents whose text is new, and store all of them, batch by batch.

    Args:
        store: The store.
        encoder: Gives the encoder of the store's present bundle; asked again if another process changes
            the bundle.
        documents: Any iterable; read as it is needed. If it raises, what it gave before is stored first.
        committed: Called after each commit with the totals so far.
        advance: Called while a batch is embedded, with its passages that are done, and all of them.
        on_error: What follows if the bundle cannot take the texts of some documents, which are left out
            in any case: "raise" raises an error once all others are stored, "skip" does not.

    Returns:
        How many documents were added, updated and unchanged, and which were left out.

    Raises:
        RefusedDocumentsError: Documents were left out; all others were stored.
        UsageError: A document's metadata cannot be kept. The documents before it are stored.
        StoreError: The current batch was not stored.
    """
    if not isinstance(on_error, str) or on_error not in ("raise", "skip"):
        raise UsageError(f'on_error is {shorten(on_error)}, expected "raise" or "skip"')
    check_call("committed", committed)
    check_call("advance", advance)
    total, pace = Stored(), Pace()
    for batch in batches(documents):
        for stored in _put_batch(store, encoder, batch, advance, pace):
            total += stored
            if committed is not None:
                committed(total)
    if total.refused and on_error == "raise":
        first = total.refused[0]
        raise RefusedDocumentsError(
            f"{len(total.refused)} of {total.documents + len(total.refused)} documents were left out "
            f"because of their texts, such as {first.id!r} ({first.reason}); the others are stored",
            stored=total,
        )
    return total


def _put_batch(
    store: Store,
    encoder: Callable[[], Encoder],
    batch: list[Document],
    advance: Advance | None,
    pace: Pace,
) -> Iterator[Stored]:
    """Store a batch, in parts; gives what each part did once it is committed."""
    known = store.hashes([document.id for document in batch])
    lost = replica.replaced_texts(store, [one.id for one in batch if one.source is not None])
    same: list[Document] = []
    fresh: list[Document] = []
    conflicts = 0
    for document in batch:
        digest = text_hash(document.text)
        if known.get(document.id) == digest:
            same.append(document)
        elif document.source is not None and lost.get(document.id) == digest:
            conflicts += 1
        else:
            fresh.append(document)
    done = Stored(conflicts=conflicts)
    for part in pace.parts(fresh, [len(one.text) for one in fresh]) if fresh else [[]]:
        entries, refused, stale = _store_all(store, encoder, (part, same), advance)
        if stale:
            again, more, _ = _store_all(store, encoder, (stale, []), advance)
            entries += again
            refused += more
        yield done + Stored(
            added=sum(entry.document.id not in known for entry in entries),
            updated=sum(entry.document.id in known for entry in entries),
            unchanged=len(same) - len(stale),
            passages=sum(len(entry.spans) for entry in entries),
            refused=tuple(refused),
        )
        done, same = Stored(), []


def _store_all(
    store: Store,
    encoder: Callable[[], Encoder],
    documents: tuple[list[Document], list[Document]],
    advance: Advance | None,
) -> tuple[list[Entry], list[Refused], list[Document]]:
    """Embed and store, and do so again if another process changes the bundle meanwhile.

    Args:
        store: The store.
        encoder: As for ``put_documents``.
        documents: Those to embed, and those whose text is stored already.
        advance: As for ``put_documents``.

    Returns:
        The entries of the first, those of them that were refused, and those of the others whose text
        another process has changed.
    """
    fresh, same = documents
    for left in reversed(range(MOST_CHANGES)):
        entries: list[Entry] = []
        refused: list[Refused] = []
        try:
            if fresh:
                # It follows a change of the bundle; rule and encoder are those after it.
                note_engine(store, encoder().engine)
                rule, keep_full = store.rule, store.keep_full
                entries, refused = embed_or_refuse(
                    encoder(), fresh, rule, keep_full, advance=advance
                )
            return entries, refused, store.put(entries, unchanged=same)
        except BindingError:
            if not left:
                raise
    raise AssertionError("unreachable")
