"""The kernels' wheels for Linux: true tags, small, and the same bits where they are installed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType

import pytest

from tests.arm.testbed import UnavailableError, open_testbed
from tests.kernels.support import KERNELS
from tests.support.bundles import TINY

pytestmark = pytest.mark.nightly

#: Prints which kernels there are, and what the golden bundle's graph makes of some ids.
CODE = f"""
from pathlib import Path
from edge_mrl_kernels import load
kernels, bundle = load(), Path({str(TINY)!r})
files = {{"model.onnx.data": (bundle / "model.onnx.data").read_bytes()}}
model = kernels.open((bundle / "model.onnx").read_bytes(), files)
print(kernels.name, *(part.hex() for part in model.encode([[0, 3, 4, 2], [5] * 30, []])))
model.close()
"""


def wheel_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_wheels", KERNELS / "build_wheels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    builder = wheel_builder()
    for compiler in builder.COMPILERS.values():
        if shutil.which(compiler) is None:
            pytest.skip(f"NOT BUILT: {compiler} is missing; kernels/README.md says what to get")
    folder = tmp_path_factory.mktemp("wheels")
    return {machine: builder.build(machine, folder) for machine in builder.COMPILERS}


@pytest.fixture(scope="module")
def fresh(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a new environment with nothing but the wheel prints."""
    place = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q", "--no-index", str(wheels["x86_64"])]
    subprocess.run(install, check=True)
    return subprocess.run(
        [python, "-c", CODE], check=True, capture_output=True, text=True, cwd=place
    ).stdout


def test_tags_are_true_and_the_wheels_small(wheels: dict[str, Path]) -> None:
    builder = wheel_builder()
    for machine, wheel in wheels.items():
        assert wheel.name.endswith(f"-py3-none-manylinux_2_17_{machine}.whl")
        found, needed = builder.least_glibc(wheel)
        assert found <= (2, 17)
        assert needed <= {"libc.so.6", "libm.so.6"}
        assert wheel.stat().st_size < 200_000


def test_a_library_that_needs_more_than_its_tag_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = wheel_builder()
    monkeypatch.setattr(builder, "OLDEST", (2, 5))
    with pytest.raises(ValueError, match=r"needs glibc \(2, 14\)"):
        builder.build("x86_64", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_wheel_runs_in_a_fresh_environment(fresh: str) -> None:
    assert fresh.split(maxsplit=1)[0] in ("avx512vnni", "avxvnni", "avx2", "plain")


@pytest.mark.parametrize(("cpu", "kernel"), [("cortex-a72", "neon"), ("cortex-a76", "dotprod")])
def test_the_wheel_for_arm_gives_the_same_bits(
    cpu: str, kernel: str, wheels: dict[str, Path], fresh: str, tmp_path: Path
) -> None:
    try:
        bed = open_testbed()
    except UnavailableError as error:
        pytest.skip(f"no ARM test bed: {error}")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--target", tmp_path]
    platform = ["--platform=manylinux_2_17_aarch64", "--only-binary=:all:", wheels["aarch64"]]
    subprocess.run([*install, *platform], check=True)
    said = bed.run("-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{CODE}", cpu=cpu)
    name, *bits = said.stdout.decode().split()
    assert name == kernel
    assert bits == fresh.split()[1:]
