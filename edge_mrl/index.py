"""The index: a store and its bundle, documents in and answers out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from edge_mrl.arguments import each_text, path_of
from edge_mrl.bundle import read_manifest
from edge_mrl.documents import PassageRule
from edge_mrl.encode import Encoder, check_opening, passage_rule
from edge_mrl.errors import BindingError, NoStoreError, UsageError
from edge_mrl.ingest import MOST_CHANGES, put_documents, reindex_store, require_rule
from edge_mrl.lazy import moved
from edge_mrl.search import (
    DEFAULT_MARGIN,
    RESCORE_DEPTH,
    Funnel,
    QueryVectors,
    Results,
    SearchOptions,
    answer,
    check_rerank,
    exact_scores,
    reorder,
    tune,
    tuned_funnel,
)
from edge_mrl.store import (
    Binding,
    Counts,
    Store,
    binding_of,
    check,
    compact,
    find_bundle,
    replica,
    stats,
)

if TYPE_CHECKING:
    from edge_mrl.documents import Document
    from edge_mrl.encode import OpeningKeywords
    from edge_mrl.ingest import PutOptions, ReindexOptions, Stored
    from edge_mrl.search import Hit, Scorer, SearchKeywords
    from edge_mrl.store import Compaction, Health, Key, Stats
    from edge_mrl.sync import Reranker, ServerCodes

__all__ = ["Index"]

#: How long a server has to order a shortlist, in milliseconds: above what a good link takes, below
#: what a person notices.
RERANK_MS = 150.0


class Index:
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
        **opening: Unpack[OpeningKeywords],
    ) -> Index:
        """Open a store; if there is none and a bundle is given, create it.

        Args:
            path: The store's file.
            bundle: The bundle's folder. Needed to create a store and, later, only if the bundle has
                moved: a store remembers the absolute path and the path from the store's folder.
            max_tokens: The longest passage, in tokens. Fixed when the store is created (default: what
                the model reads, at most about 250).
            overlap: Tokens that neighbouring passages share. Fixed when the store is created
                (default: an eighth of ``max_tokens``).
            keep_full: How full vectors are kept, to rescore the best hits offline: "fp16" (768 B a
                passage at 384 dimensions), "int8" (388 B), "until-synced" (fp16, until a server has
                them), or None for not at all. Fixed when the store is created.
            key: Gives the 32 random bytes that open an encrypted store, or encrypt the one that is
                made; called when the store is opened. Needs the extra ``encrypted``.
            **opening: How bundles are opened, as for ``Encoder.open``: ``threads``, ``low_memory``, and
                ``trust``, a file of public keys, one of which must have signed the bundle.

        Raises:
            UsageError: There is no store and no bundle is given, or the options for passages or full
                vectors differ from the store's.
            BundleError: The bundle cannot be trusted or opened.
            StoreError: The store cannot be used; a BindingError if it belongs to another bundle.
        """
        trust = check_opening(opening)
        encoder = None
        with ExitStack() as opened:
            if bundle is None:
                store = opened.enter_context(Store.open(path, key=key))
            else:
                folder = path_of("bundle", bundle).resolve()
                binding = binding_of(read_manifest(folder, trust=trust), folder)
                try:
                    store = opened.enter_context(Store.open(path, key=key))
                    store.require(binding)
                except NoStoreError:
                    encoder = opened.enter_context(Encoder.open(folder, **opening))
                    rule = passage_rule(encoder, max_tokens=max_tokens, overlap=overlap)
                    store = opened.enter_context(
                        Store.create(path, binding, rule, keep_full=keep_full, key=key)
                    )
            require_rule(store, max_tokens=max_tokens, overlap=overlap, keep_full=keep_full)
            opened.pop_all()
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
            if self._encoder is not None and _code(self._encoder) != code:
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
                ``stages``.

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
            found, _, damaged = self._find([query], chosen)
            return Results(tuple(found[0]), damaged=damaged)
        if chosen.mode != "vector":
            raise UsageError(f'rerank needs mode "vector", not {chosen.mode!r}')
        check_rerank(rerank, deadline_ms)
        return self._rerank(query, chosen, rerank, deadline_ms / 1000)

    def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int | None = None,
        options: SearchOptions | None = None,
        **keywords: Unpack[SearchKeywords],
    ) -> list[Results]:
        """Find the documents that answer each of several queries best.

        Args:
            queries: As for ``search``.
            k: The number of documents to return at most for each query (default: 10).
            options: How to search (see ``SearchOptions``). Keyword arguments override its fields.
            **keywords: Fields of ``SearchOptions``, as for ``search``.

        Returns:
            For each query its hits. All come from one state of the store.

        Raises:
            TypeError: ``queries`` is a single string, or there is no search option of that name.
            UsageError: An option has a wrong value, or the store cannot be searched that way.
            DamagedError: What was found is not what was stored.
        """
        found, _, damaged = self._find(queries, SearchOptions.of(options, k, **keywords))
        return [Results(tuple(hits), damaged=damaged) for hits in found]

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

    def select(self, filter: Mapping[str, Any]) -> list[str]:  # noqa: A002 - see search
        """Ids of the documents that match a filter, sorted."""
        with self._store.reading() as view:
            return view.ids_where(filter)

    def ids_of_sources(self) -> Iterator[tuple[str, str]]:
        """The id and the source of each document that was read from a file."""
        return self._store.ids_of_sources()

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
                eighth); ``progress``, called with the number of documents done and of all documents;
                ``refused``, a list to which documents are added whose texts the bundle cannot take (they
                stay in the store, where only their words can be searched); ``tally``, which counts where
                codes came from; ``again``, to embed all texts; ``offline``, to ask no server.

        Returns:
            The number of documents that this call embedded, refused ones among them.

        Raises:
            UsageError: The store keeps full vectors, but the new bundle gives none.
            BundleError: The new bundle cannot be trusted.
            StoreError: The store cannot be written, or the disk is too full.
            NetworkError: The server does not give codes that only it can give; call it again later.
        """
        enrolled = replica.enrollment_of(self._store) is not None
        supply = self._supply if enrolled else None
        return reindex_store(self._store, bundle, self.opening, supply, **options)

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

    def _find(
        self, queries: Sequence[str], options: SearchOptions
    ) -> tuple[list[list[Hit]], list[QueryVectors | None], tuple[str, ...]]:
        """Hits for each query, the queries' vectors, and damaged documents that were left out."""
        queries = list(each_text("queries", queries))
        for _ in range(MOST_CHANGES):
            vectors, code = self._encode_queries(queries, options)
            with self._store.reading() as view:
                if code not in (None, self._store.binding.code):
                    continue  # another process has just changed the bundle
                hits = answer(view, queries, vectors, options)
                return hits, vectors, tuple(view.names(view.damaged))
        raise BindingError(f"other processes keep changing the bundle of {self.path}: try again")

    def _rerank(
        self, query: str, options: SearchOptions, rerank: Scorer | str, deadline_s: float
    ) -> Results:
        shortlist = replace(options, k=max(options.k, RESCORE_DEPTH))
        (hits,), (vectors,), damaged = self._find([query], shortlist)
        full = None if vectors is None else vectors.full
        if full is None:
            reason = "the bundle gives no full vectors" if hits else None
            return Results(tuple(hits[: options.k]), reason=reason, damaged=damaged)
        results = reorder(
            hits,
            k=options.k,
            margin=self._margin() if rerank == "auto" else None,
            ask=lambda ids: self._scorer(rerank).rerank(ids, full, deadline_s=deadline_s),
            own=lambda ids: exact_scores(self._store, ids, full),
        )
        return replace(results, damaged=damaged)

    def _margin(self) -> float:
        found = replica.enrollment_of(self._store)
        return DEFAULT_MARGIN if found is None or found.margin is None else found.margin

    def _scorer(self, rerank: Scorer | str) -> Scorer:
        """Who is asked for scores: what was given, or the server that the store is enrolled with."""
        if not isinstance(rerank, str):
            return rerank
        from edge_mrl.sync import Reranker  # loads ssl, which a search alone does not need

        with self._lock:
            if self._reranker is None:
                self._reranker = Reranker(self._store, self._store.binding.space_id)
            return self._reranker

    def _supply(self, folder: Path) -> ServerCodes:
        from edge_mrl.sync import ServerCodes

        return ServerCodes(self._store, folder)

    def _encode_queries(
        self, queries: Sequence[str], options: SearchOptions
    ) -> tuple[list[QueryVectors | None], tuple[str, str] | None]:
        """Vectors for each query, and the code they are of; None where no vector is needed."""
        if options.mode == "keyword":
            return [None] * len(queries), None
        encoder = self.encoder
        vectors = QueryVectors.of(encoder.encode(queries, kind="query"))
        return [*vectors], _code(encoder)


def _code(encoder: Encoder) -> tuple[str, str]:
    return encoder.manifest.space_id, encoder.manifest.code_id


_MOVED = {"edge_mrl.ingest": ("Stored", "embed"), "edge_mrl.search": ("Hit",)}
__getattr__ = moved(__name__, {**_MOVED, "edge_mrl.store": ("binding_of", "find_bundle")})
