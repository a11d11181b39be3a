"""What this machine has found out about bundles, kept outside of them.

A bundle is tried once in a process of its own, and its files are read once and compared with their
hashes. Later it is enough that the manifest has the same bytes and the files are the same ones. One
small file for each bundle, named by the SHA-256 of its manifest, lies in the user's folder for state.
Where that cannot be written, everything is found out again each time.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_mrl.bundle.files import Identity
from edge_mrl.machine import sync_path

__all__ = ["Known", "Made", "recall", "remember", "remember_made"]

#: The environment variable that names another folder for state.
STATE = "EDGE_MRL_STATE"
FORMAT = "edge-mrl-known 1"
MOST_BYTES = 262_144
#: Folders in which the same bundle is remembered.
MOST_PLACES = 16
#: A file that changed so shortly ago could change once more without another time of change.
SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle that this machine made from a signed one.

    Attributes:
        signer: The id of the key that had signed it.
        base: SHA-256 of its manifest.
    """

    signer: str
    base: str


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about a bundle.

    Attributes:
        tried: With what it was tried: versions by name; None if it was not.
        places: Identities of its files, which had the right hashes, by folder and name.
        made: From what this machine made it, or None.
    """

    tried: dict[str, str] | None = None
    places: dict[str, dict[str, Identity]] = field(default_factory=dict)
    made: Made | None = None

    def files(self, folder: Path) -> Mapping[str, Identity]:
        """Identities of the files in a folder."""
        return self.places.get(str(folder), {})


def state_folder() -> Path | None:
    """The folder for state; None if this user has none."""
    named = os.environ.get(STATE)
    if named:
        return Path(named)
    base = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    if base and Path(base).is_absolute():
        return Path(base) / "edge-mrl"
    try:
        return Path.home() / ".local" / "state" / "edge-mrl"
    except RuntimeError:  # no home
        return None


def recall(digest: str) -> Known:
    """What is known about the bundle whose manifest has this SHA-256."""
    path = _path(digest)
    if path is None:
        return Known()
    try:
        return _parse(_read_own(path))
    except OSError:
        return Known()


def _parse(data: bytes) -> Known:
    """What a file says; nothing if it cannot be read: it is found out again."""
    try:
        parsed = json.loads(data)
        if parsed["format"] != FORMAT:
            return Known()
        places = {
            folder: {name: _identity(value) for name, value in files.items()}
            for folder, files in parsed["places"].items()
        }
        tried, made = parsed["tried"], parsed["made"]
        if tried is not None and not all(isinstance(value, str) for value in tried.values()):
            return Known()
        return Known(tried, places, None if made is None else Made(**made))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return Known()


def remember(
    digest: str, folder: Path, files: Mapping[str, Identity], tried: dict[str, str] | None
) -> None:
    """Remember that a bundle was tried, and which files had the right hashes."""
    known, now = recall(digest), time.time_ns()
    settled = {
        name: one for name, one in files.items() if now - one[3] >= 0 and now - one[3] > SETTLED_NS
    }
    places = {**known.places, **({str(folder): settled} if settled else {})}
    for place in list(places)[:-MOST_PLACES]:
        del places[place]
    changed = Known(tried or known.tried, places, known.made)
    if changed != known:
        with contextlib.suppress(OSError):
            _write(digest, changed)


def remember_made(digest: str, made: Made) -> None:
    """Remember that this machine made a bundle from a signed one.

    Raises:
        OSError: It cannot be written.
    """
    known = recall(digest)
    _write(digest, Known(known.tried, known.places, made))


def _identity(value: Any) -> Identity:
    inode, size, bytes_ns, file_ns = map(int, value)
    return (inode, size, bytes_ns, file_ns)


def _path(digest: str) -> Path | None:
    folder = state_folder()
    return None if folder is None else folder / "bundles" / f"{digest}.json"


def _read_own(path: Path) -> bytes:
    """The bytes of a file that nobody else can have written."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        owner = getattr(os, "geteuid", lambda: status.st_uid)()
        if status.st_uid not in (owner, 0) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(path)
        return file.read(MOST_BYTES)


def _write(digest: str, known: Known) -> None:
    path = _path(digest)
    if path is None:
        raise OSError("this user has no folder for state")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = None if known.made is None else {"signer": known.made.signer, "base": known.made.base}
    values = {"format": FORMAT, "tried": known.tried, "places": known.places, "made": made}
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(values, file)
        sync_path(Path(name))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_path(path.parent)
