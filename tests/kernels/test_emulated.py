"""Each instruction set on processors that have it, emulated: the bits of plain C on this machine."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_mrl.encode import Encoder
from tests.kernels.support import build_programs
from tests.support.bundles import TINY

pytestmark = pytest.mark.test

TEXTS = ["", "the cat", "a dog sleeps under 12 trees, near water", "the cat " * 20]
PROGRAMS = {"compare": ["compare"], "run": ["run"]}
#: QEMU's name of a processor, and the kernels that it runs. QEMU 7.2 knows AVX2, but no AVX-512.
ARM = {
    "cortex-a53": ("plain", "neon"),
    "cortex-a72": ("plain", "neon"),
    "cortex-a76": ("plain", "neon", "dotprod"),
    "max": ("plain", "neon", "dotprod", "i8mm"),
}
X86 = {
    "Nehalem": ("plain",),
    "Haswell": ("plain", "avx2"),
    "Skylake-Client": ("plain", "avx2"),
    "Icelake-Server": ("plain", "avx2"),
}
#: Before each merge the one that has all of ARM's; the others where there is time.
CPUS = [
    pytest.param(machine, cpu, kernels, id=cpu, marks=[] if cpu == "max" else pytest.mark.nightly)
    for machine, cpus in (("aarch64", ARM), ("x86_64", X86))
    for cpu, kernels in cpus.items()
]


def program(name: str, machine: str, *, more: tuple[str, ...] = ()) -> list[str]:
    """A program for a machine, behind its emulator."""
    compiler, emulator = f"{machine}-linux-gnu-gcc", f"qemu-{machine}"
    missing = [tool for tool in (compiler, emulator) if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"NOT EMULATED: {' and '.join(missing)} missing; see `make tools`")
    built = build_programs(
        PROGRAMS, compiler=compiler, more=("-static", *more), name=f"emulated-{machine}"
    )
    return [emulator, str(built[name])]


def run(*command: str, said: str = "") -> str:
    done = subprocess.run(command, input=said, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("machine", "cpu", "kernels"), CPUS)
def test_kernels_are_as_plain_c(machine: str, cpu: str, kernels: tuple[str, ...]) -> None:
    emulator, compare = program("compare", machine)
    said = run(emulator, "-cpu", cpu, compare, "3")
    assert [line.split()[0] for line in said.splitlines()] == list(kernels)


def lines_of_ids() -> str:
    with Encoder.open(TINY) as encoder:
        rows = encoder.tokenize(TEXTS)
    return "".join(" ".join(map(str, row)) + "\n" for row in rows)


@pytest.mark.parametrize(("machine", "cpu", "kernels"), CPUS)
def test_a_bundle_has_the_vectors_of_this_machine(
    machine: str, cpu: str, kernels: tuple[str, ...], installed: Path
) -> None:
    from edge_mrl_kernels import load

    emulator, runner = program("run", machine)
    graph, weights = TINY / "model.onnx", TINY / "model.onnx.data"
    lines = lines_of_ids()
    model = load("plain").open(graph.read_bytes(), {weights.name: weights.read_bytes()})
    rows = [list(map(int, line.split())) for line in lines.splitlines()]
    coarse, full = model.encode(rows)
    model.close()
    for kernel in kernels:
        said = run(
            *(emulator, "-cpu", cpu, runner, kernel, str(graph), f"{weights.name}={weights}"),
            said=lines,
        )
        found = said.split("\n")
        assert "".join(found[0::2]) == coarse.hex()
        assert "".join(found[1::2]) == full.hex()


@pytest.mark.nightly
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the same instruction of AVX-512")
def test_avx_vnni_is_as_plain_c_where_avx512_encodes_its_instruction() -> None:
    if "avx512_vnni" not in Path("/proc/cpuinfo").read_text("utf-8"):
        pytest.skip("NOT RUN: this processor has no VNNI to stand in")
    flags = ("-DEMRL_EVEX", "-mno-avxvnni", "-mavx512vl", "-mavx512vnni", "-O1")
    built = build_programs({"compare": ["compare"]}, more=flags, name="evex")
    said = run(str(built["compare"]), "30")
    assert "avxvnni 450" in said.splitlines()
