"""Long texts cut into passages that a model reads whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.documents import PassageRule
from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from edge_mrl.encode.encoder import Encoder

__all__ = ["passage_rule", "split"]

#: Longest passage by default. A model that reads 8,192 tokens still makes one vector of them, in
#: which a single sentence no longer shows; most models were trained on passages this long at most.
DEFAULT_TOKENS = 254
#: Part of the room left free by default: a passage moved to a word's start may grow by some tokens.
SLACK = 32
#: By default a passage shares one eighth of its tokens with the one before it, so that a sentence
#: on the border is whole in one of them.
OVERLAP = 8
#: A border moves left to the start of its word, but no further: scripts without spaces stay put.
WORD_CHARS = 40


def passage_rule(
    encoder: Encoder, *, max_tokens: int | None = None, overlap: int | None = None
) -> PassageRule:
    """Choose the rule for a new store: what is asked for, checked, or what fits the model.

    Raises:
        UsageError: The model cannot read so many tokens, or the overlap is not below them.
    """
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
    return PassageRule(max_tokens, overlap)


def split(encoder: Encoder, text: str, rule: PassageRule) -> list[tuple[int, int]]:
    """Cut a text into passages.

    Args:
        encoder: Its tokenizer counts.
        text: Any string.
        rule: Most tokens in a passage, and their overlap.

    Returns:
        Offsets (start, end) of each passage in characters (code points), in order and together
        covering the text; [] for a text without tokens. Borders lie at the start of a word where
        there is one near.
    """
    spans = encoder.spans(text, max_tokens=rule.max_tokens, overlap=rule.overlap)
    if len(spans) < 2:
        return spans
    moved = [(_word_start(text, start), _word_start(text, end)) for start, end in spans]
    return [(start, end) for start, end in moved if start < end]


def _word_start(text: str, position: int) -> int:
    """The start of the word at a position. Never passes another's: order and coverage stay."""
    if position >= len(text):
        return position
    for start in range(position, max(0, position - WORD_CHARS), -1):
        if text[start - 1].isspace():
            return start
    return position
