"""A user's words as a query of FTS5, and whether FTS5 is there."""

from __future__ import annotations

import re

from edge_mrl.documents import clean
from edge_mrl.store.keywords.form import keyword_text

__all__ = ["full_text_problem", "match_expression", "match_terms"]

_TERM = re.compile(r'"([^"]*)"|([^\s"]+)')
#: What is no word anywhere. Of other characters FTS5 decides, which is the same in every Python.
_NO_WORD = re.compile(r"[\x00-/:-@\[-`{-\x7f]*")


def full_text_problem() -> str | None:
    """Why this Python's SQLite has no full-text search, in SQLite's words; None if it has."""
    import sqlite3  # this module is loaded on machines that lack it, too

    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE words USING fts5 (text, content = '')")
    except sqlite3.Error as error:
        return str(error)
    finally:
        connection.close()
    return None


def match_expression(query: str, *, every: bool = False) -> str:
    """Turn the words of a query into an FTS5 expression that matches any of them, or every one.

    ``"several words"`` in quotes are matched as a phrase, ``word*`` as a prefix. Every term is quoted, so
    that no character of the query acts as an operator.

    Returns:
        The expression, or "" if the query has no words.
    """
    # Of terms side by side all must be found, but for those in which FTS5 sees no word.
    return (" " if every else " OR ").join(match_terms(query))


def match_terms(query: str) -> list[str]:
    """The terms of ``match_expression``, each once, in the order of the query."""
    terms = []
    for phrase, word in _TERM.findall(clean(query).replace("\x00", " ")):
        text = keyword_text(phrase or word).replace('"', " ")
        if not _NO_WORD.fullmatch(text):
            star = "*" if word.endswith("*") else ""
            terms.append(f'"{text.rstrip("*")}"{star}')
    return list(dict.fromkeys(terms))
