"""Where the harness keeps its files, and the databases that it starts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.databases import Database, PostgresCluster, SqliteFiles
from tests.support.leftovers import MEMORY
from tests.support.postgres import Postgres

__all__ = ["KILLABLE", "cluster", "databases", "scratch"]

#: Shared memory in files of its own: a PostgreSQL that is killed for good leaves nothing behind.
KILLABLE = {"dynamic_shared_memory_type": "mmap"}
#: Bytes that a PostgreSQL with some hundred small databases takes.
ROOM = 3 << 30


def scratch() -> Path:
    """Where files are: in memory where there is room. Processes are killed here, not machines."""
    memory = Path(os.environ.get(MEMORY, "/dev/shm"))
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM
    return memory if roomy else Path(tempfile.gettempdir())


@contextmanager
def cluster(**config: str) -> Iterator[Postgres]:
    """A PostgreSQL of one's own."""
    folder = Path(tempfile.mkdtemp(prefix="emrl-pg-", dir=scratch()))
    folder.chmod(0o711)  # it runs as another user
    postgres = Postgres(folder / "a", config=KILLABLE | config)
    try:
        postgres.create()
        yield postgres
    finally:
        postgres.kill()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def databases(kind: str, **config: str) -> Iterator[Database]:
    """SQLite files in a temporary folder, or a PostgreSQL started for this, with its settings."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="emrl-served-", dir=scratch()) as folder:
            yield SqliteFiles(Path(folder))
        return
    with cluster(**config) as postgres:
        yield PostgresCluster(postgres)
