"""Copies of Android's libraries that glibc's linker loads: no versions, own names for some calls."""

from __future__ import annotations

import struct
from pathlib import Path

__all__ = ["RENAMED", "undefined", "with_own_names"]

#: Calls that glibc has too, but with other sizes or numbers. The new name is as long as the old one.
RENAMED = (
    *("fflush", "fwrite", "strerror_r", "sigfillset", "sysconf", "pthread_sigmask"),
    *("pthread_create", "pthread_attr_init", "pthread_attr_setstacksize"),
)
#: Entries of the dynamic section that tell of versions: VERSYM, VERDEF, VERDEFNUM, VERNEED, VERNEEDNUM.
VERSIONS = (0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF)
#: One that no linker knows.
IGNORED = 0x6000_0001
NULL, STRTAB, SYMTAB, STRSZ = 0, 5, 6, 10
DYNAMIC, LOAD = 2, 1
SYMBOL = struct.Struct("<IBBHQQ")


class _Library:
    """The dynamic symbols of a 64-bit ELF file, little-endian."""

    def __init__(self, path: Path) -> None:
        self.data = bytearray(path.read_bytes())
        assert self.data[:6] == b"\x7fELF\x02\x01", path
        start, size, count = (
            struct.unpack_from(f, self.data, at)[0]
            for f, at in (("<Q", 32), ("<H", 54), ("<H", 56))
        )
        headers = [
            struct.unpack_from("<IIQQQQQQ", self.data, start + i * size) for i in range(count)
        ]
        self.loads = [(h[3], h[2], h[5]) for h in headers if h[0] == LOAD]
        ((self.dynamic, self.dynamic_size),) = ((h[2], h[5]) for h in headers if h[0] == DYNAMIC)
        entries = dict(struct.unpack_from("<QQ", self.data, at) for at in self.entries())
        self.strings, self.symbols = self.offset(entries[STRTAB]), self.offset(entries[SYMTAB])
        self.after = self.strings + entries[STRSZ]

    def entries(self) -> range:
        """Where the entries of the dynamic section are."""
        return range(self.dynamic, self.dynamic + self.dynamic_size, 16)

    def offset(self, address: int) -> int:
        """The place in the file of an address."""
        return next(
            file + address - first
            for first, file, size in self.loads
            if first <= address < first + size
        )

    def names(self) -> list[tuple[int, str, bool]]:
        """The symbols: where the name begins, the name, and whether it is defined here."""
        found, at = [], self.symbols + SYMBOL.size
        # The table of names follows that of symbols, or the tables of versions and hashes do.
        while at + SYMBOL.size <= len(self.data):
            name, _, _, section, _, _ = SYMBOL.unpack_from(self.data, at)
            place = self.strings + name
            if not name or place >= self.after:
                break
            found.append(
                (place, self.data[place : self.data.index(0, place)].decode("ascii"), section != 0)
            )
            at += SYMBOL.size
        return found


def undefined(path: Path) -> set[str]:
    """Names that a library takes from others."""
    return {name for _, name, own in _Library(path).names() if not own}


def with_own_names(source: Path, target: Path) -> list[str]:
    """Write the copy; returns the calls that were renamed.

    Raises:
        ValueError: Another symbol shares the letters of such a name.
    """
    library = _Library(source)
    for at in library.entries():
        tag = struct.unpack_from("<Q", library.data, at)[0]
        if tag == NULL:
            break
        if tag in VERSIONS:
            struct.pack_into("<Q", library.data, at, IGNORED)
    before = library.names()
    renamed = [(place, name) for place, name, own in before if name in RENAMED and not own]
    for place, _ in renamed:
        library.data[place : place + 2] = b"zz"
    kept = {name for _, name, _ in before} - {name for _, name in renamed}
    if not kept <= {name for _, name, _ in library.names()}:
        raise ValueError(
            f"{source.name}: a symbol shares the letters of another one that is renamed"
        )
    target.write_bytes(library.data)
    return [name for _, name in renamed]
