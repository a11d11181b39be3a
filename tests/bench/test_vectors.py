from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.support import vectors
from bench.support.vectors import DIM, QUERY_BLOCK, clustered, nearest_rows, prepare
from edge_mrl.codes.packing import pack_bits, quantize, similarity

ROWS = 6000


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return clustered(ROWS, seed=1)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return clustered(50, seed=1, first_block=QUERY_BLOCK)


def test_rows_are_unit_vectors_of_the_seed(drawn: np.ndarray) -> None:
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(drawn, clustered(ROWS, seed=1))
    assert not np.array_equal(drawn, clustered(ROWS, seed=2))


def test_fewer_rows_are_a_prefix_of_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK", 64)
    np.testing.assert_array_equal(clustered(100, seed=1), clustered(300, seed=1)[:100])


def test_queries_are_no_rows_but_have_near_ones(drawn: np.ndarray, queries: np.ndarray) -> None:
    best = (queries @ drawn.T).max(axis=1)
    assert best.max() < 0.999
    assert np.median(best) > 0.5  # of another centre, the cosine would be near 0


def test_nearest_rows_in_blocks_match_one_sort(
    drawn: np.ndarray, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.argsort(-(queries @ drawn.T), axis=1, kind="stable")[:, :100]
    monkeypatch.setattr(vectors, "BLOCK", 700)
    # A dot product's last bit may depend on the block's shape: compare the scores, not the rows.
    found = nearest_rows(queries, drawn, k=100)
    scores = [np.take_along_axis(queries @ drawn.T, rows, axis=1) for rows in (found, expected)]
    np.testing.assert_allclose(*scores, atol=1e-6)
    assert all(len(set(row)) == 100 for row in found)


def test_nearest_rows_takes_the_lower_of_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK", 2)
    rows = np.eye(2, dtype=np.float32)[[1, 0, 0, 1, 0]]
    found = nearest_rows(np.array([[1, 0]], np.float32), rows, k=4)
    assert found.tolist() == [[1, 2, 4, 0]]


def test_int8_codes_find_nearly_all_and_bits_alone_do_not(
    drawn: np.ndarray, queries: np.ndarray
) -> None:
    truth = nearest_rows(queries, drawn, k=10)
    codes, query_codes = quantize(drawn), quantize(queries)
    bits, query_bits = (np.unpackbits(pack_bits(c), axis=1) for c in (codes, query_codes))
    distances = (query_bits[:, None, :] != bits[None]).sum(axis=2)

    def recall(scores: np.ndarray) -> float:
        found = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        pairs = zip(found, truth, strict=True)
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in pairs]))

    assert recall(similarity(query_codes, codes)) > 0.95
    assert 0.1 < recall(-distances) < 0.7


def test_prepare_keeps_what_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "CACHE", tmp_path)
    data = prepare(500)
    assert data.load("vectors").shape == (500, DIM)
    assert data.load("codes").dtype == np.int8
    assert data.load("truth").shape == (100, 100)
    monkeypatch.setattr(vectors, "clustered", None)  # not called again
    assert prepare(500) == data
