"""A head fitted on the device, on a store's own vectors, so that private text never leaves it.

1. Full vectors of some passages: kept by the store, or embedded again where they are gone; and of pieces
   of these passages, which stand for queries (``edge_mrl.heads.pieces``).
2. A trial on these (``edge_mrl.heads.trial``); it ends here if no head is better than the bundle's own.
3. A new bundle beside the old one (``edge_mrl.heads.bundle``).
4. All documents are coded anew beside the old codes and swapped in, in one transaction
   (``edge_mrl.store.reindex``): from the full vectors where they are kept, without the model.

A kill at any moment leaves the store with its old bundle and codes, or with the new ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import derive_codes, head_id, read_head, read_manifest
from edge_mrl.errors import GateError, UsageError
from edge_mrl.heads.balance import balanced, centre_of
from edge_mrl.heads.bundle import NewHead, place_for_head, with_head
from edge_mrl.heads.pieces import count_pieces, cut_pieces
from edge_mrl.heads.trial import MOST_PASSAGES, Short, Trial, best_kind, nested_sizes, spread
from edge_mrl.index import Index
from edge_mrl.ingest import REINDEX_DOCUMENTS
from edge_mrl.store import Entry, binding_of, find_bundle, reindex

if TYPE_CHECKING:
    from edge_mrl.bundle import Manifest
    from edge_mrl.documents import Document
    from edge_mrl.encode import Encoder
    from edge_mrl.store import Place

__all__ = ["FEWEST_PASSAGES", "KINDS", "Adaptation", "adapt"]

Float = NDArray[np.float32]
#: Told what is being done and in how many steps (None: unknown), and then of each step.
Stage = Callable[[str, int | None], Callable[[], None]]

#: Fewer passages say too little.
FEWEST_PASSAGES = 100
#: Heads that are tried beside the bundle's own, the simplest first.
KINDS = ("pca", "rotation", "linear")
#: The bundle's own head in a trial.
OWN = "as before"
#: Documents whose vectors are read together, and pieces that are embedded between two steps of the bar.
BATCH, EMBEDDED_TOGETHER = 64, 64


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What an adaptation did.

    Attributes:
        store: The store's file.
        before: The bundle's folder until now.
        after: The new bundle's folder.
        kind: How the new head was made.
        dim: Dimensions of the codes.
        passages: Passages that the head was fitted on.
        pieces: Pieces of them that it was fitted on as well.
        held_out: Of the passages, how many were held out of the trial with their pieces.
        measured: What the scores are.
        score_before: How well the old head's int8 codes searched, by what was held out.
        score_after: The same of the new kind of head, before it was fitted on all passages.
        tried: The same by kind of head.
        agreement_before: Share of the full vectors' top 10 that the old head's int8 codes found again
            for the held-out passages.
        agreement_after: The same of the new kind of head.
        documents: Documents coded anew.
        embedded: Of these, how many were embedded, because their full vectors were gone.
        seconds: Wall time.
    """

    store: str
    before: str
    after: str
    kind: str
    dim: int
    passages: int
    pieces: int
    held_out: int
    measured: str
    score_before: float
    score_after: float
    tried: dict[str, float]
    agreement_before: float
    agreement_after: float
    documents: int
    embedded: int
    seconds: float


def adapt(
    index: Index,
    *,
    output: Path | None = None,
    pieces: bool = True,
    stage: Stage | None = None,
) -> Adaptation:
    """Fit a head on a store's own vectors, and change the store to it.

    Args:
        index: The open store.
        output: The new bundle's folder (default: beside the bundle, named after it and the head).
        pieces: Fit on pieces of the passages too, which are embedded for it: slower, and better. Without,
            nothing is embedded where the store keeps full vectors.
        stage: Told what is being done.

    Raises:
        GateError: No head is better than the bundle's own; nothing is changed.
        UsageError: Too few passages, or the bundle has no place for a head.
        BundleError: The bundle is damaged.
    """
    started = time.monotonic()
    stage = stage or _silent
    bundle = find_bundle(index.store).resolve()
    manifest = read_manifest(bundle)
    place_for_head(bundle)
    vectors = _Vectors(index)
    trial = _trial(vectors, manifest, stage, pieces=pieces)
    tried, agreements = _try_heads(trial, read_head(bundle, manifest), stage)
    kind = _best(tried, trial)
    whole = trial.on_all()
    advance = stage(f"fit {kind} head on all passages", _steps(whole, kind))
    head = _coded(trial, whole.fit(kind, advance), kind, manifest)
    stage("write and verify the bundle", None)
    named = head_id(head.matrix, layer_norm=manifest.head.layer_norm)
    folder = output or bundle.with_name(f"{_stem(bundle, manifest)}-{named[:8]}")
    changed = with_head(bundle, folder.absolute(), head)
    documents = _recode(index, vectors, folder.resolve(), head, stage)
    return Adaptation(
        store=str(index.path),
        before=str(bundle),
        after=str(folder),
        kind=kind,
        dim=changed.dim,
        passages=len(trial.full),
        pieces=0 if trial.short is None else len(trial.short.full),
        held_out=len(trial.held_out),
        measured=trial.measured,
        score_before=tried[OWN],
        score_after=tried[kind],
        tried=tried,
        agreement_before=agreements[OWN],
        agreement_after=agreements[kind],
        documents=documents,
        embedded=vectors.embedded,
        seconds=round(time.monotonic() - started, 3),
    )


