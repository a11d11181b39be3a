"""The report of an export: what it says, and how it looks."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from edge_mrl_export.build import Export
from edge_mrl_export.bundle.report import report_html
from edge_mrl_export.recipe import Recipe
from edge_mrl_export.source.loading import load_source
from tests.support import tiny
from tests.support.browser import Browser
from tests.support.pages import look
from tests.support.tiny import export

pytestmark = pytest.mark.test


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sentence_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    folder = tmp_path_factory.mktemp("report")
    chance = random.Random(0)
    words = ["the", "and", "cat", "dog", "house", "end", "day", "night", "tree", "sea"]
    lines = [" ".join(chance.choices(words, k=8)) + f" {row}" for row in range(240)]
    (folder / "notes.txt").write_text("\n".join(lines), "utf-8")
    recipe = Recipe(dim=24, corpus=folder / "notes.txt", head="rotation", nested=(16,))
    return export(str(model), folder / "bundle", recipe)


def test_report_says_what_was_baked_and_measured(bundle: Export, model: Path) -> None:
    report = json.loads((bundle.path / "report.json").read_bytes())
    assert report == bundle.report
    assert report["baked"] == ["mean pooling"]
    curve = report["quality_by_dimension"]
    assert curve["dims"][-1] == 24
    assert set(curve["kept"]) == {"prefix", "rotation"}
    # At the code's own size, what the head was judged by.
    for kind, score in report["head"]["held_out"].items():
        assert curve["kept"][kind][-1] == score
    transformer = load_source(str(model)).transformer
    sizes = report["weights_elsewhere"]
    assert sizes["parameters"] == sum(p.numel() for p in transformer.parameters())
    assert sizes["fp32"] == 2 * sizes["fp16"] == 4 * sizes["parameters"]
    assert sizes["parameters"] < sizes["stock_int8"] < sizes["fp16"]


def test_prefix_has_a_curve_too(model: Path, tmp_path: Path) -> None:
    whole = export(str(model), tmp_path / "bundle", Recipe(dim=32)).report["quality_by_dimension"]
    assert whole["dims"] == [8, 16, 32]
    assert whole["kept"]["prefix"][0] < whole["kept"]["prefix"][1]
    assert "texts among themselves" in whole["measured"]


def test_page_reads_well_on_a_phone_and_a_desk(bundle: Export, browser: Browser) -> None:
    page = look(browser, bundle.path / "report.html")
    for said in ("mean pooling", "Quality by dimension", "Computed from", "held-out", "stock int8"):
        assert said in page.text
    assert page.evaluate("document.querySelectorAll('svg circle').length") > 4


def test_page_shows_names_as_text(bundle: Export) -> None:
    named = {**bundle.report, "name": "<script>alert(1)</script>", "notes": ["a <b> & c"]}
    page = report_html(named)
    assert "<script" not in page
    assert "a &lt;b&gt; &amp; c" in page
