"""Codes as an export with the same text would make them: heads fitted here, for ``advise``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import derive_codes
from edge_mrl.cli import Progress
from edge_mrl.codes import CODE_KINDS, PLANES
from edge_mrl.heads import (
    MOST_PASSAGES,
    Excerpts,
    HeadTrial,
    centred_packing,
    count_excerpts,
    nested_sizes,
    rotate_for_bits,
    spread,
    take_excerpts,
)
from edge_mrl_export.quality.cache import Cache
from edge_mrl_export.quality.coding import Coding, own_coding
from edge_mrl_export.quality.subject import Subject
from edge_mrl_export.texts import Retrieval

__all__ = ["fit_codings"]

Float = NDArray[np.float32]

#: Fewer passages are too few to fit a head on.
FEWEST_TO_FIT = 100
#: Texts that directions are rotated with for 1-bit codes.
BALANCED_ON = 2_000


@dataclass(frozen=True, slots=True, eq=False)
class FittedCodings:
    """How codes are made.

    Attributes:
        codings: By dimensions and kind.
        heads: The kind of head that was fitted, by dimensions; plain prefixes are not in it.
        note: For the reader: how the codes were made.
    """

    codings: Mapping[tuple[int, str], Coding]
    heads: Mapping[int, str]
    note: str


def fit_codings(
    subject: Subject,
    data: Sequence[Retrieval],
    full: Float,
    dims: Sequence[int],
    *,
    cache: Cache,
    quiet: bool = False,
) -> FittedCodings:
    """Fit heads on documents, and balance 1-bit codes on them. No query and no judgement is used.

    Args:
        subject: The model.
        data: The sets whose documents are fitted on.
        full: float32[n, D], the vectors of all these documents, in order.
        dims: Dimensions of codes.
        cache: Of vectors.
        quiet: Show no progress.
    """
    texts = [text for found in data for text in found.documents]
    if len(texts) < FEWEST_TO_FIT:
        plain = {(dim, kind): own_coding(subject, dim, kind) for dim in dims for kind in CODE_KINDS}
        note = f"{len(texts)} passages are too few to fit a head: codes are plain prefixes"
        return FittedCodings(plain, {}, note)
    picks = np.array(spread(range(len(texts)), MOST_PASSAGES))
    full = full[picks]
    shorter = () if subject.matryoshka else tuple(d for d in dims if d < subject.model.width)
    # A linear head is fitted to find passages by excerpts; it agrees less with the full model's ranking.
    head = "rotation" if any(found.relevance is None for found in data) else "linear"
    heads: dict[int, Float | None] = dict.fromkeys(dims)
    excerpts = _excerpts(subject, [texts[i] for i in picks], cache) if shorter else None
    with Progress("fit heads", len(shorter), quiet=quiet) as bar:
        for dim in shorter:
            trial = HeadTrial.of(
                full, nested_sizes(dim), layer_norm=subject.layer_norm, excerpts=excerpts
            )
            heads[dim] = trial.on_all().fit(head)
            bar.advance()
    made = {
        (dim, kind): _fitted(subject, full, heads[dim], dim, kind)
        for dim in dims
        for kind in CODE_KINDS
    }
    how = (
        "plain prefixes, which the model was trained for"
        if subject.matryoshka
        else f"made by {head} heads"
    )
    rotated = "1-bit and 2-bit codes are rotated"
    note = f"codes are {how}; {rotated}; both fitted to {len(full):,} documents, no query"
    return FittedCodings(made, dict.fromkeys(shorter, head), note)


def _excerpts(subject: Subject, texts: Sequence[str], cache: Cache) -> Excerpts | None:
    """Vectors of excerpts of passages; None if the texts are too short for excerpts."""
    taken = take_excerpts(texts, count_excerpts(len(texts)))
    if not taken:
        return None
    full = subject.model.vectors(cache, [excerpt for _, excerpt in taken], "query").full
    return Excerpts(full, np.array([row for row, _ in taken], dtype=np.intp))


def _fitted(subject: Subject, full: Float, head: Float | None, dim: int, kind: str) -> Coding:
    if kind not in PLANES:
        return Coding.plain(head, dim, kind, scale=subject.scale)
    layer_norm = subject.layer_norm
    some = full[:: max(1, len(full) // BALANCED_ON)]
    rotated = rotate_for_bits(some, head, dim=dim, layer_norm=layer_norm)
    codes = derive_codes(some, rotated, dim=dim, layer_norm=layer_norm, scale=subject.scale)
    return Coding(rotated, centred_packing(codes, kind))
