"""The wheel's library: compiled for one platform, and for every Python, which reaches it by ctypes."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["LibraryHook"]

#: What the library is called, as edge_mrl_kernels/library.py has it.
LIBRARY = {"darwin": "libemrl.dylib", "win32": "emrl.dll"}
#: The compiler, perhaps with options, and the platform that it compiles for, as wheels name it.
COMPILER, PLATFORM = "EDGE_MRL_KERNELS_CC", "EDGE_MRL_KERNELS_PLATFORM"


class LibraryHook(BuildHookInterface[Any]):
    """Adds the library to the wheel, and names the platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the library."""
        del version
        place = Path(self.root) / "build_library.py"
        spec = importlib.util.spec_from_file_location("build_library", place)
        if spec is None or spec.loader is None:
            raise RuntimeError(f"{place} is missing")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._scratch = tempfile.TemporaryDirectory()
        made = Path(self._scratch.name) / LIBRARY.get(sys.platform, "libemrl.so")
        module.compile_library(made, compiler=os.environ.get(COMPILER, "cc"), more=["-s"])
        platform = os.environ.get(PLATFORM) or sysconfig.get_platform()
        build_data["tag"] = f"py3-none-{platform.replace('-', '_').replace('.', '_')}"
        build_data["pure_python"] = False
        build_data["force_include"][str(made)] = f"edge_mrl_kernels/{made.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled."""
        del version, build_data, artifact_path
        self._scratch.cleanup()
