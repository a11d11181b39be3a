"""PDF: the text of all pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from edge_mrl.sources.formats.registry import Part, Unreadable

__all__ = ["read_pdf"]


def read_pdf(path: str, encoding: str | None) -> Iterable[Part]:
    """The file as one document, with its title and its number of pages.

    Raises:
        Unreadable: It is encrypted or damaged, or has pictures of text only.
    """
    del encoding
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        raise Unreadable(f"cannot be read as PDF: {error}") from error
    try:
        text = "\n\n".join(_pages(document))
        title = str(document.get_metadata_dict().get("Title") or "").strip()
        pages = len(document)
    except pypdfium2.PdfiumError as error:
        raise Unreadable(f"cannot be read as PDF: {error}") from error
    finally:
        document.close()
    if not text.strip():
        raise Unreadable("holds no text: its pages are pictures")
    yield Part(text, metadata={"pages": pages, **({"title": title} if title else {})})


def _pages(document: Any) -> Iterator[str]:
    for number in range(len(document)):
        page = document[number]
        found = page.get_textpage()
        yield found.get_text_bounded().replace("\r\n", "\n").replace("\x00", "")
        found.close()
        page.close()
