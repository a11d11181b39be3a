"""Where a SQLite file's bytes stand that have a meaning of their own, and commands on a damaged store."""

from __future__ import annotations

import io
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from edge_mrl.cli import main

__all__ = ["HEADER", "Said", "Spot", "command", "damaged_copy", "spots"]

PAGE = 4096
#: Fields of a database's header: first byte, length.
HEADER = {
    "magic": (0, 16),
    "page size": (16, 2),
    "write version": (18, 1),
    "read version": (19, 1),
    "reserved space": (20, 1),
    "payload fractions": (21, 3),
    "change counter": (24, 4),
    "pages": (28, 4),
    "first free page": (32, 4),
    "free pages": (36, 4),
    "schema cookie": (40, 4),
    "schema format": (44, 4),
    "cache size": (48, 4),
    "largest root": (52, 4),
    "encoding": (56, 4),
    "user version": (60, 4),
    "incremental vacuum": (64, 4),
    "application id": (68, 4),
    "reserved": (72, 20),
    "version valid for": (92, 4),
    "SQLite's version": (96, 4),
}
INTERIOR, LEAF = {2, 5}, {10, 13}


@dataclass(frozen=True, slots=True)
class Spot:
    """Bytes of one meaning: ``name``, and where they begin in the file."""

    name: str
    at: int
    length: int


@dataclass(frozen=True, slots=True)
class Said:
    """What a command did: its exit code, and what it wrote."""

    code: int | None
    out: str
    err: str


def spots(path: Path) -> Iterator[Spot]:
    """Of the header, of pages of each tree, of roots in the schema, and of the free list."""
    data = path.read_bytes()
    for name, (at, length) in HEADER.items():
        yield Spot(f"header: {name}", at, length)
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        trees = connection.execute(
            "SELECT name, rootpage FROM sqlite_master WHERE rootpage > 0"
        ).fetchall()
        free = int.from_bytes(data[32:36], "big")
    for name, root in [("sqlite_master", 1), *trees]:
        yield from _tree(data, name, root)
    if free:
        yield Spot("free list: next trunk", (free - 1) * PAGE, 4)
        yield Spot("free list: leaves", (free - 1) * PAGE + 4, 4)
        yield Spot("free list: leaf", (free - 1) * PAGE + 8, 4)
    yield from _roots(data, dict(trees))


def _tree(data: bytes, name: str, page: int) -> Iterator[Spot]:
    """The parts of a tree's root and of its leftmost page."""
    yield from _page(data, f"{name}, page {page}", page)
    start = (page - 1) * PAGE + (100 if page == 1 else 0)
    if data[start] in INTERIOR:
        cell = int.from_bytes(data[start + 12 : start + 14], "big")
        first = (page - 1) * PAGE + cell
        yield from _tree(data, name, int.from_bytes(data[first : first + 4], "big"))


def _page(data: bytes, name: str, page: int) -> Iterator[Spot]:
    base = (page - 1) * PAGE
    start = base + (100 if page == 1 else 0)
    inner = data[start] in INTERIOR
    parts = [("kind", 0, 1), ("first free block", 1, 2), ("cells", 3, 2), ("content", 5, 2)]
    parts += [("fragments", 7, 1)] + ([("right child", 8, 4)] if inner else [])
    for part, at, length in parts:
        yield Spot(f"{name}: {part}", start + at, length)
    if not int.from_bytes(data[start + 3 : start + 5], "big"):
        return
    pointers = start + (12 if inner else 8)
    yield Spot(f"{name}: pointer to a cell", pointers, 2)
    cell = base + int.from_bytes(data[pointers : pointers + 2], "big")
    yield Spot(
        f"{name}: cell, left child" if inner else f"{name}: cell, size", cell, 4 if inner else 1
    )
    yield Spot(f"{name}: cell, after that", cell + (4 if inner else 1), 1)
    yield Spot(f"{name}: cell, head", cell + (5 if inner else 2), 3)
    yield Spot(f"{name}: cell, body", cell + 12, 4)


def _roots(data: bytes, trees: dict[str, int]) -> Iterator[Spot]:
    """The numbers of root pages, in the rows of the schema."""
    for name, root in trees.items():
        size = 1 if root < 0x80 else 2
        mark = name.encode() + root.to_bytes(size, "big") + b"CREATE"
        at = data.find(mark)
        if at >= 0:
            yield Spot(f"root of {name}", at + len(name.encode()), size)


def damaged_copy(whole: Path, path: Path, at: int, byte: int) -> bool:
    """A copy with one byte changed; False if it has that value already."""
    data = bytearray(whole.read_bytes())
    if data[at] == byte:
        return False
    data[at] = byte
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    path.write_bytes(data)
    path.chmod(0o600)
    codes = whole.with_name(f"{whole.name}-codes")
    if codes.exists():
        shutil.copy(codes, path.with_name(f"{path.name}-codes"))
    return True


def command(*arguments: object) -> Said:
    """Run a command in this process; the code is None if it ended with another exception."""
    out, err = io.StringIO(), io.StringIO()
    code: int | None = None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(one) for one in arguments])
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            err.write(f"{type(error).__name__}: {error}")
    return Said(code, out.getvalue(), err.getvalue())
