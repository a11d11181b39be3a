"""What it costs to pull everything, as a tenant grows: steps of SQLite, and memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_mrl.store import Store, replica
from edge_mrl.store.replica.outbox import Known, known_versions, write_versions
from edge_mrl.wire import Version
from tests.growth.test_store import EQUAL, LARGE, SMALL, counting
from tests.support.stores import open_enrolled

pytestmark = pytest.mark.test

PAGE = 200
EPOCH = "0" * 16


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[Store]]:
    """A small and a large one, enrolled."""
    made = [open_enrolled(tmp_path / f"{name}.db") for name in ("small", "large")]
    yield made
    for store in made:
        store.close()


def sweep(store: Store, count: int, *, last: bool = True) -> replica.Sweep | None:
    """Pull so many documents, as pages come."""
    at: replica.Sweep | None = None
    for first in range(1, count if last else count - PAGE, PAGE):
        seen = {f"d{n:07}": n for n in range(first, first + PAGE)}
        with store.writing(), store.locked() as (connection, _):
            known = {name: Known(Version(n, "other"), False, n) for name, n in seen.items()}
            write_versions(connection, known)
        now = replica.Sweep(first + PAGE - 1, 0, EPOCH)
        at = replica.note_swept(store, seen, now, before=at)
    return at


def test_page_costs_the_same_however_much_came_before(stores: list[Store]) -> None:
    costs = []
    for store, count in zip(stores, (SMALL, LARGE), strict=True):
        before = sweep(store, count, last=False)
        seen = {f"e{n:07}": n for n in range(PAGE)}
        with counting(store) as steps:
            replica.note_swept(store, seen, replica.Sweep(10**6, 0, EPOCH), before=before)
        costs.append(steps())
    assert costs[1] <= EQUAL * costs[0]


def test_agreeing_takes_no_memory_for_what_both_have(stores: list[Store]) -> None:
    peaks = []
    for store, count in zip(stores, (SMALL, LARGE), strict=True):
        at = sweep(store, count)
        assert at is not None
        assert at.count == count
        tracemalloc.start()
        assert replica.is_sweep_sound(store)
        server = replica.ServerPosition(at.since, 0, EPOCH, 0)
        assert replica.reconcile(store, server, push=0) == replica.Agreed(0, None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert replica.sweep_of(store) is None
    assert peaks[1] <= EQUAL * peaks[0] + 20_000


def test_memory_of_all_ids_would_be_seen(stores: list[Store]) -> None:
    """The test above can fail: so much a list of all versions takes."""
    peaks = []
    for store, count in zip(stores, (SMALL, LARGE), strict=True):
        sweep(store, count)
        tracemalloc.start()
        with store.locked() as (connection, _):
            names = [name for (name,) in connection.execute("SELECT id FROM versions")]
            assert len(known_versions(connection, names)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] > EQUAL * peaks[0] + 20_000


def test_what_was_seen_and_is_lost_is_noticed(stores: list[Store]) -> None:
    """Deletions follow from what is not there: so nothing may be missing by a fault."""
    store = stores[0]
    at = sweep(store, SMALL)
    assert at is not None
    for damage in (
        "UPDATE swept SET stamp = stamp + 1 WHERE id = 'd0000007'",
        "DELETE FROM swept WHERE id = 'd0000007'",
        "DELETE FROM swept",
    ):
        assert replica.is_sweep_sound(store)
        with store.writing(), store.locked() as (connection, _):
            connection.execute(damage)
        assert not replica.is_sweep_sound(store)
        replica.forget_sweep(store)
        at = sweep(store, SMALL)
