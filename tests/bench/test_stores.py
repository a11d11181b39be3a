"""The measurement of codes in stores: what each set, and all sets in one index, are compared with."""

from __future__ import annotations

import numpy as np
import pytest

from bench.quality.stores import Judged, _by_network, _together
from edge_mrl.codes.packing import normalize


def judged(seed: int) -> Judged:
    """200 documents, and a question for each of 60, with so much noise that others come first."""
    rng = np.random.default_rng(seed)
    documents = normalize(rng.standard_normal((200, 12), dtype=np.float32))
    noise = rng.standard_normal((60, 12), dtype=np.float32)
    queries = normalize(documents[:60] + np.float32(0.35) * noise)
    vectors = (documents, queries)
    texts = [f"{seed} {row}" for row in range(200)]
    asked = [f"{seed} {row}?" for row in range(60)]
    relevance = [{row: 1.0} for row in range(60)]
    return Judged.of(texts, asked, relevance, network=vectors, source=vectors)


def test_vectors_of_the_source_keep_everything_also_with_all_sets_in_one_index() -> None:
    sets = [judged(seed) for seed in range(3)]
    together = _together(sets)
    assert len(together.texts) == 600
    assert together.relevance[60] == {200: 1.0}
    for data in (*sets, together):
        assert _by_network(data)["kept"]["ratio"] == 1
    # What they find among more documents is less: a set by itself is no measure of one index.
    alone = np.concatenate([data.base for data in sets])
    assert together.base.mean() < 0.97 * alone.mean()


def test_vectors_that_are_not_the_sources_keep_less() -> None:
    data = judged(0)
    cut = tuple(normalize(part[:, :6]) for part in data.network)
    other = Judged.of(
        data.texts, data.queries, data.relevance, network=(cut[0], cut[1]), source=data.source
    )
    assert _by_network(other)["kept"]["ratio"] == pytest.approx(
        data.ndcg(np.argsort(-(cut[1] @ cut[0].T), axis=1)[:, :10]).mean() / data.base.mean(),
        abs=1e-4,
    )
    assert _by_network(other)["kept"]["ratio"] < 0.9
