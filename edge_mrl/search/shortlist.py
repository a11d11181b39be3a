"""The shortlist of a search, ordered by full vectors: by a server's, and by those that are still here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.errors import EdgeMrlError
from edge_mrl.search.answers import Results
from edge_mrl.search.rerank import doubt, merge
from edge_mrl.wire import MAX_IDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.search.answers import Hit
    from edge_mrl.store import Store

__all__ = ["exact_scores", "reorder"]


def reorder(
    hits: Sequence[Hit],
    *,
    k: int,
    margin: float | None,
    ask: Callable[[Sequence[str]], Mapping[str, float]],
    own: Callable[[Sequence[str]], Mapping[str, float]],
) -> Results:
    """Have a shortlist ordered by somebody who has the full vectors; the local order if that fails.

    Args:
        hits: The shortlist by local scores, from the best.
        k: The number of hits to return at most.
        margin: The doubt up to which the local order is kept and nobody is asked; None always asks.
        ask: Gives scores by full vectors of the documents that the other side has, by id. An
            EdgeMrlError says why there are none.
        own: Gives scores by full vectors of the documents whose full vectors are here, by id.

    Returns:
        The best k hits, in the new order or, with the reason, in the local one.
    """
    local = tuple(hits[:k])
    if not hits:
        return Results()
    if margin is not None and doubt([hit.score for hit in hits]) <= margin:
        return Results(local, reason="the local order is not in doubt")
    try:
        theirs = ask([hit.id for hit in hits[:MAX_IDS]])
    except EdgeMrlError as error:
        return Results(local, reason=str(error))
    scores = merge([(hit.id, hit.score) for hit in hits], theirs, own)
    if scores is None:
        return Results(local, reason="the server knows too few of these documents")
    scored = [replace(hit, score=scores[hit.id]) for hit in hits]
    scored.sort(key=lambda hit: -hit.score)  # equal scores stay in the local order
    return Results(tuple(scored[:k]), ranked_by="server")


def exact_scores(
    store: Store, names: Sequence[str], query: NDArray[np.float32]
) -> dict[str, float]:
    """Scores of documents by the full vectors that the store still has: those that wait to be sent.

    Args:
        store: The store.
        names: Ids of documents.
        query: float32[D], the query's full vector, of length 1.

    Returns:
        For each document whose full vectors are here, the cosine of its best passage, by id.
    """
    scores: dict[str, float] = {}
    with store.reading() as view:
        keys = store.keys(names)
        for key, rows in view.fulls(list(keys), sound=True).items():
            lengths = np.maximum(np.linalg.norm(rows, axis=1), 1e-12)
            scores[keys[key]] = float((rows @ query / lengths).max())
    return scores
