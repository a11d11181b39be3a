"""Bytes as text: UTF-8, what a byte order mark says, or an encoding that is given."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from edge_mrl.errors import UsageError

__all__ = ["NotText", "check_encoding", "decode", "utf8_lines"]

#: Byte order marks; those of UTF-32 begin with those of UTF-16, so they come first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class NotText(Exception):  # noqa: N818 - not an error of its own: a file is skipped for it
    """Bytes are no text; the message says why."""


def check_encoding(name: str | None) -> str | None:
    """An encoding's name, if Python has it and it is one of text.

    Raises:
        UsageError: There is no such encoding.
    """
    if name is None:
        return None
    try:
        b"a".decode(name, "ignore")  # refuses encodings that are not of text, such as base64
    except (LookupError, ValueError) as error:
        raise UsageError(
            f"there is no text encoding {name!r}: expected a name such as latin-1, cp1252 or utf-16-le"
        ) from error
    return name


def decode(data: bytes, encoding: str | None = None) -> str:
    """The text that bytes hold, without a byte order mark and with its line ends.

    Args:
        data: A whole file.
        encoding: How a text that is not UTF-8 and has no byte order mark is encoded, if that is known.

    Raises:
        NotText: The bytes are no text in any of these.
    """
    for mark, marked in _MARKS:
        if data.startswith(mark) and (len(data) > len(mark) or marked == "utf-8"):
            return _decoded(data[len(mark) :], marked, marked.upper())
    if encoding is not None:
        try:
            return _decoded(data, "utf-8", "UTF-8")
        except NotText:
            return _decoded(data, encoding, encoding)
    return _decoded(data, "utf-8", "UTF-8")


def _decoded(data: bytes, encoding: str, shown: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if b"\x00" in data and encoding == "utf-8":
            raise NotText("not a text file (it holds NUL bytes)") from error
        raise NotText(
            f"not {shown} text (byte {error.start:,}); --encoding names another encoding"
        ) from error
    if "\x00" in text:
        raise NotText("not a text file (it holds NUL bytes)")
    return text


def utf8_lines(file: BinaryIO, encoding: str | None = None) -> Iterator[bytes]:
    """Lines in UTF-8, of a file that may be in what a byte order mark or ``encoding`` says.

    Raises:
        NotText: Bytes are not valid in that encoding. Lines that are not UTF-8 where UTF-8 is read are
            given as they are.
    """
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast("Any", file))
    head = buffered.peek(4)[:4]
    mark, marked = next((pair for pair in _MARKS if head.startswith(pair[0])), (b"", None))
    buffered.read(len(mark))
    name = marked or encoding
    try:
        yield from buffered if name in ("utf-8", None) else _decoded_lines(buffered, name)
    finally:
        if buffered is not file:
            buffered.detach()


def _decoded_lines(file: io.BufferedReader, encoding: str) -> Iterator[bytes]:
    text = io.TextIOWrapper(file, encoding, newline="\n")
    try:
        for line in text:
            yield line.encode("utf-8")
    except UnicodeDecodeError as error:
        raise NotText(f"not {encoding.upper()} text") from error
    finally:
        text.detach()
