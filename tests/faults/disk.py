"""Disks that are full: small file systems in memory, where mounting is allowed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_mrl.wire.frames import Item
from tests.support.serving import Caller, item

__all__ = ["Disk", "NotAllowedError", "fill", "run_device", "small_disk"]

MIB = 1 << 20
#: Dimensions of the vectors that fill it.
DIM = 384


class NotAllowedError(Exception):
    """Mounting is not allowed here."""


class Disk:
    """A small disk, part of which can be given back: as when somebody deletes what is not needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @property
    def free_bytes(self) -> int:
        """What is free."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def leave(self, free_bytes: int) -> None:
        """Fill it but for so much."""
        with self._ballast.open("ab") as file:
            file.write(bytes(max(self.free_bytes - free_bytes, 0)))

    def make_room(self) -> None:
        """Give back what was filled."""
        self._ballast.unlink()


@contextmanager
def small_disk(size_bytes: int) -> Iterator[Disk]:
    """A file system of its own.

    Raises:
        NotAllowedError: It cannot be mounted.
    """
    folder = Path(tempfile.mkdtemp(prefix="emrl-disk-"))
    folder.chmod(0o711)
    options = f"size={size_bytes},mode=0711"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        if done.returncode:
            raise NotAllowedError(f"a small disk cannot be mounted: {done.stderr.strip()}")
        try:
            yield Disk(folder)
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    except FileNotFoundError as error:
        raise NotAllowedError("there is no program mount") from error
    finally:
        folder.rmdir()


def fill(caller: Caller, *, most: int = 2_000) -> tuple[dict[str, Item], list[Item], Any]:
    """Push until the server refuses: what was acknowledged, the batch that was not, and the answer."""
    acknowledged: dict[str, Item] = {}
    for number in range(most):
        batch = [item(f"{number}/{n}", seed=number * 64 + n, dim=DIM) for n in range(64)]
        reply = caller.push(*batch, dim=DIM)
        if reply.status != 200:
            return acknowledged, batch, reply
        assert {result["status"] for result in reply.json["results"]} == {"applied"}
        acknowledged |= {one.id: one for one in batch}
    raise AssertionError(f"{most} pushes did not fill the disk")


#: A device whose store cannot grow: files beyond a limit, as quotas are, or a disk that is full.
DEVICE = """
import json, resource, signal, sys
from edge_mrl import Document, Index, SyncClient
from edge_mrl.errors import StoreError
from edge_mrl.sync import enroll
from tests.faults.device import PASSAGE
store, bundle, url, invitation, limit = sys.argv[1:5] + [int(sys.argv[5])]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
said = {"acknowledged": [], "errors": []}
with Index.open(store, bundle, threads=1, **PASSAGE) as index:
    enroll(index.store, url, invitation, with_text=True)
    with SyncClient.open(index) as client:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for number in range(5000):
            names = [f"{number}/{n}" for n in range(8)]
            try:
                index.put([Document(name, f"{name} " + "words " * 40) for name in names])
                said["acknowledged"] += names
                if number % 10 == 9:
                    client.sync_once()
            except StoreError as error:
                said["errors"].append(str(error))
                break
        for _ in range(3):  # what it says does not change what it has
            try:
                client.sync_once()
            except StoreError as error:
                said["errors"].append(str(error))
        print(json.dumps(said), flush=True)
        sys.stdin.readline()  # space is back
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        index.put([Document("more", "after")])
        outcome = client.sync_once()
        print(json.dumps({"waiting": outcome.waiting, "queue": client.status().queue.items}))
"""


@contextmanager
def run_device(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The device above: store, bundle, server, invitation, and bytes that its files may have (0: any)."""
    process = subprocess.Popen(
        [sys.executable, "-c", DEVICE, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
