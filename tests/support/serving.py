"""A real ``edge-mrl serve`` process for tests of either side."""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from edge_mrl.cli import main
from edge_mrl.wire.clock import COUNTER_BITS, now_ms
from edge_mrl.wire.frames import (
    CONTENT_TYPE,
    Item,
    digest,
    encode_items,
    encode_message,
    matches_digest,
)
from edge_mrl_server.storage import accounts, open_database
from tests.support import children
from tests.support.processes import COMMAND

__all__ = [
    "SPACE",
    "Caller",
    "Reply",
    "Serving",
    "admin",
    "back_up",
    "enroll",
    "invitations",
    "item",
    "operate",
    "put_back",
    "serving",
    "units",
]

_TENANTS = itertools.count(1)

SPACE = "5" * 64
STOP_S = 30.0


class Serving:
    """A server process, and its worker processes where it has some. It ends when this process does.

    Args:
        database: A path, or a connection string.
        arguments: Further arguments of ``edge-mrl serve``.
        port: Where; 0 takes a free one.
        program: Python to run before the server: a test breaks something with it.

    Attributes:
        url: Where it listens.
        admin_url: Where the operator's page is, if it was asked for.
        invitation: An invitation to tenant ``default``, if the database was new.
    """

    def __init__(
        self, database: str | Path, *arguments: str, port: int = 0, program: str = ""
    ) -> None:
        self.database = str(database)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        own = [
            sys.executable,
            "-c",
            f"{program}\nfrom edge_mrl.cli import main\nraise SystemExit(main())",
        ]
        command = [
            *(own if program else COMMAND),
            "serve",
            "--database",
            self.database,
            "--port",
            str(port),
            "--json",
        ]
        self.process = subprocess.Popen(
            children.ending_with_us([*command, *arguments]),
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **children.mark()},
        )
        self._logged = ""
        try:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            assert line, self.log()
            said = json.loads(line)
            assert "url" in said, said
        except BaseException:
            self.kill()
            raise
        self.url: str = said["url"]
        self.admin_url: str | None = said["admin_url"]
        self.invitation: str | None = said["invitation"]
        self.code = self.invitation  # for tests that call it by its old name

    @property
    def port(self) -> int:
        """Its port."""
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def log(self) -> str:
        """What it wrote to standard error."""
        if not self._log.closed:
            self._logged = os.pread(self._log.fileno(), 1 << 26, 0).decode("utf-8", "replace")
        return self._logged

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it, and wait until its worker processes have ended too; returns its exit code."""
        workers = children.descendants(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            code = self.process.wait(STOP_S)
            assert children.all_end(workers, STOP_S), "a worker process outlives its server"
            return code
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.log()
            self._log.close()

    def kill(self) -> None:
        """SIGKILL to all its processes, as when the power fails."""
        if self.process.poll() is None:
            # Stopped first: it would start other processes in place of those that die.
            self.process.send_signal(signal.SIGSTOP)
            for pid in children.descendants(self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.stop(signal.SIGKILL)


@contextmanager
def serving(
    database: str | Path, *arguments: str, port: int = 0, program: str = ""
) -> Iterator[Serving]:
    """A server process, ended at the end."""
    server = Serving(database, *arguments, port=port, program=program)
    try:
        yield server
    finally:
        server.kill()


_ADMIN = threading.Lock()


def admin(database: str | Path, *arguments: str) -> Any:
    """What ``edge-mrl admin ... --json`` prints, run in this process: a process costs half a second."""
    out, errors = io.StringIO(), io.StringIO()
    # What is printed goes to one place at a time, whichever thread asks.
    with _ADMIN, contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main(["admin", *arguments, "--database", str(database), "--json"])
    assert code == 0, errors.getvalue()
    return json.loads(out.getvalue())


def operate(database: str | Path, *arguments: str) -> Any:
    """The same in a process of its own, as an operator does it."""
    command = [*COMMAND, "admin", *arguments, "--database", str(database), "--json"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def back_up(database: Path, copy: Path) -> None:
    """Copy a database of SQLite as its page of the manual says."""
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def put_back(copy: Path, database: Path) -> None:
    """Put a copy in place, without the log of what it replaces."""
    for ending in ("-wal", "-shm"):
        database.with_name(database.name + ending).unlink(missing_ok=True)
    shutil.copy(copy, database)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, its digest and sequence checked."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's word."""
        word: str = self.json["error"]["code"]
        return word


