"""Words that too many documents have to tell them apart: a search that has rarer ones leaves them out.

BM25 weighs a word by the documents that lack it, so one that two of five documents have adds next to
nothing to a ranking; but every document that has it must be ranked. Without such words a search of a
million short texts takes a quarter of the time, and the rankings of docs/benchmarks.md are as good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_mrl.store.counting import Counting

__all__ = ["without_common"]

#: A word is common if more documents have it than both of one of these: a share, and a number. To rank
#: the first number takes some 5 ms, the second 20; fewer are ranked as they are.
LIMITS = ((0.4, 5_000), (0.2, 20_000))


def without_common(terms: Sequence[str], counting: Counting) -> list[str]:
    """The terms of a search without those that are common, if any is left that a document has.

    Args:
        terms: Terms of an FTS5 expression, any of which a document may have.
        counting: Counts the store's documents.

    Returns:
        The terms in their order. If all that occur are common, the rarest of them.
    """
    if len(terms) < 2:
        return list(terms)
    documents = counting.documents()
    common = _common(documents)
    counts = [counting.with_words(term, common) for term in terms]
    if max(counts) < common:
        return list(terms)
    rare = [term for term, count in zip(terms, counts, strict=True) if count < common]
    if any(0 < count < common for count in counts):
        return rare
    every = [counting.with_words(term, documents + 1) for term in terms]
    ranked = zip(every, range(len(terms)), terms, strict=True)
    return [min(one for one in ranked if one[0])[2]]


def _common(documents: int) -> int:
    """The least number of documents that makes a word common."""
    return 1 + min(max(int(documents * share), least) for share, least in LIMITS)
