"""Build the wheels for Linux, one per processor: ``python kernels/build_wheels.py``.

Each is compiled by GCC for its processor, and refused if its library asks for a newer C library than the
wheel's name says. Needs build, readelf and, for 64-bit ARM, Debian's gcc-aarch64-linux-gnu.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["COMPILERS", "MOST_BYTES", "NEEDED", "build", "least_glibc"]

HERE = Path(__file__).resolve().parent
COMPILERS = {"x86_64": "x86_64-linux-gnu-gcc", "aarch64": "aarch64-linux-gnu-gcc"}
#: manylinux_2_17, which the oldest systems of today have (PEP 599, PEP 600).
OLDEST = (2, 17)
NEEDED = {"libc.so.6", "libm.so.6"}
MOST_BYTES = 600_000


def build(machine: str, folder: Path) -> Path:
    """Build a wheel into a folder and check it.

    Raises:
        subprocess.CalledProcessError: The compiler or the build ended with an error.
        ValueError: The library needs more than manylinux_2_17 has, or the wheel is too large.
    """
    platform = f"manylinux_{OLDEST[0]}_{OLDEST[1]}_{machine}"
    with TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", scratch, str(HERE)]
        subprocess.run(  # noqa: S603 - this project's own build
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            env={
                **os.environ,
                "EDGE_MRL_KERNELS_CC": COMPILERS[machine],
                "EDGE_MRL_KERNELS_PLATFORM": platform,
            },
        )
        (made,) = Path(scratch).glob("*.whl")
        found, needed = least_glibc(made)
        if found > OLDEST or not needed <= NEEDED:
            raise ValueError(f"{made.name} needs glibc {found} and {sorted(needed)}")
        if made.stat().st_size > MOST_BYTES:
            raise ValueError(f"{made.name} has {made.stat().st_size} bytes")
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(made, folder / made.name))


def least_glibc(wheel: Path) -> tuple[tuple[int, int], set[str]]:
    """The glibc that a wheel's library asks for, and the libraries that it needs."""
    with TemporaryDirectory() as scratch, zipfile.ZipFile(wheel) as archive:
        library = archive.extract("edge_mrl_kernels/libemrl.so", scratch)
        said = subprocess.run(  # noqa: S603 - of a file that was built here
            ["readelf", "-V", "-d", "--wide", library],  # noqa: S607 - the user's own
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    versions = [tuple(map(int, found)) for found in re.findall(r"GLIBC_(\d+)\.(\d+)", said)]
    major, minor = max(versions)
    return (major, minor), set(re.findall(r"\(NEEDED\).*\[(.+)\]", said))


def main() -> None:
    """Build for a person."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--folder", type=Path, default=HERE / "dist")
    parser.add_argument("machines", nargs="*", help="x86_64, aarch64; both, if none is named")
    arguments = parser.parse_args()
    for machine in arguments.machines or COMPILERS:
        made = build(machine, arguments.folder)
        sys.stdout.write(f"{made}  {made.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
