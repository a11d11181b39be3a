"""The face of the store: documents in, answers out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from edge_mrl.bundle import read_manifest
from edge_mrl.documents import PassageRule
from edge_mrl.encode import Encoder, passage_rule
from edge_mrl.errors import BindingError, UsageError
from edge_mrl.ingest import Stored, batches, embed, embed_again, rule_for
from edge_mrl.lazy import moved
from edge_mrl.search import (
    DEFAULT_MARGIN,
    RESCORE_DEPTH,
    Funnel,
    QueryVectors,
    Results,
    SearchOptions,
    answer,
    exact_scores,
    reorder,
    tune,
    tuned_funnel,
)
from edge_mrl.store import (
    Binding,
    Counts,
    Entry,
    Store,
    binding_of,
    check,
    compact,
    find_bundle,
    reindex,
    replica,
    stats,
    text_hash,
)

if TYPE_CHECKING:
    from edge_mrl.documents import Document
    from edge_mrl.search import Hit, Reranker, Scorer, SearchKeywords
    from edge_mrl.store import Compaction, Health, Stats

__all__ = ["Index"]

#: How long a server has to order a shortlist, in milliseconds: above what a good link takes, below
#: what a person notices.
RERANK_MS = 150.0
#: How often another process may change the bundle while one call is under way.
MOST_CHANGES = 3


class Index:
    """A store together with the bundle it was made with. Safe to share between threads."""

    def __init__(
        self, store: Store, encoder: Encoder | None, *, open_encoder: Callable[[Path], Encoder]
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._open_encoder = open_encoder
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
        threads: int | None = None,
        low_memory: bool = False,
    ) -> Index:
        """Open a store, or make one if a bundle is given.

        Args:
            path: The store's file.
            bundle: The bundle's folder. Needed to make a store and, later, only if the bundle has
                moved: a store remembers it, both in itself and seen from the store's folder.
            max_tokens: Most tokens in a passage. Fixed when the store is made (default: what the
                model reads, at most some 250).
            overlap: Tokens that passages next to each other share. Fixed when the store is made
                (default: an eighth of ``max_tokens``).
            keep_full: What is kept of full vectors, to score the best again offline: "fp16" (768 B
                a passage at 384 dimensions), "int8" (388 B), "until-synced" (fp16, until a server has
                them), or None. Fixed when the store is made.
            threads: Threads for embedding; None is one per core.
            low_memory: Embed with the smallest memory, slower.

        Raises:
            UsageError: No store and no bundle, or passage options unlike the store's.
            BundleError: The bundle cannot be trusted or opened.
            StoreError: The store cannot be used; BindingError if it belongs to another bundle.
        """
        open_encoder = partial(Encoder.open, threads=threads, low_memory=low_memory)
        opened: list[Encoder] = []
        store = None
        try:
            if bundle is None:
                store = Store.open(path)
            else:
                folder = Path(bundle).resolve()
                binding = binding_of(read_manifest(folder), folder)

                def create() -> tuple[Binding, PassageRule]:
                    opened.append(open_encoder(folder))
                    rule = passage_rule(opened[0], max_tokens=max_tokens, overlap=overlap)
                    return binding, rule

                store = Store.open(path, create=create, keep_full=keep_full)
                store.require(binding)
            _require_rule(store, max_tokens, overlap, keep_full)
        except BaseException:
            for thing in (*opened, store):
                if thing is not None:
                    thing.close()
            raise
        return cls(store, opened[0] if opened else None, open_encoder=open_encoder)

    @property
    def path(self) -> Path:
        """The store's file."""
        return self._store.path

    @property
    def rule(self) -> PassageRule:
        """How documents are cut into passages."""
        return self._store.rule

    @property
    def binding(self) -> Binding:
        """The space and code that the store holds, and its bundle's path."""
        return self._store.binding

    @property
    def keep_full(self) -> str | None:
        """What the store keeps of full vectors."""
        return self._store.keep_full

    @property
    def store(self) -> Store:
        """The store itself, for vectors that are made elsewhere."""
        return self._store

    @property
    def encoder(self) -> Encoder:
        """The bundle, opened when first needed, and again after another process's reindexing.

        Raises:
            UsageError: It is not where it was.
            BindingError: What is there now is of another space or code.
        """
        with self._lock:
            code = self._store.binding.code
            if self._encoder is not None and _code(self._encoder) != code:
                self._encoder = None  # a search in another thread may still use it
            if self._encoder is None:
                self._encoder = self._open_encoder(find_bundle(self._store))
            return self._encoder

    def put(
        self,
        documents: Iterable[Document],
        *,
        committed: Callable[[Stored], None] | None = None,
    ) -> Stored:
        """Store documents: each replaces that of its id; unchanged text is not embedded again.

        Documents are read, embedded and committed in batches, in order, with bounded memory. A
        document is stored whole or not at all, and is durable once its batch is committed.

        Args:
            documents: Any iterable.
            committed: Called after each commit with all that was stored so far.

        Raises:
            UsageError: Metadata that JSON cannot carry.
            StoreError: The current batch was not stored.
        """
        total = Stored()
        for batch in batches(documents):
            total += self._put_batch(batch)
            if committed is not None:
                committed(total)
        return total

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents; returns how many were there."""
        return self._store.delete(ids)

    def get(self, ids: Iterable[str]) -> dict[str, Document]:
        """Those of the documents that are there, by id."""
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
            return Results(tuple(self._find([query], chosen)[0][0]))
        if chosen.mode != "vector":
            raise UsageError(f'rerank needs mode "vector", not {chosen.mode!r}')
        if isinstance(rerank, str) and rerank not in ("auto", "always"):
            raise UsageError(f'rerank is {rerank!r}, expected "auto", "always" or a SyncClient')
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
        if isinstance(queries, str | bytes):
            raise TypeError("queries is a single string: pass a list of strings, e.g. [query]")
        found, _ = self._find(queries, SearchOptions.of(options, k, **keywords))
        return [Results(tuple(hits)) for hits in found]

    def tune(self, stages: Funnel | str | None) -> None:
        """Remember stages for all searches that name none, until the bundle is changed.

        Args:
            stages: A funnel, or how one is written: "64x1:20000,128x1:5000,128x8"; None for the
                default.

        Raises:
            UsageError: The store's codes cannot be searched so.
        """
        tune(self._store, Funnel.of(stages) if isinstance(stages, str) else stages)

    @property
    def tuned(self) -> Funnel | None:
        """The stages that the store was tuned to; None for the default ones."""
        with self._store.reading() as view:
            return tuned_funnel(view)

    def select(self, filter: Mapping[str, Any]) -> list[str]:  # noqa: A002 - see search
        """Ids of the documents that a filter selects, in order."""
        with self._store.reading() as view:
            keys = [int(key) for key in view.select(filter)]
            return sorted(self._store.ids(keys).values())

    def ids_of_sources(self) -> Iterator[tuple[str, str]]:
        """Ids and sources of all documents that were read from files."""
        return self._store.ids_of_sources()

    def stats(self) -> Stats:
        """What the store holds and takes, for people and for programs; sizes in bytes."""
        return stats(self._store)

    def check(
        self, *, repair: bool = False, advance: Callable[[int], None] | None = None
    ) -> Health:
        """Compare everything stored with its checksums; see ``edge_mrl.store.check``."""
        return check(self._store, repair=repair, advance=advance)

    def compact(self) -> Compaction:
        """Give the space of deleted documents back; see ``edge_mrl.store.compact``."""
        return compact(self._store)

    def reindex(
        self,
        bundle: str | os.PathLike[str],
        *,
        max_tokens: int | None = None,
        overlap: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Embed all texts with another bundle, then change to it in one transaction.

        The store serves searches and takes documents with the old bundle until then. An interrupted
        call goes on where it was when it is called again with the same bundle.

        Args:
            bundle: The new bundle's folder.
            max_tokens: Most tokens in a passage (default: as now, or what the new model reads).
            overlap: Tokens that passages share (default: as now, or an eighth).
            progress: Called with documents done and documents in all.

        Returns:
            Documents embedded by this call.

        Raises:
            UsageError: The store keeps full vectors and the new bundle gives none.
            BundleError: The new bundle cannot be trusted.
        """
        folder = Path(bundle).resolve()
        encoder = self._open_encoder(folder)
        try:
            rule = rule_for(encoder, self.rule, max_tokens, overlap)
            binding = binding_of(encoder.manifest, folder)
            wanted = reindex.Reindexing(binding, rule, self._store.keep_full)
            return embed_again(self._store, encoder, wanted, progress)
        finally:
            encoder.close()

    def close(self) -> None:
        """Close the store and the bundle."""
        if self._reranker is not None:
            self._reranker.close()
        if self._encoder is not None:
            self._encoder.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put_batch(self, batch: list[Document]) -> Stored:
        known = self._store.hashes([document.id for document in batch])
        same: list[Document] = []
        fresh: list[Document] = []
        for document in batch:
            unchanged = known.get(document.id) == text_hash(document.text)
            (same if unchanged else fresh).append(document)
        entries, stale = self._store_all(fresh, same)
        if stale:
            again, _ = self._store_all(stale, [])
            entries += again
        return Stored(
            added=sum(entry.document.id not in known for entry in entries),
            updated=sum(entry.document.id in known for entry in entries),
            unchanged=len(same) - len(stale),
            passages=sum(len(entry.spans) for entry in entries),
        )

    def _store_all(
        self, fresh: list[Document], same: list[Document]
    ) -> tuple[list[Entry], list[Document]]:
        """Embed and store, once more if another process changes the bundle meanwhile."""
        for left in reversed(range(MOST_CHANGES)):
            rule = self._store.rule
            entries = embed(self.encoder, fresh, rule, self._store.keep_full) if fresh else []
            try:
                return entries, self._store.put(entries, unchanged=same)
            except BindingError:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _find(
        self, queries: Sequence[str], options: SearchOptions
    ) -> tuple[list[list[Hit]], list[QueryVectors | None]]:
        """Hits for each query, and the queries' vectors."""
        for _ in range(MOST_CHANGES):
            vectors, code = self._encode_queries(queries, options)
            with self._store.reading() as view:
                if code not in (None, self._store.binding.code):
                    continue  # another process has just changed the bundle
                return answer(view, queries, vectors, options), vectors
        raise BindingError(
            f"other processes change the bundle of {self.path} again and again: try again later"
        )

    def _rerank(
        self, query: str, options: SearchOptions, rerank: Scorer | str, deadline_s: float
    ) -> Results:
        shortlist = replace(options, k=max(options.k, RESCORE_DEPTH))
        (hits,), (vectors,) = self._find([query], shortlist)
        full = None if vectors is None else vectors.full
        if full is None:
            reason = "the bundle gives no full vectors" if hits else None
            return Results(tuple(hits[: options.k]), reason=reason)
        return reorder(
            hits,
            k=options.k,
            margin=self._margin() if rerank == "auto" else None,
            ask=lambda ids: self._scorer(rerank).rerank(ids, full, deadline_s=deadline_s),
            own=lambda ids: exact_scores(self._store, ids, full),
        )

    def _margin(self) -> float:
        found = replica.enrollment_of(self._store)
        return DEFAULT_MARGIN if found is None or found.margin is None else found.margin

    def _scorer(self, rerank: Scorer | str) -> Scorer:
        """Who is asked for scores: what was given, or the server that the store is enrolled with."""
        if not isinstance(rerank, str):
            return rerank
        from edge_mrl.search import Reranker  # loads ssl, which a search alone does not need

        with self._lock:
            if self._reranker is None:
                self._reranker = Reranker(self.path, self._store.binding.space_id)
            return self._reranker

    def _encode_queries(
        self, queries: Sequence[str], options: SearchOptions
    ) -> tuple[list[QueryVectors | None], tuple[str, str] | None]:
        """Vectors for each query, and the code they are of; None where no vector is needed."""
        if options.mode == "keyword":
            return [None] * len(queries), None
        encoder = self.encoder
        encoding = encoder.encode(queries, kind="query")
        fulls = [None] * len(queries) if encoding.full is None else list(encoding.full)
        pairs = zip(encoding.coarse, fulls, strict=True)
        return [QueryVectors(coarse, full) for coarse, full in pairs], _code(encoder)


def _code(encoder: Encoder) -> tuple[str, str]:
    return encoder.manifest.space_id, encoder.manifest.code_id


def _require_rule(
    store: Store, max_tokens: int | None, overlap: int | None, keep_full: str | None
) -> None:
    rule = store.rule
    if keep_full not in (None, store.keep_full):
        raise UsageError(
            f"{store.path} keeps {store.keep_full or 'nothing'} of full vectors, not {keep_full}: "
            "leave this option out, or make another store"
        )
    if max_tokens not in (None, rule.max_tokens) or overlap not in (None, rule.overlap):
        raise UsageError(
            f"{store.path} has passages of up to {rule.max_tokens} tokens, overlap {rule.overlap}, "
            "and keeps them so: leave these options out, or make another store"
        )


__getattr__ = moved(__name__, {"edge_mrl.search": ("Hit",)})
