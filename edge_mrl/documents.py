"""The document: a text with an id and metadata, which every part of the product passes on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_mrl.errors import UsageError
from edge_mrl.lazy import moved

__all__ = ["Document", "PassageRule", "clean"]

_SURROGATES = re.compile("[\ud800-\udfff]")
_ID_REFUSED = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Document:
    """A text with a name.

    Attributes:
        id: Unique in a store; not empty, without NUL. A document replaces the one of its id.
        text: Any text. Lone surrogates, which UTF-8 cannot carry, become U+FFFD.
        metadata: Anything JSON can carry, by name.
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
        if not self.id or _ID_REFUSED.search(self.id):
            raise UsageError(f"document id {self.id!r}: expected text without NUL or surrogates")
        object.__setattr__(self, "text", clean(self.text))


@dataclass(frozen=True, slots=True)
class PassageRule:
    """How documents are split into passages. A store keeps one rule, so that all its passages compare.

    Attributes:
        max_tokens: Most tokens in a passage, special tokens and prompt not counted.
        overlap: Tokens that a passage shares with the one before it.
    """

    max_tokens: int
    overlap: int


def clean(text: str) -> str:
    """The text with lone surrogates as U+FFFD; its length stays the same."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


__getattr__ = moved(__name__, {"edge_mrl.sources": ("find_sources", "read_documents")})
