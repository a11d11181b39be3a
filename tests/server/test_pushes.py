"""What becomes of a push, asked of storage directly, in both databases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from edge_mrl.wire import COUNTER_BITS, Item, now_ms
from edge_mrl_server.errors import (
    FencedError,
    RestoredError,
    SpaceMismatchError,
    SupersededPushError,
)
from edge_mrl_server.storage import Database, Principal, Push, Tenant, accounts, purge, push
from tests.server.conftest import Place
from tests.support.serving import SPACE, item, units


@dataclass
class Sender:
    """A device of a tenant, without a server before the database."""

    database: Database
    principal: Principal

    def push(self, *items: Item, number: int = 0, cursor: int = 0, epoch: str = "") -> list[str]:
        batch = Push(SPACE, items, 8, cursor, number, epoch)
        return [result.status for result in push(self.database, self.principal, batch).results]

    @property
    def tenant(self) -> Tenant:
        with self.database.read() as transaction:
            return accounts.require_tenant(transaction, self.principal.tenant)


@pytest.fixture
def sender(place: Place) -> Sender:
    return another(place, place.tenant())


def another(place: Place, tenant: str) -> Sender:
    with place.database.write() as transaction:
        invitation = accounts.create_invitation(transaction, tenant)
        device = accounts.enroll(transaction, invitation, "test").device
    return Sender(place.database, Principal(tenant, device, {}))


def test_results_stand_in_the_order_of_the_push(sender: Sender) -> None:
    assert sender.push(item("b", after=-9)) == ["applied"]
    bad = Item("bad", now_ms() << COUNTER_BITS, np.zeros((1, 8), np.float16))
    sent = item("a"), bad, item("b", after=-60_000), item("c", after=9 * 60_000), item("d", n=0)
    assert sender.push(*sent) == ["applied", "invalid", "stale", "clock_ahead", "applied"]


def test_counts_of_the_tenant_follow(sender: Sender) -> None:
    sender.push(item("a", n=3), item("b", n=2), item("c", deleted=True))
    found = sender.tenant
    assert (found.documents, found.tombstones, found.passages) == (2, 1, 5)
    assert (found.change, found.space_id, found.full_dim) == (3, SPACE, 8)
    sender.push(item("a", after=1, deleted=True), item("b", after=1, n=1), item("c", after=1, n=4))
    found = sender.tenant
    assert (found.documents, found.tombstones, found.passages, found.change) == (2, 1, 5, 6)
    assert sender.push() == []
    assert sender.tenant == found


def test_nothing_of_a_push_of_another_space_is_stored(sender: Sender) -> None:
    sender.push(item("a"))
    other = "6" * 64
    with pytest.raises(SpaceMismatchError, match=f"{other}.*{SPACE}") as raised:
        push(sender.database, sender.principal, Push(other, [item("b")], 8, 0))
    assert raised.value.details == {"space": SPACE}
    assert sender.tenant.documents == 1


def test_push_that_comes_late_is_rejected_with_the_number_of_the_last(sender: Sender) -> None:
    epoch = sender.tenant.epoch
    assert sender.push(item("a"), number=1, epoch=epoch) == ["applied"]
    assert sender.push(number=2, epoch=epoch) == []  # has it arrived? now it never does
    with pytest.raises(SupersededPushError, match="push 2 comes too late") as raised:
        sender.push(item("late"), number=2, epoch=epoch)
    assert raised.value.details == {"push": 2}
    assert sender.push(item("b"), number=3, epoch=epoch) == ["applied"]


def test_outcome_of_a_push_can_be_asked_for(sender: Sender) -> None:
    sent = Push(SPACE, [item("a"), item("x", after=9 * 60_000)], 8, 0, 1)
    assert push(sender.database, sender.principal, sent).refused == ["x"]
    asked = Push(SPACE, [], 8, 0, 1)
    assert push(sender.database, sender.principal, asked).refused == ["x"]
    never = Push(SPACE, [], 8, 0, 2)
    assert push(sender.database, sender.principal, never).refused is None


def test_device_that_has_seen_more_begins_an_epoch_that_stays(sender: Sender) -> None:
    epoch = sender.tenant.epoch
    sender.push(item("a"), number=1, epoch=epoch)
    with pytest.raises(RestoredError, match="pull everything"):
        sender.push(item("b"), number=3, epoch=epoch)  # its push 2 is not known here
    found = sender.tenant
    assert found.epoch != epoch
    assert found.documents == 1
    with pytest.raises(RestoredError):
        sender.push(item("b"), number=4, epoch=epoch)
    assert sender.tenant.epoch == found.epoch
    assert sender.push(item("b"), number=3, epoch=found.epoch) == ["applied"]


def test_purge_forgets_old_tombstones_and_fences_off_older_versions(place: Place) -> None:
    sender = another(place, tenant := place.tenant())
    sender.push(item("old", after=-50_000), item("live", after=-50_000))
    sender.push(item("old", after=-40_000, deleted=True), item("young", deleted=True))
    assert purge(place.database, tenant, before_ms=0) == (0, 0)
    assert purge(place.database, tenant, before_ms=now_ms() - 30_000) == (1, 3)
    assert (sender.tenant.tombstones, sender.tenant.fence) == (1, 3)
    with pytest.raises(FencedError, match="may have been deleted") as raised:
        sender.push(item("old", after=-50_000))
    assert raised.value.details == {"fence": 3}
    assert sender.push(item("old", after=-50_000), cursor=3) == ["applied"]
    assert sender.push(item("new")) == ["applied"]


def test_limit_of_documents_counts_live_ones(sender: Sender) -> None:
    with sender.database.write() as transaction:
        accounts.set_limits(transaction, sender.principal.tenant, {"documents": 1})
    assert sender.push(item("a"), item("b"), item("c", deleted=True)) == [
        "applied", "forbidden", "applied",
    ]  # fmt: skip
    assert sender.push(item("a", after=1, seed=3)) == ["applied"]


def test_vectors_of_other_dimensions_are_invalid(sender: Sender) -> None:
    sender.push(item("a"))
    batch = Push(SPACE, [Item("b", item("b").stamp, units(1, 4)), item("c", n=0)], 4, 0)
    done = push(sender.database, sender.principal, batch)
    assert [result.status for result in done.results] == ["invalid", "applied"]


def test_last_seen_is_noted_with_each_push(sender: Sender) -> None:
    before = now_ms()
    sender.push(item("a"))
    with sender.database.read() as transaction:
        (device,) = accounts.list_devices(transaction, sender.principal.tenant)
    assert before <= device["pushed_ms"] <= now_ms()
