"""Checks of the machine: CPU, load, interpreter, memory and disks."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_mrl.bundle import WEIGHTS, Manifest
from edge_mrl.diagnose.findings import Finding
from edge_mrl.errors import reason
from edge_mrl.machine import (
    Cpu,
    FileSystem,
    Memory,
    advice_about,
    facts,
    obstacle_to_writing,
)

__all__ = [
    "check_board",
    "check_cpu",
    "check_disk",
    "check_file_system",
    "check_load",
    "check_memory",
    "check_python",
]

#: Network file systems. SQLite's log needs memory that all processes share, so that a store there works
#: for the processes of one machine only (sqlite.org/wal.html, "Overview").
NETWORK = (
    "9p",
    "afs",
    "ceph",
    "cifs",
    "davfs",
    "fuse.sshfs",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
)
#: File systems in memory, whose files are lost when the power goes.
VOLATILE = ("ramfs", "tmpfs")
#: With less free space than the first, a store soon cannot be written to. With less than the second,
#: space is getting scarce.
LEAST_FREE_BYTES, FEW_FREE_BYTES = 20_000_000, 200_000_000
#: Memory that should stay free beside the bundle, as a share of what the bundle takes.
SPARE = 0.5
#: Code files map segments that start at multiples of this.
LARGEST_PAGE_BYTES = 65_536


def check_board() -> Iterator[Finding]:
    """The board's name, if the firmware gives one."""
    board = facts.board()
    if board is not None:
        yield Finding("board", "good", board)


def check_cpu(cpu: Cpu, manifest: Manifest | None = None) -> Iterator[Finding]:
    """How the CPU computes 8-bit products.

    Args:
        cpu: The processor.
        manifest: The bundle that will run, whose weights decide what matters; None for an int8 one.
    """
    name = cpu.name or "of unknown name"
    weights = "int8" if manifest is None else manifest.precision.weights
    products = manifest is None or manifest.precision.integer_products > 0
    if cpu.features is None:
        yield Finding("CPU", "unknown", f"{name}; its instructions are unknown")
        return
    flags = ", ".join(cpu.features) or "no vector instructions that matter"
    text = f"{name}: {flags}"
    if not products:
        yield Finding("CPU", "good", f"{text}; the bundle has no 8-bit products")
    elif cpu.kind == "arm" and "asimddp" not in cpu.features:
        yield Finding(
            "CPU",
            "note",
            f"{text}; no dot-product instructions (asimddp): 8-bit products need about twice the work",
            "expect half the speed of a core with them; the results are the same",
        )
    elif cpu.kind == "arm" and weights == "uint8":
        yield Finding(
            "CPU",
            "warning",
            f"{text}; the bundle's weights are made for x86 CPUs, and slow on this one",
            "use a bundle exported with --target arm64, the default",
        )
    elif facts.saturates(cpu) and weights == "int8":
        yield Finding(
            "CPU",
            "warning",
            f"{text}; no VNNI: 8-bit products saturate (cosine to fp32 about 0.994, not 0.999)",
            "if that matters to you, use a bundle exported with --target x86-64",
        )
    else:
        yield Finding("CPU", "good", text)


def check_load() -> Iterator[Finding]:
    """Whether other programs keep the machine busy."""
    load, cores = facts.load(), facts.cores()
    shown = "an unknown number of cores" if cores is None else f"{cores} cores"
    if load is None:
        yield Finding("load", "unknown", f"unknown; {shown}")
    elif facts.busy(load, cores):
        text = f"{load:.1f} on {shown}: other programs are running"
        yield Finding("load", "note", text, "the times below are longer than on an idle machine")
    else:
        yield Finding("load", "good", f"{load:.1f} on {shown}")


def check_python(bits: int, page_bytes: int | None) -> Iterator[Finding]:
    """The interpreter's width in bits, and the size of the pages in which files are mapped."""
    text = f"{sys.version.split()[0]}, {bits} bits"
    if bits < 64:
        yield Finding(
            "Python",
            "problem",
            f"{text}: onnxruntime is not published for 32-bit systems",
            "install the 64-bit system (on a Raspberry Pi 3 or later: Raspberry Pi OS 64-bit)",
        )
    else:
        yield Finding("Python", "good", text)
    if page_bytes is None:
        yield Finding("page size", "unknown", "unknown on this system")
    elif page_bytes > LARGEST_PAGE_BYTES:
        yield Finding(
            "page size",
            "problem",
            f"{page_bytes // 1024} KiB: code files work with pages of up to 64 KiB",
            "use a kernel with smaller pages",
        )
    else:
        yield Finding("page size", "good", f"{page_bytes // 1024} KiB")


