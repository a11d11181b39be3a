"""Benchmarks: what is computed from samples, reports that are kept, and their comparison."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from edge_mrl.diagnose import bench, probe
from edge_mrl.diagnose.bench import (
    ROUNDS,
    STEPS,
    Figure,
    Report,
    Setup,
    compare,
    differences,
    measure,
    parse_report,
)
from edge_mrl.diagnose.samples import Sample, built_in_sample
from edge_mrl.errors import BindingError, FormatError, UsageError
from tests.support.bundles import TINY, TINY_COARSE
from tests.support.processes import good

SAMPLE = Sample("by hand", ("a cat and a dog", "the cat"), ("a cat",))


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Report:
    """A report of samples that are known: the n-th round's times are n times the first one's."""
    calls: dict[str, int] = {}

    def run_step(step: str, job: dict[str, Any]) -> dict[str, Any]:
        number = calls[step] = calls.get(step, 0) + 1
        times = [number * part for part in (1.0, 2.0, 3.0, 10.0)]
        answers = {
            "query": {"ms": times, "peak_rss": number * 10**6},
            "documents": {"per_s": times, "peak_rss": None},
            "search": {"vector_ms": times, "text_ms": [2 * t for t in times], "passages": 7}
            | {"peak_rss": 5_000_000},
        }
        assert job["seconds"] == 4.0 / ROUNDS
        return answers[step]

    monkeypatch.setattr(probe, "run_step", run_step)
    monkeypatch.setattr(probe, "time_first_embedding", lambda *_, **__: 123.4567)
    (tmp_path / "s.db").touch()
    setup = Setup(bundle=TINY, store=tmp_path / "s.db", seconds=4.0)
    return measure(setup, SAMPLE)


def test_figure_is_the_median_of_the_rounds_with_their_range(report: Report) -> None:
    assert report.figures["query_p50"] == Figure("ms", 7.5, 2.5, 12.5, 20)
    assert report.figures["query_p95"] == Figure("ms", 30.0, 10.0, 50.0, 20)
    assert report.figures["documents"].unit == "documents/s"
    assert report.figures["documents"].more_is_better
    assert report.figures["memory_query"] == Figure("MB", 3.0, 1.0, 5.0, 5)
    assert report.figures["search_words_p50"].value == 15.0
    assert report.figures["start"] == Figure("ms", 123.46, 123.46, 123.46, ROUNDS)
    assert "memory_documents" not in report.figures  # it was unknown


def test_steps_of_a_round_take_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []
    answers = {
        "query": {"ms": [1.0], "peak_rss": None},
        "documents": {"per_s": [1.0], "peak_rss": None},
        "search": {"vector_ms": [1.0], "text_ms": [1.0], "passages": 3, "peak_rss": None},
    }
    monkeypatch.setattr(probe, "run_step", lambda step, _: answers[step])
    monkeypatch.setattr(probe, "time_first_embedding", lambda *_, **__: 1.0)
    found = measure(Setup(bundle=TINY, store=tmp_path), SAMPLE, advance=said.append)
    first = [f"round 1 of {ROUNDS}: {step}" for step in ("start", *STEPS)]
    assert said[1 : 1 + len(first)] == first
    assert len(said) == 1 + ROUNDS * len(first)
    assert found.settings["passages"] == 3
    assert found.settings["texts"] == "by hand"
    assert (found.settings["documents"], found.settings["document_words"]) == (2, 3.5)


def test_report_that_is_kept_is_read_again(report: Report) -> None:
    assert parse_report(json.dumps(report.as_json()).encode(), "x.json") == report


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"seconds": -1.0}, "seconds is -1"),
        ({"seconds": math.inf}, "seconds is inf"),
    ],
)
def test_settings_without_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Setup(bundle=TINY, **options)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50.5), (0.95, 95.0), (0.01, 1.0), (1.0, 100.0)])
def test_percentile_is_a_value_that_was_seen(share: float, value: float) -> None:
    assert bench._percentile([float(i) for i in range(100, 0, -1)], share) == value


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "notes.txt").write_text("the cat and the dog", "utf-8")
    path = tmp_path / "notes.db"
    good("index", tmp_path / "notes.txt", "--bundle", TINY, "--store", path, "--quiet")
    return path


@pytest.mark.test
def test_store_of_another_bundle_is_refused(store: Path) -> None:
    setup = Setup(bundle=TINY_COARSE, store=store, seconds=0)
    with pytest.raises(BindingError, match="made with another"):
        measure(setup, built_in_sample())


# --- comparing


def figure(low: float, value: float, high: float, unit: str = "ms") -> Figure:
    return Figure(unit, value, low, high, 5)


def of(**figures: Figure) -> Report:
    return Report({}, {}, {}, figures)


@pytest.mark.parametrize(
    ("unit", "before", "now", "verdict", "loss"),
    [
        ("ms", (9, 10, 11), (12, 13, 14), "worse", 30),
        ("ms", (9, 10, 11), (11, 13, 14), "same", 0),  # the ranges meet
        ("ms", (9, 10, 11), (4, 5, 6), "better", 0),
        ("MB", (100, 100, 100), (101, 101, 101), "worse", 1),
        ("documents/s", (9, 10, 11), (12, 13, 14), "better", 0),
        ("documents/s", (9, 10, 11), (4, 5, 6), "worse", 50),
        ("documents/s", (9, 10, 11), (6, 8, 9.5), "same", 0),
    ],
)
def test_verdict_needs_ranges_that_do_not_meet(
    unit: str, before: Any, now: Any, verdict: str, loss: float
) -> None:
    (change,) = compare(of(x=figure(*before, unit)), of(x=figure(*now, unit)))
    assert (change.before, change.now) == (before[1], now[1])
    assert change.ratio == pytest.approx(now[1] / before[1])
    assert (change.verdict, change.loss_percent) == (verdict, pytest.approx(loss))


def test_only_figures_of_both_reports_are_compared() -> None:
    before = of(a=figure(1, 1, 1), b=figure(1, 1, 1), c=figure(1, 1, 1, "MB"))
    now = of(b=figure(2, 2, 2), c=figure(1, 1, 1, "ms"), d=figure(1, 1, 1))
    assert [change.name for change in compare(before, now)] == ["b"]


def test_what_else_differs_is_said() -> None:
    before = Report({"cpu": "A"}, {"space_id": "0" * 64}, {"threads": None, "passages": 5}, {})
    now = Report({"cpu": "A"}, {"space_id": "1" * 64}, {"threads": 2, "passages": 5}, {})
    assert differences(before, before) == []
    assert differences(before, now) == [
        "embedding space: 000000000000 before, 111111111111 now",
        "threads: the default before, 2 now",
    ]


# --- reading


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a result of"),
        (b"[1]", "is not a result of"),
        (b'{"format": "edge-mrl-measurements"}', "is not a result of"),
        (b'{"format": "edge-mrl-measurements", "version": 9}', "version 9"),
        (b'{"format": "other", "version": 1}', "'other'"),
    ],
)
def test_file_that_is_no_result_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_report(data, "x.json")


@pytest.mark.parametrize(
    "wrong", [{"value": "x"}, {"value": math.nan}, {"unit": None, "low": None}]
)
def test_result_with_a_wrong_figure_is_refused(wrong: dict[str, Any], report: Report) -> None:
    data = report.as_json()
    data["figures"]["start"] |= wrong
    with pytest.raises(FormatError):
        parse_report(json.dumps(data).encode(), "x.json")
