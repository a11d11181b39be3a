"""Python on any page is valid, and imports names that exist and are public."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, blocks

CODE = [page for page in PAGES if "```python" in page.read_text("utf-8")]


def imports(program: str) -> list[tuple[str, str]]:
    """Module and name of each import from edge-mrl's own packages."""
    return [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edge_mrl")
        for alias in node.names
        if node.module is not None
    ]


@pytest.mark.parametrize("page", CODE, ids=lambda page: page.name)
def test_programs_import_public_names(page: Path) -> None:
    for program in blocks(page.read_text("utf-8"), "python"):
        for module, name in imports(program):
            assert name in importlib.import_module(module).__all__, f"{module}.{name}"


def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module, or a name in one."""
    module, _, name = dotted.rpartition(".")
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        return bool(module) and hasattr(importlib.import_module(module), name)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_dotted_names_exist(page: Path) -> None:
    named = re.findall(r"`(edge_mrl(?:_\w+)?(?:\.\w+)+)`", page.read_text("utf-8"))
    files = {".json", ".db", ".sig"}
    groups = {"edge_mrl.bundles", "edge_mrl.commands", "edge_mrl.readers"}  # of entry points
    names = [name for name in named if Path(name).suffix not in files and name not in groups]
    assert [name for name in names if not resolves(name)] == []


def test_pages_that_teach_the_api_have_programs() -> None:
    assert {page.name for page in CODE} >= {"README.md", "tutorial.md", "store.md", "sync.md"}
