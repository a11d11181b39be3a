"""The arithmetic of reranking: one scale for all scores, and when to ask at all."""

from __future__ import annotations

import random

import pytest

from edge_mrl.search.rerank import calibrate_margin, doubt, merge


def test_scores_of_documents_that_a_server_lacks_fit_its_scale() -> None:
    local = [(str(n), 1 - n / 10) for n in range(10)]
    server = {str(n): 0.5 - n / 20 for n in range(10) if n != 4}
    assert merge(local, server, lambda _: {}) == pytest.approx(server | {"4": 0.3})
    assert merge(local, server, lambda _: {"4": 0.9}) == server | {"4": 0.9}
    assert merge(local, {"1": 0.5}, lambda _: {}) is None


def test_margin_keeps_the_quality_that_is_asked_for() -> None:
    rng = random.Random(0)
    gaps = [rng.random() for _ in range(400)]
    lists = [[0.9, 0.9 - gap / 4, 0.5] for gap in gaps]
    mine = [1.0 if gap > rng.random() * 0.5 else 0.4 for gap in gaps]
    margin = calibrate_margin(lists, mine, [1.0] * 400, keep=0.99)
    assert margin.kept >= 0.99
    assert 0.3 < margin.calls_saved < 0.9
    asked = [doubt(scores) > margin.margin for scores in lists]
    assert sum(asked) == round(400 * (1 - margin.calls_saved))
    assert doubt([0.9, 0.1]) < doubt([0.9, 0.89]) < doubt([0.9, 0.89, 0.89])
