"""Completion in real shells. zsh and fish are Debian packages; without them, their tests are skipped."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from edge_mrl.cli import COMMANDS, EXTRAS, main

EVERY = {*COMMANDS, *EXTRAS}
#: What is typed, and what is offered: exactly these, or files where it is None.
TYPED = [
    ("edge-mrl ", EVERY),
    ("edge-mrl ins", {"inspect"}),
    ("edge-mrl xyz", set()),
    ("edge-mrl admin ten", {"tenants"}),
    ("edge-mrl admin tenants cr", {"create"}),
    ("edge-mrl admin tenants create --data", {"--database"}),
    ("edge-mrl index --keep-", {"--keep-full"}),
    ("edge-mrl index --keep-full ", {"until-synced", "fp16", "int8"}),
    ("edge-mrl completion ", {"bash", "zsh", "fish"}),
    ("edge-mrl index --store ", None),
    ("edge-mrl index no", None),
]


@pytest.fixture
def script(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Path:
    shell = str(request.node.name).split("_")[1]
    if shutil.which(shell) is None:
        pytest.skip(f"NOT TRIED: {shell} is missing; Debian has it as a package of that name")
    assert main(["completion", shell]) == 0
    path = tmp_path / "_edge-mrl"
    path.write_text(capsys.readouterr().out, "utf-8")
    return path


def offered(shell: str, *arguments: str, cwd: Path) -> list[str]:
    done = subprocess.run([shell, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


def test_bash(script: Path, tmp_path: Path) -> None:
    for typed, expected in TYPED:
        words = typed.split(" ")
        code = f"""
            source {script}
            COMP_WORDS=({" ".join(f"'{word}'" for word in words)}) COMP_CWORD={len(words) - 1}
            _edge_mrl
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        found = set(offered("bash", "-c", code, cwd=tmp_path)) - {""}
        # Where nothing is offered, `-o default` gives files.
        assert found == (set() if expected is None else expected), typed
    rule = offered("bash", "-c", f"source {script}; complete -p edge-mrl", cwd=tmp_path)
    assert rule == ["complete -o bashdefault -o default -F _edge_mrl edge-mrl"]


def test_fish(script: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for typed, expected in TYPED:
        code = f"source {script}; complete -C '{typed}'"
        lines = offered("fish", "--no-config", "-c", code, cwd=tmp_path)
        found = {line.split("\t")[0].split("=")[0] for line in lines}
        if expected is None:
            assert "notes/" in found, typed
        elif expected or found:
            assert found == expected, typed


def test_zsh(script: Path, tmp_path: Path) -> None:
    """A terminal: the line after a tab has what is left of the only word that fits."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execvpe(
            "zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb", "PS1": "", "HOME": "."}
        )
    try:
        setup = (
            f"autoload -Uz compinit; compinit -D -u; source {script}; unsetopt zle_bracketed_paste"
        )
        os.write(terminal, f"{setup}; echo REA''DY\n".encode())
        assert "READY" in heard(terminal, "READY")
        for typed, expected in TYPED:
            if expected is not None and len(expected) == 1 and typed[-1] != " ":
                (word,) = expected
                rest = word.removeprefix(typed.split(" ")[-1])
                os.write(terminal, typed.encode() + b"\t")
                assert rest in heard(terminal, rest), typed
                os.write(terminal, b"\x15")  # the line is deleted
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def heard(terminal: int, wanted: str) -> str:
    """What a terminal shows, until it has shown a text, or for ten seconds."""
    said, end = "", time.monotonic() + 10
    while wanted not in said.replace("\r", "") and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            said += os.read(terminal, 65536).decode("utf-8", "replace")
    return said


def test_a_shell_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "powershell"]) == 2
    assert "invalid choice: 'powershell'" in capsys.readouterr().err
