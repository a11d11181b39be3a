"""The test bed itself: what it emulates, that it counts exactly, and that it is missed in plain words."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arm.testbed import CACHE_VARIABLE, CPUS, ROOT, Emulator

COMMAND = [sys.executable, "-m", "tests.arm.testbed"]
#: Instructions of a small program, from the A64 instruction set.
LOOPS = 1000
MARK = (0xD2800000 | 0x5EED << 5, 0xD2800000 | 125 << 5 | 8, 0xD4000001)  # x0, x8, then svc
LOOP = (0xD2800000 | LOOPS << 5 | 1, 0xF1000421, 0x54FFFFE1)  # x1; subtract 1; again if not 0
EXIT = (0xD2800000, 0xD2800000 | 93 << 5 | 8, 0xD4000001)


def write_program(path: Path, instructions: tuple[int, ...]) -> Path:
    """An ELF file with one segment, which is all code."""
    address, headers = 0x400000, 64 + 56
    code = struct.pack(f"<{len(instructions)}I", *instructions)
    size = headers + len(code)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    machine = 183  # AArch64
    head = struct.pack(
        "<HHIQQQIHHHHHH", 2, machine, 1, address + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, address, address, size, size, 0x1000)
    path.write_bytes(ident + head + segment + code)
    path.chmod(0o755)
    return path


def test_machine_without_programs_is_told_what_is_missing(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), CACHE_VARIABLE: str(tmp_path / "cache"), "LANG": "C"}
    run = subprocess.run(
        COMMAND, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 3
    assert run.stderr.startswith("no ARM test bed: ")
    assert "is not installed" in run.stderr
    assert not list((tmp_path / "cache").glob("*"))


@pytest.mark.test
@pytest.mark.arm
def test_sources_that_cannot_be_reached_leave_no_half_a_bed(tmp_path: Path) -> None:
    """apt is told of a proxy on this machine where nobody listens, pip of an index there."""
    (tmp_path / "apt.conf").write_text('Acquire::http::Proxy "http://127.0.0.1:9";\n', "ascii")
    environment = {
        **os.environ,
        CACHE_VARIABLE: str(tmp_path / "cache"),
        "APT_CONFIG": str(tmp_path / "apt.conf"),
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    }
    run = subprocess.run(
        COMMAND, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 3
    assert "cannot fetch" in run.stderr or "is not installed" in run.stderr
    assert not list((tmp_path / "cache").glob("*"))


@pytest.mark.test
@pytest.mark.arm
@pytest.mark.parametrize("cpu", CPUS)
def test_python_sees_the_emulated_cpu(bed: Emulator, cpu: str) -> None:
    code = "import json; from edge_mrl import machine; print(json.dumps(machine.describe()))"
    seen = json.loads(bed.run("-c", code, cpu=cpu).stdout)
    names = {"cortex-a72": "Cortex-A72", "cortex-a76": "Cortex-A76", "max": "ARM core 0x0/0x51"}
    assert (seen["architecture"], seen["cpu"]) == ("aarch64", names[cpu])
    dot, sme = "asimddp" in seen["features"], "sme" in seen["features"]
    assert (dot, sme) == {
        "cortex-a72": (False, False),
        "cortex-a76": (True, False),
        "max": (True, True),
    }[cpu]
    assert seen["versions"]["onnxruntime"] == bed.versions["onnxruntime"]


@pytest.mark.test
@pytest.mark.arm
def test_processes_that_python_starts_are_emulated_too(bed: Emulator) -> None:
    code = """
import os, platform, subprocess, sys
inner = [sys.executable, "-c", "import platform, edge_mrl, numpy; print(platform.machine())"]
print(platform.machine(), subprocess.run(inner, check=True, capture_output=True, text=True).stdout)
print("LD_LIBRARY_PATH" in os.environ)
"""
    assert bed.run("-c", code, cpu="cortex-a76").stdout.split() == [
        b"aarch64",
        b"aarch64",
        b"False",
    ]


@pytest.mark.test
@pytest.mark.arm
def test_auxiliary_vector_says_the_same_as_cpuinfo(bed: Emulator) -> None:
    """Programs choose their code by AT_HWCAP and AT_HWCAP2, which are QEMU's own; cpuinfo is ours."""
    bits = {"atomics": (16, 8), "asimddp": (16, 20), "sve": (16, 22), "sme": (26, 23)}
    code = """
import ctypes, sys
get = ctypes.CDLL(None).getauxval
get.restype, get.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
print(get(16), get(26))
"""
    for cpu, description in CPUS.items():
        words = map(int, bed.run("-c", code, cpu=cpu).stdout.split())
        values = dict(zip((16, 26), words, strict=True))
        for name, (word, bit) in bits.items():
            assert bool(values[word] >> bit & 1) == (name in description.features.split()), cpu


@pytest.mark.test
@pytest.mark.arm
@pytest.mark.parametrize("cpu", CPUS)
def test_counts_are_exact(bed: Emulator, cpu: str, tmp_path: Path) -> None:
    program = write_program(tmp_path / "program", (*MARK, *LOOP, *MARK, *EXIT))
    bed.run(cpu=cpu, program=program, counts=tmp_path / "counts")
    readings = [int(line) for line in (tmp_path / "counts").read_text("ascii").split()]
    between = 1 + 2 * LOOPS + len(MARK)
    assert readings == [len(MARK), len(MARK) + between, len(MARK) + between + len(EXIT)]
