"""A shortlist in the order of a server that is a function here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_mrl.errors import NetworkError
from edge_mrl.search.answers import Hit, Results
from edge_mrl.search.shortlist import exact_scores, reorder
from edge_mrl.wire import MAX_IDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge_mrl.store.store import Store

HITS = [Hit(str(n), "text", 0, 4, 0.9 - n / 100, {}) for n in range(8)]


def nobody(ids: Sequence[str]) -> Mapping[str, float]:
    raise AssertionError(f"asked for {ids}")


def server(ids: Sequence[str]) -> Mapping[str, float]:
    """The local order turned round."""
    return {name: int(name) / 10 for name in ids}


def test_hits_come_in_the_servers_order_with_its_scores() -> None:
    found = reorder(HITS, k=3, margin=None, ask=server, own=nobody)
    assert [(hit.id, hit.score) for hit in found] == [("7", 0.7), ("6", 0.6), ("5", 0.5)]
    assert (found.ranked_by, found.reason) == ("server", None)


def test_equal_scores_keep_the_local_order() -> None:
    found = reorder(HITS, k=8, margin=None, ask=lambda ids: dict.fromkeys(ids, 0.5), own=nobody)
    assert [hit.id for hit in found] == [hit.id for hit in HITS]


def test_order_without_doubt_asks_nobody() -> None:
    clear = [Hit("a", "", 0, 0, 0.9, {}), Hit("b", "", 0, 0, 0.1, {})]
    found = reorder(clear, k=2, margin=0.25, ask=nobody, own=nobody)
    assert found == Results(tuple(clear), reason="the local order is not in doubt")
    asked = reorder(clear, k=2, margin=None, ask=lambda _: {"a": 0.1, "b": 0.2}, own=nobody)
    assert [hit.id for hit in asked] == ["b", "a"]


def test_server_that_fails_leaves_the_local_order_and_says_why() -> None:
    def fails(_: Sequence[str]) -> Mapping[str, float]:
        raise NetworkError("the server did not answer within 150 ms")

    found = reorder(HITS, k=2, margin=None, ask=fails, own=nobody)
    assert found == Results(tuple(HITS[:2]), reason="the server did not answer within 150 ms")


def test_server_that_knows_too_few_leaves_the_local_order() -> None:
    found = reorder(HITS, k=9, margin=None, ask=lambda _: {"3": 0.5}, own=lambda _: {})
    assert found == Results(tuple(HITS), reason="the server knows too few of these documents")


def test_documents_that_the_server_lacks_are_scored_here() -> None:
    wanted: list[str] = []

    def own(ids: Sequence[str]) -> Mapping[str, float]:
        wanted.extend(ids)
        return dict.fromkeys(ids, 0.95)

    def lacking(ids: Sequence[str]) -> Mapping[str, float]:
        return {name: score for name, score in server(ids).items() if name != "2"}

    found = reorder(HITS, k=2, margin=None, ask=lacking, own=own)
    assert wanted == ["2"]
    assert [(hit.id, hit.score) for hit in found] == [("2", 0.95), ("7", 0.7)]


def test_no_more_ids_are_asked_for_than_a_request_may_hold() -> None:
    many = [Hit(str(n), "", 0, 0, 1 - n / 10_000, {}) for n in range(MAX_IDS + 5)]
    asked: list[int] = []

    def counting(ids: Sequence[str]) -> Mapping[str, float]:
        asked.append(len(ids))
        return dict.fromkeys(ids, 0.5)

    reorder(many, k=1, margin=None, ask=counting, own=lambda _: {})
    assert asked == [MAX_IDS]


def test_nothing_found_asks_nobody() -> None:
    assert reorder([], k=3, margin=None, ask=nobody, own=nobody) == Results()


def test_exact_scores_are_cosines_of_full_vectors_that_are_here(
    small: Store, with_fulls: Store
) -> None:
    query = np.array([0, 1, 0], np.float32)
    found = exact_scores(with_fulls, ["boat", "ferry", "absent"], query)
    assert found == {"boat": pytest.approx(1.0), "ferry": pytest.approx(0.8, abs=1e-3)}
    assert exact_scores(small, ["boat"], query) == {}
