"""Files, folders and JSON Lines, read as documents."""

from __future__ import annotations

import glob
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from edge_mrl.documents import Document
from edge_mrl.errors import UsageError

__all__ = ["LINES_SUFFIXES", "SourceFile", "find_sources", "read_documents"]

STDIN = "-"
#: What marks a JSON Lines file.
LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})
#: What is read from a folder. A file that is named itself may have any suffix and is read as text.
FOLDER_SUFFIXES = LINES_SUFFIXES | {".txt", ".text", ".md", ".markdown"}
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read documents from; ``path`` "-" is standard input, of size 0."""

    path: str
    size_bytes: int


def find_sources(paths: Iterable[str | os.PathLike[str]]) -> list[SourceFile]:
    """Resolve files, folders, patterns and "-" into files, sorted within each, each file once.

    Folders are read recursively, without what is hidden and without following linked folders; a
    pattern (``notes/**/*.md``) counts only where no file has that name.

    Raises:
        UsageError: A path that is not there, or a pattern without a match.
    """
    found: dict[str, None] = {}
    for path in paths:
        found.update(dict.fromkeys(_expand(os.fspath(path))))
    return [SourceFile(path, 0 if path == STDIN else Path(path).stat().st_size) for path in found]


def read_documents(
    sources: Iterable[SourceFile],
    *,
    skipped: Callable[[str, str], None],
    advance: Callable[[int], None] | None = None,
) -> Iterator[Document]:
    """Read documents, one at a time.

    A text or Markdown file is one document, its id the path as given, its text the whole file
    (without a byte order mark, with its line ends), so that offsets are those of the file. A JSON
    Lines file, or standard input, holds one object a line: ``text``; ``id`` or ``_id`` (else
    ``PATH:LINE``); ``title``, which goes in front of the text; ``metadata``. Other keys join the
    metadata.

    Args:
        sources: As found by ``find_sources``.
        skipped: Called with source and reason for each file that cannot be read or is not UTF-8 text.
        advance: Called with the bytes read since the last call.

    Raises:
        UsageError: A line of a JSON Lines file is no document; the message says file and line.
    """
    for source in sources:
        if source.path == STDIN or Path(source.path).suffix.lower() in LINES_SUFFIXES:
            yield from _read_lines(source, skipped, advance)
        else:
            document = _read_text(source, skipped)
            if advance is not None:
                advance(source.size_bytes)
            if document is not None:
                yield document


def _expand(path: str) -> list[str]:
    if path == STDIN:
        return [path]
    if Path(path).is_dir():
        return sorted(_walk(path))
    if Path(path).exists():
        return [os.path.normpath(path)]
    if not glob.has_magic(path):
        raise UsageError(f"no file or folder {path}")
    matches = glob.glob(path, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = [os.path.normpath(match) for match in sorted(matches) if Path(match).is_file()]
    if not files:
        raise UsageError(f"no file matches {path}")
    return files


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent, name)
            known = path.suffix.lower() in FOLDER_SUFFIXES
            if known and not name.startswith(".") and path.is_file():
                yield os.path.normpath(path)


def _read_text(source: SourceFile, skipped: Callable[[str, str], None]) -> Document | None:
    try:
        data = Path(source.path).read_bytes().removeprefix(_BOM)
        if b"\x00" in data:
            skipped(_file_id(source.path), "not a text file (it holds NUL bytes)")
            return None
        name = _file_id(source.path)
        return Document(name, data.decode("utf-8"), source=name)
    except UnicodeDecodeError as error:
        skipped(_file_id(source.path), f"not UTF-8 text (byte {error.start:,})")
    except OSError as error:
        skipped(_file_id(source.path), str(error.strerror))
    return None


def _file_id(path: str) -> str:
    """The path with forward slashes; a byte that is not UTF-8 is spelled out, as in Python."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace(os.sep, "/")


def _read_lines(
    source: SourceFile, skipped: Callable[[str, str], None], advance: Callable[[int], None] | None
) -> Iterator[Document]:
    name = _file_id(source.path)
    try:
        with _opened(source.path) as file:
            for number, line in enumerate(file, start=1):
                if advance is not None:
                    advance(len(line))
                stripped = line.removeprefix(_BOM).strip() if number == 1 else line.strip()
                if stripped:
                    yield _parse_line(stripped, f"{name}:{number}", name)
    except OSError as error:
        skipped(_file_id(source.path), str(error.strerror))


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    with Path(path).open("rb") as file:
        yield file


def _parse_line(line: bytes, where: str, source: str) -> Document:
    """Parse one line of a JSON Lines file; ``where`` is "file:line"."""
    try:
        entry = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(entry, dict):
        raise UsageError(f'{where}: {type(entry).__name__}, expected an object with a "text"')
    values = {key: value for key, value in entry.items() if value is not None}
    names = [values.pop(key) for key in ("id", "_id") if key in values] or [where]
    text, title = values.pop("text", None), values.get("title", "")
    metadata = values.pop("metadata", {})
    if not isinstance(text, str) or not isinstance(title, str):
        raise UsageError(f'{where}: expected "text" and, if there is one, "title" to be strings')
    if not isinstance(metadata, dict):
        raise UsageError(f'{where}: "metadata" is {type(metadata).__name__}, expected an object')
    if type(names[0]) not in (str, int):
        raise UsageError(f"{where}: id is {type(names[0]).__name__}, expected a string or integer")
    whole = f"{title}\n{text}" if title else text
    try:
        return Document(str(names[0]), whole, {**values, **metadata}, source)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
