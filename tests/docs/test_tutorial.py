"""Every command and every program of the tutorial runs, and prints what the page says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.docs.running import compare_page, steps

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
EXPORT = "edge-mrl export -o minilm"


@pytest.mark.test
def test_tutorial_runs_as_it_stands(tmp_path: Path, minilm_bundle: Path) -> None:
    """Its bundle is the one that the same command made for all tests."""
    shown = steps(TUTORIAL)
    assert [step.code for step in shown if "export" in step.code] == [f"{EXPORT}\n"]
    shutil.copytree(minilm_bundle, tmp_path / "minilm")
    compare_page(TUTORIAL, tmp_path, lambda code: code.replace(EXPORT, "true"))
    assert sum(step.printed is not None for step in shown) >= len(shown) - 2


def test_what_a_page_gets_wrong_is_noticed(tmp_path: Path) -> None:
    page = "```bash\necho {}\n```\n\n```text\n1 of 2.34 in 5 ms\n```\n\n```python\nprint(1)\n```\n"
    compare_page(page.format("1 of 9.99 in 77 ms"), tmp_path)
    with pytest.raises(AssertionError):
        compare_page(page.format("2 of 9.99 in 77 ms"), tmp_path)
    with pytest.raises(AssertionError):
        compare_page("```bash\nfalse\n```\n", tmp_path)
