"""Fused rankings, and the passage that shows a document found by its words."""

from __future__ import annotations

from edge_mrl.search.fusion import best_passage, fuse


def test_fusion_sums_reciprocal_ranks() -> None:
    fused = fuse([[1, 2], [2, 3]])
    assert fused == {1: 1 / 61, 2: 1 / 62 + 1 / 61, 3: 1 / 62}
    assert max(fused, key=fused.__getitem__) == 2


def test_best_passage_has_most_of_the_words() -> None:
    text = "one two three four five"
    spans = [(0, 7), (8, 18), (14, 23)]
    assert best_passage(text, spans, "Four five") == 2
    assert best_passage(text, spans, "absent") == 0


def test_first_of_equal_passages_is_the_best() -> None:
    assert best_passage("a b a b", [(0, 3), (4, 7)], "b a") == 0


def test_ranking_that_is_empty_changes_nothing() -> None:
    assert fuse([[7, 5], []]) == fuse([[7, 5]])
