"""The sentence of a passage that answers: by the words of the question, or by the model."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_mrl.markdown import read_blocks

if TYPE_CHECKING:
    from edge_mrl.encode import Encoder

__all__ = ["Words", "sentence_by_model", "sentence_by_words", "sentences"]

#: Characters of a passage that are looked at, and its sentences, at most.
MOST_CHARS = 8_000
MOST_SENTENCES = 100
#: Sentences of all passages that the model weighs for one question, and their characters.
MODEL_SENTENCES = 24
MODEL_CHARS = 400

_WORD = re.compile(r"\w+")
_ASKED = re.compile(r"(\w+)(\*?)")
#: Where a sentence ends: behind its sign, at an empty line, and in front of an item of a list.
_END = re.compile(
    r"(?<=[.!?\u2026])[\"')\]\u201d\u2019]{0,3}\s+|(?<=[\u3002\uff01\uff1f])|\n\s*\n|\n(?=\s*(?:[-+*]|\d{1,9}[.)])\s)"
)


class Words:
    """The words of a question, by which a search by words finds texts.

    Letter case and accents do not count; a word with an asterisk stands for all that begin with it.
    """

    def __init__(self, query: str) -> None:
        asked = {(_plain(word), bool(star)) for word, star in _ASKED.findall(query)}
        self._whole = {word for word, star in asked if not star}
        self._beginnings = tuple(word for word, star in asked if star)

    def __contains__(self, word: object) -> bool:
        plain = _plain(str(word))
        return plain in self._whole or bool(self._beginnings and plain.startswith(self._beginnings))

    def marks(self, text: str) -> list[tuple[int, int]]:
        """Where the question's words are in a text."""
        return [found.span() for found in _WORD.finditer(text) if found[0] in self]

    def found(self, text: str) -> set[str]:
        """Those of the question's words that a text has."""
        return {_plain(word) for word in _WORD.findall(text) if word in self}


def sentences(passage: str) -> list[tuple[int, int]]:
    """Start and end of the sentences of a passage; headings are left out if there is anything else."""
    text = passage[:MOST_CHARS]
    blocks = read_blocks(text)
    spoken = [block for block in blocks if not block.level] or blocks
    found: list[tuple[int, int]] = []
    for block in spoken:
        borders = [block.start, *(end.end() for end in _END.finditer(text, block.start, block.end))]
        for start, end in zip(borders, [*borders[1:], block.end], strict=True):
            inner = text[start:end]
            if inner.strip():
                found.append(
                    (start + len(inner) - len(inner.lstrip()), start + len(inner.rstrip()))
                )
    return found[:MOST_SENTENCES]


def sentence_by_words(passage: str, words: Words) -> tuple[int, int] | None:
    """The sentence with most of the question's words; those that many sentences have count less.

    Returns:
        Its start and end in the passage; None if no sentence has any of the words.
    """
    spans = sentences(passage)
    having = [words.found(passage[start:end]) for start, end in spans]
    often: dict[str, int] = {}
    for found in having:
        for word in found:
            often[word] = often.get(word, 0) + 1
    weights = [sum(1 / often[word] for word in found) for found in having]
    return spans[weights.index(max(weights))] if any(weights) else None


def sentence_by_model(
    passages: Sequence[str], query: str, encoder: Encoder
) -> list[tuple[int, int] | None]:
    """The sentence of each passage that is nearest to the question.

    The first passages come first: at most MODEL_SENTENCES sentences are embedded, all in one batch.

    Returns:
        For each passage start and end of its sentence; None where it was not looked at.
    """
    chosen: list[tuple[int, int] | None] = [None] * len(passages)
    asked: list[tuple[int, tuple[int, int]]] = []
    for number, passage in enumerate(passages):
        spans = sentences(passage)
        if len(spans) == 1:
            chosen[number] = spans[0]
        elif len(asked) + len(spans) <= MODEL_SENTENCES:
            asked += [(number, span) for span in spans]
    if not asked:
        return chosen
    texts = [
        passages[number][start : min(end, start + MODEL_CHARS)] for number, (start, end) in asked
    ]
    question = encoder.encode([query], kind="query").coarse[0].astype("f4")
    scores = encoder.encode(texts, kind="document").coarse.astype("f4") @ question
    best: dict[int, float] = {}
    for (number, span), score in zip(asked, scores, strict=True):
        if score > best.get(number, float("-inf")):
            best[number], chosen[number] = float(score), span
    return chosen


def _plain(word: str) -> str:
    """A word without letter case and accents."""
    if word.isascii():
        return word.lower()
    spread = unicodedata.normalize("NFKD", word.casefold())
    return "".join(sign for sign in spread if not unicodedata.combining(sign))
