"""Codes as an export would make them, in every way that there is: for ``advise``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    random_rotation,
    rotate_for_bits,
    spread,
    take_excerpts,
)
from edge_mrl_export.quality.cache import Cache
from edge_mrl_export.quality.coding import Coding
from edge_mrl_export.quality.subject import Subject

__all__ = ["Candidate", "Fitted", "Text", "how_made", "make_candidates"]

Float = NDArray[np.float32]

#: Fewer passages are too few to fit a head on, and to turn codes with: ``export`` does neither.
FEWEST_TO_FIT, FEWEST_TO_TURN = 100, 200
#: Texts that directions are rotated with for 1-bit and 2-bit codes.
BALANCED_ON = 2_000
NAMES = {"prefix": "prefix", "random": "fixed rotation", "bundle": "bundle's head"}


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A way to make a code.

    Attributes:
        dim: Dimensions.
        kind: One of ``edge_mrl.codes.CODE_KINDS``.
        head: "prefix", "random", "bundle" (the bundle's own), or the kind of head that was fitted.
        coding: How the code is made.
        turned: Whether the head's directions are rotated for codes of few bits.
    """

    dim: int
    kind: str
    head: str
    coding: Coding
    turned: bool = False

    @property
    def how(self) -> str:
        """Such as "linear head, turned"."""
        return how_made(self.head, turned=self.turned)


def how_made(head: str, *, turned: bool) -> str:
    """In words, how a code is made."""
    return NAMES.get(head, f"{head} head") + (", turned" if turned else "")


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """Text to fit on.

    Attributes:
        passages: Texts of documents.
        full: float32[n, D], their vectors.
        judged: Whether people judged results; otherwise the full model's ranking does.
    """

    passages: Sequence[str]
    full: Float
    judged: bool


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """All ways to make codes.

    Attributes:
        candidates: By dimensions and kind, the simplest way first.
        note: For the reader: what was fitted to what.
    """

    candidates: list[Candidate]
    note: str


def make_candidates(
    subject: Subject, text: Text, dims: Sequence[int], *, cache: Cache, quiet: bool = False
) -> Fitted:
    """Make codes by prefix, by the fixed rotation, by the bundle's head, and by heads fitted to text.

    Args:
        subject: The model; its head is the bundle's.
        text: What is fitted to; no question, and no judgement.
        dims: Dimensions of codes.
        cache: Of vectors.
        quiet: Show no progress.
    """
    picks = np.array(spread(range(len(text.passages)), MOST_PASSAGES), dtype=np.intp)
    full = text.full[picks]
    heads: dict[int, tuple[str, Float]] = {}
    note = f"{len(full):,} passages are too few to fit a head to (at least {FEWEST_TO_FIT})"
    if len(full) >= FEWEST_TO_FIT:
        # A linear head is fitted to find passages by excerpts; it agrees less with the full model.
        kind = "linear" if text.judged else "rotation"
        shorter = [d for d in dims if d < subject.model.width and not subject.matryoshka]
        excerpts = _excerpts(subject, [text.passages[i] for i in picks], cache) if shorter else None
        heads = _fit_heads(subject, full, excerpts, kind, shorter, quiet=quiet)
        note = f"heads were fitted to {len(full):,} passages, and to no question"
    made = []
    with Progress("make codes", len(dims), quiet=quiet) as bar:
        for dim in dims:
            for code in CODE_KINDS:
                made += list(_ways(subject, full, heads, dim, code))
            bar.advance()
    return Fitted(made, note)


def _fit_heads(
    subject: Subject,
    full: Float,
    excerpts: Excerpts | None,
    kind: str,
    dims: Sequence[int],
    *,
    quiet: bool,
) -> dict[int, tuple[str, Float]]:
    heads = {}
    with Progress("fit heads", len(dims), quiet=quiet or not dims) as bar:
        for dim in dims:
            trial = HeadTrial.of(
                full, nested_sizes(dim), layer_norm=subject.layer_norm, excerpts=excerpts
            )
            heads[dim] = kind, trial.on_all().fit(kind)
            bar.advance()
    return heads


def _excerpts(subject: Subject, texts: Sequence[str], cache: Cache) -> Excerpts | None:
    """Vectors of excerpts of passages; None if the texts are too short for excerpts."""
    taken = take_excerpts(texts, count_excerpts(len(texts)))
    if not taken:
        return None
    full = subject.model.vectors(cache, [excerpt for _, excerpt in taken], "query").full
    return Excerpts(full, np.array([row for row, _ in taken], dtype=np.intp))


def _ways(
    subject: Subject, full: Float, heads: Mapping[int, tuple[str, Float]], dim: int, kind: str
) -> Iterator[Candidate]:
    """All ways to make codes of so many dimensions of a kind, the simplest first."""
    own = subject.head
    if own is not None and dim <= own.shape[1]:
        same = (dim, kind) == (subject.dim, subject.packing.kind)
        coding = Coding(own, subject.packing) if same else _plain(subject, own[:, :dim], dim, kind)
        yield Candidate(dim, kind, "bundle", coding)
    yield Candidate(dim, kind, "prefix", _plain(subject, None, dim, kind))
    turned = random_rotation(subject.model.width, dim)
    yield Candidate(dim, kind, "random", _plain(subject, turned, dim, kind))
    name, matrix = heads.get(dim, ("prefix", None))
    if matrix is not None:
        coding = _plain(subject, matrix, dim, kind)
        if kind in PLANES and len(full) >= FEWEST_TO_TURN:
            coding = _centred(subject, full, matrix, dim, kind)
        yield Candidate(dim, kind, name, coding)
    if kind in PLANES and len(full) >= FEWEST_TO_TURN:
        some = _some(full)
        rotated = rotate_for_bits(some, matrix, dim=dim, layer_norm=subject.layer_norm)
        coding = _centred(subject, full, rotated, dim, kind)
        yield Candidate(dim, kind, name, coding, turned=True)


def _plain(subject: Subject, head: Float | None, dim: int, kind: str) -> Coding:
    return Coding.plain(head, dim, kind, scale=subject.scale)


def _centred(subject: Subject, full: Float, head: Float, dim: int, kind: str) -> Coding:
    codes = derive_codes(
        _some(full), head, dim=dim, layer_norm=subject.layer_norm, scale=subject.scale
    )
    return Coding(head, centred_packing(codes, kind))


def _some(full: Float) -> Float:
    return full[:: max(1, len(full) // BALANCED_ON)]
