"""Compile the library: one file per instruction set, each with its own flags.

python kernels/build_library.py TARGET [--compiler CC] [-- MORE FLAGS]
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

__all__ = ["CHECKS", "SANITIZED", "SOURCES", "compile_library", "compile_programs"]

#: Programs that check the library.
CHECKS = Path(__file__).resolve().parent / "check"
SOURCES = Path(__file__).resolve().parent / "src"
#: No -ffast-math: it would optimise the roundings away, and vectors would differ from processor to
#: processor. Products and sums are fused where the source says so, and nowhere else.
FLAGS = (
    *("-std=c11", "-D_POSIX_C_SOURCE=200809L", "-O3", "-fPIC", "-fvisibility=hidden"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"),
)
_AVX2 = ("-mavx2", "-mfma", "-mpopcnt")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni")
#: Flags with which AddressSanitizer and UBSan watch the library, and end a program at the first fault.
SANITIZED = (
    *("-O1", "-g1", "-DEMRL_CALLS", "-Wno-unused-function"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)
#: Files that need an instruction set, and the processors that have it.
OWN = {
    "kern_avx2": ("x86_64", _AVX2),
    "kern_avxvnni": ("x86_64", (*_AVX2, "-mavxvnni")),
    "kern_avx512vnni": ("x86_64", _AVX512),
    "kern_neon": ("aarch64", ("-fno-schedule-insns",)),
    "kern_dotprod": ("aarch64", ("-march=armv8.2-a+dotprod", "-fno-schedule-insns")),
    "kern_i8mm": ("aarch64", ("-march=armv8.2-a+dotprod+i8mm", "-fno-schedule-insns")),
}


def compile_library(target: Path, *, compiler: str = "cc", more: Sequence[str] = ()) -> Path:
    """Compile the library into a file.

    Args:
        target: The file, such as libemrl.so.
        compiler: The compiler, GCC or Clang, perhaps with options.
        more: Further flags.

    Raises:
        subprocess.CalledProcessError: The compiler refuses; it has said why.
    """
    _build({target: ()}, shlex.split(compiler), ("-shared", *more), more)
    return target


def compile_programs(
    targets: Mapping[Path, Sequence[Path]], *, compiler: str = "cc", more: Sequence[str] = ()
) -> None:
    """Compile programs that have the library within.

    Args:
        targets: Each program, and its own sources.
        compiler: The compiler, GCC or Clang, perhaps with options.
        more: Further flags, of linking too.

    Raises:
        subprocess.CalledProcessError: The compiler refuses; it has said why.
    """
    _build(targets, shlex.split(compiler), more, more)


def _build(
    targets: Mapping[Path, Sequence[Path]],
    command: Sequence[str],
    linking: Sequence[str],
    more: Sequence[str],
) -> None:
    machine = subprocess.run(  # noqa: S603 - the user's own compiler
        [*command, "-dumpmachine"], check=True, capture_output=True, text=True
    ).stdout.split("-")[0]
    machine = {"arm64": "aarch64"}.get(machine, machine)  # as macOS says it
    # A fuzzer's own main is linked once, and its counters are in every file.
    added = [flag.replace("=fuzzer", "=fuzzer-no-link") for flag in more]
    with tempfile.TemporaryDirectory() as scratch:
        jobs = []
        library = sorted(SOURCES.glob("*.c"))
        for source in dict.fromkeys((*library, *chain.from_iterable(targets.values()))):
            kind, own = OWN.get(source.stem, (machine, ()))
            if kind == machine:
                made = Path(scratch) / f"{source.stem}.o"
                jobs.append([*command, *FLAGS, *own, *added, "-c", str(source), "-o", str(made)])
        with ThreadPoolExecutor() as pool:
            list(pool.map(_run, jobs))
        objects = {Path(job[-1]).stem: job[-1] for job in jobs}
        for target, programs in targets.items():
            used = [made for stem, made in objects.items() if stem in _stems((*library, *programs))]
            _run([*command, *linking, "-o", str(target), *used, "-lm"])


def _stems(paths: Sequence[Path]) -> set[str]:
    return {path.stem for path in paths}


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)  # noqa: S603 - the user's own compiler


def main() -> None:
    """Compile for a person."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", type=Path)
    parser.add_argument("--compiler", default="cc")
    parser.add_argument("more", nargs="*")
    arguments = parser.parse_args()
    compile_library(arguments.target, compiler=arguments.compiler, more=arguments.more)


if __name__ == "__main__":
    main()
