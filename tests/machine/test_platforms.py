"""The main job where calls are hidden that only POSIX, or only Linux, has."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import ROOT, TINY, TINY_STATIC
from tests.support.platforms import PLATFORMS, on_platform
from tests.support.processes import COMMAND, good
from tests.support.serving import invitations, serving

SLOW = pytest.mark.nightly
#: Before each merge, the platform that lacks most.
EACH = [
    pytest.param(name, marks=pytest.mark.test if name == "win32" else SLOW) for name in PLATFORMS
]
#: More than wait in SQLite before the code file is written.
ROWS = 4_500


class Machine:
    """A machine of another platform, with a home of its own."""

    def __init__(self, platform: str, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, **on_platform(platform, home / "site")}

    def python(self, code: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, env=self.environment, cwd=self.home, capture_output=True, check=False
        )

    def run(self, *arguments: object, code: int = 0) -> str:
        command = [*COMMAND, *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment, cwd=self.home, capture_output=True, check=False
        )
        said = (done.stdout + done.stderr).decode()
        assert done.returncode == code, said
        return said


@pytest.fixture(params=EACH)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(request.param, tmp_path)


def test_index_search_and_care(machine: Machine) -> None:
    home = machine.home
    (home / "notes").mkdir()
    (home / "notes" / "a.txt").write_text("the cat and the dog", "utf-8")
    store = ("--store", "s.db")
    assert "good" in machine.run("verify", TINY)
    machine.run("index", "notes", *store, "--bundle", TINY, "--quiet")
    assert "the cat and the dog" in machine.run("search", "a cat", *store)
    assert "the cat" in machine.run("search", "cat", *store, "--mode", "hybrid")
    machine.run("embed", "notes/a.txt", "--bundle", TINY, "-o", "a.npy")
    machine.run("pack", TINY, "-o", "tiny.zip")
    machine.run("reindex", *store, "--bundle", "tiny.zip")
    machine.run("dump", *store, "--codes", "-o", "s.jsonl")
    machine.run("load", "s.jsonl", "--store", "copy.db", "--bundle", TINY)
    machine.run("delete", "notes/a.txt", *store)
    machine.run("compact", *store)
    assert "sound" in machine.run("check", *store)
    good("check", "--store", home / "copy.db")  # the same file on Linux


@SLOW
def test_doctor_and_bench(machine: Machine) -> None:
    assert "no problems" in machine.run("doctor", "--bundle", TINY)
    machine.run("bench", "--bundle", TINY, "--quiet")


@SLOW
def test_a_code_file_is_written_grown_mended_and_packed(machine: Machine) -> None:
    home = machine.home
    lines = [
        json.dumps({"id": str(n), "text": f"the cat {n} and the dog"}) for n in range(2 * ROWS)
    ]
    (home / "first.jsonl").write_text("\n".join(lines[:ROWS]), "utf-8")
    (home / "second.jsonl").write_text("\n".join(lines[ROWS:]), "utf-8")
    store = ("--store", "s.db")
    machine.run("index", "first.jsonl", *store, "--bundle", TINY_STATIC, "--quiet")
    codes = home / "s.db-codes"
    size = codes.stat().st_size
    machine.run("index", "second.jsonl", *store, "--quiet")
    stats = json.loads(machine.run("stats", *store, "--json"))
    assert stats["documents"] == 2 * ROWS

    def hits() -> object:
        found = machine.run("search", "the cat 77 and the dog", *store, "--json", "-k", "3")
        return json.loads(found)["hits"]

    exact = hits()
    with codes.open("r+b") as file:  # some codes of the first rows
        file.seek(size // 2)
        file.write(b"\xff" * 4000)
    assert hits() == exact
    machine.run("check", "--repair", *store)
    assert "sound" in machine.run("check", *store)
    machine.run("delete", *(str(n) for n in range(1, 60)), *store)
    machine.run("compact", *store)
    assert "sound" in machine.run("check", *store)
    good("check", *store, cwd=home)


def test_two_devices_sync_with_a_real_server(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the cat and the dog", "utf-8")
    with serving(tmp_path / "server.db") as server, invitations(server) as invite:
        for name in ("1.db", "2.db"):
            store = ("--store", name)
            invitation = ("--server", server.url, "--invitation", invite())
            machine.run("enroll", *store, *invitation, "--bundle", TINY)
        machine.run("index", "a.txt", "--store", "1.db", "--quiet")
        machine.run("sync", "--store", "1.db")
        machine.run("sync", "--store", "2.db")
        assert json.loads(machine.run("stats", "--store", "2.db", "--json"))["documents"] == 1
        assert "1" in machine.run("search", "a cat", "--store", "2.db", "--rerank", "auto")
        machine.run("delete", "a.txt", "--store", "1.db")
        machine.run("sync", "--store", "1.db")
        machine.run("sync", "--store", "2.db")
        assert json.loads(machine.run("stats", "--store", "2.db", "--json"))["documents"] == 0


@pytest.mark.test
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.pread(0, 1, 0)", b"os has no pread on win32"),
        ("import fcntl", b"No module named 'fcntl'"),
        ("import os; os.close(os.open('s.txt', os.O_RDWR))", b"is opened as text"),
        ("import os; f = open('s.txt'); os.replace('t.txt', 's.txt')", b"another process uses"),
        ("import os; f = open('s.txt'); os.unlink('s.txt')", b"another process uses"),
        ("open('/proc/meminfo')", b"No such file or directory"),
        ("import sys; assert sys.platform == 'linux'", b"AssertionError"),
    ],
)
def test_what_a_platform_lacks_is_noticed(tmp_path: Path, code: str, said: bytes) -> None:
    """The sabotage twin: code of edge-mrl's that does so would fail."""
    machine = Machine("win32", tmp_path)
    for name in ("s.txt", "t.txt"):
        (tmp_path / name).touch()
    package = tmp_path / "site" / "edge_mrl"
    package.mkdir()
    (package / "__init__.py").write_text(code, "utf-8")
    done = machine.python("import edge_mrl")
    assert done.returncode == 1
    assert said in done.stderr, done.stderr


