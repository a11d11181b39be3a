"""EPUB: the chapters of a book, in the order in which they are read."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote

from edge_mrl.sources.formats.html import html_text
from edge_mrl.sources.formats.packed import require_small
from edge_mrl.sources.formats.registry import Part, Unreadable

__all__ = ["read_epub"]


def read_epub(path: str, encoding: str | None) -> Iterable[Part]:
    """The book as one document, with its title and author.

    Raises:
        Unreadable: It is no EPUB, is damaged, or too large.
    """
    del encoding
    from selectolax.lexbor import LexborHTMLParser

    try:
        with zipfile.ZipFile(path) as archive:
            require_small(archive)
            container = LexborHTMLParser(archive.read("META-INF/container.xml").decode("utf-8"))
            root = container.css_first("rootfile")
            place = unquote((root.attributes.get("full-path") if root is not None else "") or "")
            package = LexborHTMLParser(archive.read(place).decode("utf-8"))
            text = "\n\n".join(_chapters(archive, package, posixpath.dirname(place)))
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, NotImplementedError) as error:
        raise Unreadable(f"cannot be read as EPUB: {error}") from error
    if not text:
        raise Unreadable("holds no text")
    facts = {"title": _first(package, "dc\\:title"), "author": _first(package, "dc\\:creator")}
    yield Part(text, metadata={name: value for name, value in facts.items() if value})


def _chapters(archive: zipfile.ZipFile, package: Any, folder: str) -> Iterator[str]:
    items = {item.attributes.get("id"): item.attributes.get("href") for item in package.css("item")}
    for reference in package.css("itemref"):
        href = items.get(reference.attributes.get("idref"))
        if href:
            page = archive.read(posixpath.normpath(posixpath.join(folder, unquote(href))))
            try:
                yield html_text(page.decode("utf-8", "replace"))[0]
            except Unreadable:  # a picture
                continue


def _first(package: Any, selector: str) -> str:
    found = package.css_first(selector)
    return " ".join(found.text().split()) if found is not None else ""
