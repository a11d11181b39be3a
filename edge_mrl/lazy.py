"""Faces of packages: names that are imported from their modules when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["lazily"]


def lazily(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package (PEP 562), so that importing the package loads nothing else.

    Args:
        package: The package's ``__name__``.
        homes: Modules of the package, relative to it, and the names that each of them gives.

    Returns:
        A function of a name that gives what the name stands for, and raises AttributeError where the
        package has no such name.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{home_of[name]}"), name)

    return get
