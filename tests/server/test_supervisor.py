"""Several processes behind one port: what dies comes back, and none outlives the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.children import (
    all_end,
    children_of,
    ending_with_us,
    left_over,
    mark,
)
from tests.support.processes import wait_until
from tests.support.serving import Caller, Serving, enroll, serving

pytestmark = pytest.mark.test

#: A process that has nothing to finish ends at once; so long takes a busy machine at most.
SOON_S = 20.0
#: Jobs that write a line to a file when they begin and when they are told to end.
PROGRAM = """
import logging, os, signal, sys, time
from pathlib import Path
from edge_mrl_server.process import supervise
logging.getLogger("edge_mrl_server").addHandler(logging.StreamHandler(sys.stderr))
folder = Path(sys.argv[1])
def job(name):
    told = []
    signal.signal(signal.SIGTERM, lambda sign, frame: told.append(sign))
    (folder / f"{name}-{os.getpid()}").touch()
    while not told:
        time.sleep(0.01)
    (folder / f"{name}-finished").touch()
ended = folder / "ended"
def note(pid):
    with ended.open("a") as file:
        file.write(f"{pid}\\n")
supervise([lambda: job("a"), lambda: job("b")], on_end=note)
print("all have ended", flush=True)
"""


@contextmanager
def supervised(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Two jobs under a supervisor, both begun."""
    before = set(left_over())  # servers of other tests
    process = subprocess.Popen(
        ending_with_us([sys.executable, "-c", PROGRAM, str(folder)]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **mark()},
    )
    try:
        wait_until(lambda: len([*folder.glob("[ab]-[0-9]*")]) == 2)
        yield process
    finally:
        for pid in set(left_over()) - before:  # also orphans, which hold the pipes open
            os.kill(pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_all_finish_and_then_returns(tmp_path: Path, sign: signal.Signals) -> None:
    with supervised(tmp_path) as process:
        pids = children_of(process.pid)
        process.send_signal(sign)
        output, errors = process.communicate(timeout=SOON_S)
        assert (process.returncode, output) == (0, b"all have ended\n")
        assert errors == b""
    assert {path.name for path in tmp_path.glob("*-finished")} == {"a-finished", "b-finished"}
    assert sorted(map(int, (tmp_path / "ended").read_text().split())) == sorted(pids)


def test_process_that_dies_is_started_again_and_the_other_goes_on(tmp_path: Path) -> None:
    with supervised(tmp_path) as process:
        first, other = children_of(process.pid)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len([*tmp_path.glob("[ab]-[0-9]*")]) == 3)
        now = children_of(process.pid)
        assert first not in now
        assert other in now
        assert len(now) == 2


def test_processes_of_a_supervisor_that_was_killed_finish(tmp_path: Path) -> None:
    with supervised(tmp_path) as process:
        workers = children_of(process.pid)
        process.kill()
        process.wait()
        assert all_end(workers, SOON_S), "a worker outlives its supervisor"
    assert {path.name for path in tmp_path.glob("*-finished")} == {"a-finished", "b-finished"}


def test_processes_started_again_end_with_their_supervisor_too(tmp_path: Path) -> None:
    with supervised(tmp_path) as process:
        first, _ = children_of(process.pid)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len([*tmp_path.glob("[ab]-[0-9]*")]) == 3)
        workers = children_of(process.pid)
        process.kill()
        process.wait()
        assert all_end(workers, SOON_S)


# --- the real server


def test_killed_server_leaves_its_port_to_the_next_one(sqlite_path: Path) -> None:
    with serving(sqlite_path, "--admin-port", "0") as server:
        assert server.invitation is not None
        device = enroll(server.url, server.invitation)
        device.close()
        wait_until(lambda: len(children_of(server.process.pid)) == 2)
        workers = children_of(server.process.pid)
        os.kill(server.process.pid, signal.SIGKILL)
        assert all_end(workers, SOON_S)
        with serving(sqlite_path, port=server.port) as next_one:
            again = Caller(next_one.url, device.token)
            assert again.call("GET", "/v1/pull?since=0&vectors=none").status == 200
            again.close()


@pytest.mark.parametrize("ended", ["in order", "in a hurry"])
def test_no_process_of_a_server_outlives_its_test(sqlite_path: Path, ended: str) -> None:
    before = left_over()

    def fails() -> None:
        with serving(sqlite_path, "--admin-port", "0") as server:
            wait_until(lambda: len(set(left_over()) - set(before)) == 3)
            if ended == "in order":
                assert server.stop() == 0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert left_over() == before


def test_server_that_does_not_start_leaves_nothing(tmp_path: Path) -> None:
    before = left_over()
    with pytest.raises(AssertionError, match="unable to open"):
        Serving(tmp_path / "no" / "such" / "server.db")
    assert left_over() == before


def test_server_ends_when_the_tests_are_killed(tmp_path: Path) -> None:
    """As when a run is interrupted: nothing is torn down then."""
    program = (
        "import json, sys, time\n"
        "from tests.support.serving import Serving\n"
        "from tests.support.children import descendants\n"
        "server = Serving(sys.argv[1], '--admin-port', '0')\n"
        "while len(descendants(server.process.pid)) < 2: time.sleep(0.01)\n"
        "print(json.dumps([server.process.pid, *descendants(server.process.pid)]), flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "server.db")]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as run:
        try:
            assert run.stdout is not None
            pids = json.loads(run.stdout.readline())
            assert len(pids) == 3
        finally:
            run.kill()
    if not all_end(pids, SOON_S):
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        pytest.fail("a server outlives the tests that started it")
