"""The document: a text with an id and metadata, which every part of the product passes on."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_mrl.errors import UsageError
from edge_mrl.lazy import moved

__all__ = [
    "MAX_INTEGER",
    "Document",
    "PassageRule",
    "check_metadata",
    "clean",
    "id_problem",
    "metadata_problem",
    "shorten",
    "text_problem",
    "value_problem",
]

#: Limits of a document's metadata. Each value becomes a row of a store's index of metadata, which
#: repeats its name. Within these limits a document's rows have 0.4 MB at most, beside twice the bytes of
#: its metadata (tests/test_metadata.py measures that).
MAX_METADATA_BYTES = 1 << 18
#: Objects and lists within each other, the metadata itself included.
MAX_LEVELS = 16
#: Values, with objects and lists among them.
MAX_VALUES = 2_048
#: UTF-8 bytes of a value's name, with the names of the objects around it and dots between them.
MAX_NAME_BYTES = 512
#: UTF-8 bytes of the names of all values. A list's name counts for each of its values.
MAX_NAMES_BYTES = 1 << 16
#: Integers from -MAX_INTEGER - 1 to MAX_INTEGER are kept and compared exactly.
MAX_INTEGER = 2**63 - 1

_SURROGATES = re.compile("[\ud800-\udfff]")
_REFUSED = re.compile("[\x00\ud800-\udfff]")
#: What JSON adds around a name or a text, at least.
_QUOTES = 2


@dataclass(frozen=True, slots=True)
class Document:
    """A text with a name.

    Attributes:
        id: Unique in a store; not empty, without NUL. A document replaces the one of its id.
        text: Any text. Lone surrogates, which UTF-8 cannot carry, become U+FFFD.
        metadata: Anything JSON can carry, by name, within the limits of ``check_metadata``.
        source: The file it was read from, as its path was given; None if it was not. Documents are
            equal without it.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not isinstance(self.text, str):
            raise TypeError(
                f"a document's id and text are {type(self.id).__name__} and "
                f"{type(self.text).__name__}, expected str"
            )
        check_id(self.id)
        object.__setattr__(self, "text", clean(self.text))


@dataclass(frozen=True, slots=True)
class PassageRule:
    """How documents are split into passages. A store keeps one rule, so that all its passages compare.

    Attributes:
        max_tokens: Most tokens in a passage, special tokens and prompt not counted.
        overlap: Tokens that a passage shares with the one before it.
        splitter: "markdown" if documents whose ids end with .md or .markdown are split by structure, and
            the others by tokens; "markdown+headings" if the headings above them are also embedded with
            them; "tokens" if all are split by tokens, as in stores of earlier versions.
    """

    max_tokens: int
    overlap: int
    splitter: str = "tokens"


def clean(text: str) -> str:
    """The text with lone surrogates as U+FFFD; its length stays the same."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def text_problem(text: str) -> str | None:
    """Why a text cannot be a name or a value, in words; None if it can."""
    found = None if text.isascii() and "\0" not in text else _REFUSED.search(text)
    if found is None:
        return None
    what = "NUL" if found[0] == "\0" else "a lone surrogate"
    return f"{shorten(text)} has {what} at {found.start()}, expected Unicode text without NUL"


def id_problem(value: object) -> str | None:
    """Why a value cannot be a document's id, in words; None if it can."""
    if not isinstance(value, str):
        return f"{shorten(value)} is {type(value).__name__}, expected text"
    return text_problem(value) if value else "it is empty, expected text"


def check_id(value: object) -> None:
    """Check that a value can be a document's id: not empty, without NUL and lone surrogates.

    Raises:
        UsageError: It cannot; the message says why.
    """
    if (problem := id_problem(value)) is not None:
        raise UsageError(f"document id {shorten(value)}: {problem}")


