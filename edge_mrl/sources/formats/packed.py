"""Formats that are zips inside: what they unpack to is bounded before it is unpacked."""

from __future__ import annotations

import zipfile

from edge_mrl.sources.formats.registry import Unreadable

__all__ = ["require_small"]

#: Bytes of a book with many pictures.
MOST_BYTES = 512 << 20


def require_small(archive: zipfile.ZipFile) -> None:
    """Check that a zip does not unpack to more than can be meant.

    Raises:
        Unreadable: It does.
    """
    total = sum(info.file_size for info in archive.infolist())
    if total > MOST_BYTES:
        raise Unreadable(f"unpacks to {total:,} bytes, expected at most {MOST_BYTES:,}")
