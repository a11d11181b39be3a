"""Exact search against its slow and obvious twin."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mrl import codetable, search
from edge_mrl.codetable import CodeTable, lengths
from edge_mrl.search import Match, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Both sides divide the same whole numbers; only the order of rounding may differ.
SCORE_TOLERANCE = 1e-12


def make_table(
    counts: list[int], codes: NDArray[np.int8], ranks: list[int] | None = None
) -> CodeTable:
    starts = np.cumsum([0, *counts[:-1]]).astype(np.int64)
    keys = np.arange(1, len(counts) + 1, dtype=np.int64) * 10
    order = np.array(ranks if ranks is not None else range(len(counts)), np.int64)
    return CodeTable(codes, lengths(codes), starts, keys, order)


def by_hand(query: list[int], table: CodeTable, counts: list[int], k: int) -> list[Match]:
    """Python integers throughout."""
    rows, first, matches = table.codes.tolist(), 0, []
    for document, number in enumerate(counts):
        scores = [cosine(query, row) for row in rows[first : first + number]]
        best = max(scores)
        matches.append(
            (-best, table.ranks[document], int(table.keys[document]), scores.index(best))
        )
        first += number
    return [Match(key, position, -score) for score, _, key, position in sorted(matches)[:k]]


def cosine(a: list[int], b: list[int]) -> float:
    norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / max(norm, 1.0)


@given(st.data())
def test_search_equals_the_obvious_one(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=12))
    # Few values and dimensions, so that equal scores are common.
    values = st.lists(st.integers(-2, 2), min_size=3, max_size=3)
    codes = data.draw(st.lists(values, min_size=sum(counts), max_size=sum(counts)))
    queries = data.draw(st.lists(values, min_size=0, max_size=3))
    ranks = data.draw(st.permutations(range(len(counts))))
    table = make_table(counts, np.array(codes, np.int8), ranks)
    k = data.draw(st.integers(1, len(counts) + 2))
    found = nearest(np.array(queries, np.int8).reshape(-1, 3), table, k=k)
    assert len(found) == len(queries)
    for query, matches in zip(queries, found, strict=True):
        expected = by_hand(query, table, counts, k)
        assert [m.score for m in matches] == pytest.approx(
            [m.score for m in expected], abs=SCORE_TOLERANCE
        )
        assert [(m.key, m.position) for m in matches] == [(m.key, m.position) for m in expected]


@pytest.mark.parametrize("dim", [128, codetable.FLOAT32_EXACT_DIM, codetable.FLOAT32_EXACT_DIM + 9])
def test_dot_products_are_exact_at_the_extremes(dim: int) -> None:
    rng = np.random.default_rng(0)
    codes = rng.choice(np.array([-127, 126, 127], np.int8), (50, dim))
    codes[0] = 127
    dots = search._dots(codes, codes)
    wide = codes.astype(np.int64)
    assert (dots == wide @ wide.T).all()
    assert (lengths(codes) == np.sqrt((wide**2).sum(1))).all()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(-127, 128, (301, 16), np.int8)
    table = make_table([1] * 301, codes)
    whole = nearest(codes[:40], table, k=7)
    monkeypatch.setattr(codetable, "CHUNK_VALUES", 16 * 10)
    assert nearest(codes[:40], table, k=7) == whole


def test_code_of_zeros_scores_zero() -> None:
    table = make_table([1, 1], np.array([[0, 0], [-1, 0]], np.int8))
    assert [m.score for m in nearest(np.array([[5, 0]], np.int8), table, k=2)[0]] == [0.0, -1.0]


def test_empty_store_gives_no_matches() -> None:
    table = make_table([], np.empty((0, 4), np.int8))
    assert nearest(np.ones((2, 4), np.int8), table, k=3) == [[], []]