def value_problem(value: object) -> str | None:
    """Why a single value cannot be in metadata or in a filter, in words; None if it can."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return text_problem(value)
    if isinstance(value, int):
        fits = -MAX_INTEGER - 1 <= value <= MAX_INTEGER
        return None if fits else "an integer of more than 64 bits: write it as a text or a float"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value}, expected a finite number"
    return (
        f"{type(value).__name__}, expected text, a number, true, false, null, a list or an object"
    )


def metadata_problem(metadata: object) -> str | None:
    """Why a document cannot have this metadata, in words; None if it can.

    This is the only place where metadata is judged: of documents that are put, of lines of JSON, of
    messages from devices and servers, and of what older stores and servers hold.
    """
    if not isinstance(metadata, Mapping):
        return f"metadata is {type(metadata).__name__}, expected an object"
    values = names = size = 0
    for values, (name, inner, level, problem) in enumerate(_walk(metadata), start=1):
        if problem is not None:
            return problem
        names += len(name)
        size += _QUOTES + (len(inner) if isinstance(inner, str) else 0)
        if level > MAX_LEVELS:
            return f"metadata {_called(name)} is deeper than {MAX_LEVELS} levels: make it flatter"
        if values > MAX_VALUES:
            return f"metadata has more than {MAX_VALUES:,} values"
        if len(name) > MAX_NAME_BYTES:
            return f"metadata has a name of more than {MAX_NAME_BYTES} bytes, {_called(name)}"
        if names > MAX_NAMES_BYTES:
            return f"the names of the metadata's values have more than {MAX_NAMES_BYTES:,} bytes"
        if size > MAX_METADATA_BYTES:  # before more memory is used for it
            break
    else:
        size = _json_bytes(metadata) if values else 0
    if size > MAX_METADATA_BYTES:
        return f"metadata has more than {MAX_METADATA_BYTES:,} bytes as JSON"
    return None


def _json_bytes(metadata: Mapping[str, Any]) -> int:
    text = json.dumps(dict(metadata), ensure_ascii=False, separators=(",", ":"))
    return len(text.encode())


def check_metadata(metadata: object, where: str) -> None:
    """Check that a document can have this metadata.

    Args:
        metadata: An object of what JSON has: text, finite numbers, true, false, null, lists, and objects.
            It has at most 262,144 bytes as JSON, 2,048 values, and 16 levels. Integers have 64 bits.
            Names are texts, of at most 512 bytes together with the names around them; the names of all
            values have at most 65,536 bytes. Texts have neither NUL nor lone surrogates.
        where: What has it, for the message.

    Raises:
        UsageError: It is something else; the message says what.
    """
    if (problem := metadata_problem(metadata)) is not None:
        raise UsageError(f"{where}: {problem}")


class _Short(reprlib.Repr):
    """Writes any value in a few characters, however large or deep it is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 - reprlib's signature
        """An integer; Python refuses to write those of more than 4,300 digits."""
        return "an integer of more than 64 bits" if abs(x) > MAX_INTEGER else repr(x)


def shorten(value: object) -> str:
    """A value in a message: what Python calls it, or its beginning and end."""
    return _Short().repr(value)


def _called(name: bytes) -> str:
    return shorten(name.decode("utf-8", "replace"))


def _walk(metadata: Mapping[Any, Any]) -> Iterator[tuple[bytes, object, int, str | None]]:
    """Values with their dotted names in UTF-8, their levels, and what is wrong with each.

    It goes as deep as the caller reads on, so that a structure that contains itself ends at a limit.
    """
    waiting: list[tuple[Iterator[tuple[Any, Any]], bytes, int]] = [(iter(metadata.items()), b"", 2)]
    while waiting:
        pairs, around, level = waiting[-1]
        for key, value in pairs:
            name, problem = _name(key, around)
            inner = _inner(value)
            if problem is None and inner is None and (bad := value_problem(value)) is not None:
                problem = f"metadata {_called(name)} is {bad}"
            yield name, value, level - (inner is None), problem
            if inner is not None:
                waiting.append((inner, name, level + 1))
                break
        else:
            waiting.pop()


def _name(key: object, around: bytes) -> tuple[bytes, str | None]:
    """The name of a value, seen from the metadata, and what is wrong with it; ``_ITEM`` in a list."""
    if key is _ITEM:
        return around, None
    if not isinstance(key, str):
        return around, f"metadata has a name that is {type(key).__name__}, expected text"
    if len(key) > MAX_NAME_BYTES:
        return around, f"metadata has a name of more than {MAX_NAME_BYTES} bytes, {shorten(key)}"
    if (bad := text_problem(key)) is not None:
        return around, f"metadata has the name {bad}"
    data = key.encode()
    return (around + b"." + data if around else data), None


_ITEM = object()


def _inner(value: object) -> Iterator[tuple[Any, Any]] | None:
    """Names and values within an object or a list; None for anything else."""
    if isinstance(value, dict):
        return iter(value.items())
    if isinstance(value, list | tuple):
        return ((_ITEM, inner) for inner in value)
    return None


__getattr__ = moved(__name__, {"edge_mrl.sources": ("find_sources", "read_documents")})
