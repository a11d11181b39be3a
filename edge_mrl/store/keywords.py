"""Keyword search over SQLite's FTS5, and the fusion of rankings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["best_passage", "fuse", "match_expression", "words"]

#: The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009).
RRF_K = 60
_TERM = re.compile(r'"([^"]*)"|([^\s"]+)')
_WORD = re.compile(r"\w+")


def match_expression(query: str) -> str:
    """A user's words as an FTS5 expression: any of them, "phrases" whole, ``word*`` as a prefix.

    Every term is quoted, so that no character of the user's is an operator.

    Returns:
        The expression; "" if the query has no word.
    """
    terms = []
    for phrase, word in _TERM.findall(query.replace("\x00", " ")):
        text = phrase or word
        if _WORD.search(text):
            star = "*" if word.endswith("*") else ""
            terms.append(f'"{text.rstrip("*")}"{star}')
    return " OR ".join(dict.fromkeys(terms))


def words(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return set(_WORD.findall(text.casefold()))


def best_passage(text: str, spans: Sequence[tuple[int, int]], query: str) -> int:
    """The passage that has the most of the query's words; the first of equals."""
    wanted = words(query)
    found = [len(wanted & words(text[start:end])) for start, end in spans]
    return found.index(max(found))


def fuse(rankings: Iterable[Sequence[int]]) -> dict[int, float]:
    """Reciprocal rank fusion.

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
