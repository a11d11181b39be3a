"""Zip files whose bytes depend on nothing but what is in them."""

from __future__ import annotations

import itertools
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGE", "Entry", "write_zip"]

#: Libraries begin at multiples of this, so that a phone with pages of 16 KB can map them in place.
PAGE = 16384
#: resources.arsc is mapped as well; Android asks for four bytes.
WORD = 4
#: What zipalign writes: the alignment, and zeros.
ALIGNMENT_FIELD = 0xD935
HEADER_BYTES = 30
NEWEST_TIME = (1981, 1, 1, 1, 1, 2)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the archive. ``data`` is its bytes, or the file that has them."""

    name: str
    data: bytes | Path

    @property
    def alignment(self) -> int | None:
        """What a stored entry begins at a multiple of; None for one that is compressed."""
        if self.name.endswith(".so"):
            return PAGE
        return WORD if self.name == "resources.arsc" else None


def write_zip(target: Path, entries: Iterable[Entry], *, align: bool = True) -> None:
    """Write entries in the order of their names: fixed times, no folders, libraries stored and aligned.

    Args:
        target: The archive, which is replaced.
        entries: What is in it.
        align: False compresses everything, as an app bundle wants it.

    Raises:
        ValueError: Two entries have one name.
    """
    ordered = sorted(entries, key=lambda entry: entry.name.encode())
    for one, other in itertools.pairwise(ordered):
        if one.name == other.name:
            raise ValueError(f"two entries of {target.name} have the name {one.name}")
    with target.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        for entry in ordered:
            info = zipfile.ZipInfo(entry.name, NEWEST_TIME)
            info.external_attr = 0o644 << 16
            info.create_system = 0
            alignment = entry.alignment if align else None
            if alignment is None:
                info.compress_type = zipfile.ZIP_DEFLATED
            else:
                info.extra = _padding(file.tell() + HEADER_BYTES + len(info.filename), alignment)
            data = entry.data if isinstance(entry.data, bytes) else entry.data.read_bytes()
            archive.writestr(info, data)


def _padding(offset: int, alignment: int) -> bytes:
    """An extra field after which the offset is a multiple."""
    head = struct.pack("<HHH", ALIGNMENT_FIELD, 0, alignment)
    missing = -(offset + len(head)) % alignment
    return struct.pack("<HHH", ALIGNMENT_FIELD, 2 + missing, alignment) + bytes(missing)
