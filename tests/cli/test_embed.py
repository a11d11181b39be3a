"""``edge-mrl embed`` as a user meets it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge_mrl.encode.encoder import Encoder
from tests.support.bundles import TINY
from tests.support.processes import COMMAND, good, wait_until

pytestmark = pytest.mark.test

if TYPE_CHECKING:
    from pathlib import Path

LINES = b"the cat\n\ntraining\r\n\xef\xbb\xbf a\x00b \xff\ncaf\xc3\xa9\xe2\x80\xa8x"
TEXTS = ["the cat", "", "training", "\ufeff a\x00b \ufffd", "caf\u00e9\u2028x"]


def expected(kind: str = "document") -> tuple[np.ndarray, np.ndarray]:
    with Encoder.open(TINY) as encoder:
        encoding = encoder.encode(TEXTS, kind=kind)
    assert encoding.full is not None
    return encoding.coarse, encoding.full


def test_embed_writes_a_json_line_for_every_line() -> None:
    result = good("embed", "--bundle", TINY, stdin=LINES)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    coarse, full = expected()
    assert [row["index"] for row in rows] == list(range(len(TEXTS)))
    assert (np.array([row["coarse"] for row in rows]) == coarse).all()
    assert (np.array([row["full"] for row in rows], np.float32) == full).all()
    assert "standard input: 1 line is not UTF-8" in result.stderr.decode()


@pytest.mark.parametrize("which", ["coarse", "full"])
def test_embed_writes_an_array_that_numpy_maps(which: str, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(LINES)
    output = tmp_path / "out.npy"
    options = ["--which", which, "--kind", "query", "--low-memory", "--threads", 1, "--json"]
    result = good("embed", tmp_path / "in.txt", "--bundle", TINY, "-o", output, *options)
    array = np.load(output, mmap_mode="r")
    wanted = expected("query")[which == "full"]
    assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
    assert np.allclose(array, wanted, atol=1e-6)
    facts = json.loads(result.stdout)
    assert (facts["texts"], facts["dim"], facts["full_dim"]) == (len(TEXTS), 16, 32)
    assert facts["size_bytes"] == output.stat().st_size


def test_embed_of_nothing_gives_an_empty_array(tmp_path: Path) -> None:
    good("embed", "--bundle", TINY, "-o", tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (0, 16)
    assert good("embed", "--bundle", TINY).stdout == b""


def test_embed_reads_files_in_order_standard_input_among_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b.txt").write_text("two")
    files = [tmp_path / "b.txt", "-", tmp_path / "a.txt"]
    output = tmp_path / "out.jsonl"
    good("embed", *files, "--bundle", TINY, "-o", output, "--which", "coarse", stdin=b"three\n")
    with Encoder.open(TINY) as encoder:
        wanted = encoder.encode(["two", "three", "one"]).coarse.tolist()
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert rows == [{"index": i, "coarse": row} for i, row in enumerate(wanted)]


def test_embed_of_more_than_a_window_keeps_the_order(tmp_path: Path) -> None:
    texts = [f"{i % 10} " * (i % 7 + 1) for i in range(1500)]
    good("embed", "--bundle", TINY, "-o", tmp_path / "out.npy", stdin="\n".join(texts).encode())
    with Encoder.open(TINY) as encoder:
        wanted = encoder.encode(texts).coarse
    assert (np.load(tmp_path / "out.npy") == wanted).all()


def test_embed_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    output.write_bytes(b"old")
    command = [*COMMAND, "embed", "--bundle", str(TINY), "-o", str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"the cat\n" * 2000)
        process.stdin.flush()
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr is not None
        assert b"interrupted" in process.stderr.read()
    assert output.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [output]


def test_closed_pipe_is_quiet() -> None:
    script = f"yes hello | {sys.executable} -m edge_mrl embed --bundle '{TINY}' --quiet | head -n 1"
    result = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert result.stdout.startswith(b'{"index": 0')
    assert result.stderr == b""


def test_closed_pipe_has_its_exit_code() -> None:
    with subprocess.Popen(
        [*COMMAND, "embed", "--bundle", str(TINY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        error = process.communicate(b"the cat\n" * 5)[1]
    assert process.returncode == 141
    assert error == b""
