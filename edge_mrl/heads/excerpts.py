"""Excerpts: short pieces of passages that stand for queries that nobody has asked yet.

A query is shorter than a passage and lies elsewhere in a model's space. A head that keeps the order of
passages for sentences and runs of words from the text itself also keeps it better for real queries.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

__all__ = ["count_excerpts", "take_excerpts"]

#: Most excerpts of a passage, and of all passages (or one of each, if there are more passages). Embedding
#: them must not take longer than embedding the passages. Four of each of 1,200 to 1,400 passages kept
#: 0.4 points of nDCG@10 more at 128 dimensions than two, and 1.1 more at 64; two of each of 5,000 were as
#: good as one.
EXCERPTS_EACH, MOST_EXCERPTS = 4, 6_000
#: Fewest and most words of an excerpt, and the same in characters, where no spaces separate words.
SHORTEST, LONGEST, CHARS, LONGEST_CHARS = 3, 24, 16, 200
#: Words of a run. If a passage has several sentences, half of its excerpts are sentences: both kinds
#: together kept more of real queries' top 10 than either alone.
RUN = (3, 14)
_SENTENCE = re.compile(r"(?<=[.!?;:])\s+|(?<=[。！？])|\n+")


def count_excerpts(passages: int) -> int:
    """How many excerpts of so many passages are worth their embedding."""
    return min(EXCERPTS_EACH * passages, max(MOST_EXCERPTS, passages))


def take_excerpts(passages: Sequence[str], count: int, *, seed: int = 0) -> list[tuple[int, str]]:
    """Take excerpts from passages in turn: a sentence, or a run of words.

    Args:
        passages: The texts.
        count: How many excerpts at most; some passages may give none.
        seed: The same seed gives the same excerpts.

    Returns:
        Pairs of a passage's row and the excerpt, in the order of the rows. No excerpt comes twice.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    rows = list(range(len(passages)))
    chance.shuffle(rows)
    found: dict[str, int] = {}
    for number in range(count):
        if not rows:
            break
        row = rows[number % len(rows)]
        excerpt = _excerpt(passages[row], chance)
        if excerpt and excerpt != passages[row]:  # the whole passage would teach nothing new
            found.setdefault(excerpt, row)
    return sorted((row, excerpt) for excerpt, row in found.items())


def _excerpt(passage: str, chance: random.Random) -> str:
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
