"""The former place of reranking still gives its names, with a warning."""

from __future__ import annotations

import pytest

import edge_mrl.rerank
from edge_mrl import search, sync


@pytest.mark.parametrize("name", ["DEFAULT_MARGIN", "Margin", "Scorer"])
def test_names_of_search_are_given_with_a_warning(name: str) -> None:
    with pytest.warns(
        DeprecationWarning, match=f"{name} has moved: import it from edge_mrl.search"
    ):
        assert getattr(edge_mrl.rerank, name) is getattr(search, name)


def test_reranker_is_given_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="import it from edge_mrl.sync"):
        assert edge_mrl.rerank.Reranker is sync.Reranker


def test_margin_is_calibrated_as_at_its_new_place() -> None:
    arguments = ([[0.9, 0.1], [0.9, 0.89]], [1.0, 0.2], [1.0, 1.0])
    with pytest.warns(DeprecationWarning, match="import it from edge_mrl.search"):
        old = edge_mrl.rerank.calibrate_margin(*arguments, keep=0.9)
    assert old == search.calibrate_margin(*arguments, keep=0.9)
    assert old.calls_saved == 0.5


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = edge_mrl.rerank.nothing
