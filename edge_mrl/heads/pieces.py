"""Pieces of passages that stand for queries nobody has asked yet.

A query is shorter than a passage and lies elsewhere in a model's space. A head that keeps the order of
passages for sentences and runs of words from the text itself keeps it better for real queries.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

__all__ = ["count_pieces", "cut_pieces"]

#: Pieces of a passage, and of all unless there are more passages: embedding them must not take longer
#: than the passages did. Four of each of 1,200 to 1,400 passages kept 0.4 points of nDCG@10 more at 128
#: dimensions than two, and 1.1 more at 64; two of each of 5,000 were as good as one.
PIECES_EACH, MOST_PIECES = 4, 6_000
#: Words of a piece, and characters, where there are no spaces between words.
SHORTEST, LONGEST, CHARS, LONGEST_CHARS = 3, 24, 16, 200
#: Words of a run. Where a passage has more than one sentence, every other piece is a sentence: of the
#: two kinds together, more of real queries' top 10 was kept than of either alone.
RUN = (3, 14)
_SENTENCE = re.compile(r"(?<=[.!?;:])\s+|(?<=[。！？])|\n+")


def count_pieces(passages: int) -> int:
    """How many pieces of so many passages are worth their embedding."""
    return min(PIECES_EACH * passages, max(MOST_PIECES, passages))


def cut_pieces(passages: Sequence[str], count: int, *, seed: int = 0) -> list[tuple[int, str]]:
    """Cut pieces: of each passage in turn a sentence, or a run of words.

    Args:
        passages: The text.
        count: How many pieces at most; some passages may give none.
        seed: The same seed gives the same pieces.

    Returns:
        The row of the passage and the piece, in the order of the rows; no piece twice.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    rows = list(range(len(passages)))
    chance.shuffle(rows)
    found: dict[str, int] = {}
    for turn in range(count):
        if not rows:
            break
        row = rows[turn % len(rows)]
        piece = _piece(passages[row], chance)
        if piece and piece != passages[row]:  # else it would say what the passage says
            found.setdefault(piece, row)
    return sorted((row, piece) for piece, row in found.items())


def _piece(passage: str, chance: random.Random) -> str:
    sentences = [
        s for s in _SENTENCE.split(passage) if len(s.split()) >= SHORTEST or len(s) >= CHARS
    ]
    if len(sentences) > 1 and chance.random() < 0.5:
        words = chance.choice(sentences).split()[:LONGEST]
    else:
        words = passage.split()
        length = chance.randint(*RUN)
        start = chance.randrange(max(len(words) - length, 0) + 1)
        words = words[start : start + length]
    return " ".join(words)[:LONGEST_CHARS].strip()
