"""The command line in processes of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = [sys.executable, "-m", "edge_mrl"]


def run(
    *arguments: object, stdin: bytes = b"", **options: Any
) -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, **options)


def good(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    result = run(*arguments, **options)
    assert result.returncode == 0, result.stderr.decode()
    return result


def wait_until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
