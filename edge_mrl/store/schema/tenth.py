"""Migration 0010: words in a form that does not depend on the version of Python.

Before, characters newer than Unicode 3.2 were joined and sorted by the tables of whichever Python wrote
them. No one knows any more which that was, so that an index that may have such words is made anew.
"""

from __future__ import annotations

import functools
import sqlite3
import sys
import unicodedata

from edge_mrl.store.keywords.form import keyword_text, lacking
from edge_mrl.store.records import sound_document
from edge_mrl.store.schema.paging import pages
from edge_mrl.store.schema.report import Report

__all__ = ["fill_tenth"]


def fill_tenth(connection: sqlite3.Connection, report: Report) -> None:
    """Make the index of words anew, if any text has characters that some Python joined or sorted."""
    report.expect("documents", "documents")  # to look at, and to index
    rows = pages(connection, "documents", "key", "text", report)
    if not any(isinstance(text, str) and _depends(text) for _, text in rows):
        return
    connection.execute("INSERT INTO keywords (keywords) VALUES ('delete-all')")
    columns = "id, metadata, source, hash, crc, text"
    for row in pages(connection, "documents", "key", columns, report):
        if sound_document(*row):  # words of damaged texts are nowhere, as after a repair
            words = (row[0], keyword_text(row[-1]))
            connection.execute("INSERT INTO keywords (rowid, text) VALUES (?, ?)", words)


def _depends(text: str) -> bool:
    """Whether the form of a text was another in some version of Python."""
    if text.isascii():
        return False
    return any(map(_is_lively, set("".join(lacking().findall(text)))))


@functools.cache
def _is_lively(character: str) -> bool:
    """Whether a character that Unicode 3.2 lacks is joined or sorted, now or in a later version."""
    unknown = unicodedata.category(character) == "Cn"
    return unknown or unicodedata.combining(character) != 0 or character in _joined()


@functools.cache
def _joined() -> frozenset[str]:
    """All characters of which others are composed."""
    found: set[str] = set()
    for point in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.update(chr(int(part, 16)) for part in parts)
    return frozenset(found)
