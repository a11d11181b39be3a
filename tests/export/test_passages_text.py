"""The passages that heads are fitted on where the user gives no text."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from importlib import resources
from itertools import combinations

DATA = resources.files("edge_mrl_export.texts.data")
#: Words from which a passage counts as a paragraph; the rest are notes, claims, commands and so on.
PARAGRAPH = 50
#: Share of the shorter one's runs of five words. Unrelated English shares two runs or so in seventy;
#: a line of ten words may share one, "the end of the month" for example, and is let off with it.
NEAR_DUPLICATE = 0.1


def read(name: str) -> list[str]:
    return DATA.joinpath(name).read_text("utf-8").split("\n")[:-1]


def five_grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


def near_duplicates(texts: list[str]) -> list[tuple[int, int]]:
    grams = [five_grams(text) for text in texts]
    owners = defaultdict(list)
    for number, found in enumerate(grams):
        for gram in found:
            owners[gram].append(number)
    shared = Counter(pair for numbers in owners.values() for pair in combinations(numbers, 2))
    return [
        (one, two)
        for (one, two), count in shared.items()
        if count > max(1, NEAR_DUPLICATE * min(len(grams[one]), len(grams[two])))
    ]


def test_passages_are_one_per_line_of_clean_text() -> None:
    data = DATA.joinpath("passages.txt").read_bytes()
    text = data.decode("utf-8")
    assert text.endswith("\n")
    # Readers that split at any line end of Unicode must find the same passages.
    assert text.splitlines() == text.split("\n")[:-1]
    assert all(line and line == line.strip() for line in text.splitlines())
    assert text == unicodedata.normalize("NFC", text)
    odd = {char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Co", "Cn"}}
    assert odd == {"\n"}


def test_passages_are_many_and_mostly_paragraphs() -> None:
    lengths = [len(line.split()) for line in read("passages.txt")]
    assert 650 <= len(lengths) <= 800
    assert min(lengths) >= 8
    assert max(lengths) <= 110  # what most models read whole
    share = sum(length >= PARAGRAPH for length in lengths) / len(lengths)
    assert 0.7 <= share <= 0.8
    assert sum(lengths) >= 40_000


def test_passages_do_not_repeat_each_other() -> None:
    passages = read("passages.txt")
    assert len({line.casefold() for line in passages}) == len(passages)
    assert near_duplicates([*passages, *read("calibration.txt")]) == []


def test_passages_open_in_many_ways() -> None:
    passages = read("passages.txt")
    openings = Counter(" ".join(line.lower().split()[:2]) for line in passages)
    assert openings.most_common(1)[0][1] <= 5
    definition = re.compile(r"(\S+ ){1,6}(is|are|was|were) (an?|the) ")
    assert sum(bool(definition.match(line)) for line in passages) < len(passages) / 3


def test_a_passage_reworded_in_places_counts_as_a_near_duplicate() -> None:
    passages = read("passages.txt")[:20]
    words = passages[7].split()
    words[:3], words[20], words[40] = ["Elsewhere"], "often", "never"
    assert near_duplicates([*passages, " ".join(words)]) == [(7, 20)]
