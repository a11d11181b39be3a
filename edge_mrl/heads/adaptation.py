"""Fitting a head on the device, to a store's own text, so that private text never leaves it.

1. Read the full vectors of some passages, or embed them again if the store does not keep them. Embed
   excerpts of these passages, which stand for queries (``edge_mrl.heads.excerpts``).
2. Fit heads and score them on held-out text (``edge_mrl.heads.selection``). Stop if none is better than
   the bundle's own.
3. Write a new bundle beside the old one (``edge_mrl.heads.bundle``).
4. Code all documents again beside the old codes, from full vectors where they are kept, and swap the new
   codes in, in one transaction (``edge_mrl.store.reindex``). A server is asked for the codes of documents
   whose full vectors it alone has; it gets the head for it.

A kill at any moment leaves the store with its old bundle and codes, or with the new ones.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import derive_codes, has_own_place, head_id, read_head, read_manifest
from edge_mrl.codes import INT8, PLANES
from edge_mrl.encode import Encoder, embedded_texts
from edge_mrl.errors import GateError, NetworkError, UsageError
from edge_mrl.heads.bundle import NewHead, place_for_head, with_head
from edge_mrl.heads.excerpts import count_excerpts, take_excerpts
from edge_mrl.heads.rotation import centred_packing, rotate_for_bits
from edge_mrl.heads.selection import (
    MOST_PASSAGES,
    Excerpts,
    HeadTrial,
    best_kind,
    nested_sizes,
    spread,
)
from edge_mrl.index import Index, codes_of_server
from edge_mrl.ingest import Tally, full_vectors, recode, require_space
from edge_mrl.store import binding_of, find_bundle, reindex

if TYPE_CHECKING:
    from edge_mrl.bundle import Manifest
    from edge_mrl.documents import Document

__all__ = ["Adaptation", "adapt"]

Float = NDArray[np.float32]
Spans = Sequence[tuple[int, int]]
#: Called with the name of a stage and its number of steps, or None if unknown; returns a function to call
#: after each step.
Stage = Callable[[str, int | None], Callable[[], None]]

#: With fewer passages than this, scores are mostly chance.
FEWEST_PASSAGES = 100
#: Kinds of heads that are compared with the bundle's own, the simplest first.
KINDS = ("pca", "rotation", "linear")
#: The name of the bundle's own head among the scores.
OWN = "as before"
#: Documents whose vectors are read together, and excerpts that are embedded between two steps.
BATCH, EMBEDDED_TOGETHER = 64, 64


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What an adaptation did.

    Attributes:
        store: Path of the store.
        before: The old bundle's folder.
        after: The new bundle's folder.
        kind: The kind of the new head, one of KINDS.
        dim: Dimensions of the codes.
        passages: Number of passages that the head was fitted on.
        excerpts: Number of excerpts of them that it was fitted on too.
        held_out: Number of passages that were held out, with their excerpts, to score heads.
        measured: What the scores measure, in words.
        score_before: Score of the old head, from 0 to about 1.
        score_after: Score of the new kind of head, fitted without the held-out passages.
        tried: Scores by kind of head.
        agreement_before: Share of held-out passages' top 10 by full vectors that int8 codes of the old
            head find again.
        agreement_after: The same share for the new kind of head.
        documents: Number of documents coded again.
        embedded: Number of these that were embedded because the store did not keep their full vectors.
        fetched: Number of these that the server coded.
        lacking: Number of these, of other devices, that have no codes until the next sync.
        seconds: Wall time.
    """

    store: str
    before: str
    after: str
    kind: str
    dim: int
    passages: int
    excerpts: int
    held_out: int
    measured: str
    score_before: float
    score_after: float
    tried: dict[str, float]
    agreement_before: float
    agreement_after: float
    documents: int
    embedded: int
    fetched: int
    lacking: int
    seconds: float


