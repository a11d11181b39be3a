"""A quick look at files, to see which have changed since the last one. Nothing is read."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from edge_mrl.errors import UsageError
from edge_mrl.sources.files import Scan, Search
from edge_mrl.sources.places import split_name

__all__ = ["Look", "folders_of", "look_at"]


@dataclass(frozen=True, slots=True)
class Look:
    """What was there.

    Attributes:
        files: Of each file its time in nanoseconds, its size in bytes, and its number.
        missing: Paths that were named and are not there.
    """

    files: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()

    def after(self, before: Look) -> Look:
        """This look, with the files of the one before it that are only out of reach."""
        away = {name: was for name, was in before.files.items() if _below(name, self.missing)}
        return Look({**away, **self.files}, self.missing)


def look_at(paths: Iterable[str], search: Search, *, beside: str = "") -> Look:
    """Look at the files that paths stand for.

    Args:
        paths: Files, folders and patterns, or NAME=PATH.
        search: What is looked for in folders.
        beside: What the names of files end with that change together with a file that is named.
    """
    files: dict[str, tuple[int, int, int]] = {}
    missing = set()
    for path in (split_name(argument)[1] for argument in paths):
        try:
            if os.path.isdir(path):
                found = search.below(path, Scan())
            elif os.path.lexists(path):
                found = [path, path + beside] if beside else [path]
            else:
                found = search.matched(path, Scan())
        except UsageError:
            missing.add(path)
            continue
        for name in found:
            try:
                facts = os.stat(name)
            except OSError:  # gone since, or a link to nothing
                continue
            files[os.path.normpath(name)] = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
    return Look(files, frozenset(missing))


def folders_of(paths: Iterable[str]) -> list[str]:
    """Those of the paths that are folders now."""
    found = (split_name(argument)[1] for argument in paths)
    return [path for path in found if os.path.isdir(path)]


def _below(name: str, folders: Collection[str]) -> bool:
    bases = map(os.path.normpath, folders)
    return any(name == base or name.startswith(f"{base}{os.sep}") for base in bases)
