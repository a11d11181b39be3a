"""What is read from which files, told by their names.

Readers of other formats are in ``formats``.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import Literal

from edge_mrl.sources.formats import ONLY_INCLUDED, reader_of

__all__ = [
    "LINES_SUFFIXES",
    "STDIN",
    "TEXT_SUFFIXES",
    "Kind",
    "is_parsed",
    "kind_of",
    "left_out_as",
    "markup_of",
    "suffix_of",
]

STDIN = "-"
Kind = Literal["text", "lines"]
#: What marks a JSON Lines file.
LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})
#: What is read from a folder, beside JSON Lines, if no patterns are given.
TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst", ".org"})
#: Files whose bytes are not the text that a person reads in them.
MARKUP = {
    **dict.fromkeys((".html", ".htm", ".xhtml", ".mhtml"), "HTML"),
    **dict.fromkeys((".xml", ".svg", ".opml", ".fb2"), "XML"),
    ".pdf": "PDF",
    **dict.fromkeys((".csv", ".tsv"), "a table"),
    **dict.fromkeys((".doc", ".docx", ".odt", ".rtf", ".pages"), "a word processor's file"),
    **dict.fromkeys((".xls", ".xlsx", ".ods", ".numbers"), "a spreadsheet"),
    **dict.fromkeys((".ppt", ".pptx", ".odp", ".key"), "slides"),
    **dict.fromkeys((".epub", ".mobi", ".azw3"), "an e-book"),
    **dict.fromkeys((".mbox", ".eml", ".msg"), "mail"),
    **dict.fromkeys((".json", ".ipynb"), "JSON"),
    **dict.fromkeys((".ps", ".eps", ".tex.gz", ".djvu"), "a page description"),
    **dict.fromkeys(
        (".gz", ".zip", ".xz", ".bz2", ".zst", ".7z", ".tar", ".tgz", ".rar"), "an archive"
    ),
    **dict.fromkeys(
        (".png", ".jpg", ".jpeg", ".gif", ".webp", ".heic", ".tif", ".tiff"), "an image"
    ),
    **dict.fromkeys((".mp3", ".flac", ".ogg", ".wav", ".mp4", ".mkv", ".mov", ".avi"), "media"),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), "a database"),
}


def suffix_of(path: str) -> str:
    """The suffix of a file's name, in small letters; "" if it has none."""
    return os.path.splitext(os.path.basename(path))[1].lower()


def kind_of(path: str) -> Kind:
    """How a file is read."""
    return "lines" if path == STDIN or suffix_of(path) in LINES_SUFFIXES else "text"


def markup_of(path: str) -> str | None:
    """What a file holds instead of plain text, by its suffix; None if nothing is known."""
    return None if path == STDIN else MARKUP.get(suffix_of(path))


def left_out_as(name: str, include: tuple[str, ...], *, as_text: bool) -> str | None:
    """Whether a file in a folder is left out.

    Args:
        name: The file's name, without its folder.
        include: Patterns of names that are read too, such as "*.rst".
        as_text: Whether files with markup are read as they are, if a pattern includes them.

    Returns:
        The suffix under which it is counted; None if the file is read.
    """
    suffix = suffix_of(name)
    if suffix in LINES_SUFFIXES or suffix in TEXT_SUFFIXES:
        return None
    wanted = any(fnmatchcase(name.lower(), pattern.lower()) for pattern in include)
    if not as_text and is_parsed(name) and (wanted or suffix not in ONLY_INCLUDED):
        return None
    return None if wanted and (as_text or suffix not in MARKUP) else suffix


def is_parsed(path: str) -> bool:
    """Whether a file has a reader of its own."""
    return path != STDIN and kind_of(path) != "lines" and reader_of(suffix_of(path)) is not None
