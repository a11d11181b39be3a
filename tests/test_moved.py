"""Modules at their former places still give their names, with a warning that says where they are now."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import edge_mrl
from edge_mrl import search

FOLDER = Path(edge_mrl.__file__).parent / "_moved"


def moved_names() -> list[tuple[str, str, str]]:
    """Every former module, its names, and the room that has each now; read from the sources."""
    found = []
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "moved":
                homes = ast.literal_eval(node.args[1])
                found += [(path.stem, name, home) for home in homes for name in homes[home]]
    return found


@pytest.mark.parametrize(("module", "name", "home"), moved_names())
def test_former_place_gives_the_name_and_warns(module: str, name: str, home: str) -> None:
    former = importlib.import_module(f"edge_mrl.{module}")
    with pytest.warns(
        DeprecationWarning, match=f"{module}.{name} has moved: import it from {home}"
    ):
        assert getattr(former, name) is getattr(importlib.import_module(home), name)
    with pytest.raises(AttributeError, match="nothing"):
        _ = former.nothing


def test_margin_is_calibrated_as_at_its_new_place() -> None:
    rerank = importlib.import_module("edge_mrl.rerank")
    arguments = ([[0.9, 0.1], [0.9, 0.89]], [1.0, 0.2], [1.0, 1.0])
    with pytest.warns(DeprecationWarning, match="import it from edge_mrl.search"):
        old = rerank.calibrate_margin(*arguments, keep=0.9)
    assert old == search.calibrate_margin(*arguments, keep=0.9)
    assert old.calls_saved == 0.5
