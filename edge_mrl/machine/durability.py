"""Durable files: what was written reaches the storage device before anything relies on it."""

from __future__ import annotations

import os
from pathlib import Path

from edge_mrl.machine.positional import BINARY

__all__ = ["sync_path"]


def sync_path(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to the storage device (fsync).

    Windows cannot open folders; there a rename is as durable as the file system makes it.

    Args:
        path: A file or a folder that exists.

    Raises:
        OSError: The path cannot be opened or flushed.
    """
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | BINARY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
