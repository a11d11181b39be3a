"""The server is loaded without what only devices need, and its modules say what is public."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.architecture.test_runtime import HEAVY, imported, loaded_after

ROOT = Path(__file__).parent.parent.parent / "server"
FILES = sorted(ROOT.rglob("*.py"))
MODULES = [
    ".".join(("edge_mrl_server", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    )
    for path in FILES
]
#: What of the runtime a server may use.
SHARED = {"bundle", "cli", "clock", "codes", "errors", "head", "wire"}


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_server_uses_of_the_runtime_only_what_both_sides_share(path: Path) -> None:
    parts = [name.split(".") for name in imported(path)]
    assert {part[1] for part in parts if part[0] == "edge_mrl" and len(part) > 1} <= SHARED
    assert not {part[0] for part in parts} & {*HEAVY, "onnxruntime", "edge_mrl_export"}


def test_server_loads_no_runtime_of_models() -> None:
    code = "\n".join(f"import {name}" for name in MODULES)
    assert not loaded_after(code) & {*HEAVY, "onnxruntime", "tokenizers"}


def test_sqlite_needs_no_driver_of_postgresql() -> None:
    code = "import edge_mrl_server.process.process, edge_mrl_server.storage.engines.sqlite"
    assert "psycopg" not in loaded_after(code)


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_listed_in_order_and_exist(module: str) -> None:
    loaded = importlib.import_module(module)
    names = loaded.__all__
    assert [n for n in names if not hasattr(loaded, n)] == []
    kinds = [(not n.isupper(), not n[:1].isupper(), n) for n in names]
    assert kinds == sorted(kinds)
