"""The wheel that carries a bundle, built and unpacked."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.bundles import ROOT

__all__ = ["build_model", "unpack"]

FOLDER = ROOT / "models" / "minilm"


def build_model(out: Path, bundle: Path) -> subprocess.CompletedProcess[str]:
    """Build the wheel around a bundle."""
    command = [sys.executable, "-m", "uv", "build", "--wheel", "-o", str(out), str(FOLDER)]
    environment = {**os.environ, "EDGE_MRL_MINILM": str(bundle)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def unpack(dist: Path, site: Path) -> Path:
    """Unpack the wheel into a folder for sys.path, which is what installing it does."""
    (wheel,) = dist.glob("edge_mrl_minilm-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(site)
    return site
