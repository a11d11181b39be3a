"""One virtual environment for each peer, with pinned versions, in build/bench-venvs."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["OWN", "PEERS", "Environment", "prepare"]

ENVIRONMENTS = Path(__file__).parent.parent / "build" / "bench-venvs"
NUMPY = "numpy==2.4.6"
#: The environment that runs this benchmark; it has edge-mrl.
OWN = "edge-mrl"
PEERS: dict[str, tuple[str, ...]] = {
    "chromadb": ("chromadb==1.5.9",),
    "faiss": ("faiss-cpu==1.15.1",),
    "hnswlib": ("hnswlib==0.8.0",),  # built from source: needs a C++ compiler
    "lancedb": ("lancedb==0.40.0", "pyarrow==26.0.1"),
    "qdrant-edge": ("qdrant-edge-py==0.9.0",),
    "sqlite-vec": ("sqlite-vec==0.1.9", "apsw==3.54.1.0"),
    "usearch": ("usearch==2.26.6",),
    "zvec": ("zvec==0.8.0",),
}
INSTALL_TIMEOUT_S = 900


@dataclass(frozen=True, slots=True)
class Environment:
    """Where an engine runs.

    Attributes:
        name: A key of PEERS, or OWN.
        python: Its interpreter.
        versions: Installed versions of what was asked for, by package.
        problem: Why it cannot be used; None if it can.
    """

    name: str
    python: Path
    versions: dict[str, str] = field(default_factory=dict)
    problem: str | None = None


def prepare(name: str) -> Environment:
    """Make the environment, or take the one made before with the same pins."""
    if name == OWN:
        python = Path(sys.executable)
        return Environment(name, python, _versions(python, ("edge-mrl", "numpy")))
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    pins = (NUMPY, *PEERS[name])
    done = folder / "pins.txt"
    if not done.exists() or done.read_text("utf-8") != "\n".join(pins):
        problem = _install(folder, python, pins)
        if problem is not None:
            return Environment(name, python, problem=problem)
        done.write_text("\n".join(pins), encoding="utf-8")
    return Environment(name, python, _versions(python, [pin.partition("==")[0] for pin in pins]))


def _install(folder: Path, python: Path, pins: tuple[str, ...]) -> str | None:
    """Make a fresh environment; what went wrong, or None. pip's own words go to install.log in it."""
    venv.create(folder, clear=True, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", *pins]
    try:
        with (folder / "install.log").open("wb") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, timeout=INSTALL_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        return f"pip install {' '.join(pins)} ended with {error.returncode}"
    except subprocess.TimeoutExpired:
        return f"pip install {' '.join(pins)} took more than {INSTALL_TIMEOUT_S} s"
    return None


def _versions(python: Path, packages: list[str] | tuple[str, ...]) -> dict[str, str]:
    code = "import sys; from importlib.metadata import version as v; print(*map(v, sys.argv[1:]))"
    found = subprocess.run(
        [str(python), "-c", code, *packages], check=True, capture_output=True, text=True
    )
    return dict(zip(packages, found.stdout.split(), strict=True))
