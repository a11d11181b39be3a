"""Readers of files that are no plain text, by the suffixes of their names.

A reader is a function of a path and of an encoding, or None, that gives parts. Packages add readers of
their own by entry points of the group ``edge_mrl.readers``, named by suffixes without the dot. Those of
the libraries below come with the extra ``files``, and are there where the library is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_mrl.errors import reason

__all__ = ["ONLY_INCLUDED", "Part", "Reader", "Unreadable", "extra_reads", "reader_of"]

#: The group of entry points.
GROUP = "edge_mrl.readers"
#: Read from folders only where a pattern includes them: a table may be a million measured values.
ONLY_INCLUDED = frozenset({".csv", ".tsv"})


class Unreadable(Exception):  # noqa: N818 - not an error of its own: a file is skipped for it
    """A file holds no text that could be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A document of a file.

    Attributes:
        text: Its text.
        key: What tells it from others of the file, in its id; "" if the file is one document.
        metadata: Its metadata.
    """

    text: str
    key: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


Reader = Callable[[str, str | None], Iterable[Part]]


@functools.cache
def reader_of(suffix: str) -> Reader | None:
    """The reader of files with a suffix, such as ".pdf"; None if there is none."""
    entry = _added().get(suffix)
    if entry is not None:
        try:
            return _checked(suffix, entry.load())
        except Exception as error:  # noqa: BLE001 - a package of somebody else's; told for each file
            return _failing(f"the reader of {suffix} files cannot be loaded: {reason(error)}")
    library, own = _OWN.get(suffix, ("", None))
    from importlib.util import find_spec

    missing = library and find_spec(library) is None
    return None if missing else own


def extra_reads(suffix: str) -> bool:
    """Whether the extra ``files`` would bring a reader that is not here."""
    return suffix in _OWN and reader_of(suffix) is None


@functools.cache
def _added() -> Mapping[str, Any]:
    from importlib.metadata import entry_points

    return {f".{entry.name.lower()}": entry for entry in entry_points(group=GROUP)}


def _checked(suffix: str, found: object) -> Reader:
    if callable(found):
        return found
    return _failing(f"the reader of {suffix} files is {found!r}, expected a function")


def _failing(why: str) -> Reader:
    def read(path: str, encoding: str | None) -> Iterable[Part]:
        del path, encoding
        raise Unreadable(why)

    return read


def _html(path: str, encoding: str | None) -> Iterable[Part]:
    from edge_mrl.sources.formats.html import read_html

    return read_html(path, encoding)


def _pdf(path: str, encoding: str | None) -> Iterable[Part]:
    from edge_mrl.sources.formats.pdf import read_pdf

    return read_pdf(path, encoding)


def _docx(path: str, encoding: str | None) -> Iterable[Part]:
    from edge_mrl.sources.formats.docx import read_docx

    return read_docx(path, encoding)


def _epub(path: str, encoding: str | None) -> Iterable[Part]:
    from edge_mrl.sources.formats.epub import read_epub

    return read_epub(path, encoding)


def _table(path: str, encoding: str | None) -> Iterable[Part]:
    from edge_mrl.sources.formats.table import read_table

    return read_table(path, encoding)


def _mail(path: str, encoding: str | None) -> Iterable[Part]:
    from edge_mrl.sources.formats.mail import read_mail

    return read_mail(path, encoding)


#: Suffixes, the library that their reader needs, and the reader, which loads the library as it reads.
_OWN: dict[str, tuple[str, Reader]] = {
    **dict.fromkeys((".html", ".htm", ".xhtml"), ("selectolax", _html)),
    ".pdf": ("pypdfium2", _pdf),
    ".docx": ("docx", _docx),
    ".epub": ("selectolax", _epub),
    **dict.fromkeys((".csv", ".tsv"), ("", _table)),
    **dict.fromkeys((".mbox", ".eml"), ("", _mail)),
}
