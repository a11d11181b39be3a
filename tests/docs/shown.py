"""Run what a page shows in this process, against tiny bundles, and compare what it says that is printed.

A page of reference has commands that need a server, a device's id or a large model. So each page has a
table: what stands for what, and which lines are not run, with the reason. Everything else is run, in the
order of the page, in one folder; a block of ``text`` right behind a block is what it prints.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_mrl.cli import main
from tests.docs.pages import ROOT
from tests.docs.running import comparable

__all__ = ["Page", "Shown", "shown"]

_BLOCK = re.compile(
    r"^```(bash|console|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Shown:
    """A block, and what the page says that it prints (None: nothing is said)."""

    language: str
    code: str
    printed: str | None


def shown(text: str) -> list[Shown]:
    """All blocks of commands and programs, in order."""
    return [Shown(*one.groups()) for one in _BLOCK.finditer(text)]


@dataclass
class Page:
    """A page, and what it needs.

    Attributes:
        name: Its name below ``docs/``.
        replaced: What stands in the page, and what is run in its place; a function is asked when it is
            needed.
        before: What is done before a line, by its beginning.
        instead: What is done in place of a line, by its beginning; or the reason why it is not run.
        given: Names that programs find defined.
    """

    name: str
    replaced: Mapping[str, str | Callable[[], str]] = field(default_factory=dict)
    before: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    instead: Mapping[str, str | Callable[[], object]] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)

    @property
    def text(self) -> str:
        """The whole page."""
        return (ROOT / "docs" / self.name).read_text("utf-8")

    def run(self, text: str | None = None) -> int:
        """Run all blocks; AssertionError where one fails, or prints something else.

        Args:
            text: The page, where it is not the one in the repository.

        Returns:
            How many lines and programs ran.
        """
        count = 0
        for block in shown(self.text if text is None else text):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                for part in [block.code] if block.language == "python" else lines(block.code):
                    count += self._do(block.language, part)
            if block.printed is not None:
                assert comparable(out.getvalue()) == comparable(block.printed), block.code
        left = {*self.replaced, *self.before, *self.instead} - self.met
        assert not left, f"{self.name} does not have {sorted(left)} any more"
        return count

    def _do(self, language: str, code: str) -> int:
        for start, action in self.instead.items():
            if code.startswith(start):
                self.met.add(start)
                if not isinstance(action, str):
                    action()
                return 0
        for start, action in self.before.items():
            if code.startswith(start):
                self.met.add(start)
                action()
        for old, new in self.replaced.items():
            if old in code:
                self.met.add(old)
                code = code.replace(old, new if isinstance(new, str) else new())
        if language == "python":
            exec(compile(code, self.name, "exec"), self.given)
        elif code.startswith("edge-mrl "):
            _command(code)
        else:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", code], capture_output=True, check=False
            )
            assert done.returncode == 0, done.stderr
        return 1


def lines(code: str) -> list[str]:
    """The commands of a block of the shell's."""
    joined = code.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def _command(line: str) -> None:
    """Run a command of edge-mrl's, as the shell reads the line."""
    words = [
        str(Path(word).expanduser()) if word[0] == "~" else word
        for word in shlex.split(line, comments=True)
    ]
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        code = main(words[1:])
    assert code == 0, f"{line}\nexit code {code}\n{errors.getvalue()}"
