"""A run that leaves something behind fails, and says what it was."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.leftovers import MARK
from tests.support.processes import wait_until

pytestmark = pytest.mark.test

ROOT = Path(__file__).parent.parent.parent
CONFTEST = """
from pathlib import Path
from tests.support.leftovers import Leftovers
def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Leftovers(Path(__file__).parent))
"""
TIDY = """
import subprocess, sys, tempfile
from pathlib import Path
def test_tidy(tmp_path):
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    with tempfile.TemporaryDirectory():
        pass
    (tmp_path / "file").touch()
    (Path(__file__).parent / "build" / "file").touch()
"""
PROCESS = """
import subprocess, sys
def test_leaves_a_process():
    program = "import time; time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", program, "forgotten"], start_new_session=True)
"""
TEMPORARY = """
import tempfile
def test_leaves_a_folder():
    tempfile.mkdtemp(prefix="forgotten-")
"""
WRITTEN = """
from pathlib import Path
def test_writes_where_the_code_is():
    (Path(__file__).parent / "forgotten.txt").touch()
"""


def run(folder: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST, "utf-8")
    (folder / "test_it.py").write_text(test, "utf-8")
    (folder / "build").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    settings = (
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        f"--basetemp={folder}/build/tmp",
    )
    return subprocess.run(
        [sys.executable, "-m", "pytest", *settings, *options, str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("workers", ["0", "2"])
def test_tidy_run_passes(workers: str, tmp_path: Path) -> None:
    done = run(tmp_path, TIDY, "-n", workers)
    assert done.returncode == 0, done.stdout
    assert "LEFT BEHIND" not in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("workers", ["0", "1"])
def test_process_that_outlives_its_run_is_named_and_ended(workers: str, tmp_path: Path) -> None:
    done = run(tmp_path, PROCESS, "-n", workers)
    assert done.returncode == 1
    assert "1 passed" in done.stdout
    (left,) = re.findall(r"process (\d+): .* forgotten", done.stdout)
    wait_until(lambda: not Path(f"/proc/{left}/cmdline").exists() or ended(int(left)))


def ended(process: int) -> bool:
    """Whether nothing is left of it but an entry that its new parent has not read yet."""
    return Path(f"/proc/{process}/cmdline").read_bytes() == b""


@pytest.mark.parametrize("test", [TEMPORARY, WRITTEN], ids=["temporary", "beside the code"])
def test_file_that_outlives_its_run_is_named(test: str, tmp_path: Path) -> None:
    done = run(tmp_path, test)
    assert done.returncode == 1
    assert "1 passed" in done.stdout
    assert re.search(r"file .*forgotten", done.stdout)


def test_this_run_has_a_mark() -> None:
    assert os.environ[MARK]
