"""The benchmark of codes, on vectors whose best answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.quality.codes import Bench, mean, plot, size_bytes, table
from bench.quality.sets import JudgedSet
from edge_mrl.codes.packing import normalize
from edge_mrl.heads.selection import Excerpts

pytestmark = pytest.mark.test

DIMS = (32, 96)


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """A set of 300 documents around 30 centres; a query is a document with noise."""
    rng = np.random.default_rng(0)
    scales = np.arange(1, 97) ** -0.4
    centres = np.repeat(rng.normal(size=(30, 96)), 10, axis=0)
    rows = (centres + 0.5 * rng.normal(size=centres.shape)) * scales + 0.1
    documents = normalize(rows.astype(np.float32))
    asked = rng.permutation(300)[:60]
    noise = 0.05 * rng.normal(size=(60, 96))
    queries = normalize((documents[asked] + noise).astype(np.float32))
    relevance = [{int(row): 1.0} for row in asked]
    near = normalize((documents + 0.1 * rng.normal(size=rows.shape)).astype(np.float32))
    data = JudgedSet(documents, queries, relevance, Excerpts(near, np.arange(300)))
    return {"set": Bench(data).measure("set", DIMS)}


def kept(results: dict[str, Any], dim: int, kind: str, query: str = "int8") -> float:
    value = mean(results, "cut", dim, kind, query)
    assert value is not None
    return value


def test_more_bytes_keep_more(results: dict[str, Any]) -> None:
    full = [kept(results, 96, kind) for kind in ("1bit", "int4", "int8")]
    assert full == sorted(full)
    assert full[0] < full[-1] == pytest.approx(1, abs=0.01)
    by_dim = [kept(results, dim, "int8") for dim in DIMS]
    assert by_dim == sorted(by_dim)


def test_queries_of_full_precision_keep_more_than_packed_ones(results: dict[str, Any]) -> None:
    assert kept(results, 96, "1bit") > kept(results, 96, "1bit", "symmetric")
    # An int8 query stands for a float one.
    assert kept(results, 96, "1bit") == pytest.approx(
        kept(results, 96, "1bit", "float32"), abs=0.01
    )


def test_stages_find_no_more_than_the_codes_do_and_nearly_as_much(results: dict[str, Any]) -> None:
    for query in ("two stages", "three stages"):
        assert kept(results, 96, "int8") - 0.05 < kept(results, 96, "int8", query) <= 1.01
    assert mean(results, "cut", 32, "int8", "three stages") is None  # 32 bits are one column


def test_all_rows_are_shown_and_drawn(results: dict[str, Any]) -> None:
    shown = table(results, DIMS)
    for dim in DIMS:
        assert f"cut, {dim} 1bit, turned" in shown
    assert "linear, own text, 32 int8" in shown
    assert "linear, own text, 96" not in shown  # nothing is cut
    assert plot(results, DIMS).count("<polyline") == 20


def test_sizes_are_those_of_codes() -> None:
    sizes = [size_bytes(384, kind) for kind in ("float32", "int8", "int4", "1bit, turned")]
    assert sizes == [1536, 384, 192, 48]
