"""Where a bundle is: in a folder, in a .zip, on a hub, or in a package such as edge-mrl-minilm.

Packages are found by their entry points. Each entry point of the group names a bundle, and gives the path
of its folder, as in ``minilm = "edge_mrl_minilm:BUNDLE"``. They are read only where no path leads to a
bundle.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.bundle.hub.names import hub_name_of_path, is_hub_name
from edge_mrl.errors import BundleError, UsageError, reason

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["bundle_folder", "installed_bundle", "installed_names", "locate_bundle"]

#: The group of entry points.
GROUP = "edge_mrl.bundles"


def installed_names() -> list[str]:
    """Names of the bundles that are installed, sorted."""
    return sorted(_entries())


def installed_bundle(name: str | None = None) -> Path:
    """The folder of an installed bundle.

    Args:
        name: Its name; None for the only one.

    Raises:
        UsageError: There is none, or none of that name; or there are several and ``name`` is None.
        BundleError: Its package cannot be loaded, or gives no folder.
    """
    entries = _entries()
    known = ", ".join(sorted(entries))
    if name is None:
        if len(entries) == 1:
            return _folder(next(iter(entries.values())))
        if entries:
            raise UsageError(
                f"several bundles are installed ({known}): name one of them with --bundle NAME or "
                "EDGE_MRL_BUNDLE"
            )
        raise UsageError(
            "no bundle was named, and none is installed: install edge-mrl-minilm, or make one with "
            "`edge-mrl export -o DIR` and name it with --bundle DIR"
        )
    if name not in entries:
        raise UsageError(
            f"no bundle {name!r} is installed: "
            + (f"expected one of {known}" if entries else "there is none at all")
        )
    return _folder(entries[name])


def locate_bundle(given: Path) -> Path:
    """Where the bundle is that a path, or a name of an installed bundle or of one on a hub, stands for.

    Args:
        given: A folder, a .zip, a name, or ``hf://OWNER/NAME`` with or without ``@REVISION``, which is
            fetched if it is not in the hub's cache.

    Returns:
        The absolute path. If nothing is there, so is what was given, and reading it says so.

    Raises:
        BundleError: It is the name of an installed bundle whose package gives none.
        UsageError, EdgeMrlError: As ``pull_bundle``.
    """
    if is_hub_name(given):
        from edge_mrl.bundle.hub.pull import local_bundle

        return local_bundle(hub_name_of_path(given))
    named = str(given)
    if given.name == named and not _exists(given):
        entries = _entries()
        if named in entries:
            return _folder(entries[named])
    return given.resolve()


def bundle_folder(given: Path) -> Path:
    """The folder of the bundle that a path or a name stands for.

    Args:
        given: As for ``locate_bundle``. A .zip is unpacked into the user's cache, once.

    Returns:
        The absolute path. If nothing is there, so is what was given, and reading it says so.

    Raises:
        FormatError: The file is no zip of a bundle, or has entries that none has.
        BundleError: It cannot be read or unpacked; or see ``locate_bundle``.
    """
    place = locate_bundle(given)
    if not _is_file(place):
        return place
    from edge_mrl.bundle.archive import unpacked

    return unpacked(place)


def _is_file(path: Path) -> bool:
    with suppress(OSError):
        return path.is_file()
    return False


def _exists(path: Path) -> bool:
    with suppress(OSError):  # a name that is too long, say
        return path.exists()
    return False


def _entries() -> Mapping[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _folder(entry: EntryPoint) -> Path:
    """The folder that an entry point gives.

    Raises:
        BundleError: It gives none.
    """
    try:
        found = entry.load()
    except Exception as error:  # it may do anything
        raise BundleError(
            f"the installed bundle {entry.name} cannot be loaded: {reason(error)}: install it again"
        ) from error
    if not isinstance(found, str | os.PathLike) or not Path(found).is_dir():
        raise BundleError(
            f"the installed bundle {entry.name} gives {found!r}, expected its folder: install it again"
        )
    return Path(found).resolve()
