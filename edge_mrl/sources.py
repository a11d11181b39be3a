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

from edge_mrl.documents import Document, metadata_problem
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
    """A file to read documents from. The path "-" is standard input; its size counts as 0."""

    path: str
    size_bytes: int


def find_sources(paths: Iterable[str | os.PathLike[str]]) -> list[SourceFile]:
    """Find the files that paths stand for: files, folders, patterns, and "-".

    Folders are read recursively, without hidden files and without following links to folders. A path such
    as ``notes/**/*.md`` is a pattern, unless a file has that name.

    Returns:
        Each file once, in the order of the paths; sorted within a folder or pattern.

    Raises:
        UsageError: A path does not exist, or a pattern matches no file.
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

    A text or Markdown file is one document. Its id is the path as given; its text is the whole file,
    without a byte order mark and with its line ends, so that offsets are those of the file. A JSON Lines
    file, or standard input, has one object a line, with the keys ``text``; ``id`` or ``_id`` (default:
    ``PATH:LINE``); ``title``, which is put before the text; and ``metadata``. Other keys are added to the
    metadata.

    Args:
        sources: As found by ``find_sources``.
        skipped: Called with the source and the reason for each file that cannot be read or is not UTF-8.
        advance: Called with the number of bytes read since the last call.

    Raises:
        UsageError: A line of a JSON Lines file is not a document; the message names file and line.
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
    """The path with forward slashes; bytes that are not UTF-8 are escaped as in Python."""
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
        raise UsageError(f'{where}: expected strings as "text" and, if given, "title"')
    if not isinstance(metadata, dict):
        raise UsageError(f'{where}: "metadata" is {type(metadata).__name__}, expected an object')
    if type(names[0]) not in (str, int):
        raise UsageError(f"{where}: id is {type(names[0]).__name__}, expected a string or integer")
    whole = f"{title}\n{text}" if title else text
    metadata = {**values, **metadata}
    if (problem := metadata_problem(metadata)) is not None:
        raise UsageError(f"{where}: {problem}")
    try:
        return Document(str(names[0]), whole, metadata, source)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
