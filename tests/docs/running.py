"""Run what a page shows, and compare what comes of it with what the page says.

A fenced block of `bash` or `python` is run; a block of `text` right behind it is what it prints.
Blocks of Python are one program. Blocks of `console` are shown, but not run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = ["Step", "comparable", "compare_page", "steps", "use_installed"]

SEPARATOR = "\0"


@dataclass(frozen=True)
class Step:
    """A block that is run, and what the page says it prints (None: nothing is said)."""

    language: str
    code: str
    printed: str | None


def steps(page: str) -> list[Step]:
    """The blocks of a page that are run, in order."""
    found = re.finditer(
        r"^```(bash|python)\n(.*?)^```\n(?:\n(?:[^\n`#|][^\n]*\n\n?)?```text\n(.*?)^```)?",
        page,
        re.DOTALL | re.MULTILINE,
    )
    return [Step(*one.groups()) for one in found]


def comparable(text: str) -> str:
    """Text without what differs from machine to machine: last digits, times, sizes and spaces at ends."""
    text = re.sub(r"\d[\d,]*(\.\d+)? (ms|s|min|passages/s|kB|MB|B)\b", "#", text)
    text = re.sub(r"-?\d+\.\d+(e-?\d+)?", "#", text)
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def compare_page(page: str, folder: Path, prepare: Callable[[str], str] = str) -> None:
    """Run a page's blocks in a folder; AssertionError where the output differs or a command fails.

    Args:
        page: The page's text.
        folder: Where the commands run.
        prepare: Changes the shell commands before they run.
    """
    blocks = steps(page)
    for step in blocks:
        if step.language == "bash":
            printed = run(["bash", "-euo", "pipefail", "-c", prepare(step.code)], folder)
            _compare(step, printed)
    programs = [step for step in blocks if step.language == "python"]
    code = f"print({SEPARATOR!r}, end='')\n".join(step.code for step in programs)
    outputs = run([sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", code], folder)
    for step, printed in zip(programs, outputs.split(SEPARATOR), strict=True):
        _compare(step, printed)


def use_installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the packages of a folder installed, and nothing else set, in processes that are started."""
    root = Path(__file__).parent.parent.parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(site)]))
    monkeypatch.setenv("EDGE_MRL_CONFIG", os.devnull)


def _compare(step: Step, printed: str) -> None:
    if step.printed is not None:
        assert comparable(printed) == comparable(step.printed), step.code


def run(command: list[str], folder: Path) -> str:
    """Run with this interpreter's scripts first on the path, as in an activated environment."""
    scripts = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
