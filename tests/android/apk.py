"""What is in an APK, read without the build's own code."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGE", "Library", "libraries", "offsets"]

PAGE = 16384
PT_LOAD = 1
LOCAL_HEADER = 0x04034B50


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library: where its bytes begin in the archive, and the alignments of its segments."""

    name: str
    offset: int
    stored: bool
    segments: tuple[int, ...]


def offsets(apk: Path) -> dict[str, tuple[int, int]]:
    """Of each entry, where its bytes begin in the file, and its compression."""
    found = {}
    with zipfile.ZipFile(apk) as archive, apk.open("rb") as file:
        for info in archive.infolist():
            file.seek(info.header_offset)
            header = struct.unpack("<IHHHHHIIIHH", file.read(30))
            assert header[0] == LOCAL_HEADER
            found[info.filename] = (
                info.header_offset + 30 + header[9] + header[10],
                info.compress_type,
            )
    return found


def libraries(apk: Path) -> list[Library]:
    """The shared libraries of an APK."""
    with zipfile.ZipFile(apk) as archive:
        return [
            Library(name, offset, compression == 0, segments(archive.read(name)))
            for name, (offset, compression) in offsets(apk).items()
            if name.endswith(".so")
        ]


def segments(elf: bytes) -> tuple[int, ...]:
    """The alignments of the parts of a 64-bit library that are loaded."""
    assert elf[:5] == b"\x7fELF\x02", "not a 64-bit ELF file"
    start, size, count = (
        struct.unpack_from("<Q", elf, 32)[0],
        *struct.unpack_from("<HH", elf, 54),
    )
    headers = [struct.unpack_from("<IIQQQQQQ", elf, start + size * i) for i in range(count)]
    return tuple(header[7] for header in headers if header[0] == PT_LOAD)