#: Calls and modules that are not everywhere, and what must stand in a module of edge-mrl that uses one.
ELSEWHERE = {
    "import fcntl": "except ImportError",
    "import resource": "except ImportError",
    "os.geteuid(": 'hasattr(os, "geteuid")',
    "os.statvfs(": 'hasattr(os, "statvfs")',
    "os.preadv(": 'hasattr(os, "preadv")',
    "os.pwrite(": 'hasattr(os, "pwrite")',
    "os.pread(": None,
    "os.fork": None,
    "os.uname": None,
    "signal.SIGKILL": None,
}


def test_every_call_that_is_not_everywhere_is_known() -> None:
    for path in (ROOT / "edge_mrl").rglob("*.py"):
        text = path.read_text("utf-8")
        wrong = [
            call
            for call, guard in ELSEWHERE.items()
            if call in text and (guard is None or guard not in text)
        ]
        assert wrong == [], path


def test_positions_without_calls_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pread", "preadv", "pwrite"):
        monkeypatch.delattr(os, name)
    found = runpy.run_path(str(ROOT / "edge_mrl" / "machine" / "positional.py"))
    descriptor = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    try:
        assert found["write_at"](descriptor, b"0123456789", 0) == 10
        assert found["write_at"](descriptor, memoryview(b"abc"), 4) == 3
        assert found["read_at"](descriptor, 4, 3) == b"3abc"
        assert found["read_at"](descriptor, 9, 8) == b"89"
        room = bytearray(6)
        assert found["read_into"](descriptor, memoryview(room), 5) == 5
        assert (bytes(room), found["read_into"](descriptor, memoryview(room), 10)) == (
            b"bc789\0",
            0,
        )
    finally:
        os.close(descriptor)
