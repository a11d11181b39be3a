"""What a device wrote under a former name stays that version, or goes under the present one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_mrl.errors import NetworkError
from edge_mrl.store.replica.settlement import Rules
from edge_mrl.sync.push import Pusher
from edge_mrl.sync.remote import Remote
from edge_mrl.sync.targets.target import PushBatch, PushResult
from tests.support.fleet import Fleet, enroll_anew, spoil, texts

pytestmark = pytest.mark.test


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.close()


def lose_what_a_former_name_wrote(fleet: Fleet, way: str) -> list[tuple[str, int, str]]:
    """Have a server lose what a device wrote before and after it was enrolled anew; what there was."""
    for name in ("A", "B"):
        fleet.device(name, with_text=True)
    fleet.put("A", a0="stays", gone="was there")
    fleet.sync("A", "B")
    fleet.copy()
    fleet.put("A", a1="first", a2="second")
    fleet.devices["A"][0].delete(["gone"])
    fleet.sync("A", "B")
    enroll_anew(fleet, "A")
    fleet.put("A", a2="changed", a3="third")
    fleet.sync("A", "B")
    before = fleet.held()
    assert len({device for _, _, device in before}) == 2
    if way == "restored":
        fleet.restore()
        enroll_anew(fleet, "A")  # the copy does not know the token of its present name
    else:
        spoil(fleet, "DELETE FROM vectors WHERE id IN ('a1', 'a3')")
        spoil(fleet, "DELETE FROM documents WHERE id IN ('a1', 'a3')")
    return before


def assert_nothing_is_lost(fleet: Fleet, before: list[tuple[str, int, str]]) -> None:
    fleet.sync("A", "B", "A", "B")
    assert [row[:2] for row in fleet.held()] == [row[:2] for row in before]
    fleet.assert_same("A", "B")
    here = texts(fleet, "B", "a0", "a1", "a2", "a3", "gone")
    assert here == ["stays", "first", "changed", "third", "-"]
    assert not fleet.letters("A") + fleet.letters("B")


@pytest.mark.parametrize("first", ["A", "B"])
def test_what_a_former_name_wrote_is_sent_again_as_the_version_that_it_is(
    fleet: Fleet, first: str
) -> None:
    before = lose_what_a_former_name_wrote(fleet, "restored")
    fleet.sync(first, first)
    assert fleet.held() == before
    assert_nothing_is_lost(fleet, before)
    assert fleet.held() == before


def test_version_that_changes_its_name_is_noticed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the test above: everything goes under the present name."""
    monkeypatch.setattr(Rules, "writer", lambda rules, _: rules.device)
    before = lose_what_a_former_name_wrote(fleet, "restored")
    fleet.sync("A", "A")
    assert [row[:2] for row in fleet.held()] == [row[:2] for row in before]
    assert fleet.held() != before


@pytest.mark.parametrize("first", ["A", "B"])
def test_what_a_former_name_wrote_is_claimed_where_the_server_takes_no_offers_yet(
    fleet: Fleet, first: str
) -> None:
    """Who has it under the former name would keep that, if it came back under the present one."""
    before = lose_what_a_former_name_wrote(fleet, "removed")
    fleet.sync(first, first)
    assert_nothing_is_lost(fleet, before)
    assert fleet.held() == before


def lose_the_next_answer(fleet: Fleet, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device's next push arrives, and its answer does not; then it pulls what it has sent."""
    real = Remote.push

    def push(remote: Remote, batch: PushBatch) -> PushResult:
        result = real(remote, batch)
        if batch.items:
            raise NetworkError("the answer was lost")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "push", push)
        outcome = fleet.devices[name][1].sync_once(attempts=1)
    assert outcome.waiting, outcome


@pytest.mark.parametrize("times", [1, 2])
def test_what_waits_without_an_answer_goes_under_the_new_name(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Whichever of the names is the larger one: nothing is given up, and all agree."""
    for name in ("A", "B"):
        fleet.device(name, with_text=True)
    fleet.put("A", a0="stays", a1="old", gone="was there")
    fleet.sync("A", "B")
    fleet.put("A", a1="new", a2="second")
    fleet.devices["A"][0].delete(["gone"])
    lose_the_next_answer(fleet, "A", monkeypatch)
    assert fleet.devices["A"][1].status().queue.items == 3
    for _ in range(times):
        enroll_anew(fleet, "A")
    assert [one.dead for one in fleet.sync("A", "B")] == [0, 0]
    fleet.sync("A", "B")
    fleet.assert_same("A", "B")
    assert texts(fleet, "B", "a0", "a1", "a2", "gone") == ["stays", "new", "second", "-"]
    assert not fleet.letters("A") + fleet.letters("B")
    assert not fleet.devices["A"][1].status().queue.items


def test_refused_offer_of_ones_own_goes_under_the_present_name(fleet: Fleet) -> None:
    """What a former name wrote was queued for a server that took offers, and takes none any more."""
    before = lose_what_a_former_name_wrote(fleet, "restored")
    index = fleet.devices["A"][0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pusher, "push", lambda _: None)
        fleet.devices["A"][1].sync_once()
    with index.store.locked() as (connection, _):
        queued = connection.execute("SELECT v.device FROM outbox JOIN versions v USING (id)")
        assert len({device for (device,) in queued}) > 1
    spoil(fleet, "UPDATE tenants SET restored_ms = 0")
    (outcome,) = fleet.sync("A")
    assert (outcome.pushed, outcome.dead) == (4, 0)
    fleet.sync("A")
    assert [row[:2] for row in fleet.held()] == [row[:2] for row in before]
    fleet.assert_same("A")
    assert texts(fleet, "A", "a0", "a1", "a2", "a3", "gone") == [
        "stays", "first", "changed", "third", "-",
    ]  # fmt: skip
    assert not fleet.letters("A")
    assert not fleet.devices["A"][1].status().queue.items
