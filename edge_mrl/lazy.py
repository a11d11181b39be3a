"""Names that are imported when they are first used: faces of packages, and names that have moved."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["lazily", "moved"]


def lazily(
    package: str,
    homes: Mapping[str, Sequence[str]],
    *,
    renamed: Mapping[str, str] | None = None,
    former: Mapping[str, Sequence[str]] | None = None,
    retired: Mapping[str, Mapping[str, str]] | None = None,
) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package (PEP 562), so that importing the package loads nothing else.

    Args:
        package: The package's ``__name__``.
        homes: Modules of the package, relative to it, and the names that each of them gives. Under ""
            stand modules that the package gives as a whole.
        renamed: Former names and what they are called now; using one gives a DeprecationWarning.
        former: Other packages, and the names that they have now and this one had before (see ``moved``).
        retired: Modules of the package that keep former names, and what to use instead of each; using one
            gives a DeprecationWarning.

    Returns:
        A function of a name that gives what the name stands for, and raises AttributeError where the
        package has no such name.
    """
    home_of = {name: home for home, names in homes.items() for name in names}
    elsewhere = {name: home for home, names in (former or {}).items() for name in names}
    kept = {
        name: (home, use) for home, uses in (retired or {}).items() for name, use in uses.items()
    }

    def get(name: str) -> Any:
        if name in elsewhere:
            return _from_elsewhere(package, elsewhere[name], name)
        if name in kept:
            home, instead = kept[name]
            text = f"{package}.{name} goes with the next minor version: {instead}"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            return getattr(importlib.import_module(f"{package}.{home}"), name)
        if renamed and name in renamed:
            text = f"{package}.{name} is called {renamed[name]} now"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            name = renamed[name]
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if not home_of[name]:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(f"{package}.{home_of[name]}"), name)

    return get


def moved(module: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module whose names have moved; it goes with the next minor version.

    Args:
        module: The old module's ``__name__``.
        homes: The packages that have the names now, and the names.

    Returns:
        A function of a name that gives what the name stands for, with a DeprecationWarning that says
        where it is now, and raises AttributeError where there was no such name.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return _from_elsewhere(module, home_of[name], name)

    return get


def _from_elsewhere(module: str, home: str, name: str) -> Any:
    text = f"{module}.{name} has moved: import it from {home}"
    warnings.warn(text, DeprecationWarning, stacklevel=3)  # who asked the module for it
    return getattr(importlib.import_module(home), name)
