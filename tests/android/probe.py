"""The core in Kotlin, as a process that answers a test's questions line by line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from android_demo.tools.kotlin import classpath, core_jar, java, probe_jar
from android_demo.tools.toolchain import LIBRARIES, parts

__all__ = ["KotlinError", "Probe"]

END_TIMEOUT_S = 20


class KotlinError(Exception):
    """The core threw; ``kind`` is the exception's class."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Probe:
    """One Java process. Use it as a context manager.

    Args:
        options: Further options for Java.
        wrapped: Makes the command that is run of Java's.
    """

    def __init__(
        self,
        options: Sequence[str] = (),
        *,
        wrapped: Callable[[Sequence[str]], Sequence[str]] = lambda command: command,
    ) -> None:
        files = classpath(core_jar(), probe_jar(), *parts(LIBRARIES))
        memory = () if any(option.startswith("-Xmx") for option in options) else ("-Xmx512m",)
        command = [java(), "-XX:+UseSerialGC", *memory, *options, "-cp", files]
        self.process = subprocess.Popen(
            wrapped([*command, "org.edgemrl.probe.ProbeKt"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(END_TIMEOUT_S)

    def __call__(self, command: str, **arguments: Any) -> Any:
        """Ask for a command. Arguments and answer are what JSON can hold.

        Raises:
            KotlinError: The command threw.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise KotlinError("ended", f"Java ended with {self.process.wait(END_TIMEOUT_S)}")
        answer = json.loads(line)
        if "error" in answer:
            raise KotlinError(answer["error"], answer["message"])
        return answer["value"]
