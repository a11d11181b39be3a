"""Each adapter: what it may import and ask for; and its own tests, in an environment of its own."""

from __future__ import annotations

import ast
import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edge_mrl
from tests.support.bundles import ROOT, TINY
from tests.support.fresh import build, install
from tests.support.pythons import UnreachableError

FOLDER = ROOT / "adapters"
ADAPTERS = sorted(path.parent.name for path in FOLDER.glob("*/pyproject.toml"))
#: What each adapter's example must print: the note that answers.
ANSWER = "The ferry leaves at dawn."


def project(name: str) -> dict[str, Any]:
    parsed: dict[str, Any] = tomllib.loads((FOLDER / name / "pyproject.toml").read_text("utf-8"))
    return parsed


def uses_of(source: str) -> Iterator[tuple[str, str]]:
    """Module and name of all that a program imports of edge-mrl."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "edge_mrl":
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from ((name, "") for name in names if name.startswith("edge_mrl."))


def hidden(source: str) -> list[str]:
    """What a program imports of edge-mrl that is not public."""
    found = []
    for module, name in uses_of(source):
        face = importlib.import_module(module)
        if module.count(".") > 1 or name not in getattr(face, "__all__", []):
            found.append(f"{module}.{name}")
    return found


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_imports_public_names_alone(name: str) -> None:
    files = list((FOLDER / name).rglob("*.py"))
    assert files
    for path in files:
        assert hidden(path.read_text("utf-8")) == [], path


def test_an_import_of_an_inner_name_is_noticed() -> None:
    """The sabotage twin."""
    inner = "from edge_mrl.index.facade import Index\nimport edge_mrl.store\nfrom edge_mrl import Index\n"
    assert hidden(inner) == ["edge_mrl.index.facade.Index", "edge_mrl.store."]


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_an_adapter_asks_for_has_upper_bounds(name: str) -> None:
    about = project(name)["project"]
    assert about["name"] == name
    assert all("<" in needed for needed in about["dependencies"])
    assert about["dependencies"][0] == "edge-mrl>=0.1,<0.2"
    assert about["license"] == "Apache-2.0"
    place = FOLDER / name / project(name)["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{edge_mrl.__version__}"' in place.read_text("utf-8")
    assert (FOLDER / name / "example.py").is_file()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.mark.nightly
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_alone_passes_the_tests_of_its_framework(
    wheel: Path, tmp_path: Path, name: str
) -> None:
    own = build(FOLDER / name, tmp_path / "dist")
    use = {"EDGE_MRL_BUNDLE": str(TINY), "HF_HUB_OFFLINE": "1"}
    try:
        alone = install(tmp_path / "alone", str(wheel), str(own), constraints=None)
        tested = install(tmp_path / "tests", str(wheel), f"{own}[test]", constraints=None)
    except UnreachableError as error:
        pytest.skip(f"no network to install from: {error}")
    assert {name, "edge-mrl"} <= alone.names()
    assert "torch" not in alone.names()
    assert ANSWER in alone.run("python", FOLDER / name / "example.py", **use)
    options = ["-q", "-c", FOLDER / name / "pyproject.toml", f"--basetemp={tested.folder}/t"]
    said = tested.run("python", "-m", "pytest", *options, FOLDER / name / "tests", **use)
    assert " passed" in said
    assert "skipped" not in said.splitlines()[-1]
