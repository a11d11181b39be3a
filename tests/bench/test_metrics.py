from __future__ import annotations

import numpy as np
import pytest

from bench.quality.metrics import bootstrap_ratio, evaluate


def test_metrics_match_a_hand_computed_example() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.4], [0.9, 0.1, 0.2, 0.3]], dtype=np.float32)
    found = evaluate(scores, [{2: 1.0, 0: 1.0}, {1: 2.0}])
    # Ranking 1, 2, 3, 0: gains at ranks 2 and 4 of an ideal 1 and 2.
    first = (1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3))
    # Ranking 0, 3, 2, 1: the only relevant one at rank 4.
    second = 1 / np.log2(5)
    np.testing.assert_allclose(found.ndcg_at_10, [first, second])
    np.testing.assert_allclose(found.mrr_at_10, [1 / 2, 1 / 4])
    np.testing.assert_allclose(found.recall_at_100, [1, 1])


@pytest.mark.test
def test_ndcg_matches_scikit_learn() -> None:
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(2)
    scores = rng.normal(size=(20, 300)).astype(np.float32)
    gains = rng.integers(0, 3, (20, 300)) * (rng.random((20, 300)) < 0.05)
    gains[:, 0] = 1
    relevance = [{int(d): float(row[d]) for d in np.flatnonzero(row)} for row in gains]
    ours = evaluate(scores, relevance).ndcg_at_10
    theirs = [ndcg_score(gains[i : i + 1], scores[i : i + 1], k=10) for i in range(20)]
    np.testing.assert_allclose(ours, theirs)


def test_recall_counts_what_is_in_the_first_hundred() -> None:
    scores = -np.arange(200, dtype=np.float32)[None]
    found = evaluate(scores, [{0: 1.0, 99: 1.0, 100: 1.0, 150: 1.0}])
    assert found.recall_at_100.tolist() == [0.5]


def test_bootstrap_interval_holds_the_ratio_and_narrows_with_queries() -> None:
    def interval(queries: int) -> dict[str, float]:
        rng = np.random.default_rng(4)
        base, noise = rng.random(queries), rng.normal(0, 0.1, queries)
        return bootstrap_ratio(base * 0.9 + noise - noise.mean(), base)

    wide, narrow = interval(100), interval(4000)
    for found in (wide, narrow):
        assert found["ratio"] == 0.9
        assert found["low"] < 0.9 < found["high"]
    # By the root of the number of queries, about a sixth.
    assert narrow["high"] - narrow["low"] < (wide["high"] - wide["low"]) / 3


def test_documents_that_were_not_found_do_not_count() -> None:
    scores = np.full((1, 5), -np.inf, np.float32)
    scores[0, 3] = 1
    found = evaluate(scores, [{0: 1.0}])
    assert (found.ndcg_at_10[0], found.recall_at_100[0], found.mrr_at_10[0]) == (0, 0, 0)
