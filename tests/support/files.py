"""Files as people have them, made of a few lines each."""

from __future__ import annotations

import zipfile
from pathlib import Path

__all__ = ["make_docx", "make_epub", "make_pdf"]

CONTAINER = """<?xml version="1.0"?>
<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>
"""
PACKAGE = """<?xml version="1.0"?>
<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><dc:title>A book</dc:title><dc:creator>Ann</dc:creator></metadata>
<manifest><item id="b" href="two%20b.xhtml"/><item id="a" href="one.xhtml"/></manifest>
<spine><itemref idref="a"/><itemref idref="b"/></spine></package>
"""


def make_pdf(path: Path, text: str) -> Path:
    """A PDF of one page with one line, which may be empty."""
    stream = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode()
    path.write_bytes(
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 144]/Contents 4 0 R"
        b"/Resources<</Font<</F1 5 0 R>>>>>>endobj\n"
        b"4 0 obj<</Length "
        + str(len(stream)).encode()
        + b">>stream\n"
        + stream
        + b"\nendstream endobj\n"
        b"5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\n"
        b"6 0 obj<</Title(A leaflet)>>endobj\n"
        b"trailer<</Root 1 0 R/Info 6 0 R>>\n"
    )
    return path


def make_docx(path: Path, *paragraphs: str) -> Path:
    """A DOCX with paragraphs, and a table of one row behind them."""
    import docx

    document = docx.Document()
    document.core_properties.title = "A letter"
    for text in paragraphs:
        document.add_paragraph(text)
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "left", "right"
    document.save(str(path))
    return path


def make_epub(path: Path) -> Path:
    """An EPUB of two chapters, the second of which stands first in its list of files."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("OEBPS/book.opf", PACKAGE)
        archive.writestr("OEBPS/one.xhtml", "<html><body><p>Chapter one.</p></body></html>")
        archive.writestr("OEBPS/two b.xhtml", "<html><body><p>Chapter two.</p></body></html>")
    return path
