"""The kernels as a package in a folder of its own, as their wheel has them."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from filelock import FileLock

from tests.support.bundles import ROOT

__all__ = [
    "BUILT",
    "KERNELS",
    "PREBUILT",
    "build_library",
    "build_package",
    "build_programs",
    "sources_digest",
]

KERNELS = ROOT / "kernels"
#: Names a folder with kernels that were built otherwise, for a run of the tests within a test.
PREBUILT = "EDGE_MRL_TEST_KERNELS"
BUILT = ROOT / "build" / "kernels"


def build_library() -> ModuleType:
    """kernels/build_library.py as a module."""
    spec = importlib.util.spec_from_file_location("build_library", KERNELS / "build_library.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sources_digest() -> str:
    """The same as long as the library and its package are the same, hexadecimal."""
    compiler = subprocess.run(["cc", "--version"], check=True, capture_output=True).stdout
    digest = hashlib.sha256(compiler)
    for path in sorted(KERNELS.rglob("*")):
        if path.suffix in (".c", ".h", ".py"):
            digest.update(f"{path.relative_to(KERNELS)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def build_package(*, compiler: str = "cc", more: Sequence[str] = (), name: str = "package") -> Path:
    """A folder for sys.path with the package and its library; made once for each state of the sources."""
    folder = BUILT / f"{name}-{sources_digest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # tests run side by side
        library = folder / "edge_mrl_kernels" / "libemrl.so"
        if not library.exists():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(
                KERNELS / "edge_mrl_kernels",
                folder / "edge_mrl_kernels",
                ignore=shutil.ignore_patterns("__pycache__", "*.so"),
            )
            made = library.with_suffix(".new")
            build_library().compile_library(made, compiler=compiler, more=more)
            made.rename(library)
    return folder


def build_programs(
    programs: Mapping[str, Sequence[str]],
    *,
    compiler: str = "cc",
    more: Sequence[str] = (),
    name: str,
) -> dict[str, Path]:
    """Programs out of kernels/check, with the library; made once for each state of the sources."""
    folder = BUILT / f"{name}-{sources_digest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            builder, made = build_library(), folder.with_suffix(".new")
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            targets = {
                made / program: [builder.CHECKS / f"{source}.c" for source in sources]
                for program, sources in programs.items()
            }
            builder.compile_programs(targets, compiler=compiler, more=more)
            made.rename(folder)
    return {program: folder / program for program in programs}


if __name__ == "__main__":
    sys.stdout.write(f"{build_package()}\n")