class _Vectors:
    """Full vectors of a store's passages: as they are kept, or embedded again.

    Attributes:
        index: The store.
        embedded: Documents embedded again.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self.embedded = 0
        self._again: dict[int, Float] = {}

    def keys(self) -> list[int]:
        """Documents with passages; evenly spread, of so many as have ``MOST_PASSAGES`` together."""
        with self.index.store.reading() as view:
            counts = view.passage_counts()
        total = sum(count for _, count in counts)
        share = min(1.0, MOST_PASSAGES / max(total, 1))
        return [key for key, _ in spread(counts, max(int(len(counts) * share), 1))]

    def read(self, keys: Sequence[int], *, keep: bool = False) -> Iterator[tuple[int, Entry, bool]]:
        """Documents with their full vectors, and whether the store keeps these.

        Args:
            keys: Documents; those that are gone meanwhile are left out.
            keep: Remember what was embedded, for the next time.
        """
        with self.index.store.reading() as view:
            there = view.existing(keys)
            documents, kept = view.documents(there), view.fulls(there)
            places = view.places(there, partial=True)
        gone = [key for key in there if key not in kept and key not in self._again]
        fresh = self._embed({key: documents[key] for key in gone}, places)
        if keep:
            self._again |= fresh
        for key in there:
            spans = places[key][1] if key in places else []
            full = next((d[key] for d in (kept, self._again, fresh) if key in d), None)
            full = np.empty((0, self._width), np.float32) if full is None else full
            yield key, Entry(documents[key], spans, np.empty((0, 0), np.int8), full), key in kept

    @property
    def _width(self) -> int:
        return self.index.binding.full_dim or 0

    def _embed(
        self, documents: Mapping[int, Document], places: Mapping[int, Place]
    ) -> dict[int, Float]:
        cut = [(key, d.text, places[key][1]) for key, d in documents.items() if key in places]
        if not cut:
            return {}
        encoder: Encoder = self.index.encoder
        texts = [text[start:end] for _, text, spans in cut for start, end in spans]
        full = encoder.encode(texts, kind="document").full
        assert full is not None
        self.embedded += len(cut)
        borders = np.cumsum([len(spans) for _, _, spans in cut])[:-1]
        return dict(zip((key for key, _, _ in cut), np.split(full, borders), strict=True))


def _trial(vectors: _Vectors, manifest: Manifest, stage: Stage, *, pieces: bool) -> Trial:
    keys = vectors.keys()
    advance = stage("read full vectors", len(keys))
    parts, texts = [np.empty((0, manifest.full_dim or 0), np.float32)], []
    for start in range(0, len(keys), BATCH):
        for _, entry, _ in vectors.read(keys[start : start + BATCH], keep=True):
            full = parts[0] if entry.full is None else entry.full
            parts.append(full)
            spans = entry.spans if len(full) else []
            texts += [entry.document.text[first:end] for first, end in spans]
            advance()
    full = np.concatenate(parts)[:MOST_PASSAGES]
    if len(full) < FEWEST_PASSAGES:
        raise UsageError(
            f"{vectors.index.path} has {len(full)} passages, too few to fit a head on: "
            f"at least {FEWEST_PASSAGES}"
        )
    short = _short(vectors.index, texts[: len(full)], stage) if pieces else None
    stage("find neighbours", None)
    nested = nested_sizes(manifest.dim)
    return Trial.of(full, nested, layer_norm=manifest.head.layer_norm, short=short)


def _short(index: Index, texts: Sequence[str], stage: Stage) -> Short | None:
    """Pieces of passages, embedded; None where the texts give none."""
    pieces = cut_pieces(texts, count_pieces(len(texts)))
    if not pieces:
        return None
    advance = stage("embed pieces", -(-len(pieces) // EMBEDDED_TOGETHER))
    parts = []
    for start in range(0, len(pieces), EMBEDDED_TOGETHER):
        some = [piece for _, piece in pieces[start : start + EMBEDDED_TOGETHER]]
        full = index.encoder.encode(some, kind="query").full
        assert full is not None
        parts.append(full)
        advance()
    return Short(np.concatenate(parts), np.array([row for row, _ in pieces], dtype=np.intp))


def _try_heads(
    trial: Trial, own: Float | None, stage: Stage
) -> tuple[dict[str, float], dict[str, float]]:
    """Scores by kind of head, and agreements."""
    heads: dict[str, Float | None] = {OWN: own}
    for kind in KINDS:
        heads[kind] = trial.fit(kind, stage(f"fit {kind} head", _steps(trial, kind)))
    advance = stage("measure heads on held-out text", len(heads))
    scores, agreements = {}, {}
    for kind, matrix in heads.items():
        scores[kind] = round(trial.score(matrix), 4)
        agreements[kind] = round(trial.agreement(matrix), 4)
        advance()
    return scores, agreements


def _best(scores: Mapping[str, float], trial: Trial) -> str:
    """The kind of head to take.

    Raises:
        GateError: The bundle's own is as good.
    """
    kind = best_kind(scores, trial.margin)
    if kind == OWN:
        best = max(KINDS, key=lambda name: scores[name])
        raise GateError(
            f"no head is better by {trial.margin:.1%} than the bundle's own ({scores[OWN]:.1%}; {best}: "
            f"{scores[best]:.1%}): {trial.measured}; nothing was changed"
        )
    return kind


def _steps(trial: Trial, kind: str) -> int | None:
    return None if kind == "pca" else trial.steps


def _coded(trial: Trial, matrix: Float, kind: str, manifest: Manifest) -> NewHead:
    """The head with what stores keep of its codes: the same kind of code as before."""
    packing = manifest.code.packing
    if packing.kind != "1bit":
        return NewHead(matrix, kind, packing)
    norm, dim = manifest.head.layer_norm, manifest.dim
    turned = balanced(trial.full, matrix, dim=dim, layer_norm=norm)
    codes = derive_codes(trial.full, turned, dim=dim, layer_norm=norm, scale=manifest.code.scale)
    return NewHead(turned, kind, centre_of(codes))


def _recode(index: Index, vectors: _Vectors, folder: Path, head: NewHead, stage: Stage) -> int:
    """Code all documents with the new head, and swap the codes in; returns how many there are."""
    store = index.store
    manifest = read_manifest(folder)
    wanted = reindex.Reindexing(binding_of(manifest, folder), store.rule, store.keep_full)
    done = reindex.begin(store, wanted)
    advance = stage("code documents", max(reindex.progress(store)[1] - done, 0))
    last = 0
    while True:
        batch = reindex.pending(store, limit=REINDEX_DOCUMENTS, after=last)
        if not batch:
            if reindex.finish(store):
                return index.count().documents
            last = 0  # some were changed meanwhile, behind us
            continue
        last = batch[-1][0]
        rows = []
        for key, entry, kept in vectors.read([key for key, _ in batch]):
            rows.append((key, _with_codes(entry, head, manifest, kept=kept)))
            advance()
        reindex.stage(store, wanted, rows)


def _with_codes(entry: Entry, head: NewHead, manifest: Manifest, *, kept: bool) -> Entry:
    """The document coded with the head; full vectors that the store no longer keeps stay gone."""
    assert entry.full is not None
    codes = derive_codes(
        entry.full,
        head.matrix,
        dim=manifest.dim,
        layer_norm=manifest.head.layer_norm,
        scale=manifest.code.scale,
    )
    return Entry(entry.document, entry.spans, codes, entry.full if kept else None)


def _stem(bundle: Path, manifest: Manifest) -> str:
    """The bundle's name without the head that an earlier adaptation gave it."""
    return bundle.name.removesuffix(f"-{manifest.head.id[:8]}")


def _silent(_name: str, _count: int | None) -> Callable[[], None]:
    return lambda: None
