"""The hub's cache on this machine, which all programs of the hub share: snapshots of commits, of links.

It is read without the package huggingface_hub, so a cache that was copied to a device is enough there.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from edge_mrl.bundle.hub.names import HubName, hub_name, is_commit
from edge_mrl.bundle.manifest import read_manifest
from edge_mrl.errors import BundleError, UsageError

__all__ = ["cached_snapshot", "hub_cache", "name_of_snapshot", "pin", "sweep"]

_MOST_REF_BYTES = 100
#: A download waits ten seconds for the next bytes, so one that goes on is younger.
_LEFT_S = 3600.0


def hub_cache() -> Path:
    """The cache's folder: where HF_HUB_CACHE or HF_HOME say, or in the user's cache."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := os.environ.get(variable):
            return Path(os.path.expandvars(named)).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(os.path.expandvars(home)).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        caches = Path(base).expanduser() if base else Path.home() / ".cache"
    except RuntimeError as error:
        raise UsageError("this user has no cache: name one with HF_HOME") from error
    return caches / "huggingface" / "hub"


def _commit_of(name: HubName) -> str | None:
    """The commit of a revision, as it was when it was pulled; None if it never was."""
    if name.is_pinned:
        return name.revision
    with suppress(OSError, ValueError):
        with (hub_cache() / name.cache_name / "refs" / name.revision).open("rb") as file:
            commit = file.read(_MOST_REF_BYTES).decode("ascii").strip()
        return commit if is_commit(commit) else None
    return None


def cached_snapshot(name: HubName) -> Path | None:
    """The folder with a revision's bundle; None if it is not there, or not whole.

    One with a damaged file is given, if its manifest is right: opening it says what is damaged.
    """
    commit = _commit_of(name)
    if commit is None:
        return None
    folder = hub_cache() / name.cache_name / "snapshots" / commit
    try:
        manifest = read_manifest(folder, trust="")
    except (UsageError, BundleError):
        return None
    if all((folder / one).is_file() for one in manifest.files):
        return folder
    return None


def pin(name: HubName, commit: str) -> None:
    """Remember a branch's or a tag's commit; the former one is kept if this is cut off."""
    if name.is_pinned:
        return
    file = hub_cache() / name.cache_name / "refs" / name.revision
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".edge-mrl-")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as written:
            written.write(commit)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sweep(name: HubName) -> None:
    """Delete what downloads that were cut off left an hour ago or earlier."""
    before = time.time() - _LEFT_S
    for part in (hub_cache() / name.cache_name / "blobs").glob("*.incomplete"):
        with suppress(OSError):
            if part.stat().st_mtime < before:
                part.unlink()


def name_of_snapshot(folder: Path) -> HubName | None:
    """The bundle whose snapshot a folder is or was; None if it is none of the hub's cache."""
    top = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not top.startswith("models--"):
        return None
    with suppress(UsageError):
        owner, separator, rest = top.removeprefix("models--").partition("--")
        return hub_name(f"{owner}/{rest}" if separator else "", folder.name)
    return None
