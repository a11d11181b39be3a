"""DOCX: paragraphs and tables, in their order."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

from edge_mrl.sources.formats.packed import require_small
from edge_mrl.sources.formats.registry import Part, Unreadable

__all__ = ["read_docx"]


def read_docx(path: str, encoding: str | None) -> Iterable[Part]:
    """The file as one document, with its title.

    Raises:
        Unreadable: It is no DOCX, is damaged, or too large.
    """
    del encoding
    import docx
    from docx.opc.exceptions import OpcError

    try:
        with zipfile.ZipFile(path) as archive:
            require_small(archive)
        document = docx.Document(path)
        text = "\n".join(_blocks(document))
        title = document.core_properties.title.strip()
    except (OpcError, zipfile.BadZipFile, KeyError, ValueError, SyntaxError) as error:
        raise Unreadable(f"cannot be read as DOCX: {error}") from error
    if not text.strip():
        raise Unreadable("holds no text")
    yield Part(text, metadata={"title": title} if title else {})


def _blocks(document: Any) -> Iterator[str]:
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            for row in block.rows:
                yield "\t".join(cell.text for cell in row.cells)
        else:
            yield block.text
