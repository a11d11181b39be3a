"""The words of a query as an expression for SQLite's full-text search (FTS5)."""

from __future__ import annotations

import re

__all__ = ["match_expression"]

_TERM = re.compile(r'"([^"]*)"|([^\s"]+)')
_WORD = re.compile(r"\w+")


def match_expression(query: str) -> str:
    """Turn the words of a query into an FTS5 expression that matches any of them.

    ``"several words"`` in quotes are matched as a phrase, ``word*`` as a prefix. Every term is quoted, so
    that no character of the query acts as an operator.

    Returns:
        The expression, or "" if the query has no words.
    """
    terms = []
    for phrase, word in _TERM.findall(query.replace("\x00", " ")):
        text = phrase or word
        if _WORD.search(text):
            star = "*" if word.endswith("*") else ""
            terms.append(f'"{text.rstrip("*")}"{star}')
    return " OR ".join(dict.fromkeys(terms))
