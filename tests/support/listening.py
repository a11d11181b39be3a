"""Commands that listen, as processes of their own, and plain requests to them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

from tests.support import children
from tests.support.processes import COMMAND

__all__ = ["Listening", "Reply", "listening", "request"]

STOP_S = 30.0


@dataclass(frozen=True)
class Listening:
    """A process that listens; ``said`` is what it printed as JSON."""

    process: subprocess.Popen[str]
    said: dict[str, Any]
    errors: IO[bytes]

    @property
    def url(self) -> str:
        return str(self.said["url"])

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(STOP_S)

    def log(self) -> str:
        return os.pread(self.errors.fileno(), 1 << 20, 0).decode()


@contextmanager
def listening(*arguments: object, **env: str) -> Iterator[Listening]:
    """A command with --json and a free port, ended at the end."""
    import tempfile

    command = [*COMMAND, *map(str, arguments), "--port", "0", "--json"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            children.ending_with_us(command),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **children.mark(), **env},
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, os.pread(errors.fileno(), 1 << 20, 0).decode()
            yield Listening(process, json.loads(line), errors)
        finally:
            process.kill()
            process.communicate()


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error


def request(url: str, method: str, path: str, body: object = None, **headers: str) -> Reply:
    """One request over a connection of its own; headers by name, with ``_`` for ``-``."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, data, {"Content-Type": "application/json", **named})
        answer = connection.getresponse()
        return Reply(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()
