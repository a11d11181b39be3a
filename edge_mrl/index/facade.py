"""The index: a store and its bundle, documents in and answers out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from edge_mrl.encode import Encoder
from edge_mrl.errors import UsageError
from edge_mrl.index.asking import ask, ask_and_rerank, code_of_encoder
from edge_mrl.index.files import TakesFiles
from edge_mrl.index.opening import Asked, open_or_create
from edge_mrl.index.supplying import codes_of_server
from edge_mrl.index.vectors import ask_by_vector, ask_for_similar
from edge_mrl.ingest import put_documents, reindex_store
from edge_mrl.search import Funnel, Results, SearchOptions, check_rerank, tune, tuned_funnel
from edge_mrl.store import (
    Binding,
    Counts,
    Store,
    check,
    compact,
    find_bundle,
    list_documents,
    list_ids,
    sources_below,
    stats,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from edge_mrl.documents import Document, PassageRule
    from edge_mrl.encode import OpeningKeywords
    from edge_mrl.index.opening import IndexKeywords
    from edge_mrl.ingest import PutOptions, ReindexOptions, Stored
    from edge_mrl.search import Scorer, SearchKeywords
    from edge_mrl.store import Compaction, Health, Key, Stats
    from edge_mrl.sync import Reranker

__all__ = ["Index"]

#: How long a server has to order a shortlist, in milliseconds: above what a good link takes, below
#: what a person notices.
RERANK_MS = 150.0


class Index(TakesFiles):
    """A store together with its bundle, opened as ``opening`` says. Threads may share an index."""

    def __init__(
        self, store: Store, encoder: Encoder | None, *, opening: OpeningKeywords | None = None
    ) -> None:
        self._opened = store
        self._closed = False
        self.opening = opening or {}
        self._encoder = encoder
        self._lock = threading.Lock()
        self._reranker: Reranker | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        bundle: str | os.PathLike[str] | None = None,
        *,
        max_tokens: int | None = None,
        overlap: int | None = None,
        keep_full: str | None = None,
        key: Key | None = None,
        **opening: Unpack[IndexKeywords],
    ) -> Index:
        """Open a store; if there is none and a bundle is given, create it.

        Args:
            path: The store's file.
            bundle: The bundle's folder. Needed to create a store and, later, only if the bundle has
                moved: a store remembers the absolute path and the path from the store's folder.
            max_tokens: The longest passage, in tokens (default: what the model reads, at most about
                250). This and the next two are fixed when the store is created.
            overlap: Tokens that neighbouring passages share (default: an eighth of ``max_tokens``).
            keep_full: How full vectors are kept, to rescore the best hits offline: "fp16" (768 B a
                passage at 384 dimensions), "int8" (388 B), "until-synced" (fp16, until a server has
                them), or None for not at all.
            key: Gives the 32 random bytes that open an encrypted store, or encrypt the one that is
                made; called when the store is opened. Needs the extra ``encrypted``.
            **opening: ``headings``, whether the headings above a passage of Markdown are embedded with
                it (default: no), which is fixed when the store is created; and how bundles are opened,
                as for ``Encoder.open``: ``threads``, ``low_memory``, and ``trust``, a file of public
                keys, one of which must have signed the bundle.

        Raises:
            UsageError: There is no store and no bundle is given, or the options for passages or full
                vectors differ from the store's.
            BundleError: The bundle cannot be trusted or opened.
            StoreError: The store cannot be used; a BindingError if it belongs to another bundle.
        """
        asked = Asked(max_tokens, overlap, opening.pop("headings", None), keep_full)
        store, encoder = open_or_create(path, bundle, opening, asked, key=key)
        return cls(store, encoder, opening=opening)

    @property
    def _store(self) -> Store:
        """The store, for whoever uses it.

        Raises:
            UsageError: The index is closed.
        """
        if self._closed:
            raise UsageError(f"the index of {self._opened.path} is closed: open it again")
        return self._opened

    @property
    def path(self) -> Path:
        """The store's file."""
        return self._opened.path

    @property
    def rule(self) -> PassageRule:
        """How documents are split into passages."""
        return self._store.rule

    @property
    def binding(self) -> Binding:
        """The embedding space and the code of the store's vectors, and the path of its bundle."""
        return self._store.binding

    @property
    def keep_full(self) -> str | None:
        """How the store keeps full vectors; None if it does not."""
        return self._store.keep_full

    @property
    def store(self) -> Store:
        """The store itself, to put vectors that were computed elsewhere."""
        return self._store

    @property
    def encoder(self) -> Encoder:
        """The bundle's encoder. Opened on first use, and again if another process has reindexed.

        Raises:
            UsageError: The bundle is not where it was.
            BindingError: Another bundle, of another embedding space or code, is in its place.
        """
        with self._lock:
            code = self._store.binding.code
            if self._encoder is not None and code_of_encoder(self._encoder) != code:
                self._encoder = None  # a search in another thread may still use it
            if self._encoder is None:
                folder = find_bundle(self._store, trust=self.opening.get("trust"))
                self._encoder = Encoder.open(folder, **self.opening)
            return self._encoder

    def open_bundle(self, folder: Path) -> Encoder:
        """The encoder of another bundle, opened as this index opens its own; close it after use."""
        return Encoder.open(folder, **self.opening)

    def put(self, documents: Iterable[Document], **options: Unpack[PutOptions]) -> Stored:
        """Store documents. Each replaces the one with its id; unchanged text is not embedded again.

        Documents are read, embedded and committed in batches, in order, in bounded memory. A document is
        stored completely or not at all, and is durable once its batch is committed.

        Args:
            documents: Any iterable. If it raises, what it gave before is stored first.
            **options: ``committed``, called after each commit with the totals so far; ``advance``,
                called while a batch is embedded, with its passages that are done and all of them; and
                ``on_error``. Documents whose texts the bundle cannot take are left out: "raise" (the
                default) raises an error once all others are stored, "skip" does not.

        Returns:
            How many documents were added, updated and unchanged, and which were left out.

        Raises:
            RefusedDocumentsError: Documents were left out; all others were stored.
            UsageError: A document's metadata cannot be kept. The documents before it are stored.
            StoreError: The current batch was not stored.
        """
        return put_documents(self._store, lambda: self.encoder, documents, **options)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents; returns how many there were."""
        return self._store.delete(ids)

    def get(self, ids: Iterable[str]) -> dict[str, Document]:
        """The documents with these ids, by id; ids without a document are left out."""
        return self._store.get(ids)

    def count(self) -> Counts:
        """Count documents and passages."""
        return self._store.count()

    def search(
        self,
        query: str,
        k: int | None = None,
        *,
        options: SearchOptions | None = None,
        rerank: Scorer | Literal["auto", "always"] | None = None,
        deadline_ms: float = RERANK_MS,
        **keywords: Unpack[SearchKeywords],
    ) -> Results:
        """Find the k documents that answer a query best.

        A document of several passages counts by its best one and is found once.

        Args:
            query: In the user's words; the bundle's prompt for queries is added.
            k: The number of documents to return at most (default: 10).
            options: How to search (see ``SearchOptions``). Keyword arguments override its fields.
            rerank: Who reranks the best 100 by full vectors: a ``SyncClient``, or the server that the
                store is enrolled with. "always" asks that server each time, "auto" only if the local
                scores leave the order in doubt (see ``edge_mrl.search.calibrate_margin``). Needs mode
                "vector". None asks nobody.
            deadline_ms: How long the server may take, in milliseconds. Without an answer by then, the
                local order is returned.
            **keywords: Fields of ``SearchOptions``: ``filter``, ``mode``, ``exact``, ``width``,
                ``stages``, ``diversity``.

        Returns:
            The hits, from the best. ``ranked_by`` says who ordered them; if the server did not,
            ``reason`` says why.

        Raises:
            TypeError: There is no search option of that name.
            UsageError: An option has a wrong value, or the store cannot be searched that way.
            DamagedError: What was found is not what was stored.
        """
        chosen = SearchOptions.of(options, k, **keywords)
        if rerank is None:
            return ask(self, [query], chosen)[0]
        check_rerank(rerank, deadline_ms, chosen)
        return ask_and_rerank(self, query, chosen, rerank, deadline_ms / 1000)

    def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int | None = None,
        options: SearchOptions | None = None,
        **keywords: Unpack[SearchKeywords],
    ) -> list[Results]:
        """Find the documents that answer each of several queries best, all in one state of the store.

        Args:
            queries: As for ``search``; so are the other arguments.
            k: The number of documents to return at most for each query (default: 10).
            options: How to search.
            **keywords: Fields of ``SearchOptions``.

        Returns:
            For each query its hits.

        Raises:
            TypeError: ``queries`` is a single string, or there is no search option of that name.
            UsageError: An option has a wrong value, or the store cannot be searched that way.
            DamagedError: What was found is not what was stored.
        """
        return ask(self, queries, SearchOptions.of(options, k, **keywords))

    def search_vector(
        self,
        vector: ArrayLike,
        k: int | None = None,
        *,
        options: SearchOptions | None = None,
        **keywords: Unpack[SearchKeywords],
    ) -> Results:
        """Find the k documents that are nearest to a vector. No model is loaded.

        Args:
            vector: float[D], a full vector of the store's embedding space, of any length; or
                int8[dim], a code of its bundle (``Encoding.coarse``).
            k: The number of documents to return at most (default: 10).
            options: As for ``search``; the mode is "vector".
            **keywords: As for ``search``.

        Returns:
            The hits, from the best.

        Raises:
            UsageError: It is no such vector, or an option has a wrong value.
            BundleError: The bundle, whose head turns a full vector into a code, cannot be read.
            DamagedError: What was found is not what was stored.
        """
        return ask_by_vector(self, vector, SearchOptions.of(options, k, **keywords))

    def similar(
        self,
        id: str,  # noqa: A002 - a document's id
        k: int | None = None,
        *,
        options: SearchOptions | None = None,
        **keywords: Unpack[SearchKeywords],
    ) -> Results:
        """Find the k documents that are most like one that is stored, which is left out.

        It is compared by the mean of its passages' vectors. No model is loaded.

        Args:
            id: The document's id.
            k: The number of documents to return at most (default: 10).
            options: As for ``search``; the mode is "vector".
            **keywords: As for ``search``.

        Raises:
            UsageError: There is no such document, it has no passages, or an option has a wrong value.
            DamagedError: What was found is not what was stored.
        """
        return ask_for_similar(self, id, SearchOptions.of(options, k, **keywords))

    def tune(self, stages: Funnel | str | None) -> None:
        """Set the stages of all searches that give none, until the bundle is changed.

        Args:
            stages: A funnel, or its text, such as "64x1:20000,128x1:5000,128x8"; None for the default.

        Raises:
            UsageError: The store's codes cannot be searched with these stages.
        """
        tune(self._store, stages)

    @property
    def tuned(self) -> Funnel | None:
        """The stages that ``tune`` has set; None for the default ones."""
        with self._store.reading() as view:
            return tuned_funnel(view)

    def select(self, filter: Mapping[str, Any] | None = None) -> list[str]:  # noqa: A002 - see search
        """Ids of the documents that match a filter, sorted; None or ``{}`` for all."""
        with self._store.reading() as view:
            return view.ids_where({} if filter is None else filter)

    def ids(self, filter: Mapping[str, Any] | None = None) -> Generator[str, None, None]:  # noqa: A002
        """Ids of documents, as ``documents`` gives them; damaged ones are among them."""
        return list_ids(self._store, filter)

    def documents(self, filter: Mapping[str, Any] | None = None) -> Generator[Document, None, None]:  # noqa: A002
        """Documents with their texts and metadata, in the order in which they were first put.

        One state of the store is read, in bounded memory, whoever writes meanwhile; close the generator
        if you leave it early. The filter is that of ``search``; None or ``{}`` gives all.

        Raises:
            DamagedError: Documents are not what was put. All others were given before it is raised.
        """
        return list_documents(self._store, filter)

    def __len__(self) -> int:
        return self.count().documents

    def __bool__(self) -> bool:
        return True  # without documents, too

    def __contains__(self, id: object) -> bool:  # noqa: A002 - a document's id
        return isinstance(id, str) and bool(id) and bool(self._store.keys([id]))

    def __iter__(self) -> Iterator[str]:
        return self.ids()

    def __repr__(self) -> str:
        binding = self._opened.binding
        state = ", closed" if self._closed else ""
        return f"Index({str(self.path)!r}, dim={binding.dim}, code={binding.packing.kind!r}{state})"

    def ids_of_sources(self) -> Iterator[tuple[str, str]]:
        """The id and the source of each document that was read from a file."""
        return sources_below(self._store, "")

    def stats(self) -> Stats:
        """What the store holds and the space it takes; sizes in bytes."""
        return stats(self._store)

    def check(
        self, *, repair: bool = False, advance: Callable[[int], None] | None = None
    ) -> Health:
        """Compare everything stored with its checksums; see ``edge_mrl.store.check``."""
        return check(self._store, repair=repair, advance=advance)

    def compact(self) -> Compaction:
        """Free the space of deleted documents; see ``edge_mrl.store.compact``."""
        return compact(self._store)

    def reindex(self, bundle: str | os.PathLike[str], **options: Unpack[ReindexOptions]) -> int:
        """Make the codes of all documents anew with another bundle, and change to it in one transaction.

        Where the store or its server keeps full vectors of the same embedding space, new codes are made
        of them; other texts are embedded. Until the change, the store can be searched and takes documents
        with the old bundle. If a call is interrupted, the next one with the same bundle goes on from
        there; where the store has the bundle already, nothing is done.

        Args:
            bundle: The new bundle's folder.
            **options: ``max_tokens``, the longest passage, in tokens (default: as now, or what the new
                model reads); ``overlap``, tokens that neighbouring passages share (default: as now, or an
                eighth); ``headings``, whether the headings above a passage of Markdown are embedded with
                it (default: as now); ``progress``, called with the number of documents done and of all;
                ``refused``, a list to which documents are added whose texts the bundle cannot take (they
                stay in the store, where only their words can be searched); ``tally``, which counts where
                codes came from; ``again``, to embed all texts; ``offline``, to ask no server;
                ``check_space`` (default: True), to begin only where the disk has room.

        Returns:
            The number of documents that this call embedded, refused ones among them.

        Raises:
            UsageError: The store keeps full vectors, but the new bundle gives none.
            BundleError: The new bundle cannot be trusted.
            StoreError: The store cannot be written, or the disk is too full.
            NetworkError: The server does not give codes that only it can give; call it again later.
        """
        supply = codes_of_server(self._store)
        return reindex_store(self._store, bundle, self.opening, supply, **options)

    def scorer(self, rerank: Scorer | str) -> Scorer:
        """Who is asked for scores: what was given, or the server that the store is enrolled with."""
        if not isinstance(rerank, str):
            return rerank
        from edge_mrl.sync import Reranker  # loads ssl, which a search alone does not need

        with self._lock:
            if self._reranker is None:
                self._reranker = Reranker(self._store, self._store.binding.space_id)
            return self._reranker

    def close(self) -> None:
        """Close the store and the bundle. Every other method then raises a UsageError."""
        self._closed = True
        if self._reranker is not None:
            self._reranker.close()
        if self._encoder is not None:
            self._encoder.close()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
