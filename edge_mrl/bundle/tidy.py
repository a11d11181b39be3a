"""The cache of unpacked bundles is kept within bounds: what was used longest ago goes first.

Any number of processes may do this at once. A bundle that was opened in the last hours stays, so nobody
loses a folder between finding it and opening its files; files that are open stay readable on POSIX, and
cannot be deleted on Windows.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from edge_mrl.errors import UsageError

__all__ = ["mark_used", "remove", "tidy"]

#: The environment variable that sets another bound, in MB.
BOUND = "EDGE_MRL_CACHE_MB"
_MOST_MB = 2000
#: How often a use is written down: an SD card need not know of each.
_MARK_S = 3600.0
#: What was marked so recently may be about to be opened.
_IN_USE_S = 2 * _MARK_S
#: What a process that was killed has left unfinished.
_UNFINISHED_S = 86_400.0


def mark_used(folder: Path) -> None:
    """Write down that a bundle was used, as the folder's time."""
    with suppress(OSError):  # a cache that cannot be written to
        if time.time() - folder.stat().st_mtime > _MARK_S:
            os.utime(folder)


def tidy(cache: Path) -> None:
    """Delete the bundles that were used longest ago, until the others are within the bound.

    Args:
        cache: The folder with a folder for each bundle.

    Raises:
        UsageError: EDGE_MRL_CACHE_MB is no number.
    """
    bound, now = _bound_bytes(), time.time()
    kept: list[tuple[float, int, Path]] = []
    for folder in _folders(cache):
        with suppress(OSError):
            used = folder.stat().st_mtime
            if not folder.name.startswith("."):
                kept.append((used, _size(folder), folder))
            elif now - used > _UNFINISHED_S:
                shutil.rmtree(folder, ignore_errors=True)
    total = sum(size for _, size, _ in kept)
    for used, size, folder in sorted(kept):
        if total <= bound or now - used < _IN_USE_S:
            break
        if remove(folder):
            total -= size


def _bound_bytes() -> float:
    text = os.environ.get(BOUND) or str(_MOST_MB)
    try:
        bound = float(text)
    except ValueError:
        bound = -1.0
    if not 0 <= bound < float("inf"):
        raise UsageError(f"{BOUND} is {text!r}, expected a number of MB, such as {_MOST_MB}")
    return bound * 1e6


def _folders(cache: Path) -> list[Path]:
    try:
        return [path for path in cache.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.iterdir())


def remove(folder: Path) -> bool:
    """Delete a bundle; whoever looks for it meanwhile finds all of it, or nothing.

    Returns:
        Whether this process has done it.
    """
    try:
        gone = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
    except OSError:
        return False
    try:
        folder.rename(gone / folder.name)
    except OSError:  # another process was first, or has it open on Windows
        return False
    finally:
        shutil.rmtree(gone, ignore_errors=True)
    return True