def check_memory(memory: Memory, need_bytes: int | None) -> Iterator[Finding]:
    """Whether there is enough memory.

    Args:
        memory: The machine's memory.
        need_bytes: Memory that embedding took here, in bytes; None if it was not measured.
    """
    if memory.total_bytes is None:
        yield Finding("memory", "unknown", "unknown on this system")
        return
    text = f"{_size(memory.total_bytes)} in total"
    if memory.limit_bytes is not None:
        text = f"{text}, this process limited to {_size(memory.limit_bytes)}"
    if memory.available_bytes is None:
        yield Finding("memory", "unknown", f"{text}; how much is free is unknown")
        return
    text = f"{text}, {_size(memory.available_bytes)} available"
    if need_bytes is None:
        yield Finding("memory", "good", text)
        return
    text = f"{text}; embedding took {_size(need_bytes)}"
    if memory.available_bytes < need_bytes:
        advice = "close other programs, or use --low-memory"
        yield Finding("memory", "problem", text, advice)
    elif memory.available_bytes < (1 + SPARE) * need_bytes:
        advice = "memory is tight: use --low-memory, or close other programs"
        yield Finding("memory", "warning", text, advice)
    else:
        yield Finding("memory", "good", text)


def check_disk(name: str, path: Path) -> Iterator[Finding]:
    """The disk that a bundle, a store or a folder is on.

    Args:
        name: What the path is: "bundle", "store" or "folder". A bundle is only read.
        path: Its path.
    """
    try:
        place = facts.file_system(path)
    except OSError as error:
        yield Finding(
            f"{name}'s disk", "unknown", f"the file system does not answer: {reason(error)}"
        )
        return
    written = name != "bundle"
    folder = path if path.is_dir() else path.absolute().parent
    obstacle = obstacle_to_writing(folder) if written and not place.read_only else None
    if obstacle is None:
        yield from check_file_system(f"{name}'s disk", place, written=written)
    else:
        text = f"{place.kind or 'of unknown kind'}, {_size(place.free_bytes)} free; {obstacle}"
        advice = f"{advice_about(obstacle) or 'make the folder writable'}; what is stored can be searched"
        yield Finding(f"{name}'s disk", "problem", text, advice)
    file = path / WEIGHTS if name == "bundle" else path
    if file.is_file():
        yield from _check_mapping(f"{name}'s disk", file)


def check_file_system(subject: str, place: FileSystem, *, written: bool) -> Iterator[Finding]:
    """The kind of a file system, and its free space.

    Args:
        subject: The name of the disk in the findings.
        place: The file system.
        written: Whether a store is written there.
    """
    kind = place.kind or "of unknown kind"
    text = f"{kind}, {_size(place.free_bytes)} free"
    if not written:
        yield Finding(subject, "good" if place.kind else "unknown", text)
        return
    if place.read_only:
        text, advice = f"{text}, read-only", "a store there can be searched, but not changed"
        yield Finding(subject, "note", text, advice)
    elif place.free_bytes < LEAST_FREE_BYTES:
        yield Finding(
            subject, "problem", text, "free some space: indexing stops when the disk is full"
        )
    elif place.free_bytes < FEW_FREE_BYTES:
        yield Finding(subject, "warning", text, "free some space before indexing much")
    elif place.kind in NETWORK:
        advice = "use the store on one machine only, or keep it on a local disk"
        yield Finding(subject, "warning", f"{text}: a network file system", advice)
    elif place.kind in VOLATILE:
        advice = "keep the store on a disk: this file system is in memory, and lost without power"
        yield Finding(subject, "warning", text, advice)
    else:
        yield Finding(subject, "good" if place.kind else "unknown", text)


def _check_mapping(subject: str, file: Path) -> Iterator[Finding]:
    """Whether files there can be mapped into memory, as weights and codes are."""
    try:
        with file.open("rb") as opened:
            if not os.fstat(opened.fileno()).st_size:
                return
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                mapped[-1]
    except PermissionError as error:
        yield Finding(subject, "unknown", f"{file.name} cannot be read: {reason(error)}")
    except (OSError, ValueError) as error:
        text = f"files cannot be mapped into memory there: {reason(error)}"
        yield Finding(subject, "problem", text, "keep it on a local disk")
    else:
        yield Finding(subject, "good", f"{file.name} can be mapped into memory")


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