def adapt(
    index: Index,
    *,
    output: Path | None = None,
    excerpts: bool = True,
    offline: bool = False,
    stage: Stage | None = None,
    **old: bool,
) -> Adaptation:
    """Fit a head to a store's own text, and change the store to a bundle with it.

    Args:
        index: The open store.
        output: The new bundle's folder (default: named after the old bundle and the head, and beside it;
            beside the store, if the old one is a .zip or installed).
        excerpts: Fit on excerpts of the passages too. They are embedded for it, which is slower and gives
            a better head. Without them, nothing is embedded if the store keeps full vectors.
        offline: Do not ask the store's server for codes of documents of other devices that came without
            their texts. They are without codes until the next sync.
        stage: Told of each stage of the work.
        old: ``pieces``, the former name of ``excerpts`` (deprecated).

    Raises:
        GateError: No head is better than the bundle's own; nothing was changed.
        UsageError: The store has too few passages, or the bundle has no place for a head.
        BundleError: The bundle is damaged.
        NetworkError: The server does not give codes that only it can give. The new bundle is there, and
            ``Index.reindex`` with it goes on.
    """
    if "pieces" in old:
        warnings.warn(
            "adapt(pieces=...) is called excerpts=... now", DeprecationWarning, stacklevel=2
        )
        excerpts = old.pop("pieces")
    if old:
        raise TypeError(f"adapt() got an unexpected keyword argument {next(iter(old))!r}")
    started = time.monotonic()
    stage = stage or _silent
    trust = index.opening.get("trust")
    bundle = find_bundle(index.store, trust=trust).resolve()
    manifest = read_manifest(bundle, trust=trust)
    place_for_head(bundle)
    vectors = _Vectors(index)
    trial = _trial(vectors, manifest, stage, with_excerpts=excerpts)
    measured = _kept_by(manifest)
    tried, agreements = _try_heads(trial, read_head(bundle, manifest), manifest, stage)
    kind = _best(tried, trial, measured)
    whole = trial.on_all()
    advance = stage(f"fit {kind} head on all passages", _steps(whole, kind))
    head = _coded(trial.full, whole.fit(kind, advance), kind, manifest)
    stage("write and verify the bundle", None)
    named = head_id(head.matrix, layer_norm=manifest.head.layer_norm)
    parent = bundle.parent if has_own_place(bundle) else index.path.absolute().parent
    folder = output or parent / f"{_stem(bundle, manifest)}-{named[:8]}"
    changed = with_head(bundle, folder.absolute(), head, trust=trust)
    tally = _recode(index, vectors, folder.resolve(), stage, offline=offline)
    return Adaptation(
        store=str(index.path),
        before=str(bundle),
        after=str(folder),
        kind=kind,
        dim=changed.dim,
        passages=len(trial.full),
        excerpts=0 if trial.excerpts is None else len(trial.excerpts.full),
        held_out=len(trial.held_out),
        measured=trial.measured_of(measured),
        score_before=tried[OWN],
        score_after=tried[kind],
        tried=tried,
        agreement_before=agreements[OWN],
        agreement_after=agreements[kind],
        documents=index.count().documents,
        embedded=tally.embedded + len(vectors.again),
        fetched=tally.fetched,
        lacking=tally.lacking,
        seconds=round(time.monotonic() - started, 3),
    )


