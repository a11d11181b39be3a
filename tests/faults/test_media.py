"""A store on media that fail: calls that end with an error, and power that is cut."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.faults import media

pytestmark = [
    pytest.mark.skipif(not media.has_compiler(), reason="needs Linux and gcc, to build a shim"),
]
#: Each this many calls one fails before each merge; power cuts before each merge and at night.
STEP, CUTS, MORE_CUTS = 9, 60, 4_000


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.build(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
def calls(library: Path, tmp_path_factory: pytest.TempPathFactory) -> list[media.Call]:
    folder = tmp_path_factory.mktemp("recorded")
    log = tmp_path_factory.mktemp("log") / "calls"
    media.run(library, "record", folder, log)
    return media.calls_of(log)


def cut_many(
    calls: list[media.Call], folder: Path, number: int, *, seed: int, honest: bool = True
) -> list[str]:
    """Cut the power at many calls; returns what was wrong afterwards."""
    rng, problems = random.Random(seed), []
    for one in range(number):
        place = folder / str(one)
        place.mkdir()
        cut = rng.randrange(len(calls) + 1)
        done, begun = media.replay(calls, cut, rng.randrange(1 << 30), place, honest=honest)
        problem = media.verdict(place / "s.db", done, begun)
        if problem is not None:
            problems.append(f"cut after {cut} calls, seed {seed}: {problem}")
    return problems


@pytest.mark.test
def test_calls_that_fail_lose_nothing_and_are_store_errors(library: Path) -> None:
    found = json.loads(media.run(library, "errors", STEP, 1))
    assert found["failed"] >= found["calls"] // STEP
    assert found["noticed"] > found["failed"] // 4


@pytest.mark.nightly
def test_every_call_that_fails_loses_nothing_and_is_a_store_error(library: Path) -> None:
    found = json.loads(media.run(library, "errors", 1, 2))
    assert found["failed"] == found["calls"]


@pytest.mark.test
def test_recorded_calls_make_the_store_again(calls: list[media.Call], tmp_path: Path) -> None:
    done, begun = media.replay(calls, len(calls), 1, tmp_path)
    assert (done, begun) == (9, 9)
    assert media.verdict(tmp_path / "s.db", done, begun) is None
    assert {call.kind for call in calls} >= set("MWSC")


@pytest.mark.test
def test_power_cuts_lose_nothing_that_was_acknowledged(
    calls: list[media.Call], tmp_path: Path
) -> None:
    assert cut_many(calls, tmp_path, CUTS, seed=1) == []


@pytest.mark.nightly
def test_many_power_cuts_lose_nothing_that_was_acknowledged(
    calls: list[media.Call], tmp_path: Path
) -> None:
    assert cut_many(calls, tmp_path, MORE_CUTS, seed=2) == []


@pytest.mark.test
def test_medium_that_ignores_syncs_is_seen_to_lose(calls: list[media.Call], tmp_path: Path) -> None:
    # The twin: if nothing is ever durable, the same test finds what is lost.
    assert cut_many(calls, tmp_path, CUTS, seed=1, honest=False) != []
