"""The databases that servers run on in the harness: to make, to kill, and to read behind their backs."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tests.faults.plan import Copying
from tests.support.postgres import Postgres
from tests.support.serving import operate

__all__ = ["Database", "Held", "PostgresCluster", "Row", "SqliteFiles", "held"]

TENANT = "default"
_DOCUMENTS = "SELECT id, stamp, device, change, deleted, passages, text, metadata FROM documents"
_TENANT = (
    "SELECT change, documents, tombstones, passages, fence FROM tenants WHERE tenant = 'default'"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A document's row in a server's database."""

    id: str
    stamp: int
    device: str
    change: int
    deleted: bool
    passages: int
    text: str | None
    metadata: dict[str, Any] | None


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """All that a server's database holds: documents, vectors by id, and its own counts."""

    rows: list[Row]
    vectors: dict[str, NDArray[np.float16]]
    change: int
    documents: int
    tombstones: int
    passages: int
    fence: int


class Database(Protocol):
    """A place for servers' databases."""

    kind: str
    #: Whether it is a process of its own.
    dies: bool

    def new(self, name: str) -> str:
        """Make a database; what ``edge-mrl serve --database`` is told."""

    def read(self, url: str) -> Held:
        """What is in a database."""

    def copy(self, url: str, how: Copying) -> None:
        """Copy a database, which a server uses where ``how`` is "live": then PostgreSQL dumps it."""

    def put_back(self, url: str, *, said: bool) -> None:
        """Put the copy in the place of a database that no server uses.

        Args:
            url: The database.
            said: Whether that is said, so that a new epoch begins.
        """

    def kill(self) -> None:
        """SIGKILL to all its processes."""

    def start(self) -> None:
        """Start it again."""


class SqliteFiles:
    """SQLite: files in a folder; it dies with the server."""

    kind = "sqlite"
    dies = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new(self, name: str) -> str:
        return str(self._folder / f"{name}.db")

    def read(self, url: str) -> Held:
        connection = sqlite3.connect(url)
        try:
            found = connection.execute(_DOCUMENTS).fetchall()
            vectors = connection.execute("SELECT id, vectors FROM vectors").fetchall()
            tenant = connection.execute(_TENANT).fetchone()
        finally:
            connection.close()
        counts = {row[0]: row[5] for row in found}
        arrays = {
            name: np.frombuffer(data, "<f2").reshape(counts.get(name) or 1, -1)
            for name, data in vectors
        }
        return held(found, arrays, tenant)

    def copy(self, url: str, how: Copying) -> None:
        if how != "files":
            operate(url, "backup", f"{url}.copy", "--force")
            return
        for end in ("", "-wal"):
            if Path(f"{url}{end}").exists():
                shutil.copy(f"{url}{end}", f"{url}.copy{end}")

    def put_back(self, url: str, *, said: bool) -> None:
        if said:
            operate(url, "restore", f"{url}.copy")
            return
        for end in ("-wal", "-shm"):
            Path(f"{url}{end}").unlink(missing_ok=True)
        for end in ("", "-wal"):
            if Path(f"{url}.copy{end}").exists():
                shutil.copy(f"{url}.copy{end}", f"{url}{end}")

    def kill(self) -> None:
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError


class PostgresCluster:
    """A PostgreSQL with a database for each server."""

    kind = "postgresql"
    dies = True

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    def new(self, name: str) -> str:
        return self._postgres.make_database(name)

    def read(self, url: str) -> Held:
        import psycopg

        with psycopg.connect(url) as connection:
            found = connection.execute(_DOCUMENTS).fetchall()
            sql = "SELECT id, vector::text FROM passages ORDER BY id, position"
            parts: dict[str, list[Any]] = {}
            for name, text in connection.execute(sql):
                parts.setdefault(name, []).append(json.loads(text))
            tenant = connection.execute(_TENANT).fetchone()
        assert tenant is not None
        return held(found, {k: np.array(v, np.float16) for k, v in parts.items()}, tenant)

    def copy(self, url: str, how: Copying) -> None:
        name = url.rpartition("/")[2]
        if how == "live":
            self._postgres.run_program("pg_dump", "-Fc", "-f", self._dump(name), url)
            return
        self._run(f"DROP DATABASE IF EXISTS {name}_copy")
        self._run(f"CREATE DATABASE {name}_copy TEMPLATE {name}")

    def put_back(self, url: str, *, said: bool) -> None:
        name = url.rpartition("/")[2]
        self._run(f"DROP DATABASE {name} WITH (FORCE)")
        if self._dump(name).exists():
            self._run(f"CREATE DATABASE {name}")
            self._postgres.run_program("pg_restore", "-e", "-d", url, self._dump(name))
        else:
            self._run(f"CREATE DATABASE {name} TEMPLATE {name}_copy")
        if said:
            operate(url, "restored")

    def _dump(self, name: str) -> Path:
        return self._postgres.folder / f"{name}.dump"

    def _run(self, sql: str) -> None:
        self._postgres.run_program(
            "psql", self._postgres.url, "-q", "-v", "ON_ERROR_STOP=1", "-c", sql
        )

    def kill(self) -> None:
        self._postgres.kill()

    def start(self) -> None:
        self._postgres.start()


def held(
    found: list[tuple[Any, ...]], vectors: dict[str, NDArray[np.float16]], tenant: tuple[Any, ...]
) -> Held:
    """What was read, in one form."""
    rows = [
        Row(
            *row[:4],
            bool(row[4]),
            row[5],
            None if row[6] is None else bytes(row[6]).decode(),
            None if row[7] is None else json.loads(bytes(row[7])),
        )
        for row in found
    ]
    return Held(rows, vectors, *tenant)
