"""Files that are no plain text: what their readers give, and what becomes of those they cannot read."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.documents import Document
from edge_mrl.sources import Part, SourceFile, read_documents
from edge_mrl.sources.formats import packed, registry
from tests.support.files import make_docx, make_epub, make_pdf


def read(path: Path) -> tuple[list[Document], list[str]]:
    skipped: list[str] = []
    source = SourceFile(str(path), path.stat().st_size, "file", parsed=True)
    found = read_documents([source], skipped=lambda _, why: skipped.append(why))
    return list(found), skipped


def only(path: Path) -> Document:
    (document,), skipped = read(path)
    assert skipped == []
    assert document.source == "file"
    return document


def own(document: Document) -> dict[str, Any]:
    """Metadata without what is known of every file."""
    of_file = ("path", "folder", "mtime")
    return {name: value for name, value in document.metadata.items() if name not in of_file}


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_html_is_the_text_that_a_person_reads(tmp_path: Path) -> None:
    page = """<html><head><title> My
    garden </title><style>p {}</style></head><body><h1>Garden</h1>
    <p>Water the <b>tomatoes</b>, <i>daily</i>.<br>Not the cactus.</p><script>alert(1)</script>
    <ul><li>one<li>two</ul><!-- not this --></body></html>"""
    document = only(write(tmp_path / "a.html", page))
    assert document.id == "file"
    assert document.text == "Garden\nWater the tomatoes, daily.\nNot the cactus.\none\ntwo"
    assert own(document) == {"title": "My garden"}
    assert document.metadata["path"] == str(tmp_path / "a.html")


def test_html_says_its_encoding(tmp_path: Path) -> None:
    page = "<meta charset=iso-8859-1><body>caf\xe9".encode("latin-1")
    assert only(write(tmp_path / "a.html", page)).text == "caf\xe9"
    assert read(write(tmp_path / "b.html", page.replace(b"iso-8859-1", b"nonsense")))[1] == [
        "says that it is in b'nonsense', which is no encoding"
    ]


def test_html_that_is_very_deep_is_read_or_refused(tmp_path: Path) -> None:
    """Without the limit, the parser took minutes for 100,000 levels."""
    for depth, texts in ((4000, ["deep"]), (100_000, [])):
        page = "<div>" * depth + "deep" + "</div>" * depth
        documents, skipped = read(write(tmp_path / "a.html", page))
        assert [one.text for one in documents] == texts
        assert skipped == ([] if texts else ["has elements more than 5,000 deep"])
    flat = "<p>one<br><li>two" * 20_000
    assert len(only(write(tmp_path / "b.html", flat)).text.split("\n")) == 40_000


def test_pdf_docx_and_epub_are_one_document_each(tmp_path: Path) -> None:
    pdf = only(make_pdf(tmp_path / "a.pdf", "The cactus needs no water"))
    assert (pdf.text, own(pdf)) == (
        "The cactus needs no water",
        {"title": "A leaflet", "pages": 1},
    )
    docx = only(make_docx(tmp_path / "a.docx", "Dear Bob,", "the ferry leaves at dawn."))
    assert docx.text == "Dear Bob,\nthe ferry leaves at dawn.\nleft\tright"
    assert own(docx) == {"title": "A letter"}
    epub = only(make_epub(tmp_path / "a.epub"))
    assert epub.text == "Chapter one.\n\nChapter two."
    assert own(epub) == {"title": "A book", "author": "Ann"}


def test_csv_has_a_document_in_each_row(tmp_path: Path) -> None:
    table = 'id,title,text,year,zip\r\n1,Oslo,"Night train,\nthen skis",2023,0150\r\n'
    table += "2,,Rome,2024,1\r\n,,,,\r\n"
    documents, skipped = read(write(tmp_path / "a.csv", table))
    assert skipped == []
    assert [(one.id, one.text) for one in documents] == [
        ("file#1", "Oslo\nNight train,\nthen skis"),
        ("file#2", "Rome"),
    ]
    assert own(documents[0]) == {"title": "Oslo", "year": 2023, "zip": "0150"}


def test_csv_without_texts_is_its_columns(tmp_path: Path) -> None:
    documents, _ = read(write(tmp_path / "a.csv", "city;people\nOslo;700000\nRome;2.5\n"))
    assert [one.text for one in documents] == [
        "city: Oslo\npeople: 700000",
        "city: Rome\npeople: 2.5",
    ]
    assert own(documents[1]) == {"city": "Rome", "people": 2.5}
    moved, _ = read(write(tmp_path / "b.csv", "city;people\nRome;2.5\nOslo;700000\n"))
    assert {one.id for one in moved} == {one.id for one in documents}
    assert read(write(tmp_path / "c.csv", "a,a\n1,2\n"))[1] == [
        "has no first row that names each column once"
    ]


def test_mail_has_subject_text_and_facts(tmp_path: Path) -> None:
    box = (
        "From a Sat Jan  3 01:05:34 1996\nFrom: Ann <a@b>\nTo: c@d\n"
        "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nDate: Sat, 3 Jan 2024 01:05:34 +0100\n"
        "Message-ID: <1@b>\n\nThe boat is late.\n\n"
        "From x Sat Jan  3 01:05:34 1996\nSubject: two\nDate: never\nContent-Type: text/html\n\n"
        "<p>second <b>mail</b></p>\n"
    )
    documents, skipped = read(write(tmp_path / "m.mbox", box))
    assert skipped == []
    assert [one.text for one in documents] == ["Gr\xfc\xdfe\nThe boat is late.", "two\nsecond mail"]
    assert own(documents[0]) == {
        "title": "Gr\xfc\xdfe",
        "from": "Ann <a@b>",
        "to": "c@d",
        "date": "2024-01-03T00:05:34Z",
    }
    letter = box.partition("\n")[2].partition("\n\nFrom x")[0]
    assert only(write(tmp_path / "m.eml", letter)).id == "file"


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.pdf", b"%PDF-1.4 nonsense", "cannot be read as PDF"),
        ("a.docx", b"PK nonsense", "cannot be read as DOCX"),
        ("a.epub", b"", "cannot be read as EPUB"),
        ("a.html", b"<html><body><img src=x></body></html>", "holds no text"),
        ("a.csv", b"", "names each column once"),
        ("a.csv", b"\xff\xfe\xfa", "UTF-16"),
        ("a.mbox", b"hello", "holds no message with text"),
        ("a.eml", b"", "holds no text"),
    ],
)
def test_what_cannot_be_read_is_skipped_with_its_reason(
    tmp_path: Path, name: str, data: bytes, why: str
) -> None:
    documents, skipped = read(write(tmp_path / name, data))
    assert documents == []
    assert len(skipped) == 1
    assert why in skipped[0]


def test_pictures_of_text_are_named(tmp_path: Path) -> None:
    assert read(make_pdf(tmp_path / "scan.pdf", ""))[1] == ["holds no text: its pages are pictures"]


def test_zips_that_unpack_to_too_much_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "MOST_BYTES", 1_000_000)
    for name in ("bomb.docx", "bomb.epub"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", bytes(600_000))
            archive.writestr("b", bytes(600_000))
        assert read(tmp_path / name)[1] == [
            "unpacks to 1,200,000 bytes, expected at most 1,000,000"
        ]


PART = "from edge_mrl.sources import Part\ndef read(path, encoding):\n"


def plugin(site: Path, suffix: str, code: str) -> Path:
    """A package with a reader, as it is installed."""
    package = f"reader_of_{suffix}"
    (site / f"{package}-1.0.dist-info").mkdir(parents=True)
    (site / f"{package}.py").write_text(code)
    about = site / f"{package}-1.0.dist-info"
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[edge_mrl.readers]\n{suffix} = {package}:read\n")
    return site


@pytest.mark.parametrize(
    ("code", "texts", "why"),
    [
        (f"{PART}    yield Part('x', 'k')", ["x"], ""),
        ("def read(path, encoding):\n    return 1 / 0", [], "its reader failed: division by zero"),
        ("read = 3", [], "is 3, expected a function"),
        ("import nowhere", [], "cannot be loaded"),
        (f"{PART}    yield Part('x', metadata={{'a': object()}})", [], "cannot be kept"),
    ],
)
def test_packages_add_readers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    texts: list[str],
    why: str,
) -> None:
    number = len(code)
    monkeypatch.syspath_prepend(plugin(tmp_path / "site", f"kind{number}", code))
    registry.reader_of.cache_clear()
    registry._added.cache_clear()
    try:
        documents, skipped = read(write(tmp_path / f"a.kind{number}", "data"))
    finally:
        registry.reader_of.cache_clear()
        registry._added.cache_clear()
    assert [one.text for one in documents] == texts
    assert [why in one for one in skipped] == ([True] if why else [])


def test_a_part_is_a_document_of_its_file() -> None:
    assert Part("x") == Part("x", "", {})


def test_readers_load_nothing_before_they_are_used(tmp_path: Path) -> None:
    """A search, which shows paths, does not look for packages; a folder of text loads no library."""
    (tmp_path / "a.txt").write_text("text")
    code = """
import sys
from edge_mrl.sources import find_sources, read_documents, shown_path
print('importlib.metadata' in sys.modules)
print(len(list(read_documents(find_sources(['.']), skipped=print))))
heavy = {'selectolax', 'pypdfium2', 'docx', 'lxml', 'mailbox'}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["False", "1", "[]"]
