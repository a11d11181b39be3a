"""Splitting long texts into passages that a model reads whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_mrl.arguments import MOST, check_whole
from edge_mrl.documents import PassageRule
from edge_mrl.encode.tokenizer import (
    replace_surrogates,
    require_room_for_tokens,
    tokenizing,
)
from edge_mrl.errors import UsageError
from edge_mrl.machine import reporting_memory

if TYPE_CHECKING:
    from edge_mrl.encode.encoder import Encoder

__all__ = [
    "SPLITTER",
    "WITH_HEADINGS",
    "Cutting",
    "heading_tokens",
    "passage_rule",
    "split_passages",
    "token_spans",
]

#: How new stores split their documents.
SPLITTER = "markdown"
#: How those split that embed Markdown's headings with its passages.
WITH_HEADINGS = "markdown+headings"

#: Longest passage by default, in tokens. A model that reads 8,192 tokens still makes one vector of them,
#: in which a single sentence no longer shows; most models were trained on passages of up to this length.
DEFAULT_TOKENS = 254
#: One part in so many of the room stays free by default: a passage whose border moves to the start of
#: a word may grow by some tokens.
SLACK = 32
#: By default a passage shares one eighth of its tokens with the one before it, so that a sentence
#: on the border is whole in one of them.
OVERLAP = 8
#: Headings take at most one eighth of a passage's tokens.
HEADINGS = 8
#: A border moves left to the start of its word by at most so many characters. In scripts without spaces
#: it stays where it is.
WORD_CHARS = 40
#: Characters that are tokenised together. A tokenizer takes up to 700 bytes for each, so that a book in
#: one piece would take hundreds of megabytes.
BLOCK_CHARS = 20_000


def passage_rule(
    encoder: Encoder,
    *,
    max_tokens: int | None = None,
    overlap: int | None = None,
    headings: bool | None = None,
) -> PassageRule:
    """Choose the rule for a new store: the given values, checked, or values that fit the model.

    Args:
        encoder: The encoder of the store's bundle.
        max_tokens: Most tokens in a passage (default: what the model reads, at most 254, less a 32nd).
        overlap: Tokens that a passage shares with the one before it (default: an eighth of them).
        headings: Whether the headings above a passage of Markdown are embedded with it (default: no).

    Raises:
        UsageError: The model cannot read so many tokens, or the overlap is not below them.
    """
    for name, value in (("max_tokens", max_tokens), ("overlap", overlap)):
        if value is not None:
            check_whole(name, value, least=-MOST)
    room = encoder.manifest.max_tokens - len(encoder.tokenize([""], kind="document")[0])
    if max_tokens is None:
        fitting = max(1, min(room, DEFAULT_TOKENS))
        max_tokens = fitting - fitting // SLACK
    elif not 1 <= max_tokens <= room:
        raise UsageError(
            f"passages of {max_tokens} tokens: this bundle reads 1 to {room} "
            f"({encoder.manifest.max_tokens} with the special tokens)"
        )
    if overlap is None:
        overlap = max_tokens // OVERLAP
    elif not 0 <= overlap < max_tokens:
        raise UsageError(f"an overlap of {overlap} tokens: expected 0 to {max_tokens - 1}")
    return PassageRule(max_tokens, overlap, WITH_HEADINGS if headings else SPLITTER)


def heading_tokens(rule: PassageRule) -> int:
    """Most tokens of the headings that are embedded with a passage; 0 if the rule has none."""
    return rule.max_tokens // HEADINGS if rule.splitter == WITH_HEADINGS else 0


def split_passages(encoder: Encoder, text: str, rule: PassageRule) -> list[tuple[int, int]]:
    """Split a text into passages by tokens, whatever it is; ``split_document`` knows Markdown.

    Args:
        encoder: Its tokenizer counts the tokens.
        text: Any string.
        rule: Most tokens in a passage, and their overlap.

    Returns:
        Offsets (start, end) of each passage in characters (code points), in order. Together the
        passages cover the text. A border is at the start of a word if one is near. [] for a text
        without tokens.
    """
    if not 0 <= rule.overlap < rule.max_tokens:
        raise UsageError(
            f"overlap is {rule.overlap}, expected 0 to {rule.max_tokens - 1} (below max_tokens)"
        )
    return Cutting(encoder, text, rule).between_words(0, len(text))


def token_spans(
    encoder: Encoder, text: str, *, max_tokens: int, overlap: int
) -> list[tuple[int, int]]:
    """Split a text by tokens alone, between the tokenizer's words where a word fits into a passage.

    Args:
        encoder: Its tokenizer counts the tokens.
        text: Any string.
        max_tokens: Most tokens in a passage; special tokens do not count.
        overlap: Tokens that a passage shares with the one before it.

    Returns:
        Offsets (start, end) of each passage in characters, in order. A passage ends where the tokens
        after it begin, so that together they cover the text; [] for a text without tokens.

    Raises:
        UsageError: ``overlap`` is negative or not below ``max_tokens``.
        OutOfMemoryError: There is not enough memory to tokenise the text.
    """
    if not 0 <= overlap < max_tokens:
        raise UsageError(f"overlap is {overlap}, expected 0 to {max_tokens - 1} (below max_tokens)")
    cutting = Cutting(encoder, text, PassageRule(max_tokens, overlap))
    return cutting.spans(0, len(text))


class Cutting:
    """A text's tokens, and where they may be cut.

    Args:
        encoder: Its tokenizer counts the tokens.
        text: Any string.
        rule: Most tokens in a passage, and their overlap.

    Raises:
        OutOfMemoryError: There is not enough memory to tokenise the text.
    """

    def __init__(self, encoder: Encoder, text: str, rule: PassageRule) -> None:
        self.text = text
        self.rule = rule
        with reporting_memory():
            self._starts, self._words = _tokens(encoder, replace_surrogates(text))

    def count(self, start: int, end: int) -> int:
        """How many tokens begin in a part of the text."""
        first, after = np.searchsorted(self._starts, (start, end))
        return int(after - first)

    def spans(self, start: int, end: int) -> list[tuple[int, int]]:
        """Parts of a part of the text, each of at most as many tokens as the rule has."""
        low, high = (int(at) for at in np.searchsorted(self._starts, (start, end)))
        starts, words = self._starts[low:high], self._words[low:high]
        found: list[tuple[int, int]] = []
        first, after = 0, 0
        while after < len(starts):
            after = _first_token_of_word(words, first + self.rule.max_tokens, above=first)
            until = int(starts[after]) if after < len(starts) else end
            found.append((int(starts[first]) if found else start, until))
            first = _first_token_of_word(
                words, max(after - self.rule.overlap, first + 1), above=first
            )
        return found

    def between_words(self, start: int, end: int) -> list[tuple[int, int]]:
        """The same parts, each border at the start of a word if one is near."""
        spans = self.spans(start, end)
        if len(spans) <= 1:
            return spans
        moved = [
            (max(_word_start(self.text, first), start), max(_word_start(self.text, after), start))
            for first, after in spans[:-1]
        ]
        moved.append((max(_word_start(self.text, spans[-1][0]), start), end))
        return [(first, after) for first, after in moved if first < after]


def _tokens(encoder: Encoder, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """int64[n] each: where the tokens of a text start, and the number of each one's word or -1."""
    tokenizer = encoder.untruncated_tokenizer()
    starts, words, count = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for first, after in _blocks(text):
        require_room_for_tokens()
        with tokenizing():
            encoding = tokenizer.encode(text[first:after], add_special_tokens=False)
        starts.append(np.array([start for start, _ in encoding.offsets], np.int64) + first)
        numbers = [-1 if word is None else word + count for word in encoding.word_ids]
        words.append(np.array(numbers, np.int64))
        count = max(numbers, default=count) + 1
    return np.concatenate(starts), np.concatenate(words)


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Parts of a text that are tokenised one by one; each ends in front of a space if there is one.

    A tokenizer that joins a word with a space takes the space in front of it.
    """
    first = 0
    while len(text) - first > BLOCK_CHARS:
        after = first + BLOCK_CHARS
        while after > first + BLOCK_CHARS // 2:
            if text[after].isspace() and not text[after - 1].isspace():
                break
            after -= 1
        else:
            after = first + BLOCK_CHARS  # no spaces, as in Chinese
        yield first, after
        first = after
    yield first, len(text)


def _first_token_of_word(words: NDArray[np.int64], token: int, *, above: int) -> int:
    """The first token of the word that ``token`` is part of; ``token`` itself if that is not above."""
    if token >= len(words):
        return len(words)
    start = token
    while start > above and words[start] >= 0 and words[start] == words[start - 1]:
        start -= 1
    return start if start > above else token


def _word_start(text: str, position: int) -> int:
    """Where the word at a position starts. Later positions give no earlier starts: order is kept."""
    if position >= len(text):
        return position
    for start in range(position, max(0, position - WORD_CHARS), -1):
        if text[start - 1].isspace():
            return start
    return position
