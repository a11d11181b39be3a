"""The log: some lines of each kind, a count of the others, and nothing that somebody sent."""

from __future__ import annotations

import json
import logging

import pytest

from edge_mrl_server.logs import LineLimit, _Json, first_line


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def line(message: str = "garbage", **more: object) -> logging.LogRecord:
    record = logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, message, (), None)
    record.__dict__.update(more)
    return record


def test_some_lines_of_a_kind_are_written_and_the_next_says_how_many_were_not(clock: Clock) -> None:
    limit = LineLimit(clock)
    assert sum(limit.filter(line()) for _ in range(10_000)) == 50
    assert limit.filter(line("other"))  # another kind has lines of its own
    assert sum(limit.filter(line(kind="t")) for _ in range(10_000)) == 50
    clock.now += 1
    records = [line() for _ in range(10)]
    assert [limit.filter(record) for record in records] == [True] * 5 + [False] * 5
    assert [getattr(record, "left_out", 0) for record in records[:2]] == [9_950, 0]
    written = json.loads(_Json().format(records[0]))
    assert (written["event"], written["left_out"]) == ("garbage", 9_950)
    assert "left_out" not in json.loads(_Json().format(records[1]))


def test_record_says_how_many_of_its_kind_are_written(clock: Clock) -> None:
    limit = LineLimit(clock)
    assert sum(limit.filter(line(lines_per_s=100.0)) for _ in range(5_000)) == 1_000


def test_lines_that_nobody_spoke_of_are_reported_once(clock: Clock) -> None:
    limit = LineLimit(clock)
    for _ in range(60):
        limit.filter(line())
    assert limit.overdue() == 0
    clock.now += 11
    assert (limit.overdue(), limit.overdue()) == (10, 0)
    record = line()
    assert limit.filter(record)
    assert record.__dict__["left_out"] == 0


def test_kinds_that_are_remembered_are_limited(clock: Clock) -> None:
    limit = LineLimit(clock)
    for number in range(5_000):
        limit.filter(line(f"{number}"))
    assert len(limit._kinds) == 2_000


def test_trace_says_where_and_not_what() -> None:
    def fail(text: str) -> None:
        try:
            {}[text]
        except KeyError as error:
            raise ValueError(text) from error

    try:
        fail("id of a" + " document")
    except ValueError as error:
        record = line("internal error", exc_info=(type(error), error, error.__traceback__))
    written = _Json().format(record)
    assert "id of a document" not in written
    assert "\\nValueError\\n" in written
    assert "\\nKeyError\\n" in written
    assert "in fail" in written


def test_only_the_first_line_of_an_error_is_written() -> None:
    # PostgreSQL's errors quote a row in the lines below.
    assert first_line('duplicate key\nDETAIL:  Key (id)=("secret") exists') == "duplicate key"
    assert first_line("") == ""
    assert len(first_line("x" * 9_000)) == 200
