"""``edge-mrl index --watch``: real processes, real files, real signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_mrl.cli import main
from edge_mrl.index import Index
from edge_mrl.sources import Search, look_at
from tests.support.bundles import TINY
from tests.support.processes import COMMAND, wait_until

pytestmark = pytest.mark.test


@contextmanager
def watching(*more: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Watch the folder n; gives the process and the lines that it says."""
    words = ["index", "n", "--store", "s.db", "--bundle", str(TINY), "--watch", "--interval", "0.1"]
    process = subprocess.Popen(
        [*COMMAND, *words, *more], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    said: list[str] = []
    assert process.stderr is not None
    reader = threading.Thread(target=said.extend, args=(process.stderr,))
    reader.start()
    try:
        wait_until(lambda: any("watching" in line for line in said))
        yield process, said
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()


def titles() -> list[str]:
    with Index.open("s.db") as index:
        return sorted(str(one.metadata["path"]) for one in index.documents())


def text_of(path: str) -> str:
    with Index.open("s.db") as index:
        return next((one.text for one in index.documents({"path": path})), "")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("n/in").mkdir(parents=True)
    Path("n/a.md").write_text("# a cat\n")


def test_what_changes_is_indexed_and_what_vanishes_for_a_moment_stays() -> None:
    with watching("--prune") as (process, said):
        assert titles() == ["a.md"]
        Path("n/in/b.txt").write_text("a dog")
        wait_until(lambda: titles() == ["a.md", "in/b.txt"])
        Path("n/a.md").write_text("# a model\n")
        wait_until(lambda: text_of("a.md") == "# a model\n")
        Path("n").rename("away")
        wait_until(lambda: any("n is not there: waiting for it" in line for line in said))
        assert titles() == ["a.md", "in/b.txt"]
        Path("away/a.md").write_text("# testing\n")
        Path("away").rename("n")
        wait_until(lambda: text_of("a.md") == "# testing\n")
        Path("n/in/b.txt").unlink()
        Path("n/in/c.txt").write_text("keeps the folder")
        wait_until(lambda: titles() == ["a.md", "in/c.txt"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    with Index.open("s.db") as index:
        assert index.check().problems == ()


def test_an_interrupt_ends_it() -> None:
    with watching() as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_two_that_watch_and_one_that_writes_share_a_store() -> None:
    with watching() as (first, one), watching() as (second, other):
        for n in range(5):
            Path(f"n/{n}.txt").write_text(f"a cat {n}")
            with Index.open("s.db") as index:
                index.delete([f"other {n}"])
        wait_until(lambda: len(titles()) == 6)
        for process in (first, second):
            process.send_signal(signal.SIGTERM)
        assert [process.wait(30) for process in (first, second)] == [0, 0], "".join(one + other)
    with Index.open("s.db") as index:
        assert index.check().problems == ()
        assert len(index) == 6


def test_a_store_that_is_gone_is_an_error_that_is_tried_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["index", "-", "--store", "s.db", "--watch"]) == 2
    assert "not with standard input" in capsys.readouterr().err
    assert main(["index", "gone", "--store", "s.db", "--watch"]) == 2
    assert main(["index", "n", "--store", "s.db", "--watch", "--interval", "0"]) == 2


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda: Path("n/a.md").write_text("longer than before"), True),
        (lambda: os.utime("n/a.md", ns=(1, 1)), True),
        (lambda: Path("n/new.md").write_text(""), True),
        (lambda: Path("n/.hidden.md").write_text(""), False),
        (lambda: Path("n/a.png").write_bytes(b""), False),
        (lambda: Path("n/a.md").read_text(), False),
    ],
)
def test_a_look_sees_changes_of_files_that_are_read(
    change: Callable[[], object], seen: bool
) -> None:
    before = look_at(["n"], Search())
    change()
    assert (look_at(["n"], Search()) != before) is seen


def test_a_look_keeps_what_is_out_of_reach() -> None:
    before = look_at(["n", "x=n/a.md"], Search())
    shutil.move("n", "away")
    after = look_at(["n", "x=n/a.md"], Search())
    assert after.missing == {"n", "n/a.md"}
    assert after.after(before).files == before.files
    assert after.files == {}
