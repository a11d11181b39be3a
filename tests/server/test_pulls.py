"""Changes and snapshots, asked of storage directly, in both databases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_mrl.wire import MAX_BODY_BYTES, Item, now_ms
from edge_mrl_server.errors import FencedError, RestoredError
from edge_mrl_server.storage import (
    PullQuery,
    accounts,
    changes_after,
    live_pages,
    note_pull,
    purge,
)
from edge_mrl_server.storage import pulls as module
from tests.server.conftest import Place
from tests.server.test_pushes import Sender, another
from tests.support.serving import item

pytestmark = pytest.mark.test


@pytest.fixture
def sender(place: Place) -> Sender:
    return another(place, place.tenant())


def test_pages_lead_to_the_last_change_and_overlap_nowhere(sender: Sender) -> None:
    sender.push(*(item(f"d{n}", seed=n) for n in range(7)))
    sender.push(item("d2", after=1, deleted=True))
    query, seen = PullQuery(0, limit=3), []
    while True:
        page = changes_after(sender.database, sender.principal.tenant, query)
        seen += [(i.id, i.deleted) for i in page.items]
        query = replace(query, since=page.cursor)
        if not page.more:
            break
    left = [(f"d{n}", False) for n in range(7) if n != 2]
    assert (seen, query.since) == ([*left, ("d2", True)], 8)
    assert changes_after(sender.database, sender.principal.tenant, query).items == []


def test_vectors_and_text_come_when_they_are_asked_for(sender: Sender) -> None:
    sent = item("a", n=2, text="é\0", metadata={"k": [1]}, spans=[(0, 1), (1, 2)])
    sender.push(sent, item("b", n=0))
    tenant = sender.principal.tenant

    def first(query: PullQuery) -> Item:
        return changes_after(sender.database, tenant, query).items[0]

    full = first(PullQuery(0, text=True))
    assert np.array_equal(full.vectors, sent.vectors)
    assert (full.text, full.metadata, list(full.spans)) == ("é\0", {"k": [1]}, [(0, 1), (1, 2)])
    assert (first(PullQuery(0)).text, list(first(PullQuery(0)).spans)) == (None, [])
    bare = first(PullQuery(0, vectors=False, text=True))
    assert (len(bare.vectors), bare.text, list(bare.spans)) == (0, "é\0", [])


def test_page_is_about_as_long_as_a_body_and_never_empty(sender: Sender) -> None:
    half = "x" * (MAX_BODY_BYTES // 2 - 10_000)
    for name in ("a", "b", "c"):
        sender.push(item(name, text=half, spans=[(0, 1)]))
    big = "x" * (2 * MAX_BODY_BYTES)
    sender.push(item("d", text=big, spans=[(0, 1)]))
    tenant, since, pages = sender.principal.tenant, 0, []
    for _ in range(3):
        page = changes_after(sender.database, tenant, PullQuery(since, text=True))
        pages.append([i.id for i in page.items])
        since = page.cursor
    assert pages == [["a", "b"], ["c"], ["d"]]
    # Without their text they fit into one.
    assert len(changes_after(sender.database, tenant, PullQuery(0)).items) == 4


def test_device_before_the_fence_is_rejected_unless_it_began_behind_it(sender: Sender) -> None:
    sender.push(item("a", after=-9_000), item("b", after=-9_000))
    sender.push(item("a", after=-8_000, deleted=True))
    tenant = sender.principal.tenant
    assert purge(sender.database, tenant, before_ms=now_ms()) == (1, 3)
    with pytest.raises(FencedError, match="pull everything") as raised:
        changes_after(sender.database, tenant, PullQuery(1))
    assert raised.value.details == {"fence": 3}
    for query in (PullQuery(0), PullQuery(1, fence=3), PullQuery(3)):
        assert changes_after(sender.database, tenant, query).fence == 3


def test_cursor_of_another_epoch_is_rejected(sender: Sender) -> None:
    sender.push(item("a"))
    tenant, epoch = sender.principal.tenant, sender.tenant.epoch
    for query in (PullQuery(1, epoch=epoch), PullQuery(1, epoch=""), PullQuery(9)):
        assert changes_after(sender.database, tenant, query).epoch == epoch
    for query in (PullQuery(1, epoch="0" * 16), PullQuery(2, epoch=epoch), PullQuery(2, epoch="")):
        with pytest.raises(RestoredError):
            changes_after(sender.database, tenant, query)


def test_pages_of_what_is_live_are_of_one_state(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ITEMS", 2)
    sender.push(*(item(f"d{n}", seed=n, text="t", spans=[(0, 1)]) for n in range(5)))
    sender.push(item("d1", after=1, deleted=True))
    tenant, pages = live_pages(sender.database, sender.principal.tenant, text=False)
    first = next(pages)
    sender.push(item("d4", after=2, deleted=True), item("new"), item("d3", after=3))
    rest = list(pages)
    # What changes meanwhile comes after the change from which a device goes on with these pages.
    assert [[i.id for i in page] for page in (first, *rest)] == [["d0", "d2"]]
    later = changes_after(sender.database, sender.principal.tenant, PullQuery(tenant.change))
    assert [(i.id, i.deleted) for i in later.items] == [("d4", True), ("new", False), ("d3", False)]
    assert (tenant.change, tenant.documents, first[0].text) == (6, 4, None)
    assert len(first[0].vectors) == 1


def test_pull_is_noted_now_and_then(sender: Sender) -> None:
    def pulled() -> int:
        with sender.database.read() as transaction:
            (device,) = accounts.list_devices(transaction, sender.principal.tenant)
        return int(device["pulled"])

    def given(cursor: int, *, more: bool) -> module.Changes:
        return module.Changes([], cursor, more, 0, "e", None, None)

    note_pull(sender.database, sender.principal, given(5, more=True))
    assert pulled() == 5
    # A moment later: pages in between are not worth a commit, the last one is.
    note_pull(sender.database, sender.principal, given(6, more=True))
    assert pulled() == 5
    note_pull(sender.database, sender.principal, given(6, more=False))
    assert pulled() == 6
    with sender.database.write() as transaction:
        transaction.run(
            "UPDATE devices SET pulled_ms = pulled_ms - ? WHERE tenant = ?",
            module.NOTE_MS,
            sender.principal.tenant,
        )
    note_pull(sender.database, sender.principal, given(7, more=True))
    assert pulled() == 7
    unknown = replace(sender.principal, device="0" * 16)
    note_pull(sender.database, unknown, given(8, more=False))
    assert pulled() == 7