class _Vectors:
    """Full vectors of a store's passages: as they are kept, or embedded again.

    Attributes:
        index: The store.
        again: What was embedded, by document: the checksum of its passages, and their vectors.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self.again: dict[int, tuple[int, Float]] = {}

    def keys(self) -> list[int]:
        """Documents with passages; evenly spread, of so many as have ``MOST_PASSAGES`` together."""
        with self.index.store.reading() as view:
            counts = view.passage_counts()
        total = sum(count for _, count in counts)
        share = min(1.0, MOST_PASSAGES / max(total, 1))
        return [key for key, _ in spread(counts, max(int(len(counts) * share), 1))]

    def read(self, keys: Sequence[int]) -> Iterator[tuple[Document, Spans, Float]]:
        """Documents with their passages and full vectors; what is embedded for it is remembered.

        Documents that are gone, whose texts the bundle cannot take, or that another device sent without
        text or vectors, are left out.
        """
        store = self.index.store
        with store.reading() as view:
            documents = view.documents(view.existing(keys))
        there = reindex.passages(store, list(documents))
        fresh = self._embed(
            {key: documents[key] for key, one in there.items() if one.full is None}, there
        )
        self.again |= {key: (there[key].crc, full) for key, full in fresh.items()}
        for key, one in there.items():
            full = fresh.get(key) if one.full is None else one.full
            if full is not None:
                yield documents[key], one.spans, full

    def _embed(
        self, documents: Mapping[int, Document], there: Mapping[int, reindex.Passages]
    ) -> dict[int, Float]:
        keys = [key for key, document in documents.items() if document.text]
        if not keys:
            return {}
        encoder: Encoder = self.index.encoder
        rule = self.index.rule
        texts = [embedded_texts(encoder, documents[key], there[key].spans, rule) for key in keys]
        made = zip(keys, full_vectors(encoder, texts), strict=True)
        return {key: full for key, full in made if full is not None}


def _trial(
    vectors: _Vectors, manifest: Manifest, stage: Stage, *, with_excerpts: bool
) -> HeadTrial:
    keys = vectors.keys()
    advance = stage("read full vectors", len(keys))
    parts, texts = [np.empty((0, manifest.full_dim or 0), np.float32)], []
    for start in range(0, len(keys), BATCH):
        some = keys[start : start + BATCH]
        for document, spans, full in vectors.read(some):
            parts.append(full)
            texts += [document.text[first:end] for first, end in spans]
        for _ in some:
            advance()
    full = np.concatenate(parts)[:MOST_PASSAGES]
    if len(full) < FEWEST_PASSAGES:
        raise UsageError(
            f"{vectors.index.path} has {len(full)} passages, too few to fit a head: nothing was changed; "
            f"index at least {FEWEST_PASSAGES} passages first"
        )
    excerpts = _excerpts(vectors.index, texts[: len(full)], stage) if with_excerpts else None
    stage("find neighbours", None)
    nested = nested_sizes(manifest.dim)
    return HeadTrial.of(full, nested, layer_norm=manifest.head.layer_norm, excerpts=excerpts)


def _excerpts(index: Index, texts: Sequence[str], stage: Stage) -> Excerpts | None:
    """Excerpts of passages, embedded; None if the texts give none."""
    taken = take_excerpts(texts, count_excerpts(len(texts)))
    if not taken:
        return None
    advance = stage("embed excerpts", -(-len(taken) // EMBEDDED_TOGETHER))
    parts = []
    for start in range(0, len(taken), EMBEDDED_TOGETHER):
        some = [excerpt for _, excerpt in taken[start : start + EMBEDDED_TOGETHER]]
        full = index.encoder.encode(some, kind="query").full
        assert full is not None
        parts.append(full)
        advance()
    return Excerpts(np.concatenate(parts), np.array([row for row, _ in taken], dtype=np.intp))


def _kept_by(manifest: Manifest) -> str:
    """The kind of codes that heads are scored by.

    Those of few bits are scored as a store keeps them: their rotation and centre are fitted too, and with
    little text these may be worse than those of the bundle.
    """
    code = manifest.code
    return code.stored if code.stored in PLANES and code.scale == 1 else "int8"


def _try_heads(
    trial: HeadTrial, own: Float | None, manifest: Manifest, stage: Stage
) -> tuple[dict[str, float], dict[str, float]]:
    """Scores and agreements by kind of head."""
    packed = _kept_by(manifest) != "int8"
    fitted = np.setdiff1d(np.arange(len(trial.full)), trial.held_out)
    heads: dict[str, Float | None] = {OWN: own}
    for kind in KINDS:
        heads[kind] = trial.fit(kind, stage(f"fit {kind} head", _steps(trial, kind)))
    advance = stage("measure heads on held-out text", len(heads))
    scores, agreements = {}, {}
    for kind, matrix in heads.items():
        packing, turned = manifest.code.packing if packed else INT8, matrix
        if packed and kind != OWN and matrix is not None:
            coded = _coded(trial.full[fitted], matrix, kind, manifest)
            packing, turned = coded.packing, coded.matrix
        scores[kind] = round(trial.score(turned, packing), 4)
        agreements[kind] = round(trial.agreement(matrix), 4)
        advance()
    return scores, agreements


def _best(scores: Mapping[str, float], trial: HeadTrial, measured: str) -> str:
    """The kind of head to choose.

    Raises:
        GateError: No head is better than the bundle's own.
    """
    kind = best_kind(scores, trial.margin)
    if kind == OWN:
        best = max(KINDS, key=lambda name: scores[name])
        raise GateError(
            f"no head is better than the bundle's own by {trial.margin:.1%}: the own one scores "
            f"{scores[OWN]:.1%}, the best other one ({best}) {scores[best]:.1%}, where the score is the "
            f"{trial.measured_of(measured)}; nothing was changed"
        )
    return kind


def _steps(trial: HeadTrial, kind: str) -> int | None:
    return None if kind == "pca" else trial.steps


def _coded(full: Float, matrix: Float, kind: str, manifest: Manifest) -> NewHead:
    """The head, for the kind of code that the store's bundle has."""
    packing = manifest.code.packing
    if packing.kind not in PLANES:
        return NewHead(matrix, kind, packing)
    norm, dim = manifest.head.layer_norm, manifest.dim
    rotated = rotate_for_bits(full, matrix, dim=dim, layer_norm=norm)
    codes = derive_codes(full, rotated, dim=dim, layer_norm=norm, scale=manifest.code.scale)
    return NewHead(rotated, kind, centred_packing(codes, packing.kind))


def _recode(index: Index, vectors: _Vectors, folder: Path, stage: Stage, *, offline: bool) -> Tally:
    """Code all documents with the new head, and swap the codes in; says where codes came from."""
    store = index.store
    server = None if offline else codes_of_server(store)
    with closing(index.open_bundle(folder)) as encoder:
        binding = binding_of(encoder.manifest, folder)
        wanted = reindex.Reindexing(binding, store.rule, store.keep_full)
        require_space(store, wanted)
        done = reindex.begin(store, wanted)
        advance = stage("code documents", max(reindex.progress(store)[1] - done, 0))
        seen = done

        def follow(now: int, _total: int) -> None:
            nonlocal seen
            for _ in range(now - seen):
                advance()
            seen = now

        try:
            return recode(
                store,
                encoder,
                wanted,
                progress=follow,
                known=vectors.again,
                supply=None if server is None else server(folder),
            )
        except NetworkError as error:
            raise NetworkError(
                f"the new bundle is {folder}, and the store is not changed to it yet: {error}. That is "
                f"`edge-mrl reindex --bundle {folder} --store {store.path}` here"
            ) from error


def _stem(bundle: Path, manifest: Manifest) -> str:
    """The bundle's name without the head that an earlier adaptation gave it.

    A folder in a package or in the cache has a name that says nothing.
    """
    name = bundle.name if has_own_place(bundle) else re.sub(r"[^\w.-]", "_", manifest.name)
    return name.removesuffix(f"-{manifest.head.id[:8]}")


def _silent(_name: str, _count: int | None) -> Callable[[], None]:
    return lambda: None
