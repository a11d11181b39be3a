"""An index for programs that run on an event loop."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from edge_mrl.index.facade import Index

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from edge_mrl.documents import Document
    from edge_mrl.ingest import Stored
    from edge_mrl.search import Results
    from edge_mrl.store import Counts

__all__ = ["AsyncIndex"]

P = ParamSpec("P")
T = TypeVar("T")

#: Threads that wait for the index of one ``AsyncIndex``: a search beside a long put, and some more.
THREADS = 4
#: Documents that are read at a time.
PAGE = 64


class AsyncIndex:
    """An index whose methods are awaited, so that an event loop goes on meanwhile.

    They have the arguments, results and errors of those of ``Index``, and run in threads of their own.
    Cancelling one stops waiting for it; what it has begun is finished.

    Attributes:
        index: The index itself.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="edge-mrl")

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        bundle: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Self:
        """See ``Index.open``."""
        call = functools.partial(Index.open, path, bundle, **options)
        return cls(await asyncio.to_thread(call))

    async def put(self, documents: Iterable[Document], **options: Any) -> Stored:
        """See ``Index.put``. ``documents`` is read in another thread."""
        return await self._run(self.index.put, documents, **options)

    async def put_files(self, paths: Any, **options: Any) -> Stored:
        """See ``Index.put_files``."""
        return await self._run(self.index.put_files, paths, **options)

    async def delete(self, ids: Iterable[str]) -> int:
        """See ``Index.delete``."""
        return await self._run(self.index.delete, ids)

    async def get(self, ids: Iterable[str]) -> dict[str, Document]:
        """See ``Index.get``."""
        return await self._run(self.index.get, ids)

    async def count(self) -> Counts:
        """See ``Index.count``."""
        return await self._run(self.index.count)

    async def search(self, query: str, k: int | None = None, **options: Any) -> Results:
        """See ``Index.search``."""
        return await self._run(self.index.search, query, k, **options)

    async def search_many(self, queries: Sequence[str], **options: Any) -> list[Results]:
        """See ``Index.search_many``."""
        return await self._run(self.index.search_many, queries, **options)

    async def search_vector(
        self, vector: ArrayLike, k: int | None = None, **options: Any
    ) -> Results:
        """See ``Index.search_vector``."""
        return await self._run(self.index.search_vector, vector, k, **options)

    async def similar(self, id: str, k: int | None = None, **options: Any) -> Results:  # noqa: A002
        """See ``Index.similar``."""
        return await self._run(self.index.similar, id, k, **options)

    async def ids(self, filter: Mapping[str, Any] | None = None) -> AsyncIterator[str]:  # noqa: A002
        """See ``Index.ids``."""
        async for name in self._pages(self.index.ids(filter)):
            yield name

    async def documents(self, filter: Mapping[str, Any] | None = None) -> AsyncIterator[Document]:  # noqa: A002
        """See ``Index.documents``."""
        async for document in self._pages(self.index.documents(filter)):
            yield document

    async def close(self) -> None:
        """Close the index once what runs has ended; see ``Index.close``."""
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self.index.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncIndex({self.index!r})"

    def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._threads, functools.partial(call, *args, **kwargs))

    async def _pages(self, items: Generator[T, None, None]) -> AsyncIterator[T]:
        reading = threading.Lock()  # whoever is cancelled leaves a thread that still reads

        def read() -> list[T]:
            with reading:
                return list(islice(items, PAGE))

        try:
            while page := await self._run(read):
                for item in page:
                    yield item
        finally:
            with reading:
                items.close()
