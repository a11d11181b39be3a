"""The API reference is built without a warning, and has every public name."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import edge_mrl
from tests.docs.pages import ROOT

SCRIPT = ROOT / "docs" / "api.py"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    command = [sys.executable, "-W", "error", str(SCRIPT), str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return folder


def documented(page: Path) -> set[str]:
    return set(re.findall(r'<section id="(\w+)">', page.read_text("utf-8")))


@pytest.mark.test
def test_the_reference_has_every_public_name(reference: Path) -> None:
    assert documented(reference / "edge_mrl.html") >= {*edge_mrl.__all__} - {"__version__"}
    pages = sorted((reference / "edge_mrl").glob("*.html"))
    rooms = {
        path.name for path in (ROOT / "edge_mrl").iterdir() if (path / "__init__.py").is_file()
    }
    assert {page.stem for page in pages} >= rooms - {"cli"}
    for page in pages:
        room = importlib.import_module(f"edge_mrl.{page.stem}")
        inside = {name for name in room.__all__ if isinstance(getattr(room, name), ModuleType)}
        assert documented(page) >= {*room.__all__} - inside, page.stem
        for name in inside:
            assert (page.with_suffix("") / f"{name}.html").is_file(), f"{page.stem}.{name}"


@pytest.mark.test
def test_every_name_of_the_package_is_explained(reference: Path) -> None:
    text = (reference / "edge_mrl.html").read_text("utf-8")
    for name in {*edge_mrl.__all__} - {"__version__"}:
        section = text.split(f'<section id="{name}">')[1].split("<section ")[0]
        assert '<div class="docstring"><p>' in section, name


def test_the_makefile_builds_it_with_warnings_as_errors() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "python -W error docs/api.py build/docs" in makefile
