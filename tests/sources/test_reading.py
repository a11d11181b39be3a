"""Files, folders, patterns and JSON Lines as documents."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from edge_mrl.documents import Document
from edge_mrl.errors import UsageError
from edge_mrl.sources import SourceFile, find_sources, read_documents
from edge_mrl.sources.lines import content_id


def read(*paths: object) -> tuple[list[Document], list[str]]:
    skipped: list[str] = []
    sources = find_sources([str(path) for path in paths])

    def skip(source: str, why: str) -> None:
        skipped.append(f"{source}: {why}")

    return list(read_documents(sources, skipped=skip)), skipped


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_text_file_is_one_document_with_its_line_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\r\ntwo\n")
    (document,), skipped = read(path)
    assert (document.id, document.text, skipped) == (str(path), "one\r\ntwo\n", [])


def test_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    text = write(tmp_path / "a.txt", b"\xef\xbb\xbfhello")
    lines = write(tmp_path / "b.jsonl", b'\xef\xbb\xbf{"id": "1", "text": "hello"}')
    assert [document.text for document in read(text, lines)[0]] == ["hello", "hello"]


def test_file_named_by_itself_may_have_any_suffix(tmp_path: Path) -> None:
    path = write(tmp_path / "notes.rst", "text")
    assert [document.text for document in read(path)[0]] == ["text"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"caf\xe9", "not UTF-8 text (byte 3)"), (b"PK\x00\x01", "NUL bytes")],
)
def test_file_that_is_not_text_is_skipped_by_name(data: bytes, reason: str, tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.txt", data)
    good = write(tmp_path / "good.txt", "text")
    documents, skipped = read(bad, good)
    assert [document.text for document in documents] == ["text"]
    assert len(skipped) == 1
    assert str(bad) in skipped[0]
    assert reason in skipped[0]


@pytest.mark.parametrize("name", ["gone.txt", "gone.jsonl"])
def test_file_that_vanishes_is_skipped(name: str, tmp_path: Path) -> None:
    skipped: list[str] = []
    gone = SourceFile(str(tmp_path / name), 1)
    assert list(read_documents([gone], skipped=lambda *told: skipped.extend(told))) == []
    assert skipped == [gone.path, "No such file or directory"]


def test_folder_is_read_recursively_sorted_without_hidden_and_other_files(tmp_path: Path) -> None:
    for name in ("b.md", "a/z.txt", "a/.hidden.txt", ".git/x.txt", "image.png", "c.MARKDOWN"):
        write(tmp_path / name, "text")
    write(tmp_path / "d.jsonl", '{"id": "line", "text": "t"}')
    found = [
        Path(source.path).relative_to(tmp_path).as_posix() for source in find_sources([tmp_path])
    ]
    assert found == ["a/z.txt", "b.md", "c.MARKDOWN", "d.jsonl"]


def test_linked_folder_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x.txt", "text")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert len(find_sources([tmp_path])) == 1


def test_pattern_finds_files_in_order(tmp_path: Path) -> None:
    for name in ("b.md", "a/c.md", "a/d.txt"):
        write(tmp_path / name, "text")
    found = [source.path for source in find_sources([f"{tmp_path}/**/*.md"])]
    assert found == [str(tmp_path / "a/c.md"), str(tmp_path / "b.md")]


def test_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a[1].txt", "text")
    assert [source.path for source in find_sources([path])] == [str(path)]


def test_file_found_twice_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "text")
    assert len(find_sources([path, tmp_path, f"{tmp_path}/./a.txt"])) == 1


@pytest.mark.parametrize("name", ["missing.txt", "*.txt"])
def test_path_that_is_not_there_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        find_sources([tmp_path / name])


def test_json_line_gives_id_title_and_metadata(tmp_path: Path) -> None:
    lines = [
        {"_id": "a", "title": "Head", "text": "body", "metadata": {"lang": "en"}},
        {"id": 7, "text": "plain", "lang": "de"},
        {"id": None, "text": "no id"},
    ]
    path = write(tmp_path / "x.jsonl", "\n\n".join(json.dumps(line) for line in lines))
    assert read(path)[0] == [
        Document("a", "Head\nbody", {"title": "Head", "lang": "en"}),
        Document("7", "plain", {"lang": "de"}),
        Document(content_id(str(path), "no id", {}), "no id"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not valid JSON"),
        ("[1]", "list, expected an object"),
        ('"text"', "str, expected an object"),
        ('{"id": "1"}', '"text"'),
        ('{"id": "1", "text": 3}', '"text"'),
        ('{"id": "1", "text": "t", "title": 3}', '"title"'),
        ('{"id": 1.5, "text": "t"}', "id is float"),
        ('{"id": true, "text": "t"}', "id is bool"),
        ('{"id": "", "text": "t"}', "document id ''"),
        ('{"id": "a\\u0000", "text": "t"}', "document id"),
        ('{"id": "1", "text": "t", "metadata": []}', '"metadata" is list'),
        ('{"id": "1", "text": "t", "score": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"text": "caf\xe9"}'.encode("latin-1"), "not valid JSON"),
    ],
)
def test_bad_json_line_is_named_by_file_and_line(
    line: str | bytes, reason: str, tmp_path: Path
) -> None:
    good = b'{"id": "0", "text": "t"}\n\n'
    data = line.encode() if isinstance(line, str) else line
    path = write(tmp_path / "x.jsonl", good + data + b"\n")
    with pytest.raises(UsageError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}:3: ")
    assert reason in str(error.value)


def test_standard_input_holds_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO(b'{"id": "1", "text": "a"}\n{"text": "b"}')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data))
    assert [(d.id, d.text) for d in read("-")[0]] == [
        ("1", "a"),
        (content_id("-", "b", {}), "b"),
    ]


def test_bytes_read_add_up_to_the_files(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "text")
    write(tmp_path / "b.jsonl", '{"text": "t"}\n\n{"text": "u"}')
    sources = find_sources([tmp_path])
    read_bytes: list[int] = []
    list(read_documents(sources, skipped=pytest.fail, advance=read_bytes.append))
    assert sum(read_bytes) == sum(source.size_bytes for source in sources)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are not bytes elsewhere")
def test_file_name_that_is_not_utf8_gives_a_readable_id(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(path)).write_text("text")
    assert [document.id for document in read(tmp_path)[0]] == [f"{tmp_path}/caf\\xe9.txt"]
