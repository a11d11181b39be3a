"""Processes that are measured: started in a peer's environment, asked and answering in lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

__all__ = ["Child", "ChildError", "module"]

ROOT = Path(__file__).parent.parent.parent
#: Seconds a process may take to end once its standard input is closed.
GRACE_S = 60


class ChildError(Exception):
    """What was to be measured failed, died or hung."""


class Child:
    """A process that answers requests (bench/support/answers.py); a context manager that ends it.

    Args:
        command: The interpreter and its arguments.
        log: Where its standard error is appended.
        timeout_s: Without an answer for so long, it has hung.
        environment: Variables beside this process's own.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        timeout_s: float,
        environment: Mapping[str, str],
    ) -> None:
        self._timeout_s = timeout_s
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, **environment},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # of a request that never arrived
            self._process.stdin.close()
        try:
            self._process.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def ask(self, do: str, **arguments: Any) -> Any:
        """Send a request, wait for its answer.

        Raises:
            ChildError: It failed, died or hung.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(self._timeout_s, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            raise ChildError(f"{do}: the process died, or took over {self._timeout_s:.0f} s")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ChildError(f"{do}: {answer['error']}".replace(str(ROOT), "."))
        return answer["ok"]


def module(name: str) -> list[str]:
    """Arguments that run a module's ``main`` with this checkout last on the path.

    With ``-m`` it would be first, and hide the edge-mrl that is installed in the environment.
    """
    code = f"import sys; sys.path.append({str(ROOT)!r}); from {name} import main; sys.exit(main())"
    return ["-P", "-c", code]
