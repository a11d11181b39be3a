"""The architecture, read from ARCHITECTURE.md and held against the code."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.architecture.sources import (
    PACKAGES,
    ROOT,
    USERS,
    Import,
    Module,
    by_name,
    floors,
    modules,
    resolve,
)

#: What only an export needs; neither devices nor servers ever load these.
HEAVY = {"torch", "onnx", "onnx_ir", "transformers", "optimum", "sentence_transformers"}
#: What runs a model.
MODELS = {"onnxruntime", "tokenizers"}
#: Rooms of the runtime that a server may use: what both sides must agree on.
SHARED = {"bundle", "cli", "codes", "errors", "lazy", "wire", ""}
#: Where SQL may stand. The exporter's cache of vectors is a file of its own.
SQL_ROOMS = {("edge_mrl", "store"), ("edge_mrl_server", "storage"), ("edge_mrl_export", "quality")}
SQL = re.compile(
    r"^\s*(SELECT\b|INSERT (INTO|OR)\b|UPDATE \w+ SET\b|DELETE FROM\b|CREATE (TABLE|INDEX|UNIQUE|VIRTUAL)"
    r"\b|ALTER TABLE\b|DROP (TABLE|INDEX)\b|PRAGMA \w+|WITH \w+ AS \()"
)
#: Modules at the top of one folder. Twenty is a cabinet again.
MODULES_PER_FOLDER = 16
LINES_PER_MODULE = 450
LINES_PER_FUNCTION = 50
ARGUMENTS = 7
#: What the command line asks of a module that is a sub-command.
COMMAND = {"HELP", "add_arguments", "run"}


def every_module() -> Iterator[Module]:
    for package in PACKAGES:
        yield from modules(package)


def of_other_rooms(module: Module) -> Iterator[tuple[Import, Module]]:
    """Imports from other rooms of the same package, and what they reach."""
    for item in module.imports:
        target = resolve(item)
        if target and target.package == module.package and target.room not in ("", module.room):
            yield item, target


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_in_a_room_of_the_table(package: str) -> None:
    rooms = {module.room for module in modules(package)} - {"", "__main__"}
    assert rooms == set(floors(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_import_lower_floors_only(package: str) -> None:
    table = floors(package)
    wrong = [
        f"{module.name} imports {target.name}"
        for module in modules(package)
        if module.room not in ("", "__main__")
        for _, target in of_other_rooms(module)
        if table[target.room] >= table[module.room]
    ]
    assert wrong == []


def test_other_rooms_are_imported_through_their_faces() -> None:
    users = [*every_module(), *modules("demo")]
    wrong = []
    for module in users:
        for item in module.imports:
            target = resolve(item)
            if target is None or target.package not in PACKAGES or not target.room:
                continue
            if (target.package, target.room) == (module.package, module.room):
                continue
            face = by_name()[f"{target.package}.{target.room}"]
            if target is face and item.name in (target.room, ""):  # the face itself, as a namespace
                continue
            if item.module != face.name or (face.is_face and item.name not in face.listed):
                wrong.append(f"{module.name}: from {item.module} import {item.name}")
    assert wrong == []


def test_modules_that_import_each_other_at_the_start_are_no_circle() -> None:
    after = {
        module.name: {
            target.name
            for item in module.imports
            if not item.lazy and (target := resolve(item)) and target.name != module.name
        }
        for module in every_module()
    }
    while after:
        free = [name for name, needs in after.items() if not needs & set(after)]
        assert free, f"a circle among {sorted(after)}"
        after = {name: needs for name, needs in after.items() if name not in free}


def test_sql_stands_in_the_stores_of_documents_alone() -> None:
    wrong = [
        f"{module.name}: {text.strip()[:60]}"
        for module in every_module()
        if (module.package, module.room) not in SQL_ROOMS
        for text in module.strings
        if SQL.match(text)
    ]
    assert wrong == []


def test_packages_use_of_each_other_what_they_may() -> None:
    for module in every_module():
        tops = {item.module.split(".")[0] for item in module.imports}
        targets = [target for item in module.imports if (target := resolve(item))]
        assert not tops & set(USERS), module.name
        if module.package == "edge_mrl":
            assert not tops & {*HEAVY, "edge_mrl_export", "edge_mrl_server"}, module.name
        elif module.package == "edge_mrl_export":
            assert "edge_mrl_server" not in tops, module.name
        else:
            assert not tops & {*HEAVY, *MODELS, "edge_mrl_export"}, module.name
            used = {target.room for target in targets if target.package == "edge_mrl"}
            assert used <= SHARED, module.name


def loaded_after(code: str) -> set[str]:
    """Modules that are loaded after running code in a fresh process."""
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


def imports_of(names: list[str]) -> str:
    return "\n".join(f"import {name}" for name in names if "__main__" not in name)


@pytest.mark.test
def test_runtime_and_server_load_nothing_heavy() -> None:
    runtime = loaded_after(imports_of([module.name for module in modules("edge_mrl")]))
    assert "numpy" in runtime
    assert not runtime & HEAVY
    server = loaded_after(imports_of([module.name for module in modules("edge_mrl_server")]))
    assert not server & {*HEAVY, *MODELS}


def test_encoding_loads_nothing_heavy() -> None:
    bundle = ROOT / "tests" / "golden" / "tiny-bert-16"
    code = f"from edge_mrl import Encoder\nEncoder.open({str(bundle)!r}).encode(['text'])"
    assert not loaded_after(code) & HEAVY


def test_offline_search_loads_no_network() -> None:
    assert not loaded_after("from edge_mrl import Index") & {
        "ssl",
        "http.client",
        "edge_mrl.sync.client",
    }


def test_sqlite_needs_no_driver_of_postgresql() -> None:
    code = "import edge_mrl_server.process.process, edge_mrl_server.storage.engines.sqlite"
    assert "psycopg" not in loaded_after(code)


def test_faces_load_nothing() -> None:
    faces = [module.name for module in every_module() if module.is_face]
    ours = {module.name for module in every_module() if not module.is_face}
    loaded = loaded_after(imports_of([name for name in faces if ".cli" not in name]))
    assert not loaded & {"numpy", *HEAVY, *MODELS}
    assert loaded & ours <= {"edge_mrl._version", "edge_mrl.lazy"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["index", "--help"], ["nonsense"]]
)
def test_help_and_usage_errors_load_nothing(arguments: list[str]) -> None:
    code = f"from edge_mrl.cli import main\ntry:\n    main({arguments!r})\nexcept SystemExit:\n    pass"
    assert not loaded_after(code) & {"numpy", *HEAVY, *MODELS}


def in_order(names: list[str]) -> list[str]:
    """Constants, classes and functions, each by name, as ruff's RUF022 sorts them."""
    return sorted(set(names), key=lambda n: (not n.isupper(), not n[:1].isupper(), n))


