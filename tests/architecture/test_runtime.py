"""Imports go one way, the runtime is light, and start-up is fast."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RUNTIME = ROOT / "edge_mrl"
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in RUNTIME.rglob("*.py")
)
#: A module may import those before it, never those after it.
ORDER = (
    "errors",
    "memory",
    "durable",
    "kinds",
    "codes",
    "clock",
    "wire",
    "transport",
    "progress",
    "machine",
    "bundle",
    "head",
    "balance",
    "pieces",
    "fit",
    "trial",
    "session",
    "encoder",
    "documents",
    "samples",
    "passages",
    "verify",
    "rehead",
    "codefile",
    "funnel",
    "filters",
    "keywords",
    "records",
    "migrations",
    "outbox",
    "schema",
    "codetable",
    "codecache",
    "view",
    "store",
    "credentials",
    "remote",
    "replica",
    "letters",
    "pushes",
    "arrivals",
    "reindex",
    "maintain",
    "search",
    "ranking",
    "policy",
    "rerank",
    "index",
    "adapt",
    "pull",
    "device",
    "run",
    "runner",
    "sync",
    "qdrant",
    "probe",
    "measure",
    "diagnosis",
    "cli",
    "__main__",
)
HEAVY = ("torch", "onnx", "onnx_ir", "transformers", "optimum", "sentence_transformers")


def imported(path: Path) -> set[str]:
    """Modules that a file imports, wherever in it, as dotted names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def place(module: str) -> int:
    return ORDER.index(module.split(".")[1])


def test_every_runtime_module_has_a_place_in_the_order() -> None:
    tops = {name.split(".")[1] for name in MODULES if "." in name}
    assert tops == set(ORDER)


@pytest.mark.parametrize("module", [name for name in MODULES if "." in name])
def test_imports_go_one_way(module: str) -> None:
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for name in imported(file):
        if name.startswith("edge_mrl.") and name.split(".")[1] != module.split(".")[1]:
            assert place(name) < place(module), f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_runtime_names_neither_exporter_nor_heavy_packages(module: str) -> None:
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tops = {name.split(".")[0] for name in imported(file)}
    assert not tops & {*HEAVY, "edge_mrl_export", "edge_mrl_server", "export", "server"}


def loaded_after(code: str) -> set[str]:
    """Top-level modules that are loaded after running code in a fresh process."""
    script = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


def test_import_graph_of_the_runtime_is_light() -> None:
    loaded = loaded_after("\n".join(f"import {name}" for name in MODULES if "__main__" not in name))
    assert "numpy" in loaded
    assert not loaded & set(HEAVY)


def test_encoding_and_searching_load_nothing_heavy() -> None:
    bundle = ROOT / "tests" / "golden" / "tiny-bert-16"
    code = f"from edge_mrl import Encoder\nEncoder.open({str(bundle)!r}).encode(['text'])"
    assert not loaded_after(code) & set(HEAVY)


def test_importing_the_package_loads_nothing() -> None:
    assert not loaded_after("import edge_mrl") & {"numpy", "onnxruntime", "tokenizers", *HEAVY}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["index", "--help"], ["nonsense"]]
)
def test_help_and_usage_errors_load_nothing(arguments: list[str]) -> None:
    code = f"""
from edge_mrl.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
"""
    assert not loaded_after(code) & {"numpy", "onnxruntime", "tokenizers", *HEAVY}


@pytest.mark.parametrize("module", [name for name in MODULES if "__main__" not in name])
def test_public_names_are_listed_in_order_and_exist(module: str) -> None:
    loaded = importlib.import_module(module)
    names = loaded.__all__
    assert len(set(names)) == len(names)
    assert [n for n in names if not hasattr(loaded, n)] == []
    # Constants, classes and functions each in order, as ruff's RUF022 has them.
    kinds = [(not n.isupper(), not n[:1].isupper(), n) for n in names]
    assert kinds == sorted(kinds)
