"""Compile the library: one file per instruction set, each with its own flags.

python kernels/build_library.py TARGET [--compiler CC] [-- MORE FLAGS]
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["SOURCES", "compile_library"]

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
#: Files that need an instruction set, and the processors that have it.
OWN = {"kern_avx2": ("x86_64", _AVX2), "kern_avx512vnni": ("x86_64", _AVX512)}


def compile_library(target: Path, *, compiler: str = "cc", more: Sequence[str] = ()) -> Path:
    """Compile the library into a file.

    Args:
        target: The file, such as libemrl.so.
        compiler: The compiler, GCC or Clang, perhaps with options.
        more: Further flags.

    Raises:
        subprocess.CalledProcessError: The compiler refuses; it has said why.
    """
    command = shlex.split(compiler)
    machine = subprocess.run(  # noqa: S603 - the user's own compiler
        [*command, "-dumpmachine"], check=True, capture_output=True, text=True
    ).stdout.split("-")[0]
    with tempfile.TemporaryDirectory() as scratch:
        jobs = []
        for source in sorted(SOURCES.glob("*.c")):
            kind, own = OWN.get(source.stem, (machine, ()))
            if kind != machine:
                continue
            made = Path(scratch) / f"{source.stem}.o"
            jobs.append([*command, *FLAGS, *own, *more, "-c", str(source), "-o", str(made)])
        with ThreadPoolExecutor() as pool:
            list(pool.map(_run, jobs))
        objects = [job[-1] for job in jobs]
        _run([*command, "-shared", *more, "-o", str(target), *objects, "-lm"])
    return target


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