def test_public_names_exist_and_are_sorted() -> None:
    for module in every_module():
        if module.path.name == "__main__.py":
            continue
        loaded = importlib.import_module(module.name)
        assert loaded.__all__ == module.listed == in_order(module.listed), module.name
        assert [name for name in module.listed if not hasattr(loaded, name)] == [], module.name


@pytest.mark.test
def test_public_names_are_those_that_others_import() -> None:
    """What another module imports is listed; a listed function or constant is used by another module.

    Classes may be listed for the functions that return them.
    """
    used: dict[str, set[str]] = {module.name: set() for module in every_module()}
    by_packages: dict[str, set[str]] = {module.name: set() for module in every_module()}
    for user in by_name().values():
        for item in user.imports:
            target = resolve(item)
            whole = target is not None and f"{item.module}.{item.name}".rstrip(".") == target.name
            if target and target.name in used and target.name != user.name and not whole:
                used[target.name].add(item.name)
                if user.package in PACKAGES:
                    by_packages[target.name].add(item.name)
    wrong = []
    for module in every_module():
        public = set(module.listed)
        hidden = by_packages[module.name] - public
        wrong += [f"{module.name}.{name} is imported but not listed" for name in hidden]
        if module.is_face or public >= COMMAND:
            continue
        idle = public - used[module.name] - _attributes_of_namespaces(module)
        idle = {name for name in idle if name.isupper() or name[0].islower()}
        wrong += [f"{module.name}.{name} is listed but nobody imports it" for name in idle]
    assert wrong == []


def _attributes_of_namespaces(module: Module) -> set[str]:
    """Names that are used as attributes of a module that somebody imports as a whole."""
    short = module.name.rpartition(".")[2]
    found = set()
    for user in by_name().values():
        whole = any(resolve(item) is module and item.name in (short, "") for item in user.imports)
        if whole:
            found |= {n.attr for n in ast.walk(user.tree) if isinstance(n, ast.Attribute)}
    return found


def test_faces_say_what_they_are_for_and_hide_no_module() -> None:
    for module in every_module():
        if not module.is_face:
            continue
        first = (ast.get_docstring(module.tree) or "").splitlines()[0]
        assert first.endswith("."), module.name
        inside = {m.rpartition(".")[2] for m in by_name() if m.rpartition(".")[0] == module.name}
        homes = {item.name: item.module for item in module.imports}
        hidden = [n for n in module.listed if n in inside and homes.get(n) != module.name]
        assert hidden == [], f"{module.name}: names of modules: {hidden}"


def test_each_room_has_tests_of_its_own_name() -> None:
    for room in floors("edge_mrl"):
        if not room.startswith("_"):
            folder, file = ROOT / "tests" / room, ROOT / "tests" / f"test_{room}.py"
            assert file.is_file() or list(folder.glob("test_*.py")), f"no tests of {room}"


def test_nothing_grows_out_of_proportion() -> None:
    folders: dict[str, int] = {}
    wrong = []
    for module in every_module():
        folder = str(module.path.parent.relative_to(ROOT))
        folders[folder] = folders.get(folder, 0) + (not module.is_face)
        lines = len(module.path.read_text("utf-8").splitlines())
        wrong += [f"{module.name} has {lines} lines"] * (lines > LINES_PER_MODULE)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                wrong += _oversized(module.name, node)
    wrong += [f"{name}: {n} modules" for name, n in folders.items() if n > MODULES_PER_FOLDER]
    assert wrong == []


def _oversized(where: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    body = node.body[1:] if ast.get_docstring(node) else node.body
    lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    count = len([argument for argument in arguments if argument.arg not in ("self", "cls")])
    found = []
    if lines > LINES_PER_FUNCTION:
        found.append(f"{where}.{node.name} has {lines} lines")
    if count > ARGUMENTS:
        found.append(f"{where}.{node.name} takes {count} arguments")
    return found
