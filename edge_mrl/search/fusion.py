"""Fusing rankings, and choosing the passage that is shown of a document found by its words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["best_passage", "fuse"]

#: The constant of reciprocal rank fusion, as in the paper.
RRF_K = 60
_WORD = re.compile(r"\w+")


def fuse(rankings: Iterable[Sequence[int]]) -> dict[int, float]:
    """Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009).

    Args:
        rankings: Document keys, each from the best.

    Returns:
        For each key the sum of 1 / (60 + rank) over the rankings that have it, ranks from 1.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            scores[key] = scores.get(key, 0.0) + 1.0 / (RRF_K + rank)
    return scores


def best_passage(text: str, spans: Sequence[tuple[int, int]], query: str) -> int:
    """The index of the passage that has most of the query's words; of equals, the first.

    Args:
        text: The document's text.
        spans: Start and end of each passage in characters; at least one.
        query: The words.
    """
    wanted = _words(query)
    best, most = 0, 0
    for number, (start, end) in enumerate(spans):
        found = len(wanted & _words(text[start:end]))
        if found > most:
            best, most = number, found
        if most == len(wanted):  # no later one can have more
            break
    return best


def _words(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return set(_WORD.findall(text.casefold()))
