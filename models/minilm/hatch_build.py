"""The wheel's bundle: exported before, checked here, and put into the wheel file by file."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["BundleHook"]

#: Names another bundle than that of `make`.
PLACE = "EDGE_MRL_MINILM"
MANIFEST, SIGNATURE = "edge_mrl.json", "edge_mrl.sig"


class BundleHook(BuildHookInterface[Any]):
    """Adds the bundle to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Check the bundle's files and name them.

        Raises:
            RuntimeError: There is no bundle, or a file of it is not what its manifest says.
        """
        if version == "editable":
            return
        folder = Path(os.environ.get(PLACE) or Path(self.root) / "../../build/minilm").resolve()
        if not (folder / MANIFEST).is_file():
            raise RuntimeError(
                f"no bundle at {folder}: `make dist` exports it first, or name one with {PLACE}"
            )
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
        for name, entry in files.items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != entry["sha256"]:
                raise RuntimeError(f"{folder / name} is damaged: export the bundle again")
        signed = [SIGNATURE] if (folder / SIGNATURE).is_file() else []
        for name in [MANIFEST, *signed, *files]:
            build_data["force_include"][str(folder / name)] = f"edge_mrl_minilm/bundle/{name}"
