"""Every command and every program of the tutorial runs, and prints what the page says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.docs.running import compare_page, steps, use_installed
from tests.support.bundles import install_bundle

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
EXPORT = "edge-mrl export -o minilm"


@pytest.mark.test
def test_tutorial_runs_as_it_stands(
    tmp_path: Path, minilm_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is installed, as the wheel installs it, from the bundle that all tests share.

    From nothing to answers, no command names a bundle; the one that makes a bundle comes last.
    """
    shown = steps(TUTORIAL)
    exported = [number for number, step in enumerate(shown) if "export" in step.code]
    assert [shown[number].code for number in exported] == [f"{EXPORT}\n"]
    first = [step.code for step in shown[: exported[0]]]
    assert len(first) >= 8
    assert not any("--bundle" in code or "minilm" in code for code in first)

    use_installed(
        install_bundle(tmp_path / "site", "minilm", repr(str(minilm_bundle))), monkeypatch
    )
    folder = tmp_path / "here"
    folder.mkdir()

    def instead(code: str) -> str:
        """The export, which all tests share, and every other command as it stands."""
        return code.replace(EXPORT, f"cp -r {shlex.quote(str(minilm_bundle))} minilm")

    compare_page(TUTORIAL, folder, instead)
    assert sum(step.printed is not None for step in shown) >= len(shown) - 2


def test_what_a_page_gets_wrong_is_noticed(tmp_path: Path) -> None:
    page = "```bash\necho {}\n```\n\n```text\n1 of 2.34 in 5 ms\n```\n\n```python\nprint(1)\n```\n"
    compare_page(page.format("1 of 9.99 in 77 ms"), tmp_path)
    with pytest.raises(AssertionError):
        compare_page(page.format("2 of 9.99 in 77 ms"), tmp_path)
    with pytest.raises(AssertionError):
        compare_page("```bash\nfalse\n```\n", tmp_path)
