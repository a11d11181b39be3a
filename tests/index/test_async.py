"""An index on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_mrl import AsyncIndex, Document, NoStoreError, UsageError
from tests.index.test_index import make_documents
from tests.support.bundles import TINY

pytestmark = pytest.mark.test


def test_everything_can_be_awaited(tmp_path: Path) -> None:
    async def run() -> None:
        async with await AsyncIndex.open(tmp_path / "notes.db", TINY) as index:
            stored = await index.put(make_documents(100))
            assert stored.added == 100
            assert (await index.count()).documents == 100
            found = await asyncio.gather(*(index.search(q, 3) for q in ("the cat", "a dog")))
            assert list(found) == await index.search_many(["the cat", "a dog"], k=3)
            assert list(found) == index.index.search_many(["the cat", "a dog"], k=3)
            full = index.index.encoder.encode(["the cat"], kind="query").full
            assert full is not None
            assert await index.search_vector(full[0], 3) == found[0]
            assert len(await index.similar("d001", 4)) == 4
            assert [name async for name in index.ids()] == [f"d{i:03}" for i in range(100)]
            some = [one async for one in index.documents({"number": {"$lt": 2}})]
            assert [one.id for one in some] == ["d000", "d001"]
            assert (await index.get(["d005"]))["d005"].metadata == {"number": 5}
            assert await index.delete(["d005", "x"]) == 1
            assert repr(index).startswith("AsyncIndex(Index(")
        with pytest.raises(UsageError, match="closed"):
            index.index.count()

    asyncio.run(run())


def test_the_loop_goes_on_while_documents_are_put(tmp_path: Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    seen: list[int] = []

    def slow() -> Iterator[Document]:
        for one in make_documents(20):
            seen.append(ticks)
            yield one

    async def run() -> None:
        async with await AsyncIndex.open(tmp_path / "notes.db", TINY) as index:
            beside = asyncio.create_task(tick())
            await index.put(slow())
            beside.cancel()

    asyncio.run(run())
    assert len(seen) == 20
    assert ticks > seen[0]


def test_errors_are_those_of_an_index(tmp_path: Path) -> None:
    async def run() -> None:
        with pytest.raises(NoStoreError):
            await AsyncIndex.open(tmp_path / "nothing.db")
        async with await AsyncIndex.open(tmp_path / "notes.db", TINY) as index:
            with pytest.raises(UsageError, match="k is 0"):
                await index.search("the cat", 0)
            listing = index.documents()
            with pytest.raises(StopAsyncIteration):
                await anext(listing)

    asyncio.run(run())
