"""The space that a store takes on disk."""

from __future__ import annotations

from pathlib import Path

__all__ = ["stored_bytes"]


def stored_bytes(path: Path) -> dict[str, int]:
    """Bytes on disk of a store's "database", "log" and "codes", where there is such a file."""
    sizes = {}
    for name, suffix in (("database", ""), ("log", "-wal"), ("codes", "-codes")):
        file = path.with_name(path.name + suffix)
        if file.exists():
            status = file.stat()
            blocks = getattr(status, "st_blocks", None)  # a code file has holes
            sizes[name] = status.st_size if blocks is None else min(status.st_size, blocks * 512)
    return sizes
