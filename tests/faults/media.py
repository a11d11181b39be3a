"""Media that fail under a store: calls that end with an error, and power that is cut.

    python -m tests.faults.media errors STEP SEED      each STEP-th call fails, on one store after another
    python -m tests.faults.media record FOLDER LOG     make and use a store, and record all of its calls

Both run with ``disk_shim.c`` between this process and its files. ``replay`` then makes the files as they
may be after a power cut: what was not synced is dropped, torn at 512 bytes, or there.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_mrl.errors import EdgeMrlError, StoreError
from edge_mrl.store import Entry, check
from tests.support.stores import entry, open_store

__all__ = ["Call", "build", "calls_of", "has_compiler", "replay", "run", "verdict"]

SOURCE = Path(__file__).with_name("disk_shim.c")
SECTOR = 512
_RECORD = struct.Struct("<cIIq")
ERRORS = (errno.EIO, errno.ENOSPC)


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was recorded: W(rite), S(ync), T(runcate), C(reate), U(nlink), R(ename), M(ark)."""

    kind: str
    path: str
    data: bytes
    offset: int


def has_compiler() -> bool:
    """Whether the shim can be built here."""
    return sys.platform == "linux" and shutil.which("gcc") is not None


def build(folder: Path) -> Path:
    """Compile the shim."""
    library = folder / "disk_shim.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


