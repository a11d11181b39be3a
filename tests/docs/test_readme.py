"""The README's commands run as they stand, and print what it says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.running import compare_page, steps, use_installed
from tests.support.bundles import install_bundle
from tests.support.models import build_model, unpack
from tests.support.processes import good

README = (ROOT / "README.md").read_text("utf-8")
RESULTS = ROOT / "bench" / "results"
SETS = ("scifact", "cranfield", "nl2bash", "squad2-dev")


@pytest.mark.test
def test_readme_commands_and_code_run(
    tmp_path: Path, minilm_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is installed, as the wheel installs it, from the bundle that all tests share."""
    shown = steps(README)
    assert [step.language for step in shown] == ["bash", "python"]
    assert all(step.printed for step in shown)
    use_installed(
        install_bundle(tmp_path / "site", "minilm", repr(str(minilm_bundle))), monkeypatch
    )
    compare_page(README, tmp_path)


@pytest.mark.nightly
def test_readme_commands_run_with_the_wheel_of_an_export_of_their_own(
    tmp_path: Path, minilm_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good("export", "-o", tmp_path / "exported", "--quiet")
    built = build_model(tmp_path / "dist", tmp_path / "exported")
    assert built.returncode == 0, built.stderr
    use_installed(unpack(tmp_path / "dist", tmp_path / "site"), monkeypatch)
    compare_page(README, tmp_path)


def test_readme_opens_with_a_picture_that_is_there() -> None:
    first_screen = README.split("\n## ")[0]
    (picture,) = re.findall(r'src="(docs/[\w.]+svg)"', first_screen)
    assert (ROOT / picture).is_file()
    assert "prefers-color-scheme: dark" in (ROOT / picture).read_text("utf-8")


def results(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))["results"]


def test_figures_of_the_first_screen_are_those_of_the_results() -> None:
    table = README.split("\n## ")[0]
    encoder = results("encoder")["edge-mrl"]
    search = results("search")["1000000"]["edge-mrl funnel"]
    cut = [sets["cut"]["128"] for name, sets in results("heads")["kept"].items() if name != "mixed"]
    own = [results("frontier")[name]["linear, own text"]["256 int4"] for name in SETS]
    rows = [results("retrieval")[name]["rows"]["bundle, coarse int4 256"] for name in SETS]
    kept = {
        "as exported": [row["retention"]["ratio"] for row in rows],
        "own text": [row["kept"]["ratio"] for row in own],
        "cut": [row["kept"]["ratio"] for row in cut],
    }
    shares = {name: f"{100 * sum(values) / len(values):.1f} %" for name, values in kept.items()}
    for figure in (
        f"{results('footprint')['bundle_bytes']['total'] / 1e6:.1f} MB",
        f"{encoder['cosine_to_fp32']['mean']:.3f}",
        f"{search['p50_ms']:.1f} ms",
        f"{search['recall_at_10']:.2f}",
        f"{encoder['cold_start_s']['median']:.1f} s",
        *shares.values(),
    ):
        assert figure in table, figure


def test_readme_names_files_that_exist() -> None:
    mapped = README.split("## Find your way")[1]
    names = [n for n in re.findall(r"`([\w./]+)`", mapped) if "/" in n or n.endswith(".md")]
    names += re.findall(r"\]\(([\w./]+)\)", README)
    assert len(names) > 8
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_readme_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"make (\w+)", "\n".join(blocks(README, "console")))
    assert targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert shutil.which("make")
