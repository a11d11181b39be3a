"""The README's commands run as they stand, and print what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text("utf-8")
NOTES = {
    "garden.md": "# Garden\n\nWater the tomatoes every evening, the cactus once a month.\n",
    "boat.txt": "The ferry leaves at dawn from the old harbour, except on Sundays.\n",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, minilm_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "notes").mkdir()
    for name, text in NOTES.items():
        (folder / "notes" / name).write_text(text, "utf-8")
    return folder


def run(command: list[str], place: Path) -> str:
    """Run with this interpreter's scripts first on the path, as in an activated environment."""
    scripts = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_readme_commands_and_code_run(place: Path) -> None:
    (commands,) = blocks("bash")
    found = run(["bash", "-euo", "pipefail", "-c", commands], place)
    assert "garden.md" in found
    assert found.index("garden.md") < found.index("boat.txt")
    (code,) = blocks("python")
    (printed,) = blocks("text")
    # Codes differ a little between CPUs, and so does the score's second digit.
    score = re.compile(r"\d\.\d\d")
    assert score.sub("#", run([sys.executable, "-c", code], place)) == score.sub("#", printed)


def test_readme_names_files_that_exist() -> None:
    mapped = README.split("## Find your way")[1]
    names = [n for n in re.findall(r"`([\w./]+)`", mapped) if "/" in n or n.endswith(".md")]
    names += re.findall(r"\]\(([\w./]+)\)", README)
    assert len(names) > 8
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_documents_link_to_files_that_exist() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_readme_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"make (\w+)", "\n".join(blocks("console"))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert shutil.which("make")
