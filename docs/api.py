"""Build the API reference from the docstrings: ``python -W error docs/api.py build/docs``.

It has a page for `edge_mrl`, whose names are for every program, and one for each room: the names of
the faces are public, everything else is inner and may change.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pdoc
import pdoc.render

import edge_mrl

#: No part of what a program imports: the command line, and the helpers of the faces.
INNER = {"__main__", "_version", "cli", "lazy", "native"}


def faces() -> list[ModuleType]:
    """The package, and each of its rooms that says by ``__all__`` what is public."""
    names = sorted(found.name for found in pkgutil.iter_modules(edge_mrl.__path__))
    rooms = [importlib.import_module(f"edge_mrl.{name}") for name in names if name not in INNER]
    return [edge_mrl, *(room for room in rooms if hasattr(room, "__all__"))]


def load(face: ModuleType) -> None:
    """Put a face's lazy names into the module, where pdoc looks for them; and so on inside."""
    for name in face.__all__:
        value = getattr(face, name)
        setattr(face, name, value)
        if isinstance(value, ModuleType):
            load(value)


def build(target: Path) -> list[str]:
    """Write the pages; returns the names of the modules that have one.

    Args:
        target: The folder; made if it is not there.
    """
    modules = faces()
    for module in modules:
        load(module)
    # Search would need an index of 1 MB; the browser finds words on these pages.
    pdoc.render.configure(docformat="google", show_source=False, search=False)
    names = [module.__name__ for module in modules]
    pdoc.pdoc(*names, output_directory=target)
    return names


def main() -> None:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", type=Path, help="folder to write to, e.g. build/docs")
    names = build(parser.parse_args().target)
    print(f"{len(names)} modules")


if __name__ == "__main__":
    main()
