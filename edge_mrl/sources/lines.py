"""JSON Lines: one document a line."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from edge_mrl.documents import Document, clean, metadata_problem
from edge_mrl.errors import UsageError
from edge_mrl.sources.files import as_name
from edge_mrl.sources.kinds import STDIN
from edge_mrl.sources.text import utf8_lines

if TYPE_CHECKING:
    from edge_mrl.sources.files import SourceFile

__all__ = ["BadLineError", "content_id", "read_lines"]

#: Hexadecimal digits of an id made of content: 128 bits, so that two contents never meet by chance.
CONTENT_DIGITS = 32


class BadLineError(UsageError):
    """A line of a JSON Lines file is not a document; the message names file and line."""


def read_lines(
    source: SourceFile,
    *,
    encoding: str | None = None,
    bad: Callable[[BadLineError], None] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Iterator[Document]:
    """Read the documents of a JSON Lines file, or of standard input.

    Args:
        source: The file.
        encoding: Its encoding, if it is not UTF-8 and has no byte order mark.
        bad: Called with the error for each line that is not a document; None raises it.
        advance: Called with the number of bytes read since the last call.

    Raises:
        BadLineError: A line is not a document, and ``bad`` is None.
        NotText: The file is not text in its encoding.
        OSError: The file cannot be read.
    """
    shown = as_name(source.path)
    with _opened(source.path) as file:
        for number, line in enumerate(utf8_lines(file, encoding), start=1):
            if advance is not None:
                advance(len(line))
            if not line.strip():
                continue
            try:
                document = _parse_line(line.strip(), f"{shown}:{number}", source, number)
            except BadLineError as error:
                if bad is None:
                    raise
                bad(error)
            else:
                yield document


def content_id(source: str, text: str, metadata: Mapping[str, Any]) -> str:
    """The id of a document that has none: its source, and a hash of text and metadata.

    The same content has the same id, wherever it stands in its file.
    """
    content = json.dumps([text, dict(metadata)], ensure_ascii=False, sort_keys=True)
    digest = hashlib.sha256(clean(content).encode("utf-8")).hexdigest()
    return f"{source}#{digest[:CONTENT_DIGITS]}"


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    with Path(path).open("rb") as file:
        yield file


def _parse_line(line: bytes, where: str, source: SourceFile, number: int) -> Document:
    """Parse one line; ``where`` is "file:line"."""
    try:
        entry = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(entry, dict):
        raise BadLineError(f'{where}: {type(entry).__name__}, expected an object with a "text"')
    values = {key: value for key, value in entry.items() if value is not None}
    names = [values.pop(key) for key in ("id", "_id") if key in values]
    text, title = values.pop("text", None), values.get("title", "")
    metadata = values.pop("metadata", {})
    if not isinstance(text, str) or not isinstance(title, str):
        raise BadLineError(f'{where}: expected strings as "text" and, if given, "title"')
    if not isinstance(metadata, dict):
        raise BadLineError(f'{where}: "metadata" is {type(metadata).__name__}, expected an object')
    if names and type(names[0]) not in (str, int):
        raise BadLineError(
            f"{where}: id is {type(names[0]).__name__}, expected a string or integer"
        )
    whole, facts = f"{title}\n{text}" if title else text, {**values, **metadata}
    if (problem := metadata_problem(facts)) is not None:
        raise BadLineError(f"{where}: {problem}")
    try:
        if names:
            name = str(names[0])
        elif source.numbered:
            name = f"{source.source}:{number}"
        else:
            name = content_id(source.source, whole, facts)
        return Document(name, whole, facts, source.source)
    except (UsageError, ValueError, RecursionError) as error:
        raise BadLineError(f"{where}: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
