"""The repository's Python as the architecture sees it: packages, rooms, modules, what each imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Where each package is, by its import name.
PACKAGES = {
    "edge_mrl": ROOT / "edge_mrl",
    "edge_mrl_export": ROOT / "export" / "edge_mrl_export",
    "edge_mrl_server": ROOT / "server" / "edge_mrl_server",
}
#: Code that uses the packages.
USERS = ("bench", "demo", "tests")


@dataclass(frozen=True, slots=True)
class Import:
    """One name that a module imports.

    Attributes:
        module: The module that it is imported from.
        name: The name; "" where the module itself is imported.
        lazy: Whether it is imported within a function, or for type checkers alone.
    """

    module: str
    name: str
    lazy: bool


@dataclass(frozen=True)
class Module:
    """A Python file.

    Attributes:
        name: Its dotted name.
        path: The file.
    """

    name: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.path.read_text("utf-8"))

    @property
    def package(self) -> str:
        """The package that it belongs to."""
        return self.name.split(".")[0]

    @property
    def room(self) -> str:
        """The room, as a name within the package; "" for the package's own face."""
        return [*self.name.split("."), ""][1]

    @property
    def is_face(self) -> bool:
        """Whether it is the ``__init__`` of a package or of a folder in it."""
        return self.path.name == "__init__.py"

    @cached_property
    def imports(self) -> list[Import]:
        """What it imports, wherever in it."""
        return list(_imports(self.tree, lazy=False))

    @cached_property
    def listed(self) -> list[str]:
        """Its ``__all__``, as written; empty without one."""
        for node in self.tree.body:
            target = (
                node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            )
            if isinstance(target, ast.Name) and target.id == "__all__":
                value: list[str] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
                return value
        return []

    @cached_property
    def strings(self) -> list[str]:
        """Its strings, without docstrings; f-strings by their constant parts."""
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        docs = {
            id(node.body[0].value)
            for node in ast.walk(self.tree)
            if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
        }
        found = [
            n for n in ast.walk(self.tree) if isinstance(n, ast.Constant) and id(n) not in docs
        ]
        return [node.value for node in found if isinstance(node.value, str)]


def _imports(node: ast.AST, *, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, "", lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute here"
            yield from (Import(child.module or "", alias.name, lazy) for alias in child.names)
        else:
            late = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            )
            yield from _imports(child, lazy=lazy or late)


def _modules(package: str, folder: Path) -> Iterator[Module]:
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        yield Module(".".join((package, *parts)).removesuffix(".__init__"), path)


@lru_cache
def modules(package: str) -> tuple[Module, ...]:
    """All modules of a package, or of one of the folders that use them."""
    return tuple(_modules(package, PACKAGES.get(package, ROOT / package)))


@lru_cache
def by_name() -> dict[str, Module]:
    """Every module of the repository."""
    return {module.name: module for name in (*PACKAGES, *USERS) for module in modules(name)}


def resolve(item: Import) -> Module | None:
    """The module that an import reaches: a module of that name, or the one that has the name."""
    return by_name().get(f"{item.module}.{item.name}") or by_name().get(item.module)


@lru_cache
def floors(package: str) -> dict[str, int]:
    """The floor of each room, as the package's table in ARCHITECTURE.md has it."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    section = text.split(f"\n### `{package}`")[1].split("\n#")[0]
    rows = re.findall(r"^\| *(\d+) *\| *`(\w+)` *\|", section, re.MULTILINE)
    return {room: int(floor) for floor, room in rows}
