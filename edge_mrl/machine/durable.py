"""What was written, on the medium before anything relies on it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["sync_path"]


def sync_path(path: Path) -> None:
    """Bring a file's bytes, or the names in a folder, onto the medium.

    Windows opens no folders; there a rename is as durable as the file system makes it.

    Raises:
        OSError: The path cannot be opened, or not be written.
    """
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
