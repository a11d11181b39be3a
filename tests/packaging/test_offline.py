"""Nothing leaves the device, and nothing is left on it that was not asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.bundles import TINY
from tests.support.processes import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

#: Prints sockets that are open at the end. Libraries that report their use upload in the background.
ENCODE = f"""
import os, time
from edge_mrl import Encoder
with Encoder.open({str(TINY)!r}) as encoder:
    encoder.encode(["a cat and a dog"])
    time.sleep(0.5)
    names = [os.readlink(f"/proc/self/fd/{{fd}}") for fd in os.listdir("/proc/self/fd")
             if os.path.islink(f"/proc/self/fd/{{fd}}")]
    print([name for name in names if name.startswith("socket:")])
"""


def environment(home: Path) -> dict[str, str]:
    """A user's whose home and temporary folder are empty, and who has said nothing about reports."""
    for name in ("home", "tmp"):
        (home / name).mkdir()
    # The test run may be in a place where libraries do not report.
    left_out = ("CI", "XDG_", "ORT_", "TF_BUILD", "GITHUB_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    return {**kept, "HOME": str(home / "home"), "TMPDIR": str(home / "tmp")}


def made(home: Path) -> list[str]:
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*"))


@pytest.mark.test
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_encoding_opens_no_socket_and_makes_no_file(tmp_path: Path) -> None:
    env = environment(tmp_path)
    command = [sys.executable, "-c", ENCODE]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert made(tmp_path) == ["home", "tmp"]


@pytest.mark.test
def test_commands_make_no_file_but_the_store(tmp_path: Path) -> None:
    env = environment(tmp_path)
    (tmp_path / "notes.txt").write_text("the cat and the dog", "utf-8")
    for arguments in (
        ["verify", TINY],
        ["index", "notes.txt", "--bundle", TINY, "--store", "notes.db"],
        ["search", "a cat", "--store", "notes.db"],
        ["check", "--store", "notes.db"],
    ):
        command = [*COMMAND, *map(str, arguments)]
        subprocess.run(command, env=env, cwd=tmp_path, check=True, capture_output=True)
    assert made(tmp_path) == ["home", "notes.db", "notes.txt", "tmp"]
