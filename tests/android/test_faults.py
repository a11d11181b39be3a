"""Devices in Kotlin and in Python, a real server, a network that fails, kills: nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.databases import Database
from tests.faults.places import databases
from tests.faults.plan import in_kotlin, make_plan
from tests.faults.report import Report
from tests.faults.run import run_seed
from tests.faults.world import CONVERGE_S, World

pytestmark = [pytest.mark.test, pytest.mark.timeout(400), pytest.mark.usefixtures("toolchain")]

#: What was sent leaves the queue before the answer came, whatever the language.
FORGETS = """
CREATE TRIGGER IF NOT EXISTS forget AFTER INSERT ON sync WHEN new.push > new.answered BEGIN
    DELETE FROM outbox;
END;
"""


@pytest.fixture(scope="module")
def sqlite_files() -> Iterator[Database]:
    with databases("sqlite") as database:
        yield database


def assert_lossless(report: Report) -> None:
    assert not report.problems, str(report)
    assert sum(report.faults.values()) > 0
    assert report.kills.get("device", 0) > 0
    assert report.converge_s <= CONVERGE_S


# 6: three kills of devices, forgotten deletions, a document that is pushed alone without an answer. 12:
# the server's clock is a month ahead for a while. 32: a device's store is copied, and both go on, one in
# each language. 3: that, and a restore. 5, 19, 21: copies of the server's database are put back.
@pytest.mark.parametrize(
    ("seed", "kotlin"),
    [
        (6, (0,)),
        *(pytest.param(n, (0, 1), marks=pytest.mark.nightly) for n in (3, 5, 12, 19, 21, 32)),
        *(pytest.param(n, (0, 1, 2), marks=pytest.mark.nightly) for n in (0, 1, 2, 8)),
    ],
)
def test_faults_lose_nothing_with_devices_in_kotlin(
    seed: int, kotlin: tuple[int, ...], sqlite_files: Database
) -> None:
    assert_lossless(run_seed(seed, sqlite_files, kotlin=kotlin))


@pytest.mark.nightly
def test_device_in_kotlin_that_forgets_what_it_sent_is_caught(
    sqlite_files: Database, tmp_path: Path
) -> None:
    problems: list[str] = []
    for seed in (3, 5, 12):
        plan = in_kotlin(make_plan(seed, database_dies=False), (0, 1), trigger=FORGETS)
        folder = tmp_path / str(seed)
        folder.mkdir()
        problems += World(plan, seed, sqlite_files, folder).run().problems
        if any("LOST" in problem or "NOT IN SYNC" in problem for problem in problems):
            return
    raise AssertionError(problems)
