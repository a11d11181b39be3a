"""The messages that docs/troubleshooting.md lists are those of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
PACKAGES = ("edge_mrl", "export/edge_mrl_export", "server/edge_mrl_server")
#: Stands for what a message fills in, in the page and in the texts of the code.
GAP = "\u2026"
#: The shell's words, and those of HTTP.
NOT_OURS = {"edge-mrl: command not found", "401 token", "409 space", "429 rate", "503 busy"}


def texts(path: Path) -> Iterator[str]:
    """Every text of a module; what is filled in is a gap."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else GAP for p in node.values)
            yield "".join(map(str, parts))


@pytest.fixture(scope="module")
def known() -> str:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    return "\n".join(" ".join(text.split()) for file in files for text in texts(file))


def messages() -> list[str]:
    """The code in the first cell of each row."""
    cells = re.findall(r"^\| (?!message|finding|---)(.*?) \|", PAGE, re.MULTILINE)
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]


def fragments(message: str) -> list[str]:
    return [part.strip(" :().") for part in message.split(GAP) if part.strip(" :().,;")]


def test_messages_are_those_of_the_code(known: str) -> None:
    commands = ("edge-mrl ", "-", ".", "DeprecationWarning")
    quoted = [m for m in messages() if m not in NOT_OURS and not m.startswith(commands)]
    assert len(quoted) > 40
    wrong = [(m, part) for m in quoted for part in fragments(m) if part not in known]
    assert wrong == []
