"""What is known of a machine, from what kernels say."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest

from edge_mrl.machine import facts as machine
from edge_mrl.machine.facts import Requirement, parse_cpuinfo, parse_requirement
from tests.support import cpuinfo

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.mark.parametrize(
    ("text", "architecture", "name", "features"),
    [
        (cpuinfo.PI_3, "aarch64", "Cortex-A53", ("asimd",)),
        (cpuinfo.PI_4, "aarch64", "Cortex-A72", ("asimd",)),
        (cpuinfo.PI_5, "aarch64", "Cortex-A76", ("asimd", "asimddp")),
        (cpuinfo.PI_4_32, "armv7l", "Cortex-A72", ()),
        (
            cpuinfo.NEOVERSE_N2,
            "aarch64",
            "Neoverse-N2",
            ("asimd", "asimddp", "i8mm", "sve", "sve2"),
        ),
        (cpuinfo.MIXED, "aarch64", "4x Cortex-A53 + 2x Cortex-A76", ("asimd",)),
        (cpuinfo.QUALCOMM, "aarch64", "ARM core 0x51/0x804", ("asimd", "asimddp")),
        (cpuinfo.KABY_LAKE, "x86_64", "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz", ("avx2",)),
        (
            cpuinfo.CASCADE_LAKE,
            "x86_64",
            "Intel(R) Xeon(R) Gold 6248 CPU @ 2.50GHz",
            ("avx2", "avx512f", "avx512_vnni"),
        ),
        (
            cpuinfo.ALDER_LAKE,
            "x86_64",
            "12th Gen Intel(R) Core(TM) i7-12700",
            ("avx2", "avx_vnni"),
        ),
        (cpuinfo.ATOM, "i686", "Intel(R) Atom(TM) CPU D525 @ 1.80GHz", ()),
    ],
)
def test_cpu_is_read_from_what_the_kernel_says(
    text: str, architecture: str, name: str, features: tuple[str, ...]
) -> None:
    cpu = parse_cpuinfo(text, architecture)
    assert (cpu.name, cpu.features) == (name, features)
    assert cpu.kind == ("x86" if architecture in ("x86_64", "i686") else "arm")


@pytest.mark.parametrize(
    ("text", "architecture"),
    [
        ("", "aarch64"),
        ("", "x86_64"),
        (cpuinfo.CASCADE_LAKE, "aarch64"),  # an emulated ARM that sees its host's file
        (cpuinfo.PI_5, "x86_64"),
        ("processor\t: 0\nhart\t\t: 1\nisa\t\t: rv64imafdc\n", "riscv64"),
    ],
)
def test_what_a_kernel_does_not_say_is_unknown(text: str, architecture: str) -> None:
    assert parse_cpuinfo(text, architecture).features is None


@pytest.mark.parametrize(
    ("text", "architecture", "saturates"),
    [
        (cpuinfo.KABY_LAKE, "x86_64", True),
        (cpuinfo.ATOM, "i686", True),
        (cpuinfo.CASCADE_LAKE, "x86_64", False),
        (cpuinfo.ALDER_LAKE, "x86_64", False),
        (cpuinfo.PI_4, "aarch64", False),
        ("", "x86_64", False),
    ],
)
def test_only_x86_without_vnni_saturates(text: str, architecture: str, saturates: bool) -> None:
    assert machine.saturates(parse_cpuinfo(text, architecture)) == saturates


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("numpy>=2.0", ("numpy", "2.0")),
        ("numpy (>=2.0,<3)", ("numpy", "2.0")),
        ("onnxruntime >= 1.20 ; python_version >= '3.11'", ("onnxruntime", "1.20")),
        ("onnx-ir", ("onnx-ir", None)),
        ("torch; python_version >= '3.99'", ("torch", None)),
    ],
)
def test_requirement_is_read(line: str, expected: tuple[str, str | None]) -> None:
    assert parse_requirement(line) == expected


@pytest.mark.parametrize(
    ("installed", "minimum", "met"),
    [
        ("1.31.1", "1.20", True),
        ("1.9", "1.20", False),  # as numbers, not as text
        ("2", "2.0", True),
        ("2.0.0rc1", "2.0", True),
        ("1.20.dev1", "1.20", True),
        ("0.19.9", "0.20", False),
        (None, "1.0", False),
        (None, None, False),
        ("1.0", None, True),
    ],
)
def test_requirement_is_met_by_version(installed: str, minimum: str, met: bool) -> None:
    assert Requirement("x", minimum, installed).met == met


def test_requirements_are_those_of_the_distribution() -> None:
    found = machine.requirements()
    assert found is not None
    assert {r.name for r in found} == set(machine.PACKAGES)
    declared = [line for line in requires("edge-mrl") or [] if "extra" not in line]
    assert len(found) == len(declared)
    for requirement in found:
        assert requirement.met
        assert requirement.installed == version(requirement.name)
        assert f"{requirement.name}>={requirement.minimum}" in declared


def test_busy_is_a_share_of_the_cores() -> None:
    assert not machine.busy(None, 4)
    assert not machine.busy(0.9, 4)
    assert machine.busy(1.0, 4)
    assert not machine.busy(1.0, 16)
    assert machine.busy(0.5, None)


@linux
def test_memory_is_what_the_kernel_says() -> None:
    memory = machine.memory()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory.total_bytes == pages
    assert memory.available_bytes is not None
    assert 0 < memory.available_bytes < pages


@linux
def test_limits_of_the_process_are_seen() -> None:
    code = "from edge_mrl.machine.facts import memory; print(memory().limit_bytes)"
    limit = 700_000_000
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        done = subprocess.run(
            [sys.executable, "-c", code],
            preexec_fn=lambda kind=kind: resource.setrlimit(kind, (limit, limit)),
            capture_output=True,
            check=True,
        )
        assert int(done.stdout) == limit


def test_description_names_no_person_and_no_place() -> None:
    facts = machine.describe()
    assert facts["architecture"] == platform.machine()
    assert facts["python_bits"] in (32, 64)
    text = str(facts)
    assert str(Path.home()) not in text
    assert platform.node() not in text or len(platform.node()) < 3


def test_file_system_of_a_path_that_is_not_there_yet(tmp_path: Path) -> None:
    there, later = machine.file_system(tmp_path), machine.file_system(tmp_path / "a" / "b.db")
    assert later.kind == there.kind
    assert there.free_bytes > 0
    assert not there.read_only


@linux
def test_file_system_kinds_are_those_of_the_mounts() -> None:
    assert machine.file_system(Path("/proc")).kind == "proc"
    assert machine.file_system(Path("/proc/self")).kind == "proc"
    if Path("/dev/shm").is_mount():
        assert machine.file_system(Path("/dev/shm")).kind == "tmpfs"
