"""Full-text search by SQLite's FTS5: a user's words as a query, and whether FTS5 is there."""

from __future__ import annotations

import re
import unicodedata

from edge_mrl.documents import clean

__all__ = ["full_text_problem", "keyword_text", "match_expression"]

_TERM = re.compile(r'"([^"]*)"|([^\s"]+)')
_WORD = re.compile(r"\w+")


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


def keyword_text(text: str) -> str:
    """The text as its words are indexed and looked for: in the compatibility form NFKC.

    So ligatures, letters of full width and numbers in circles are found as what they stand for. The form
    is that of Unicode 3.2, which is the same in every version of Python: what was indexed by one can be
    deleted by another.
    """
    return text if text.isascii() else unicodedata.ucd_3_2_0.normalize("NFKC", text)


def match_expression(query: str, *, every: bool = False) -> str:
    """Turn the words of a query into an FTS5 expression that matches any of them, or every one.

    ``"several words"`` in quotes are matched as a phrase, ``word*`` as a prefix. Every term is quoted, so
    that no character of the query acts as an operator.

    Returns:
        The expression, or "" if the query has no words.
    """
    terms = []
    for phrase, word in _TERM.findall(clean(query).replace("\x00", " ")):
        text = keyword_text(phrase or word).replace('"', " ")
        if _WORD.search(text):
            star = "*" if word.endswith("*") else ""
            terms.append(f'"{text.rstrip("*")}"{star}')
    return (" AND " if every else " OR ").join(dict.fromkeys(terms))
