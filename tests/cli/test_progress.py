from __future__ import annotations

import io

import pytest

from edge_mrl.cli.common import progress
from edge_mrl.cli.common.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_to_a_pipe_shows_messages_alone() -> None:
    stream = io.StringIO()
    with Progress("working", 10, stream=stream) as bar:
        bar.advance(5)
        bar.write("a warning")
    assert stream.getvalue() == "a warning\n"


def test_progress_on_a_terminal_ends_full_with_its_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REDRAW_S", 0)
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with Progress("working", 4, stream=stream) as bar:
        bar.advance(1, note="1 document")
        bar.advance(2, note="3 documents")
    last = stream.getvalue().split("\r")[-1]
    assert last.startswith(f"working  [{'#' * progress.BAR_CHARS}] 100%  3 documents  ")
    assert last.endswith(" s\n")
    assert "75%" in stream.getvalue()


def test_progress_stays_on_one_line_of_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REDRAW_S", 0)
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    with Progress("working", 1000, stream=stream) as bar:
        bar.advance(10**6, note="a long note " * 9)
    assert all(len(line.rstrip("\n")) < 30 for line in stream.getvalue().split("\r"))


def test_progress_without_a_total_shows_no_share() -> None:
    stream = Terminal()
    with Progress("working", stream=stream) as bar:
        bar.advance(3)
    assert "%" not in stream.getvalue()


def test_progress_after_an_error_does_not_claim_the_end() -> None:
    stream = Terminal()

    def work() -> None:
        with Progress("working", 4, stream=stream):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert "100%" not in stream.getvalue()


def test_progress_when_quiet_shows_nothing() -> None:
    stream = Terminal()
    with Progress("working", 4, quiet=True, stream=stream) as bar:
        bar.advance(4)
        bar.write("a warning")
    assert stream.getvalue() == ""
