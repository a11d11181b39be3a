"""A user's words as a query for SQLite's FTS5."""

from __future__ import annotations

import re

__all__ = ["match_expression"]

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
