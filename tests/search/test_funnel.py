"""How funnels are written, and what is not a funnel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_mrl.codes.packing import INT8
from edge_mrl.errors import UsageError
from edge_mrl.search.funnel import HALF_FIRST_ROWS, Funnel, Stage
from edge_mrl.store.codefile.file import Layout
from tests.support.stores import packing


def test_funnel_is_read_as_it_is_written() -> None:
    funnel = Funnel.of("64x1:20000, 128x1:5000,128x8")
    assert funnel.stages == (Stage(64, 1, 20_000), Stage(128, 1, 5_000), Stage(128, 8))
    assert str(funnel) == "64x1:20000,128x1:5000,128x8"
    assert funnel.shortlist == 5_000
    assert funnel.rescored is None
    assert Funnel.of("128x1:5000,128x8:100,full").rescored == 100


@given(st.data())
def test_every_funnel_round_trips(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 4))
    widths = sorted(data.draw(st.lists(st.integers(1, 10**8), min_size=count, max_size=count)))[
        ::-1
    ]
    dims = data.draw(st.lists(st.integers(1, 4096), min_size=count, max_size=count))
    bits = sorted(data.draw(st.lists(st.sampled_from([1, 4, 8]), min_size=count, max_size=count)))
    bits[0] = 1 if count > 1 else bits[0]
    stages = [Stage(*values) for values in zip(dims, bits, widths, strict=True)]
    if not data.draw(st.booleans()):
        stages[-1] = Stage(dims[-1], bits[-1])
    funnel = Funnel(tuple(stages))
    assert Funnel.of(str(funnel)) == funnel


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a stage ''"),
        ("full", "no stages"),
        ("128", "a stage '128'"),
        ("128x3:5,128x8", "a stage '128x3:5'"),
        ("128x1:-5,128x8", "a stage '128x1:-5'"),
        ("0x1:5,128x8", "at least 1 dimension"),
        ("128x1:0,128x8", "passes on 0 rows"),
        ("128x1,128x8", "128x1 is not the funnel's last and needs a width"),
        ("128x1:5000,128x8:10", "no width, or a width followed by full"),
        ("128x1:5000,128x8,full", "no width, or a width followed by full"),
        (
            "64x1:100,128x1:200,128x8",
            "cannot be wider than the one before it: 128x1:200 comes",
        ),
        ("64x1:100,128x8:50,128x1", "cannot have fewer bits"),
        ("64x8:100,128x8", "first stage is 64x8:100"),
        ("128x1:5000,full,128x8", "a stage 'full'"),
    ],
)
def test_text_that_is_not_a_funnel_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Funnel.of(text)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("128x1:9,128x4", "int8", "ends with 128x4, but the store keeps int8 codes of 128"),
        ("128x1:9,64x8", "int8", "end with 128x8"),
        ("128x1:9,128x8", "1bit", "end with 128x1"),
        ("128x1:9,128x4:5,128x8", "int8", "compares 4-bit codes"),
        ("256x1:9,128x8", "int8", "256 dimensions, but the store's codes have 128"),
        ("65x1:9,128x8", "int8", "compares 65 bits, expected a multiple of 64, or all 128"),
    ],
)
def test_funnel_that_does_not_suit_a_store_is_refused_with_the_reason(
    text: str, kind: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Funnel.of(text).check(Layout(128, 64, packing(kind, 128)))


def test_default_funnel_suits_every_store() -> None:
    for kind, dim in (("int8", 7), ("int4", 100), ("1bit", 384)):
        layout = Layout(dim, 64, packing(kind, dim))
        Funnel.default(layout, 30).check(layout)
    assert str(Funnel.default(Layout(100, 64, INT8))) == "100x1:5000,100x8"


@pytest.mark.parametrize(
    ("dim", "rows", "stages"),
    [
        (256, HALF_FIRST_ROWS - 1, "256x1:30,256x4"),
        (256, HALF_FIRST_ROWS, "128x1:120,256x1:30,256x4"),
        (255, HALF_FIRST_ROWS, "255x1:30,255x4"),
        (300, HALF_FIRST_ROWS, "192x1:120,300x1:30,300x4"),
        (384, 10**9, "192x1:120,384x1:30,384x4"),
    ],
)
def test_many_long_codes_are_compared_by_half_of_their_bits_first(
    dim: int, rows: int, stages: str
) -> None:
    layout = Layout(dim, 64, packing("int4", dim))
    funnel = Funnel.default(layout, 30, rows=rows)
    funnel.check(layout)
    assert str(funnel) == stages