class Caller:
    """A plain HTTP client that says exactly what it is told, over one connection.

    Args:
        url: The server.
        token: A token; None for none.
        space: The space of its vectors.
    """

    _numbers = itertools.count(1)

    def __init__(self, url: str, token: str | None = None, *, space: str = SPACE) -> None:
        parts = urlsplit(url)
        self.token = token
        self.space = space
        self.device = ""
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
        *,
        kind: str = CONTENT_TYPE,
    ) -> Reply:
        """Send a request; ``headers`` replaces some of ours, and None leaves one out."""
        sequence = str(next(self._numbers))
        mine: dict[str, str | None] = {
            "Edge-MRL-Protocol": "1",
            "Edge-MRL-Sequence": sequence,
            "Edge-MRL-Space": self.space,
        }
        if self.token is not None:
            mine["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            mine |= {"Content-Type": kind, "Content-Digest": digest(body)}
        mine |= dict(headers or {})
        sent = {name: value for name, value in mine.items() if value is not None}
        self._connection.request(method, path, body, sent)
        answer = self._connection.getresponse()
        data = answer.read()
        got = {name.lower(): value for name, value in answer.getheaders()}
        if mine["Edge-MRL-Sequence"] == sequence:
            assert got.get("edge-mrl-sequence") == sequence, got
        assert matches_digest(data, got.get("content-digest")), (answer.status, got, data[:200])
        return Reply(answer.status, got, data)

    def push(self, *items: Item, cursor: int = 0, dim: int = 8, **headers: str | None) -> Reply:
        """Push documents."""
        body = encode_items({"cursor": cursor}, items, like=np.zeros((0, dim), np.float16))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.call("POST", "/v1/push", body, named)

    def statuses(self, *items: Item, cursor: int = 0, dim: int = 8) -> list[str]:
        """Push documents; what became of each."""
        reply = self.push(*items, cursor=cursor, dim=dim)
        assert reply.status == 200, reply.body
        return [result["status"] for result in reply.json["results"]]

    def query(self, path: str, header: Mapping[str, Any], vector: NDArray[Any]) -> Reply:
        """Rerank or search."""
        return self.call("POST", path, encode_message(header, vector.reshape(1, -1)))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def invitations(server: Serving) -> Iterator[Callable[[], str]]:
    """Makes invitations of a tenant of its own."""
    with open_database(server.database) as database:
        tenant = f"t{next(_TENANTS)}"
        with database.write() as transaction:
            accounts.create_tenant(transaction, tenant)

        def make() -> str:
            with database.write() as transaction:
                return accounts.create_invitation(transaction, tenant)

        yield make


def enroll(url: str, invitation: str, name: str = "test", *, space: str = SPACE) -> Caller:
    """Enroll a device, and call as that."""
    caller = Caller(url, space=space)
    body = json.dumps({"code": invitation, "name": name}).encode()
    reply = caller.call("POST", "/v1/enroll", body, kind="application/json")
    assert reply.status == 200, reply.body
    caller.token, caller.device = reply.json["token"], reply.json["device"]
    return caller


def units(n: int, dim: int = 8, *, seed: int = 0) -> NDArray[np.float16]:
    """float16[n, dim] of unit length."""
    values = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    rows: NDArray[np.float16] = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(
        np.float16
    )
    return rows


def item(
    name: str, *, after: int = 0, seed: int = 0, n: int = 1, dim: int = 8, **more: Any
) -> Item:
    """A document stamped now, or so many milliseconds after (before, if below 0)."""
    stamp = (now_ms() + after) << COUNTER_BITS
    vectors = units(0 if more.get("deleted") else n, dim, seed=seed)
    return Item(name, stamp, vectors, **more)
