"""Facts about this machine: CPU, memory, file systems, installed versions; None where unknown."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "PACKAGES",
    "Cpu",
    "FileSystem",
    "Memory",
    "Requirement",
    "board",
    "busy",
    "cores",
    "cpu",
    "describe",
    "file_system",
    "load",
    "memory",
    "page_bytes",
    "parse_cpuinfo",
    "parse_requirement",
    "pointer_bits",
    "requirements",
    "saturates",
    "versions",
]

#: Packages that the vectors and their speed depend on.
PACKAGES = ("numpy", "onnxruntime", "tokenizers")
#: A load of this share of the cores or more distorts measurements: one busy core out of four.
BUSY_SHARE = 0.25
#: Flags that decide how 8-bit products run, by the kernel's names (arch/arm64/include/uapi/asm/hwcap.h
#: and arch/x86/include/asm/cpufeatures.h). asimddp is what ARM calls FEAT_DotProd.
ARM_FEATURES = ("asimd", "asimddp", "i8mm", "sve", "sve2", "sme")
X86_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
#: Part numbers of ARM's own cores, from their technical reference manuals (MIDR_EL1, bits 4 to 15).
ARM_PARTS = {
    0xC07: "Cortex-A7",
    0xC08: "Cortex-A8",
    0xC09: "Cortex-A9",
    0xC0F: "Cortex-A15",
    0xB76: "ARM1176",
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD49: "Neoverse-N2",
    0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3",
    0xD4F: "Neoverse-V2",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
}
ARM_LIMITED = 0x41  # the implementer code of ARM itself
_X86 = frozenset({"x86_64", "AMD64", "i386", "i686", "x86"})
_ARM = re.compile(r"arm|aarch64", re.IGNORECASE)
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor.

    Attributes:
        name: Its model name, or the names of its cores; None if unknown.
        kind: "arm", "x86" or "other".
        features: Those of ARM_FEATURES or X86_FEATURES that every core has; None if unknown.
    """

    name: str | None
    kind: str
    features: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory in bytes; None where unknown.

    Attributes:
        total_bytes: Memory of the machine.
        available_bytes: Memory that a new process can get without swapping, by the kernel's estimate.
        limit_bytes: The lowest limit of this process or its control group; None if there is no limit.
    """

    total_bytes: int | None
    available_bytes: int | None
    limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class FileSystem:
    """The file system that a file is on.

    Attributes:
        kind: Its type as the kernel names it ("ext4"); None if unknown.
        free_bytes: Free space for this user, in bytes.
        read_only: Whether it is mounted read-only.
    """

    kind: str | None
    free_bytes: int
    read_only: bool


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package that edge-mrl needs.

    Attributes:
        name: The package.
        minimum: The lowest version that works; None if the declaration names no version.
        installed: The installed version; None if the package is not installed.
    """

    name: str
    minimum: str | None
    installed: str | None

    @property
    def met(self) -> bool:
        """Whether a version that works is installed."""
        if self.installed is None:
            return False
        return self.minimum is None or _version(self.installed) >= _version(self.minimum)


def cpu() -> Cpu:
    """This machine's processor."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        text = ""
    return parse_cpuinfo(text, platform.machine())


def parse_cpuinfo(text: str, architecture: str) -> Cpu:
    """Read the processor from the text of Linux's /proc/cpuinfo.

    Args:
        text: The text of the file; empty on systems without one.
        architecture: The machine's architecture, as ``platform.machine`` names it.
    """
    processors = [block for block in map(_fields, re.split(r"\n\s*\n", text)) if block]
    if architecture in _X86:
        names = [block["model name"] for block in processors if "model name" in block]
        features = _common((block.get("flags") for block in processors), X86_FEATURES)
        return Cpu(names[0] if names else None, "x86", features)
    if _ARM.match(architecture):
        features = _common((block.get("Features") for block in processors), ARM_FEATURES)
        return Cpu(_arm_cores(processors), "arm", features)
    return Cpu(platform.processor() or None, "other", None)


def saturates(processor: Cpu) -> bool:
    """Whether 8-bit products saturate: x86 CPUs without VNNI add pairs of them in 16 bits."""
    if processor.kind != "x86" or processor.features is None:
        return False
    return not {"avx512_vnni", "avx_vnni"} & set(processor.features)


def board() -> str | None:
    """The board's name ("Raspberry Pi 5 Model B Rev 1.0"); None if the firmware gives none."""
    try:
        name = Path("/proc/device-tree/model").read_text("utf-8", errors="replace")
    except OSError:
        return None
    return name.strip("\0\n ") or None


def cores() -> int | None:
    """Number of cores that this process may use; None if unknown."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def load() -> float | None:
    """Average number of processes that ran or waited to run over the last minute; None if unknown."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows; a system without /proc
        return None


def busy(load_: float | None, cores_: int | None) -> bool:
    """Whether a load is high enough to distort measurements; False if the load is unknown."""
    return load_ is not None and load_ >= BUSY_SHARE * (cores_ or 1)


