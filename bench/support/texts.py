"""The texts that encoders are measured with: real prose that comes with this repository.

Paragraphs of the documentation strings in demo/corpus.jsonl that are mostly plain words, joined in a
random order and cut into documents of 20 to 200 words; their first words are the queries. Seeded: the
same texts on every machine.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Texts", "make"]

CORPUS = Path(__file__).parent.parent.parent / "demo" / "corpus.jsonl"
#: Words of a document: fewest, most common, most. The mean is about 100.
FEWEST, COMMON, MOST = 20, 76, 200
#: No document is cut by an encoder: the limit of sentence-transformers for all-MiniLM-L6-v2.
MOST_TOKENS = 256
QUERY_TOKENS = range(8, 13)
QUERY_WORDS = (5, 10)
SEED = 20
#: A paragraph is prose if it is not shorter, and if so many of its words are plain.
SHORTEST = 8
PLAIN = 0.9
_PLAIN_WORD = re.compile(r"""["'(]?[A-Za-z][a-z'’-]*["')]?[.,;:!?)]*""")


@dataclass(frozen=True, slots=True)
class Texts:
    """What is encoded.

    Attributes:
        documents: Of 20 to 200 words.
        queries: Of 8 to 12 tokens, [CLS] and [SEP] included.
    """

    documents: list[str]
    queries: list[str]

    @property
    def key(self) -> str:
        """A short hash of all of them."""
        joined = "\0".join([*self.documents, "", *self.queries])
        return hashlib.sha256(joined.encode()).hexdigest()[:16]


def make(count: int, queries: int, *, tokens: Callable[[str], int]) -> Texts:
    """The first texts of an endless sequence; a smaller number gives the beginning of a larger's.

    Args:
        count: Documents.
        queries: Queries, all different.
        tokens: Tokens of a text, special ones included.
    """
    paragraphs = list(_paragraphs())
    stream = _words(paragraphs)
    chance = random.Random(SEED)
    documents = [_document(stream, chance, tokens) for _ in range(count)]
    return Texts(documents, _queries(paragraphs, queries, tokens))


def _paragraphs() -> Iterator[list[str]]:
    """Words of the paragraphs that are prose."""
    seen = set()
    for line in CORPUS.read_text("utf-8").splitlines():
        for paragraph in re.split(r"\n\s*\n", json.loads(line)["text"]):
            words = paragraph.split()
            plain = sum(_PLAIN_WORD.fullmatch(word) is not None for word in words)
            key = " ".join(words)
            if len(words) >= SHORTEST and plain >= PLAIN * len(words) and key not in seen:
                seen.add(key)
                yield words


def _words(paragraphs: Sequence[list[str]]) -> Iterator[str]:
    """The words of all paragraphs in a random order, and again in another, without end."""
    chance = random.Random(SEED + 1)
    order = list(paragraphs)
    while True:
        chance.shuffle(order)
        for paragraph in order:
            yield from paragraph


def _document(stream: Iterator[str], chance: random.Random, tokens: Callable[[str], int]) -> str:
    length = round(chance.triangular(FEWEST, MOST, COMMON))
    words = [next(stream) for _ in range(length)]
    while tokens(" ".join(words)) > MOST_TOKENS:
        words.pop()
    return " ".join(words)


def _queries(
    paragraphs: Sequence[list[str]], count: int, tokens: Callable[[str], int]
) -> list[str]:
    """First words of random paragraphs."""
    chance = random.Random(SEED + 2)
    found: dict[str, None] = {}
    while len(found) < count:
        text = " ".join(chance.choice(paragraphs)[: chance.randint(*QUERY_WORDS)]).rstrip(".,;:")
        if tokens(text) in QUERY_TOKENS:
            found[text] = None
    return list(found)
