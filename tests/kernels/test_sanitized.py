"""The kernels in a library that AddressSanitizer and UBSan watch: a fault of memory ends the process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.support import PREBUILT, build_library, build_package, build_programs
from tests.support.bundles import ROOT, TINY

pytestmark = pytest.mark.test

WATCHED = build_library().SANITIZED
CORPUS = Path(__file__).parent / "corpus"
WEIGHTS = {"EMRL_FUZZ_WEIGHTS": str(TINY / "model.onnx.data")}
#: Seconds of fuzzing where there is time.
FUZZING_S = 120


PROGRAMS = {
    "compare": ["compare"],
    "graph": ["fuzz_graph", "replay"],
    "codes": ["fuzz_codes", "replay"],
}


@pytest.fixture(scope="module")
def programs() -> dict[str, Path]:
    return build_programs(PROGRAMS, more=WATCHED, name="watched-programs")


def run(
    *command: object, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
    )


#: A sanitizer reserves more memory than a process may take that tries a bundle. As in a program that was
#: frozen, bundles are tried in the process that opens them.
FROZEN = "import sys\n\nsys.frozen = True\n"


def sanitized_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the watched library."""
    found = run("cc", "-print-file-name=libasan.so")
    package = build_package(more=WATCHED, name="watched")
    (package / "sitecustomize.py").write_text(FROZEN, "utf-8")
    return run(
        sys.executable,
        *arguments,
        environment={
            PREBUILT: str(package),
            "PYTHONPATH": str(package),
            "LD_PRELOAD": found.stdout.strip(),
            # Python itself leaves memory behind when it ends.
            "ASAN_OPTIONS": "detect_leaks=0",
        },
    )


def test_each_kernel_is_as_plain_c_over_random_shapes(programs: dict[str, Path]) -> None:
    done = run(programs["compare"], 25)
    assert done.returncode == 0, done.stderr
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert "plain" in counts
    assert all(int(count) > 300 for count in counts.values())


def test_a_changed_bit_is_noticed(programs: dict[str, Path]) -> None:
    done = run(programs["compare"], "--sabotage")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_step_out_of_place_is_noticed(programs: dict[str, Path]) -> None:
    """That the sanitizer watches."""
    done = run(programs["compare"], "--overrun")
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr


@pytest.mark.parametrize("reader", ["graph", "codes"])
def test_files_that_a_fuzzer_found_are_read_in_bounds(
    reader: str, programs: dict[str, Path]
) -> None:
    files = sorted((CORPUS / reader).iterdir())
    done = run(programs[reader], *files, environment=WEIGHTS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(files) > 10
    assert int(done.stdout) > 10 * len(files)


@pytest.mark.nightly
@pytest.mark.parametrize("tests", ["test_encoding", "test_reading", "test_searching"])
def test_the_kernels_tests_pass_in_the_watched_library(tests: str) -> None:
    place = Path("tests") / "kernels" / f"{tests}.py"
    done = sanitized_python("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", str(place))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.nightly
def test_each_kernel_is_as_plain_c_over_many_shapes(programs: dict[str, Path]) -> None:
    for seed in range(10):
        done = run(programs["compare"], 200, seed)
        assert done.returncode == 0, done.stderr


@pytest.mark.nightly
@pytest.mark.parametrize("reader", ["graph", "codes"])
def test_a_fuzzer_finds_no_way_out_of_bounds(reader: str, tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.skip("NOT FUZZED: there is no clang here; apt-get install clang")
    flags = [flag.replace("=address", "=fuzzer,address") for flag in WATCHED]
    fuzzers = {name: [f"fuzz_{name}"] for name in ("graph", "codes")}
    built = build_programs(fuzzers, compiler="clang", more=flags, name="fuzzers")
    shutil.copytree(CORPUS / reader, tmp_path / "corpus")
    limits = (f"-max_total_time={FUZZING_S}", "-rss_limit_mb=2000", "-timeout=30", "-max_len=30000")
    done = run(
        built[reader],
        *limits,
        f"-artifact_prefix={tmp_path}/",
        tmp_path / "corpus",
        environment=WEIGHTS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
