"""A store's texts, embedded again with another bundle; and the rule for their passages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.encode import passage_rule
from edge_mrl.errors import UsageError
from edge_mrl.ingest.embedding import Refused, embed_or_refuse
from edge_mrl.store import Entry, reindex

if TYPE_CHECKING:
    from edge_mrl.documents import Document, PassageRule
    from edge_mrl.encode import Encoder
    from edge_mrl.store import Store

__all__ = ["REINDEX_DOCUMENTS", "embed_again", "require_rule", "rule_for"]

#: Documents that reindexing commits together.
REINDEX_DOCUMENTS = 64


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


def require_rule(
    store: Store, *, max_tokens: int | None, overlap: int | None, keep_full: str | None
) -> None:
    """Check that options for a new store are those of one that is there; None was not asked for.

    Raises:
        UsageError: They are not.
    """
    rule = store.rule
    if keep_full not in (None, store.keep_full):
        raise UsageError(
            f"{store.path} keeps {store.keep_full or 'no'} full vectors, not {keep_full}: leave out "
            "this option, or create another store"
        )
    if max_tokens not in (None, rule.max_tokens) or overlap not in (None, rule.overlap):
        raise UsageError(
            f"{store.path} has passages of up to {rule.max_tokens} tokens with an overlap of "
            f"{rule.overlap}, which cannot be changed: leave out these options, or create another store"
        )


def embed_again(
    store: Store,
    encoder: Encoder,
    wanted: reindex.Reindexing,
    progress: Callable[[int, int], None] | None,
    refused: list[Refused] | None = None,
) -> int:
    """Embed all texts of a store with another bundle, then change to it in one transaction.

    Goes on where the same change was interrupted. Documents whose texts the bundle cannot take stay in
    the store; only their words can be searched.

    Args:
        store: The store.
        encoder: The new bundle's.
        wanted: What the store is changed to.
        progress: Called with documents done and documents in all.
        refused: Documents whose texts the bundle cannot take are added to this list.

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
        keys = {document.id: key for key, document in batch}
        documents = [document for _, document in batch]
        entries, bad = embed_or_refuse(encoder, documents, wanted.rule, wanted.keep_full)
        names = {one.id for one in bad}
        entries += [_without_passages(one, wanted) for one in documents if one.id in names]
        if refused is not None:
            refused.extend(bad)
        reindex.stage(store, wanted, [(keys[entry.document.id], entry) for entry in entries])
        embedded, last = embedded + len(batch), batch[-1][0]
        if progress is not None:
            progress(done + embedded, max(reindex.progress(store)[1], done + embedded))


def _without_passages(document: Document, wanted: reindex.Reindexing) -> Entry:
    full = (
        None
        if wanted.keep_full is None
        else np.empty((0, wanted.binding.full_dim or 0), np.float32)
    )
    codes = np.empty((0, wanted.binding.dim), np.int8)
    return Entry(document, [], codes, full)
