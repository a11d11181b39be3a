"""Fresh virtual environments with one distribution in them, linked from uv's cache."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.pythons import UnreachableError, pinned

__all__ = ["Fresh", "build", "install"]

#: In what uv says when it is the network's fault, not the requirements'.
NETWORK = re.compile("error sending request|dns error|Failed to fetch|Connection refused|timed out")
TIMEOUT_S = 400


@dataclass(frozen=True)
class Fresh:
    """An environment, and a home of its own for what runs in it."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    def run(self, *command: object, code: int = 0, **env: str) -> str:
        """Run ``edge-mrl``, or Python if that is the first word; returns what it says."""
        first, *rest = map(str, command)
        program = [self.python] if first == "python" else [self.python.with_name("edge-mrl"), first]
        done = subprocess.run(
            [*map(str, program), *rest],
            cwd=self.folder,
            env={**environment(), "HOME": str(self.folder), **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def add(self, *wanted: str) -> None:
        """Install these too, without what they depend on."""
        _uv("pip", "install", "--python", str(self.python), "--no-deps", *wanted)

    def names(self) -> set[str]:
        """Names of the distributions that are installed."""
        code = (
            "from importlib.metadata import distributions\n"
            "print(*(one.metadata['Name'].lower().replace('_', '-') for one in distributions()))"
        )
        return set(self.run("python", "-c", code).split())


def environment() -> dict[str, str]:
    """This process's variables, without those that lead to the checkout or to a store."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "EDGE_MRL_", "HF_"))}


def build(project: Path, out: Path, **env: str) -> Path:
    """The wheel of a project, as it would be published."""
    _uv("build", "--wheel", "--out-dir", str(out), str(project), **env)
    (wheel,) = out.glob("*.whl")
    return wheel


def install(
    folder: Path,
    *wanted: str,
    constraints: str | Sequence[str] | None = "tested",
    python: Path | None = None,
) -> Fresh:
    """A fresh environment.

    Args:
        folder: An empty folder for it.
        *wanted: Wheels, with extras behind them in brackets if they are wanted.
        constraints: "tested" or "lowest", or several of which later ones go first; None for the newest
            versions of the package index.
        python: The interpreter; None for the one of this process.

    Raises:
        UnreachableError: A version is not in the cache, and there is no network.
        RuntimeError: It cannot be installed.
    """
    fresh = Fresh(folder)
    _uv("venv", "--python", str(python or sys.executable), str(folder / "venv"))
    pins = [] if constraints is None else ["-c", str(_pins(folder, constraints))]
    newest = ["--upgrade"] if constraints is None else []
    _uv("pip", "install", "--python", str(fresh.python), *pins, *newest, *wanted)
    _uv("pip", "check", "--python", str(fresh.python))
    return fresh


def _pins(folder: Path, names: str | Sequence[str]) -> Path:
    """A file with the versions of all these files of ``constraints/``."""
    chosen: dict[str, str] = {}
    for name in [names] if isinstance(names, str) else names:
        chosen.update(pinned(name))
    path = folder / "pins.txt"
    path.write_text("".join(f"{name}=={version}\n" for name, version in chosen.items()), "utf-8")
    return path


def _uv(*arguments: str, **env: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uv", *arguments],
        cwd="/",
        env={**environment(), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode != 0:
        if NETWORK.search(done.stderr):
            raise UnreachableError(done.stderr.strip().splitlines()[-1])
        raise RuntimeError(f"uv {' '.join(arguments[:4])}:\n{done.stdout}{done.stderr}")
