"""New codes for a store: made of full vectors where they are known, else of the texts, embedded again.

Full vectors do not change with a bundle's head, dimensions or packing. So within one embedding space, new
codes are the head's product with the vectors that the store keeps, and no text is embedded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from edge_mrl.arguments import MOST, check_call, check_flag, check_text, check_whole, path_of
from edge_mrl.bundle import bundle_codes, locate_bundle, read_head
from edge_mrl.documents import shorten
from edge_mrl.encode import WITH_HEADINGS, Encoder, passage_rule
from edge_mrl.errors import EdgeMrlError, NetworkError, ServerError, StoreError, UsageError
from edge_mrl.ingest.embedding import Refused, embed_or_refuse
from edge_mrl.ingest.engines import note_engine
from edge_mrl.machine import facts
from edge_mrl.store import Entry, binding_of, reindex

if TYPE_CHECKING:
    from edge_mrl.documents import Document, PassageRule
    from edge_mrl.encode import OpeningKeywords
    from edge_mrl.store import Store
    from edge_mrl.wire import Version

__all__ = [
    "ReindexOptions",
    "Supply",
    "Tally",
    "recode",
    "reindex_store",
    "require_rule",
    "require_space",
    "rule_for",
]

#: Documents that reindexing commits together.
REINDEX_DOCUMENTS = 64
#: Documents that a server is asked for at once, about, and in how many parts at most: for each part it
#: looks through the ids of all.
FETCHED_TOGETHER, MOST_PARTS = 4_096, 16


@dataclass(slots=True)
class Tally:
    """Where new codes came from, in documents; counted while a store is changed.

    Attributes:
        kept: Made of full vectors that the store keeps.
        fetched: Made by the server of the full vectors that it keeps.
        embedded: Made of the texts.
        lacking: Written by other devices, without text or vectors here: they have no codes until the next
            sync brings them.
        refused: Documents whose texts the bundle cannot take. They stay in the store, where only their
            words can be searched.
        needed_bytes: About how much more disk the change takes while it runs.
    """

    kept: int = 0
    fetched: int = 0
    embedded: int = 0
    lacking: int = 0
    refused: list[Refused] = field(default_factory=list)
    needed_bytes: int = 0


class ReindexOptions(TypedDict, total=False):
    """Options of ``Index.reindex``; see there."""

    max_tokens: int | None
    overlap: int | None
    headings: bool | None
    progress: Callable[[int, int], None] | None
    refused: list[Refused] | None
    tally: Tally | None
    again: bool
    offline: bool
    check_space: bool


class Supply(Protocol):
    """Makes codes of the new bundle elsewhere, of full vectors that are there."""

    def pages(
        self, groups: Collection[int]
    ) -> Iterator[list[tuple[str, Version, NDArray[np.int8]]]]:
        """Documents of some groups of ids, a page at a time: id, version and codes int8[n, dim].

        Raises:
            NetworkError: It cannot be reached, or refuses.
        """


#: Full vectors that are known though no store keeps them, by document: the checksum of the passages that
#: they are of, and float32[n, full_dim].
Known: TypeAlias = Mapping[int, tuple[int, NDArray[np.float32]]]


def rule_for(
    encoder: Encoder,
    now: PassageRule,
    max_tokens: int | None,
    overlap: int | None,
    *,
    headings: bool | None = None,
    anew: bool = False,
) -> PassageRule:
    """The passage rule for a store after reindexing.

    Args:
        encoder: The new bundle's.
        now: The store's present rule.
        max_tokens: The longest passage, in tokens; None if not asked for.
        overlap: The overlap of neighbouring passages, in tokens; None if not asked for.
        headings: Whether headings are embedded with passages of Markdown; None if not asked for.
        anew: Whether all texts are embedded in any case, so that they may be split in the newest way.

    Returns:
        The present rule if nothing is asked for and the new model can read such passages; else what is
        asked for, and the new model's defaults for the rest. The splitter is the newest, unless the
        present rule is kept and texts need not be embedded. Headings are embedded as they are now.

    Raises:
        UsageError: The new model cannot read passages of that length.
    """
    newest = anew or headings is not None
    headings = now.splitter == WITH_HEADINGS if headings is None else headings
    if max_tokens is None and overlap is None:
        try:
            kept = passage_rule(
                encoder, max_tokens=now.max_tokens, overlap=now.overlap, headings=headings
            )
            return kept if newest else replace(kept, splitter=now.splitter)
        except UsageError:  # the new model reads less
            return passage_rule(encoder, headings=headings)
    return passage_rule(encoder, max_tokens=max_tokens, overlap=overlap, headings=headings)


def require_rule(
    store: Store,
    *,
    max_tokens: int | None,
    overlap: int | None,
    headings: bool | None,
    keep_full: str | None,
) -> None:
    """Check that options for a new store are those of one that is there; None was not asked for.

    Raises:
        UsageError: They are not.
    """
    rule = store.rule
    for name, value in (("max_tokens", max_tokens), ("overlap", overlap)):
        if value is not None:
            check_whole(name, value, least=-MOST)
    if keep_full is not None:
        check_text("keep_full", keep_full)
    if keep_full not in (None, store.keep_full):
        raise UsageError(
            f"{store.path} keeps {store.keep_full or 'no'} full vectors, not {shorten(keep_full)}: leave "
            "out this option, or create another store"
        )
    if max_tokens not in (None, rule.max_tokens) or overlap not in (None, rule.overlap):
        raise UsageError(
            f"{store.path} has passages of up to {rule.max_tokens} tokens with an overlap of "
            f"{rule.overlap}, which cannot be changed: leave out these options, or create another store"
        )
    if headings not in (None, rule.splitter == WITH_HEADINGS):
        raise UsageError(
            f"{store.path} was made {'without' if headings else 'with'} headings in what is embedded: "
            "leave out this option, or change the store with `edge-mrl reindex`"
        )


def reindex_store(
    store: Store,
    bundle: str | os.PathLike[str],
    opening: OpeningKeywords,
    supply: Callable[[Path], Supply] | None = None,
    **options: Unpack[ReindexOptions],
) -> int:
    """Change a store to another bundle; see ``Index.reindex``.

    Args:
        store: The store.
        bundle: The new bundle's folder.
        opening: How bundles are opened.
        supply: Gives a supply of a bundle's codes; None if there is none.
        **options: As for ``Index.reindex``.
    """
    place = locate_bundle(path_of("bundle", bundle))
    _check_options(options)
    tally = options.get("tally") or Tally()
    again = options.get("again", False)
    with closing(Encoder.open(place, **opening)) as encoder:
        anew = again or encoder.manifest.space_id != store.binding.space_id
        sizes = options.get("max_tokens"), options.get("overlap")
        headings = options.get("headings")
        rule = rule_for(encoder, store.rule, *sizes, headings=headings, anew=anew)
        wanted = reindex.Reindexing(binding_of(encoder.manifest, place), rule, store.keep_full)
        if not again and reindex.is_done(store, wanted):
            return 0
        if options.get("check_space", True):
            require_space(store, wanted)
        here = again or options.get("offline", False) or supply is None
        recode(
            store,
            encoder,
            wanted,
            progress=options.get("progress"),
            tally=tally,
            known=None if again else {},
            supply=None if here or supply is None else supply(encoder.path),
        )
    refused = options.get("refused")
    if refused is not None:
        refused += tally.refused
    return tally.embedded + len(tally.refused)


def _check_options(options: ReindexOptions) -> None:
    """Check options before anything is opened.

    Raises:
        UsageError: One of them is odd.
    """
    check_call("progress", options.get("progress"))
    if (headings := options.get("headings")) is not None:
        check_flag("headings", headings)
    check_flag("again", options.get("again", False))
    check_flag("offline", options.get("offline", False))
    check_flag("check_space", options.get("check_space", True))
    for name, value, kind in (
        ("refused", options.get("refused"), list),
        ("tally", options.get("tally"), Tally),
    ):
        if value is not None and not isinstance(value, kind):
            raise UsageError(f"{name} is {shorten(value)}, expected a {kind.__name__}")


def require_space(store: Store, wanted: reindex.Reindexing) -> None:
    """Check that there is room on the disk for a change.

    Raises:
        StoreError: There is less. Nothing was changed.
    """
    needed = reindex.space_needed(store, wanted)
    try:
        free = facts.file_system(store.path).free_bytes
    except OSError:
        return  # then SQLite says so when the disk is full, and nothing is lost
    if free < needed:
        raise StoreError(
            f"changing {store.path} takes about {needed / 1e6:,.1f} MB of disk beside the store until "
            f"it is done, and {free / 1e6:,.1f} MB are free: free some space, and run the same command "
            "again; or, if you know better, with --no-space-check (check_space=False)"
        )


def recode(
    store: Store,
    encoder: Encoder,
    wanted: reindex.Reindexing,
    *,
    progress: Callable[[int, int], None] | None = None,
    tally: Tally | None = None,
    known: Known | None,
    supply: Supply | None = None,
) -> Tally:
    """Make new codes of all documents beside the old ones, then change to them in one transaction.

    Goes on where the same change was interrupted. Documents whose texts the bundle cannot take stay in
    the store; only their words can be searched.

    Args:
        store: The store.
        encoder: The new bundle's.
        wanted: What the store is changed to.
        progress: Called with documents done and documents in all.
        tally: Where to count; it is returned.
        known: Full vectors that the caller has made already; None to embed all texts, also where full
            vectors are known.
        supply: The store's server, if it shall be asked for codes.

    Raises:
        UsageError: The store keeps full vectors and the new bundle gives none.
        StoreError: The store cannot be written, or the disk is too full.
        NetworkError: Codes of other devices' documents can only come from the server, which cannot be
            reached or refuses. All other new codes are made, and nothing is lost.
    """
    tally = Tally() if tally is None else tally
    reindex.begin(store, wanted)
    tally.needed_bytes = reindex.space_needed(store, wanted)
    making = _Making(store, encoder, wanted, tally, known)

    def told() -> None:
        if progress is not None:
            progress(*reindex.progress(store))

    if supply is not None and store.binding.space_id == wanted.binding.space_id:
        making.fetch(supply, told)
    last = 0
    while True:
        batch = reindex.pending(store, limit=REINDEX_DOCUMENTS, after=last)
        if batch:
            making.stage(dict(batch))
            last = batch[-1][0]
            told()
        elif making.held:
            raise making.unreachable()
        elif reindex.finish(store):
            return tally
        else:
            last = 0  # documents before this one were changed in the meantime


class _Making:
    """Makes new codes of documents, and stages them."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        wanted: reindex.Reindexing,
        tally: Tally,
        known: Known | None,
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._wanted = wanted
        self._tally = tally
        self._known: Known = known or {}
        self._keeps = known is not None and reindex.may_use_vectors(store, wanted)
        self._head = read_head(encoder.path, encoder.manifest)
        self._problem: EdgeMrlError | None = None
        #: Documents that cannot be coded as long as the server is out of reach.
        self.held = 0

    def fetch(self, supply: Supply, told: Callable[[], None]) -> None:
        """Stage codes that the server makes, of documents for which it alone may have vectors.

        They are asked for in parts, so that a kill loses one part at most.
        """
        groups = reindex.groups_without_vectors(self._store, self._wanted)
        parts = min(max(sum(groups.values()) // FETCHED_TOGETHER, 1), MOST_PARTS)
        try:
            for part in range(parts):
                some = sorted(groups)[part::parts]
                for page in supply.pages(some) if some else ():
                    self._take(page)
                    told()
        except (NetworkError, UsageError) as error:  # the latter where credentials are missing
            # A server of another space never gives any.
            other = isinstance(error, ServerError) and error.code == "space"
            self._problem = None if other else error

    def _take(self, page: Sequence[tuple[str, Version, NDArray[np.int8]]]) -> None:
        codes = {name: rows for name, _, rows in page}
        names = reindex.of_versions(self._store, {name: version for name, version, _ in page})
        there = reindex.passages(self._store, list(names))
        with self._store.reading() as view:
            documents = view.documents(view.existing(list(there)))
        rows = []
        for key, document in documents.items():
            passages, fresh = there[key], codes[document.id]
            other = document.text and self._wanted.rule != self._store.rule
            if len(fresh) == len(passages.spans) and not other:
                rows.append((key, Entry(document, passages.spans, fresh)))
        self._tally.fetched += len(rows)
        reindex.stage(self._store, self._wanted, rows, made_of=there)

    def unreachable(self) -> NetworkError:
        """The error for documents that only the server can give codes."""
        return NetworkError(
            f"{self.held} documents of other devices are here without their texts, so their new codes "
            f"come from the server, and it did not give them ({self._problem}). All else is done and "
            "safe, and the store answers as before: run the same command again when the server can be "
            "reached, or with --offline to leave these documents without codes until the next sync"
        )

    def stage(self, documents: Mapping[int, Document]) -> None:
        """Make and stage the new codes of documents, given by key."""
        there = reindex.passages(self._store, list(documents))
        rows: list[tuple[int, Entry]] = []
        made_of = {}
        held = {key for key in there if self._is_held(documents[key], there[key])}
        self.held += len(held)
        documents = {key: one for key, one in documents.items() if key not in held}
        for key, document in documents.items():
            entry = self._without_text(key, document, there.get(key))
            if entry is not None:
                made_of[key] = there[key]
                rows.append((key, entry))
        ids = {document.id: key for key, document in documents.items() if key not in made_of}
        texts = [document for key, document in documents.items() if key not in made_of]
        rows += [(ids[entry.document.id], entry) for entry in self._embedded(texts)]
        reindex.stage(self._store, self._wanted, rows, made_of=made_of)

    def _is_held(self, document: Document, passages: reindex.Passages) -> bool:
        """Whether a document has to wait for the server, because nothing else can give it codes."""
        kept = self._keeps and passages.full is not None
        return self._problem is not None and not document.text and not kept

    def _without_text(
        self, key: int, document: Document, passages: reindex.Passages | None
    ) -> Entry | None:
        """A document with new codes, made of its full vectors; None if its text has to be embedded."""
        if passages is None or (document.text and self._wanted.rule != self._store.rule):
            return None
        crc, full = self._known.get(key, (0, None))
        if crc != passages.crc:
            full = None
        if full is None and self._keeps:
            full = passages.full
        if full is None and document.text:
            return None
        if full is None:  # another device's, which came without its text
            self._tally.lacking += 1
            return self._empty(document)
        self._tally.kept += 1
        manifest = self._encoder.manifest
        codes = bundle_codes(full, self._head, manifest)
        return Entry(document, passages.spans, codes)

    def _embedded(self, documents: Sequence[Document]) -> list[Entry]:
        wanted = self._wanted
        entries, refused = embed_or_refuse(self._encoder, documents, wanted.rule, wanted.keep_full)
        if entries:
            note_engine(self._store, self._encoder.engine)
        names = {one.id for one in refused}
        self._tally.embedded += sum(1 for entry in entries if entry.spans)
        self._tally.refused += refused
        return entries + [self._empty(one) for one in documents if one.id in names]

    def _empty(self, document: Document) -> Entry:
        """A document without passages."""
        width, dim = self._wanted.binding.full_dim or 0, self._wanted.binding.dim
        full = None if self._wanted.keep_full is None else np.empty((0, width), np.float32)
        return Entry(document, [], np.empty((0, dim), np.int8), full)