def memory() -> Memory:
    """This machine's memory, and the limit of this process."""
    sizes = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text("ascii", errors="replace").splitlines():
            name, _, rest = line.partition(":")
            number = rest.split()[:1]
            if number and number[0].isdigit():
                sizes[name] = int(number[0]) * _KIB
    total = sizes.get("MemTotal")
    if total is None:
        with contextlib.suppress(AttributeError, ValueError, OSError):
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [limit for limit in (*_process_limits(), *_group_limits()) if limit is not None]
    # A limit beyond the machine's memory limits nothing.
    limit = min(limits, default=None)
    if limit is not None and total is not None and limit >= total:
        limit = None
    return Memory(total, sizes.get("MemAvailable"), limit)


def page_bytes() -> int | None:
    """Bytes of a memory page: 4 KiB on most machines, 16 KiB on a Raspberry Pi 5; None if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def pointer_bits() -> int:
    """32 or 64: the width that this Python was built for, which may differ from the kernel's."""
    return struct.calcsize("P") * 8


def file_system(path: Path) -> FileSystem:
    """The file system that a path is on; the path, or a folder above it, must exist.

    Raises:
        OSError: The file system does not answer.
    """
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    kind = _mounted_as(place.resolve())
    if not hasattr(os, "statvfs"):
        import shutil

        return FileSystem(kind, shutil.disk_usage(place).free, read_only=False)
    status = os.statvfs(place)
    return FileSystem(
        kind,
        status.f_bavail * status.f_frsize,
        read_only=bool(status.f_flag & getattr(os, "ST_RDONLY", 1)),
    )


def versions() -> dict[str, str | None]:
    """Installed versions of PACKAGES by name; None for a package that is not installed."""
    return {name: _installed(name) for name in PACKAGES}


def requirements() -> list[Requirement] | None:
    """Packages that edge-mrl requires, without its extras; None if edge-mrl itself is not installed."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        declared = requires("edge-mrl") or []
    except PackageNotFoundError:
        return None
    found = []
    for line in declared:
        if "extra ==" not in line:
            name, minimum = parse_requirement(line)
            found.append(Requirement(name, minimum, _installed(name)))
    return found


def parse_requirement(line: str) -> tuple[str, str | None]:
    """Name and lowest version of a requirement such as "numpy>=2.0" (PEP 508); None without a version."""
    name = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", line)
    minimum = re.search(r">=\s*([0-9][0-9A-Za-z.]*)", line.partition(";")[0])
    return (name[1] if name else line.strip()), (minimum[1] if minimum else None)


def describe() -> dict[str, Any]:
    """The facts to record with a measurement, as JSON values; sizes in bytes.

    Neither the user's or the machine's name nor any path is among them.
    """
    from edge_mrl._version import __version__

    processor, room = cpu(), memory()
    return {
        "cpu": processor.name,
        "board": board(),
        "architecture": platform.machine(),
        "features": None if processor.features is None else list(processor.features),
        "cores": cores(),
        "memory_bytes": room.total_bytes,
        "memory_limit_bytes": room.limit_bytes,
        "page_bytes": page_bytes(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "python_bits": pointer_bits(),
        "versions": {"edge-mrl": __version__, **versions()},
    }


def _fields(block: str) -> dict[str, str]:
    """Names and values of one processor; {} for a block without a number (Hardware, Model)."""
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in pairs}
    return fields if fields.get("processor", "").isdigit() else {}


def _common(lists: Iterable[str | None], wanted: tuple[str, ...]) -> tuple[str, ...] | None:
    """The wanted flags that every core has, because a thread may run on any of them."""
    sets = [set(flags.split()) for flags in lists if flags is not None]
    if not sets:
        return None
    return tuple(flag for flag in wanted if all(flag in flags for flags in sets))


def _arm_cores(processors: Iterable[Mapping[str, str]]) -> str | None:
    """The names of the cores; where they differ, with the number of each."""
    counts: dict[str, int] = {}
    for block in processors:
        try:
            maker, part = int(block["CPU implementer"], 0), int(block["CPU part"], 0)
        except (KeyError, ValueError):
            continue
        name = ARM_PARTS.get(part) if maker == ARM_LIMITED else None
        name = name or f"ARM core {maker:#x}/{part:#x}"
        counts[name] = counts.get(name, 0) + 1
    if len(counts) <= 1:
        return next(iter(counts), None)
    return " + ".join(f"{count}x {name}" for name, count in counts.items())


def _process_limits() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            yield soft


def _group_limits() -> Iterator[int]:
    """Limits of this process's control group and of the groups above it (cgroup v2)."""
    try:
        lines = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return
    root = Path("/sys/fs/cgroup")
    for line in lines:
        if line.startswith("0::"):
            group = root / line[3:].strip("/")
            for folder in (group, *group.parents):
                if not folder.is_relative_to(root):
                    break
                with contextlib.suppress(OSError, ValueError):
                    yield int((folder / "memory.max").read_text("ascii"))


def _mounted_as(place: Path) -> str | None:
    """The type of the file system that is mounted at a path, or nearest above it."""
    try:
        lines = Path("/proc/self/mounts").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return None
    best, kind = -1, None
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        # Blanks in a path are written as octal escapes.
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1]))
        if place.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind


def _installed(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _version(text: str) -> tuple[int, ...]:
    """The release number of a version, without suffixes such as rc1, .post1 or +cpu."""
    match = re.match(r"\d+(\.\d+)*", text)
    parts = [int(part) for part in match[0].split(".")] if match else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
