"""Checksums as versions before 0009 made them, of what Python's ``repr`` writes.

``repr`` escapes characters that its version of Unicode does not have, so the same text had several
checksums. A row is sound if it has any of them.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence

__all__ = ["Value", "checksum", "matches", "passage_check"]

#: What SQLite gives back.
Value = bytes | str | float | None

#: Printable characters that Unicode 15.0, 15.1 and 16.0 added to those of 14.0: the versions of Python
#: 3.12, 3.13 and 3.14 after that of 3.11. From the Unicode Character Database; none was taken away.
_ADDED = (
    (
        "CF3 ECE 10EFD-10EFF 1123F-11241 11B00-11B09 11F00-11F10 11F12-11F3A 11F3E-11F59 1342F "
        "13440-13455 1B132 1B155 1D2C0-1D2D3 1DF25-1DF2A 1E030-1E06D 1E08F 1E4D0-1E4F9 1F6DC 1F774-1F776 "
        "1F77B-1F77F 1F7D9 1FA75-1FA77 1FA87-1FA88 1FAAD-1FAAF 1FABB-1FABD 1FABF 1FACE-1FACF "
        "1FADA-1FADB 1FAE8 1FAF7-1FAF8 2B739 31350-323AF"
    ),
    "2FFC-2FFF 31EF 2EBF0-2EE5D",
    (
        "897 1B4E-1B4F 1B7F 1C89-1C8A 2427-2429 31E4-31E5 A7CB-A7CD A7DA-A7DC 105C0-105F3 10D40-10D65 "
        "10D69-10D85 10D8E-10D8F 10EC2-10EC4 10EFC 11380-11389 1138B 1138E 11390-113B5 113B7-113C0 113C2 "
        "113C5 113C7-113CA 113CC-113D5 113D7-113D8 113E1-113E2 116D0-116E3 11BC0-11BE1 11BF0-11BF9 11F5A "
        "13460-143FA 16100-16139 16D40-16D79 18CFF 1CC00-1CCF9 1CD00-1CEB3 1E5D0-1E5FA 1E5FF 1F8B2-1F8BB "
        "1F8C0-1F8C1 1FA89 1FA8F 1FABE 1FAC6 1FADC 1FADF 1FAE9 1FBCB-1FBEF"
    ),
)


def _one_of(ranges: str) -> re.Pattern[str]:
    parts = []
    for part in ranges.split():
        first, _, last = part.partition("-")
        parts.append(f"{chr(int(first, 16))}-{chr(int(last or first, 16))}")
    return re.compile(f"[{''.join(parts)}]")


_LATER = tuple(_one_of(ranges) for ranges in _ADDED)
_ANY_LATER = _one_of(" ".join(_ADDED))


def checksum(*parts: Value) -> int:
    """The checksum of a row as this version of Python would have made it."""
    return _checksum([_plain(part) for part in parts])


def matches(parts: Sequence[Value], crc: object) -> bool:
    """Whether a row has the checksum that any version of Python would have given it."""
    if checksum(*parts) == crc:
        return True
    if not any(isinstance(part, str) and _ANY_LATER.search(part) for part in parts):
        return False
    return any(
        _checksum([_rendered(part, known) for part in parts]) == crc
        for known in range(len(_LATER) + 1)
    )


def passage_check(key: int, spans: bytes, codes: bytes) -> int:
    """The checksum of a row of ``passages``, and still that of ``reindexed``."""
    return zlib.crc32(spans, zlib.crc32(codes, key))


def _checksum(parts: Sequence[bytes]) -> int:
    crc = 0
    for data in parts:
        crc = zlib.crc32(data, zlib.crc32(struct.pack("<Q", len(data)), crc))
    return crc


def _plain(part: Value) -> bytes:
    return part if isinstance(part, bytes) else repr(part).encode("utf-8", "backslashreplace")


def _rendered(part: Value, known: int) -> bytes:
    """A value as a Python wrote it whose Unicode has the first ``known`` of the additions."""
    if not isinstance(part, str) or not _ANY_LATER.search(part):
        return _plain(part)
    # Each is replaced by a letter, so that the quotes and other escapes stay as they are.
    found = _ANY_LATER.findall(part)
    pieces = re.split("\ue000", repr(_ANY_LATER.sub("\ue000", part)).replace("\\ue000", "\ue000"))
    return "".join(
        piece + (_character(found[place], known) if place < len(found) else "")
        for place, piece in enumerate(pieces)
    ).encode("utf-8", "backslashreplace")


def _character(character: str, known: int) -> str:
    if any(later.match(character) for later in _LATER[:known]):
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"
