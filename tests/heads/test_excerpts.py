"""Excerpts that stand for queries: where they come from, how long they are, how many."""

from __future__ import annotations

import pytest

from edge_mrl.heads.excerpts import (
    LONGEST,
    LONGEST_CHARS,
    RUN,
    count_excerpts,
    take_excerpts,
)

WORDS = [f"word{i}" for i in range(60)]
LONG = " ".join(WORDS)
SENTENCES = "The cat sleeps here. A dog barks at night! Who trains the model? It is so."


@pytest.mark.parametrize(
    ("passages", "count"), [(0, 0), (10, 40), (1_500, 6_000), (5_000, 6_000), (9_000, 9_000)]
)
def test_count_is_four_each_within_bounds(passages: int, count: int) -> None:
    assert count_excerpts(passages) == count


def test_excerpt_is_a_run_of_words_of_its_passage() -> None:
    passages = [LONG, LONG.replace("word", "term")]
    found = take_excerpts(passages, 60)
    assert len(found) > 50
    assert found == sorted(found)
    lengths = set()
    for row, excerpt in found:
        assert excerpt in passages[row]
        assert excerpt not in passages[1 - row]
        lengths.add(len(excerpt.split()))
    assert (min(lengths), max(lengths)) == RUN


def test_passage_of_sentences_gives_sentences_and_runs() -> None:
    excerpts = {excerpt for _, excerpt in take_excerpts([SENTENCES], 200)}
    whole = {"The cat sleeps here.", "A dog barks at night!", "Who trains the model?", "It is so."}
    assert whole <= excerpts
    assert len(excerpts) > 2 * len(whole)  # runs too, which cross the ends of sentences
    assert any(". " in excerpt for excerpt in excerpts)


def test_long_sentence_is_truncated() -> None:
    text = f"{LONG}. {LONG}."
    assert max(len(e.split()) for _, e in take_excerpts([text], 100)) == LONGEST
    text = "猫" * 900 + "。" + "犬" * 900 + "。"
    longest = max(len(e) for _, e in take_excerpts([text], 50))
    assert longest == LONGEST_CHARS


def test_no_excerpt_comes_twice_or_is_the_whole_passage() -> None:
    found = take_excerpts(["the cat sleeps", "a dog", "", LONG], 400)
    texts = [excerpt for _, excerpt in found]
    assert len(texts) == len(set(texts))
    assert not {"the cat sleeps", "a dog", "", LONG} & set(texts)
    assert {row for row, _ in found} == {3}


def test_same_seed_gives_the_same_excerpts() -> None:
    passages = [LONG, SENTENCES]
    assert take_excerpts(passages, 30, seed=2) == take_excerpts(passages, 30, seed=2)
    assert take_excerpts(passages, 30, seed=2) != take_excerpts(passages, 30, seed=3)


def test_each_passage_comes_in_turn() -> None:
    passages = [f"{LONG} {i}" for i in range(20)]
    rows = [row for row, _ in take_excerpts(passages, 20)]
    assert rows == list(range(20))


def test_no_passages_give_no_excerpts() -> None:
    assert take_excerpts([], 10) == []
    assert take_excerpts([LONG], 0) == []
