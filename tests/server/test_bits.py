"""Signs of vectors in memory: which documents are worth a closer look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_mrl.wire import Item
from edge_mrl_server.storage import Database, Principal, Push, accounts, open_database, push
from edge_mrl_server.storage import bits as module
from edge_mrl_server.storage.bits import BitCache
from tests.support.serving import SPACE, item, units

DIM = 72  # not a multiple of 64


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(str(tmp_path / "server.db")) as database:
        for name in ("t", "u"):
            with database.write() as transaction:
                accounts.create_tenant(transaction, name)
        yield database


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shortlist that leaves something out, of pages that are more than one."""
    monkeypatch.setattr(module, "SHORTLIST", 5)
    monkeypatch.setattr(module, "PAGE", 7)


def put(database: Database, *items: Item, tenant: str = "t") -> None:
    push(database, Principal(tenant, "d", {}), Push(SPACE, items, DIM, 0))


def shortlist(
    cache: BitCache,
    database: Database,
    query: NDArray[np.float32],
    *,
    tenant: str = "t",
    k: int = 0,
) -> list[str]:
    with database.read() as transaction:
        found = accounts.require_tenant(transaction, tenant)
        return cache.shortlist(transaction, found, query, k)


def make(count: int, *, first: int = 0) -> list[Item]:
    return [item(f"d{n}", n=1, seed=n, dim=DIM) for n in range(first, first + count)]


def query(seed: int) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = units(1, DIM, seed=seed)[0].astype(np.float32)
    return vector


def test_shortlist_holds_the_documents_with_the_nearest_signs(database: Database) -> None:
    items, cache = make(60), BitCache()
    put(database, *items)
    for seed in range(1_000, 1_010):
        found = shortlist(cache, database, query(seed))
        distances = {i.id: int(((i.vectors[0] > 0) != (query(seed) > 0)).sum()) for i in items}
        assert len(found) == 5
        assert [distances[name] for name in found] == sorted(distances.values())[:5]
    assert len(shortlist(cache, database, query(1), k=2)) == 20


def test_document_is_listed_once_for_its_best_passage(database: Database) -> None:
    items = [item(f"d{n}", n=4, seed=n, dim=DIM) for n in range(3)]
    put(database, *items)
    assert sorted(shortlist(BitCache(), database, query(1))) == ["d0", "d1", "d2"]


def test_changes_and_deletions_are_read_when_they_are_there(database: Database) -> None:
    items, cache = make(20), BitCache()
    put(database, *items)
    own = items[3].vectors[0].astype(np.float32)
    assert shortlist(cache, database, own)[0] == "d3"
    put(database, item("d3", after=1, deleted=True, dim=DIM))
    assert "d3" not in shortlist(cache, database, own, k=2)
    moved = Item("d4", item("d4", after=1).stamp, items[3].vectors)
    put(database, moved)
    assert shortlist(cache, database, own)[0] == "d4"
    assert len(shortlist(cache, database, own, k=2)) == 19


def test_transaction_from_before_the_cache_sees_its_own_state(database: Database) -> None:
    cache = BitCache()
    put(database, *make(3))
    with database.read() as old:
        tenant = accounts.require_tenant(old, "t")
        put(database, *make(3, first=3))
        assert len(shortlist(cache, database, query(1))) == 5
        assert sorted(cache.shortlist(old, tenant, query(1), 1)) == ["d0", "d1", "d2"]
    assert len(shortlist(cache, database, query(1), k=1)) == 6


def test_rows_of_what_was_replaced_are_given_up(database: Database) -> None:
    cache = BitCache()
    for turn in range(30):
        put(database, item("a", after=turn, seed=turn, dim=DIM), *make(1, first=turn))
        found = shortlist(cache, database, query(turn), k=10)
        assert sorted(found) == sorted({"a", *(f"d{n}" for n in range(turn + 1))})


def test_least_recently_searched_tenant_is_forgotten_first(database: Database) -> None:
    cache = BitCache(max_bytes=1)
    for tenant in ("t", "u"):
        put(database, *make(4), tenant=tenant)
    for tenant in ("t", "u", "t"):
        assert len(shortlist(cache, database, query(1), tenant=tenant)) == 4
        # With its epoch: a tenant that is made anew under the same name is another one.
        assert [key.split()[0] for key in cache._tenants] == [tenant]


def test_tenant_without_vectors_has_no_shortlist(database: Database) -> None:
    put(database, item("a", n=0, dim=DIM), item("b", deleted=True, dim=DIM))
    assert shortlist(BitCache(), database, query(1)) == []
