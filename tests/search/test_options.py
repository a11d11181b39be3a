"""Search options, and how keyword arguments change them."""

from __future__ import annotations

from typing import Any

import pytest

from edge_mrl.errors import UsageError
from edge_mrl.search.funnel import Funnel
from edge_mrl.search.options import SearchOptions


def test_keywords_override_options_and_the_rest_stays() -> None:
    base = SearchOptions(k=3, mode="hybrid", filter={"lang": "en"})
    changed = SearchOptions.of(base, None, mode="vector", exact=True)
    assert changed == SearchOptions(k=3, mode="vector", filter={"lang": "en"}, exact=True)
    assert SearchOptions.of(base, 7).k == 7
    assert base.mode == "hybrid"


def test_without_options_the_defaults_hold() -> None:
    assert SearchOptions.of(None, None) == SearchOptions() == SearchOptions(k=10, mode="vector")


def test_option_that_does_not_exist_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="fliter"):
        SearchOptions.of(None, None, fliter={})  # type: ignore[call-arg]


def test_stages_may_be_written_as_text() -> None:
    text = "64x1:20,128x8"
    assert SearchOptions(stages=text).funnel == Funnel.of(text)
    assert SearchOptions(stages=Funnel.of(text)).funnel == Funnel.of(text)
    assert SearchOptions().funnel is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"width": -1}, "width is -1"),
        ({"width": 5, "stages": "16x1:5,16x8"}, "width and stages"),
        ({"mode": "fuzzy"}, "expected one of vector, keyword, hybrid"),
        ({"stages": "16y1"}, "DIMSxBITS:WIDTH"),
    ],
)
def test_values_that_cannot_be_searched_with_are_refused(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        SearchOptions(**values)
