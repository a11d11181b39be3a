"""What a run of the tests may not leave behind: processes, and files outside build/.

A run has a mark, an environment variable that its processes inherit, and temporary folders of its own.
At its end, a process with the mark that is still alive, a file in these folders, or a new file in the
repository outside the folders of tools is named, and the run fails. What was found is then ended or
deleted, but for files in the repository.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

__all__ = ["MARK", "MEMORY", "Leftovers"]

#: Names the runs that a process belongs to, the innermost last.
MARK = "EDGE_MRL_TEST_RUN"
#: A folder of the run in memory, where the machine has such a file system.
MEMORY = "EDGE_MRL_TEST_MEMORY"
#: Folders of the repository that builds, tools and version control write to.
TOOLS = {
    *(".git", ".venv", "build", "dist", ".pytest_cache", ".mypy_cache", ".ruff_cache"),
    *(".hypothesis", "__pycache__"),
}
#: A process that was told to end has so long to do it.
GRACE_S = 5.0
#: Folders of servers, which cannot delete them where tests kill them with SIGKILL; and multiprocessing's
#: own, which it deletes when this process ends.
ALLOWED = ("edge-mrl-metrics-", "edge-mrl-snapshots-", "pymp-")
#: Python's own helpers, which end with the process that started them.
HELPERS = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")


class Leftovers:
    """A plugin of pytest for the process that leads a run; workers of pytest-xdist inherit its mark.

    Args:
        root: The repository.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._before = set(_files(root))
        self._mark = uuid.uuid4().hex
        self._saved = {
            name: os.environ.get(name) for name in (MARK, MEMORY, "TMPDIR", "PYTEST_DEBUG_TEMPROOT")
        }
        self._found: list[str] = []
        # pytest keeps the folders of failed tests itself.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
        os.environ[MARK] = ",".join(filter(None, [os.environ.get(MARK), self._mark]))
        # Short, for the names of sockets in it; open to those who know a name, for PostgreSQL's user.
        self._folders = [_folder(Path(tempfile.gettempdir()))]
        os.environ["TMPDIR"] = tempfile.tempdir = str(self._folders[0])
        memory = Path("/dev/shm")
        if memory.is_dir() and os.access(memory, os.W_OK):
            self._folders.append(_folder(memory))
            os.environ[MEMORY] = str(self._folders[1])
        for folder in self._folders:  # behind what multiprocessing deletes there
            atexit.register(shutil.rmtree, folder, ignore_errors=True)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Look, when the workers have ended."""
        result = yield
        self._found = [*self._processes(), *self._temporary(), *self._new()]
        if self._found and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what was found."""
        if self._found:
            terminalreporter.section("LEFT BEHIND", sep="!", red=True, bold=True)
            for line in self._found:
                terminalreporter.write_line(line, red=True)

    def pytest_unconfigure(self) -> None:
        """Give back the environment as it was."""
        for name, value in self._saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        tempfile.tempdir = None

    def _processes(self) -> list[str]:
        deadline = time.monotonic() + GRACE_S
        while (found := dict(_marked(self._mark))) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return [f"process {process}: {command}" for process, command in found.items()]

    def _temporary(self) -> list[str]:
        found = sorted(path for folder in self._folders for path in folder.iterdir())
        return [f"file {path}" for path in found if not path.name.startswith(ALLOWED)]

    def _new(self) -> list[str]:
        return [f"file {path}" for path in sorted(set(_files(self._root)) - self._before)]


def _folder(parent: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="emrl-run-", dir=parent))
    folder.chmod(0o711)
    return folder


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in TOOLS]
        yield from (Path(folder) / name for name in names)


def _marked(mark: str) -> Iterator[tuple[int, str]]:
    """Living processes with the mark but this one, and their command lines."""
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        # It may have ended, or be another user's.
        with contextlib.suppress(OSError):
            if mark.encode() not in (entry / "environ").read_bytes():
                continue
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            own = parent == os.getpid() and any(helper in command for helper in HELPERS)
            if command and not own:
                yield int(entry.name), command.strip()
