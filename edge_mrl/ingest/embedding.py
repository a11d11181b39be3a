"""Documents split into passages and embedded; texts that the bundle cannot take are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from edge_mrl.encode import embedded_texts, split_document
from edge_mrl.errors import BundleError, EncoderError, UsageError
from edge_mrl.store import Entry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.documents import Document, PassageRule
    from edge_mrl.encode import Encoder

__all__ = ["Advance", "Refused", "embed", "embed_or_refuse", "full_vectors"]

#: Called with the passages of a batch that are embedded, and all of them.
Advance: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Refused:
    """A document that was left out because the bundle cannot take its text.

    Attributes:
        id: The document.
        reason: What the tokenizer or the graph said.
    """

    id: str
    reason: str


def embed(
    encoder: Encoder,
    documents: Sequence[Document],
    rule: PassageRule,
    keep_full: str | None,
    *,
    advance: Advance | None = None,
) -> list[Entry]:
    """Split documents into passages and embed them.

    Args:
        encoder: The bundle.
        documents: Any number; their passages are embedded together.
        rule: The longest passage, and the overlap of neighbours.
        keep_full: How the store keeps full vectors; None if it does not, which drops them here.
        advance: Called with the passages that were embedded so far, and all of them.

    Returns:
        An entry for each document, in order.

    Raises:
        EncoderError: The bundle cannot take one of the texts.
    """
    cut = [(document, split_document(encoder, document, rule)) for document in documents]
    texts = (
        text for document, spans in cut for text in embedded_texts(encoder, document, spans, rule)
    )
    encoding = encoder.encode(texts, kind="document", advance=_adding(advance, cut))
    entries, first = [], 0
    for document, spans in cut:
        rows = slice(first, first + len(spans))
        full = None if keep_full is None or encoding.full is None else encoding.full[rows]
        entries.append(Entry(document, spans, encoding.coarse[rows], full))
        first += len(spans)
    return entries


def _adding(
    advance: Advance | None, cut: Sequence[tuple[Document, Sequence[object]]]
) -> Callable[[int], None] | None:
    if advance is None:
        return None
    total, done = sum(len(spans) for _, spans in cut), 0

    def add(passages: int) -> None:
        nonlocal done
        done += passages
        advance(done, total)

    return add


def embed_or_refuse(
    encoder: Encoder,
    documents: Sequence[Document],
    rule: PassageRule,
    keep_full: str | None,
    *,
    advance: Advance | None = None,
) -> tuple[list[Entry], list[Refused]]:
    """Embed documents; those with texts that the bundle cannot take are found by halves and left out.

    Arguments are those of ``embed``.

    Raises:
        BundleError: The bundle cannot take any text.
    """
    entries, refused = _embed_by_halves(encoder, documents, rule, keep_full, advance)
    if refused and not entries:
        _require_working(encoder, refused[0])
    return entries, refused


def _embed_by_halves(
    encoder: Encoder,
    documents: Sequence[Document],
    rule: PassageRule,
    keep_full: str | None,
    advance: Advance | None,
) -> tuple[list[Entry], list[Refused]]:
    if not documents:
        return [], []
    try:
        return embed(encoder, documents, rule, keep_full, advance=advance), []
    except EncoderError as error:
        if len(documents) == 1:
            return [], [Refused(documents[0].id, str(error))]
    entries: list[Entry] = []
    refused: list[Refused] = []
    middle = len(documents) // 2
    for half in (documents[:middle], documents[middle:]):
        good, bad = _embed_by_halves(encoder, half, rule, keep_full, None)
        entries += good
        refused += bad
    return entries, refused


def _require_working(encoder: Encoder, refused: Refused) -> None:
    """Tell a bundle that takes no text at all from documents with odd texts.

    Raises:
        BundleError: It takes none.
    """
    try:
        encoder.encode(["a"], kind="document")
    except EncoderError as error:
        raise BundleError(
            f"{encoder.path} takes no text ({refused.reason}): check it with `edge-mrl verify`"
        ) from error


def full_vectors(
    encoder: Encoder, texts: Sequence[Sequence[str]]
) -> list[NDArray[np.float32] | None]:
    """Full vectors of documents, each given by the texts of its n passages.

    Returns:
        For each document float32[n, D]; None where the bundle cannot take its text.

    Raises:
        UsageError: The bundle gives no full vectors.
    """
    if not texts:
        return []
    try:
        full = encoder.encode([text for some in texts for text in some], kind="document").full
    except EncoderError:
        if len(texts) == 1:
            return [None]
        middle = len(texts) // 2
        return [*full_vectors(encoder, texts[:middle]), *full_vectors(encoder, texts[middle:])]
    if full is None:
        raise UsageError(
            f"the bundle {encoder.path} gives no full vectors (it was exported with --coarse-only)"
        )
    return [*np.split(full, np.cumsum([len(some) for some in texts])[:-1])]
