"""HTML pages and charts, without a browser."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from edge_mrl_export.pages.page import Page
from edge_mrl_export.pages.plots import Axis, Column, Line, Panel, decades, dots, svg

PANEL = Panel(
    "A & B",
    Axis("bytes", (16.0, 64.0, 256.0)),
    Axis("kept, %", (0.0, 50.0, 100.0), log=False),
    [Line("int8", [(16.0, 0.0), (256.0, 100.0)]), Line("<1bit>", [(64.0, 50.0)])],
)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(("value", "place"), [(16, 0), (64, 0.5), (256, 1)])
def test_logarithmic_axis_has_equal_steps(value: float, place: float) -> None:
    assert PANEL.x.place(value) == pytest.approx(place)


def test_linear_axis_has_equal_steps() -> None:
    assert [PANEL.y.place(value) for value in (0, 25, 100)] == [0, 0.25, 1]


def test_decades_include_all_values() -> None:
    assert decades("s", [0.02, 3]).ticks == (0.01, 0.1, 1.0, 10.0)
    assert decades("s", [1]).ticks == (1.0, 10.0)


def test_chart_is_valid_and_puts_points_where_they_belong() -> None:
    root = ET.fromstring(svg([PANEL, PANEL]))
    circles = [c for c in root.iter(f"{SVG}circle") if c.get("r") == "3.5"]
    assert len(circles) == 6
    first, second, third = ((float(c.get("cx", 0)), float(c.get("cy", 0))) for c in circles[:3])
    assert first[0] < third[0] < second[0]
    assert third[0] == pytest.approx((first[0] + second[0]) / 2, abs=0.1)
    assert second[1] < third[1] < first[1]  # up is less
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "A & B" in texts
    assert "<1bit>" in texts


def test_dots_show_the_median_between_its_ends() -> None:
    drawn = dots(
        ["ours", "other"], [Column("ms", [(1, 2, 4), (2, 3, 300)])], title="t", marked="ou"
    )
    root = ET.fromstring(drawn)
    bars = [b for b in root.iter(f"{SVG}line") if b.get("stroke-width") == "3"]
    dots_ = list(root.iter(f"{SVG}circle"))
    for bar, dot in zip(bars, dots_, strict=True):
        assert float(bar.get("x1", 0)) < float(dot.get("cx", 0)) < float(bar.get("x2", 0))
    assert dots_[0].get("fill") != dots_[1].get("fill")
    assert [t.text for t in root.iter(f"{SVG}text")][-1] == "3"


def test_page_escapes_everything_and_fetches_nothing() -> None:
    page = Page("<t>", "a & b")
    page.heading("<h>", "<how>")
    page.code("<code>")
    page.facts([("<name>", "<value>")])
    page.figures(["<head>"], [["<cell>"]])
    page.plots([PANEL], "<caption>")
    made = page.html()
    for part in ("t", "h", "how", "code", "name", "value", "head", "cell", "caption"):
        assert f"&lt;{part}&gt;" in made
        assert made.count(f"<{part}>") == (1 if part == "code" else 0)
    assert "a &amp; b" in made
    assert "<script" not in made
    assert "default-src 'none'" in made
    assert 'aria-label="A &amp; B: kept, % by bytes"' in made
