"""``edge-mrl search`` as people and other programs see its hits."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_mrl.cli import main
from tests.support.bundles import TINY
from tests.support.processes import COMMAND

pytestmark = pytest.mark.test

NOTE = (
    "---\ntags: [cat]\n---\n# the cat\n\n"
    + "a cat and a dog and a cat and a dog. " * 6
    + "\n\n## testing\n\n"
    + "testing it and testing it and it. " * 6
    + "\ntraining of a model.\n"
)


@pytest.fixture
def search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "24")
    Path("n").mkdir()
    Path("n/a.md").write_text(NOTE)
    Path("n/b.txt").write_text("0 1 2\n3 4 5")
    main(["index", "n", "--store", "s.db", "--bundle", str(TINY), "--quiet"])

    def run(*words: str) -> str:
        capsys.readouterr()
        assert main(["search", *words, "--store", "s.db", "--quiet"]) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("mode", ["keyword", "vector", "hybrid"])
def test_the_sentence_that_answers_is_shown_with_its_line_and_headings(
    mode: str, search: Callable[..., str]
) -> None:
    hit, text = search("training of a model.", "-k", "1", "--mode", mode).splitlines()
    assert re.fullmatch(r"  1  \d\.\d{3}  n/a\.md:11 > the cat > testing", hit)
    assert text == " " * 12 + "... training of a model."
    assert NOTE.split("\n")[10] == "training of a model."


def test_short_passages_are_shown_whole(search: Callable[..., str]) -> None:
    hit, text = search("3 4", "-k", "1", "--mode", "keyword").splitlines()
    assert hit.endswith("  n/b.txt:1")
    assert text == " " * 12 + "0 1 2 3 4 5"


def on_terminal(words: list[str], *typed: bytes, **env: str) -> str:
    """Run the command on a terminal, and type something at each prompt; returns what it shows."""
    main_end, other = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *words],
        stdin=other,
        stdout=other,
        stderr=other,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "24", **env},
    )
    os.close(other)
    shown, keys = b"", list(typed)
    while True:
        try:
            data = os.read(main_end, 4096)
        except OSError:  # Linux says so at the end
            break
        if not data:
            break
        shown += data
        if keys and shown.endswith(b"> "):
            os.write(main_end, keys.pop(0))
    os.close(main_end)
    assert process.wait(60) == 0
    return shown.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_words_are_marked_on_a_terminal_that_wants_colour(search: Callable[..., str]) -> None:
    words = ["search", "model", "--store", "s.db", "-k", "1", "--mode", "keyword"]
    shown = on_terminal(words, NO_COLOR="")
    assert "training of a \x1b[1mmodel\x1b[0m." in shown
    assert "\x1b[36mn/a.md:11\x1b[0m\x1b[2m > the cat > testing\x1b[0m" in shown
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb", "NO_COLOR": ""}):
        plain = on_terminal(words, **env)
        assert "\x1b" not in plain
        assert "training of a model." in plain
    assert "\x1b" not in search("model", "--mode", "keyword")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_questions_on_a_terminal_can_be_edited_and_come_back(search: Callable[..., str]) -> None:
    pytest.importorskip("readline")
    up = b"\x1b[A"
    shown = on_terminal(
        ["search", "--store", "s.db", "-k", "1", "--mode", "keyword"],
        b"training\n",
        up + b"\n",
        up + b"\x7f" * len("training") + b"model\n",
        b"\n",
        NO_COLOR="1",
    )
    assert shown.count("... training of a model.") == 3
    assert shown.count("nothing found") == 0


def test_a_question_behind_rerank_is_the_question(
    search: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["--rerank", "training"],
        ["training", "--rerank"],
        ["--rerank=always", "training"],
    ):
        assert "n/a.md" in search(*words, "-k", "1")
    assert main(["search", "training", "--rerank", "often", "--store", "s.db"]) == 2
    assert "--rerank often: expected auto or always" in capsys.readouterr().err
