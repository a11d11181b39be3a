"""Rankings of a few documents whose vectors are written by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edge_mrl.errors import UsageError
from edge_mrl.search.options import SearchOptions
from edge_mrl.search.ranking import QueryVectors, rank

if TYPE_CHECKING:
    from edge_mrl.store.store import Store

#: Close to the code of "ferry", and in the full space to the second passage of "boat".
QUERY = QueryVectors(np.array([0, 7, 0, 0], np.int8), np.array([0, 1, 0], np.float32))
COARSE_ALONE = QueryVectors(QUERY.coarse, None)


def ranked(
    store: Store, query: str, vectors: QueryVectors | None, **options: Any
) -> list[tuple[str, float]]:
    with store.reading() as view:
        found = rank(view, query, vectors, SearchOptions(**options))
        names = store.ids([one.key for one in found])
        return [(names[one.key], one.score) for one in found]


def test_vectors_rank_by_the_cosine_of_the_best_passage(small: Store) -> None:
    assert ranked(small, "", QUERY) == [
        ("ferry", 1.0),
        ("boat", pytest.approx(9 / math.sqrt(82))),
        ("cafe", 0.0),
    ]


def test_row_is_that_of_the_best_passage(small: Store) -> None:
    with small.reading() as view:
        keys = {name: key for key, name in small.keys(["boat", "cafe"]).items()}
        rows = {one.key: one.row for one in rank(view, "", QUERY, SearchOptions())}
        places = view.places(list(keys.values()))
        assert rows[keys["boat"]] == places[keys["boat"]][0] + 1
        assert rows[keys["cafe"]] == places[keys["cafe"]][0]


def test_full_vectors_score_again_where_they_are_kept(with_fulls: Store) -> None:
    assert ranked(with_fulls, "", QUERY) == [
        ("boat", pytest.approx(1.0)),  # its full vector has length 2
        ("ferry", pytest.approx(0.8, abs=1e-3)),
        ("cafe", 0.0),
    ]
    assert ranked(with_fulls, "", COARSE_ALONE)[0] == ("ferry", 1.0)


def test_k_counts_after_full_vectors_have_scored(with_fulls: Store) -> None:
    assert ranked(with_fulls, "", QUERY, k=1) == [("boat", pytest.approx(1.0))]
    assert ranked(with_fulls, "", QUERY, k=1, stages="4x1:9,4x8:1,full")[0][0] == "ferry"


def test_one_missing_full_vector_leaves_the_order_of_the_codes(with_fulls: Store) -> None:
    with with_fulls.writing(), with_fulls.locked() as (connection, _):
        connection.execute(
            "DELETE FROM fulls WHERE document = (SELECT key FROM documents WHERE id = 'ferry')"
        )
    assert [name for name, _ in ranked(with_fulls, "", QUERY)] == ["ferry", "boat", "cafe"]


def test_funnel_with_full_vectors_needs_a_store_that_keeps_them(small: Store) -> None:
    with pytest.raises(UsageError, match="ends with full vectors, but the store keeps none"):
        ranked(small, "", QUERY, stages="4x1:9,4x8:1,full")


def test_keywords_rank_without_vectors_and_name_no_row(small: Store) -> None:
    with small.reading() as view:
        found = rank(view, "boat", None, SearchOptions(mode="keyword"))
        assert [view.documents([one.key])[one.key].id for one in found] == ["boat"]
        assert found[0].row is None
        assert found[0].score > 0


def test_hybrid_adds_reciprocal_ranks(small: Store) -> None:
    by_vector = [name for name, _ in ranked(small, "cafe", QUERY)]
    assert by_vector == ["ferry", "boat", "cafe"]
    hybrid = dict(ranked(small, "cafe", QUERY, mode="hybrid"))
    assert hybrid == {
        "ferry": pytest.approx(1 / 61),
        "boat": pytest.approx(1 / 62),
        "cafe": pytest.approx(1 / 63 + 1 / 61),
    }
    assert next(iter(hybrid)) == "cafe"


@pytest.mark.parametrize("mode", ["vector", "keyword", "hybrid"])
def test_filter_is_applied_before_k(mode: str, small: Store) -> None:
    found = ranked(small, "the ferry opens", QUERY, mode=mode, k=1, filter={"size": 15})
    assert [name for name, _ in found] == ["cafe"]
