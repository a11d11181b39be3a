"""Hits with their passages, and results as a sequence of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_mrl import search
from edge_mrl.errors import DamagedError
from edge_mrl.search.answers import Hit, Results, answer
from edge_mrl.search.options import SearchOptions
from edge_mrl.search.ranking import QueryVectors

if TYPE_CHECKING:
    from edge_mrl.store.store import Store

QUERY = QueryVectors(np.array([0, 7, 1, 0], np.int8), None)
HITS = tuple(Hit(name, "text", 0, 4, 1.0, {}) for name in ("a", "b", "c"))


def test_hit_shows_the_passage_whose_vector_is_nearest(small: Store) -> None:
    with small.reading() as view:
        (hits,) = answer(view, [""], [QUERY], SearchOptions(k=1))
    (hit,) = hits
    assert (hit.id, hit.text) == ("boat", "A ferry and a boat.")
    assert (hit.start, hit.end) == (8, 27)
    assert hit.metadata == {"size": 27}


def test_hit_by_keyword_shows_the_passage_that_has_the_words(small: Store) -> None:
    with small.reading() as view:
        (hits,) = answer(view, ["ferry boat"], [None], SearchOptions(mode="keyword", k=9))
    assert {hit.id: hit.text for hit in hits} == {
        "boat": "A ferry and a boat.",
        "ferry": "The ferry leaves at dawn.",
    }


def test_queries_are_answered_in_their_order(small: Store) -> None:
    with small.reading() as view:
        found = answer(view, ["cafe", "dawn"], [None, None], SearchOptions(mode="keyword"))
    assert [[hit.id for hit in hits] for hits in found] == [["cafe"], ["ferry"]]


def test_row_outside_its_documents_passages_is_damage(small: Store) -> None:
    class Shifted:
        """A view whose passages start elsewhere than the codes say."""

        def __init__(self, view: object) -> None:
            self._view = view

        def __getattr__(self, name: str) -> object:
            return getattr(self._view, name)

        def places(self, *args: object, **options: object) -> dict[int, object]:
            found = self._view.places(*args, **options)  # type: ignore[attr-defined]
            return {key: (first + 5, spans) for key, (first, spans) in found.items()}

    with small.reading() as view, pytest.raises(DamagedError, match="not where they were"):
        answer(Shifted(view), [""], [QUERY], SearchOptions())  # type: ignore[arg-type]


def test_results_are_a_sequence_of_hits() -> None:
    results = Results(HITS)
    assert len(results) == 3
    assert [hit.id for hit in results] == ["a", "b", "c"]
    assert (results[0], results[-1]) == (HITS[0], HITS[2])
    assert results[1:] == HITS[1:]
    assert HITS[1] in results
    assert not Results()
    assert (results.ranked_by, results.reason) == ("local", None)


def test_results_are_equal_to_the_same_hits_and_to_the_same_results() -> None:
    assert Results(HITS) == list(HITS)
    assert list(HITS) == Results(HITS)
    assert Results() == []
    assert Results(HITS) == Results(HITS)
    assert Results(HITS) != Results(HITS, ranked_by="server")
    assert Results(HITS) != Results(HITS, reason="the server did not answer")
    assert Results(HITS) != list(HITS[1:])
    assert Results(HITS) != "abc"


def test_results_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Results(HITS).reason = "other"  # type: ignore[misc]


def test_former_name_of_results_is_found_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="is called Results now"):
        assert search.Answer is Results
