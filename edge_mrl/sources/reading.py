"""Reading files as documents, each by the reader of its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from edge_mrl.documents import Document, id_problem, metadata_problem
from edge_mrl.errors import reason
from edge_mrl.machine import ran_out
from edge_mrl.sources.facts import file_document, with_facts
from edge_mrl.sources.files import SourceFile, as_name
from edge_mrl.sources.formats import Part, Reader, Unreadable, reader_of
from edge_mrl.sources.kinds import kind_of, suffix_of
from edge_mrl.sources.lines import BadLineError, read_lines
from edge_mrl.sources.text import NotText, check_encoding, decode

__all__ = ["read_documents"]


def read_documents(
    sources: Iterable[SourceFile],
    *,
    skipped: Callable[[str, str], None],
    advance: Callable[[int], None] | None = None,
    encoding: str | None = None,
    bad_line: Callable[[BadLineError], None] | None = None,
    noted: Callable[[str, str], None] | None = None,
) -> Iterator[Document]:
    """Read documents, one at a time.

    A text or Markdown file is one document. Its id is its source's name; its text is the whole file,
    without a byte order mark and with its line ends. Files in UTF-16 and UTF-32 are read if they begin
    with a byte order mark. Its metadata has ``path``, ``folder``, ``title`` and ``mtime``. The front
    matter of Markdown becomes metadata too, and its ``title`` wins; its own path, folder and mtime are
    kept under ``own``. Front matter that cannot be read stays in the text.

    A JSON Lines file, or standard input, has one object a line, with the keys ``text``; ``id`` or ``_id``
    (default: the file's name, "#", and a hash of the content); ``title``, which is put before the text;
    and ``metadata``. Other keys are added to the metadata.

    A file that is ``parsed`` is read by the reader of its suffix. If it gives several documents, their
    ids are the file's name, "#", and what tells them apart.

    Args:
        sources: As found by ``find_sources`` or ``find_in_roots``.
        skipped: Called with the path and the reason for each file that cannot be read or is not text.
        advance: Called with the number of bytes read since the last call.
        encoding: The encoding of files that are not UTF-8 and have no byte order mark; None to skip them.
        bad_line: Called with the error for each line of a JSON Lines file that is not a document, which
            is left out; None raises it.
        noted: Called with the path and what should be said of a file that is read.

    Raises:
        BadLineError: A line is not a document and ``bad_line`` is None; the message names file and line.
        UsageError: There is no such encoding.
    """
    check_encoding(encoding)
    for source in sources:
        try:
            if source.parsed:
                yield from _parsed(source, encoding, skipped)
                if advance is not None:
                    advance(source.size_bytes)
                continue
            if kind_of(source.path) == "lines":
                yield from read_lines(source, encoding=encoding, bad=bad_line, advance=advance)
                continue
            text = decode(Path(source.path).read_bytes(), encoding)
        except NotText as error:
            skipped(as_name(source.path), str(error))
            text = None
        except OSError as error:
            skipped(as_name(source.path), str(error.strerror or reason(error)))
            text = None
        if advance is not None and kind_of(source.path) == "text":
            advance(source.size_bytes)
        if text is not None:
            yield file_document(source, text, _of_file(source, noted))


def _of_file(source: SourceFile, noted: Callable[[str, str], None] | None) -> Callable[[str], None]:
    def say(what: str) -> None:
        if noted is not None:
            noted(as_name(source.path), what)

    return say


def _parts(reader: Reader, path: str, encoding: str | None) -> Iterator[Part]:
    yield from reader(
        path, encoding
    )  # in a generator: what it raises as it is called comes later too


def _parsed(
    source: SourceFile, encoding: str | None, skipped: Callable[[str, str], None]
) -> Iterator[Document]:
    """The documents of a file that has a reader of its own; whatever that raises, the file is skipped."""
    reader = reader_of(suffix_of(source.path))
    if reader is None:
        raise NotText("there is no reader of such files")
    parts = _parts(reader, source.path, encoding)
    while True:
        try:
            part = next(parts, None)
        except (Unreadable, OSError) as error:
            skipped(as_name(source.path), reason(error))
            return
        except Exception as error:
            if ran_out(error):
                raise
            skipped(as_name(source.path), f"its reader failed: {reason(error)}")
            return
        if part is None:
            return
        name = f"{source.source}#{part.key}" if part.key else source.source
        text = part.text.replace("\0", "")
        problem = id_problem(name) or metadata_problem(part.metadata)
        metadata: dict[str, Any] = {}
        if problem is None:
            metadata = with_facts(source, part.metadata, whole=not part.key)
            problem = metadata_problem(metadata)
        if problem is not None:
            skipped(
                as_name(source.path), f"its reader gives a document that cannot be kept: {problem}"
            )
            return
        yield Document(name, text, metadata, source=source.source)
