"""Whatever is put back from a copy, all present copies become one, and the newest that is there wins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_mrl.store.replica import settlement
from edge_mrl.sync.pulls.comparison import Comparison
from tests.faults.databases import Database
from tests.faults.places import databases
from tests.faults.rollback import run_schedule
from tests.support.postgres import UnavailableError

pytestmark = [pytest.mark.test, pytest.mark.timeout(300)]

#: In this schedule a writer is gone whose versions another device has to offer.
OFFERED = 0
#: In this one nobody is told of a restore, and only the sums show it.
UNNOTICED = 3


@pytest.mark.parametrize("seed", [OFFERED, UNNOTICED])
def test_copies_put_back_end_in_one_state(seed: int, tmp_path: Path) -> None:
    assert run_schedule(seed, tmp_path) == []


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(4, 44))
def test_copies_put_back_in_many_orders(seed: int, tmp_path: Path) -> None:
    assert run_schedule(seed, tmp_path) == []


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Database]:
    try:
        with databases("postgresql") as database:
            yield database
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    "seed", [UNNOTICED, *(pytest.param(n, marks=pytest.mark.nightly) for n in range(4, 16))]
)
def test_copies_of_postgresql_end_in_one_state(
    seed: int, postgresql: Database, tmp_path: Path
) -> None:
    assert run_schedule(seed, tmp_path, postgresql) == []


def test_devices_that_offer_nothing_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "_sendable", lambda *_: set())
    problems = run_schedule(OFFERED, tmp_path)
    assert any("the newest were" in problem for problem in problems), problems


def test_devices_that_compare_nothing_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Comparison, "agrees", lambda *_, **__: True)
    problems = run_schedule(UNNOTICED, tmp_path)
    assert any(" has {" in problem for problem in problems), problems