def run(library: Path, *arguments: object) -> str:
    """Run this module in a process of its own, behind the shim; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.media", *map(str, arguments)],
        env={**os.environ, "LD_PRELOAD": str(library)},
        check=True,
        capture_output=True,
        text=True,
        timeout=1_200,
    )
    return done.stdout


class Shim:
    """The library that is between this process and its files."""

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.CDLL(None)
        self._library.shim_calls.restype = ctypes.c_long
        self._library.shim_fail.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_int]
        self._library.shim_watch(str(folder).encode())

    def fail(self, number: int, times: int = 1, error: int = errno.EIO) -> None:
        """Let some calls fail from the one of this number on; none for 0."""
        self._library.shim_fail(number, times, error)

    def calls(self) -> int:
        """Calls since ``fail``."""
        return int(self._library.shim_calls())

    def record(self, fd: int) -> None:
        """Record all calls from now on."""
        self._library.shim_record(fd)

    def mark(self, text: str) -> None:
        """Put a mark between the calls."""
        self._library.shim_mark(text.encode())


def _work() -> Iterator[tuple[str, list[Entry] | list[str]]]:
    """What is done to a store: documents that are put together, or deleted."""
    for number in range(6):
        yield "put", [entry(f"d{number}", f"text {number} " * 40, 2, fill=number + 1)]
    yield "put", [entry("d1", "another text"), entry("e", "more " * 3_000, 3)]
    yield "delete", ["d2", "d3"]
    yield "put", [entry("d2", "again")]


def _use(path: Path, done: list[str], shim: Shim | None = None) -> None:
    """Do all of it; what was acknowledged is noted in ``done``, and marked."""
    store = open_store(path)
    try:
        for verb, what in _work():
            names = [one.document.id if isinstance(one, Entry) else one for one in what]
            if shim is not None:
                shim.mark(f"try {verb} {' '.join(names)}")
            if verb == "put":
                store.put([one for one in what if isinstance(one, Entry)])
            else:
                store.delete(names)
            done.append(verb)
            if shim is not None:
                shim.mark(f"done {verb} {' '.join(names)}")
    finally:
        store.close()


def expected(steps: int) -> dict[str, str]:
    """Texts by id after the first steps."""
    texts: dict[str, str] = {}
    for verb, what in list(_work())[:steps]:
        for one in what:
            if isinstance(one, Entry):
                texts[one.document.id] = one.document.text
            elif verb == "delete":
                texts.pop(one, None)
    return texts


def verdict(path: Path, acknowledged: int, begun: int) -> str | None:
    """What is wrong with a store after something failed; None if nothing is.

    Args:
        path: The store.
        acknowledged: Steps that were acknowledged.
        begun: Steps that were begun; one more than that, or equal.
    """
    if not path.exists() and not acknowledged:
        return None
    try:
        with open_store(path) as store:
            ids = [f"d{number}" for number in range(6)] + ["e", "ghost"]
            texts = {name: one.text for name, one in store.get(ids).items()}
            count = store.count().documents
            health = check(store)
            store.put([entry("after")])
    except EdgeMrlError as error:
        return f"{type(error).__name__}: {error}"
    allowed = [expected(steps) for steps in range(acknowledged, begun + 1)]
    if texts not in allowed or count != len(texts):
        return f"{acknowledged} steps of {begun} were acknowledged, {sorted(texts)} are there"
    return None if health.sound else f"not sound: {health.problems}"


def errors(step: int, seed: int) -> dict[str, int]:
    """Let one call after another fail, in a new store each time.

    Returns:
        How many calls there are, how many were let fail, and how many of these were noticed.

    Raises:
        AssertionError: Something else than a StoreError was raised, or something was lost.
    """
    folder = Path(tempfile.mkdtemp(prefix="media-"))
    shim = Shim(folder)
    try:
        done: list[str] = []
        shim.fail(0)
        _use(folder / "whole.db", done)
        total, rng, noticed, tried = shim.calls(), random.Random(seed), 0, 0
        for number in range(1 + rng.randrange(step), total + 1, step):
            path = folder / str(number) / "s.db"
            path.parent.mkdir()
            done = []
            shim.fail(number, rng.choice((1, 1, 4, 1_000_000)), rng.choice(ERRORS))
            try:
                _use(path, done)
            except StoreError:
                noticed += 1
            finally:
                shim.fail(0)
            problem = verdict(path, len(done), min(len(done) + 1, len(list(_work()))))
            assert problem is None, f"call {number}: {problem}"
            tried += 1
            shutil.rmtree(path.parent)
        return {"calls": total, "failed": tried, "noticed": noticed}
    finally:
        shutil.rmtree(folder)


def record(folder: Path, log: Path) -> None:
    """Make a store in a folder and use it, and record each call in a file outside of it."""
    shim = Shim(folder)
    with log.open("wb") as file:
        shim.record(file.fileno())
        _use(folder / "s.db", [], shim)
        shim.record(-1)


def calls_of(log: Path) -> list[Call]:
    """The calls of a log."""
    data, at, found = log.read_bytes(), 0, []
    while at < len(data):
        kind, length, size, offset = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        path, rest = data[at : at + length].decode(), data[at + length : at + length + size]
        at += length + size
        found.append(Call(kind.decode(), path, rest, offset))
    return found


class _File:
    """A file on a medium: what is on it for sure, and what may be."""

    def __init__(self) -> None:
        self.durable = bytearray()
        self.waiting: list[Call] = []

    def sync(self) -> None:
        for call in self.waiting:
            _apply(self.durable, call)
        self.waiting = []

    def settle(self, rng: random.Random) -> bytes:
        """The bytes after a power cut: each sector of what waits is there or not."""
        keep = rng.choice((0.0, 0.5, 0.5, 1.0))
        for call in self.waiting:
            if call.kind == "T":
                if rng.random() < keep:
                    _apply(self.durable, call)
                continue
            for start in range(0, len(call.data), SECTOR):
                if rng.random() < keep:
                    some = call.data[start : start + SECTOR]
                    _apply(self.durable, Call("W", call.path, some, call.offset + start))
        return bytes(self.durable)


def _apply(data: bytearray, call: Call) -> None:
    if call.kind == "T":
        del data[call.offset :]
        data.extend(bytes(call.offset - len(data)))
        return
    end = call.offset + len(call.data)
    data.extend(bytes(max(end - len(data), 0)))
    data[call.offset : end] = call.data


def replay(
    calls: Sequence[Call], cut: int, seed: int, folder: Path, *, honest: bool = True
) -> tuple[int, int]:
    """Make the files as they may be where power was cut after some calls.

    Args:
        calls: What was recorded.
        cut: How many of the calls were made.
        seed: Decides what of the unsynced bytes is there.
        folder: An empty folder.
        honest: Whether the medium does what a sync asks for.

    Returns:
        How many steps were acknowledged and begun by then.
    """
    rng = random.Random(seed)
    files: dict[str, _File] = {}
    acknowledged = begun = 0
    for call in calls[:cut]:
        if call.kind == "M":
            begun += call.data.startswith(b"try")
            acknowledged += call.data.startswith(b"done")
        elif call.kind == "S":
            if honest and call.path in files:
                files[call.path].sync()
        elif call.kind == "U":
            files.pop(call.path, None)
        elif call.kind == "R":
            files[call.data.decode()] = files.pop(call.path, _File())
        else:
            file = files.setdefault(call.path, _File())
            if call.kind in "WT":
                file.waiting.append(call)
    for name, file in files.items():
        (folder / Path(name).name).write_bytes(file.settle(rng))
    return acknowledged, begun


def main(arguments: Sequence[str]) -> None:
    if arguments[0] == "errors":
        print(json.dumps(errors(int(arguments[1]), int(arguments[2]))))
    else:
        record(Path(arguments[1]), Path(arguments[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
