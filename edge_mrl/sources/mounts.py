"""Mounted drives: where folders are, so that one that is not mounted is not taken for an empty one."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable

__all__ = ["mount_points", "mounted_on", "mounts_below"]

_TABLE = "/proc/self/mountinfo"
_ESCAPED = re.compile(r"\\([0-7]{3})")


def mount_points(table: str = _TABLE) -> frozenset[str]:
    """Mount points of this machine; none where they cannot be told (proc(5), "mountinfo")."""
    try:
        with open(table, encoding="utf-8", errors="surrogateescape") as file:
            fields = [line.split(" ") for line in file]
    except OSError:
        return frozenset()
    return frozenset(
        _ESCAPED.sub(lambda found: chr(int(found[1], 8)), row[4]) for row in fields if len(row) > 4
    )


def mounted_on(folder: str, points: Collection[str]) -> str:
    """The mount point on which a folder is; "" if that is the system's root, or unknown."""
    while folder not in ("", "/"):
        if folder in points:
            return folder
        folder = os.path.dirname(folder)
    return ""


def mounts_below(
    folder: str, folders: Iterable[tuple[str, int]], points: Collection[str]
) -> list[str]:
    """Folders below a folder that are drives of their own, relative to it.

    Args:
        folder: An absolute path.
        folders: Listed folders below it, itself included, and the device of each.
        points: Mount points.
    """
    devices = dict(folders)
    found = []
    for path, device in devices.items():
        parent = devices.get(os.path.dirname(path), device)
        if path != folder and (path in points or device != parent):
            found.append(os.path.relpath(path, folder).replace(os.sep, "/"))
    return sorted(found)
