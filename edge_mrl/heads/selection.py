"""Choosing a head: candidates are fitted on some vectors and compared on others.

A head is scored on text that was held out. The score says how high int8 codes rank the passage that an
excerpt was taken from (or, if pairs are given, a query's own document), compared with the full vectors,
and how much of the full vectors' top 10 they find again. The kind of head that wins is then fitted once
more, on all of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import derive_codes, head_inputs
from edge_mrl.codes import INT8, Packing, normalize, similarity
from edge_mrl.heads.fit import (
    OWN_SHARE,
    PAIRS_SHARE,
    QUERIES_SHARE,
    Passages,
    fit_linear,
    fit_rotation,
    pca,
    steps,
)

__all__ = [
    "MARGIN",
    "MOST_PASSAGES",
    "TOP",
    "Excerpts",
    "HeadTrial",
    "Pairs",
    "agreement",
    "best_kind",
    "found_again",
    "nested_sizes",
    "split_held_out",
    "spread",
]

Float = NDArray[np.float32]
Advance = Callable[[], None]
Item = TypeVar("Item")
Rows = NDArray[np.intp]

#: Heads are fitted on at most so many passages, evenly spread: more take time and gain next to nothing.
MOST_PASSAGES = 10_000
#: A less simple head is chosen only if its score is better by this, with MOST_HELD_OUT held-out texts.
#: With fewer texts it must be better by more, because chance counts for more.
MARGIN = 0.002
#: The shortest prefix size that a head is fitted for.
SHORTEST_NESTED = 8
#: Share of the passages that is held out, and at most how many: enough to know the agreement to half a
#: percent.
HELD_OUT, MOST_HELD_OUT = 0.2, 1000
#: How many results agreement compares: as many as users read.
TOP = 10
SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Excerpts:
    """Vectors of excerpts (see ``edge_mrl.heads.excerpts``), or of queries.

    Attributes:
        full: float32[m, D], full vectors of the excerpts.
        origins: intp[m], the row of the passage that each was taken from, or that answers it.
    """

    full: Float
    origins: Rows


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Queries whose documents are known.

    Attributes:
        full: float32[p, D], full vectors of the queries.
        answers: intp[p], the row of each query's document.
        fitted: intp[f], rows of the queries to fit on.
        held_out: intp[h], rows of the queries to score with.
    """

    full: Float
    answers: Rows
    fitted: Rows
    held_out: Rows

    def as_excerpts(self) -> Excerpts:
        """The queries to fit on, in the place of excerpts."""
        return Excerpts(self.full[self.fitted], self.answers[self.fitted])


@dataclass(frozen=True, slots=True, eq=False)
class HeadTrial:
    """Vectors to fit heads on, and other vectors to score them with.

    Attributes:
        full: float32[n, D], full vectors of all passages.
        passages: The passages to fit on, with their neighbours.
        held_out: intp[h], rows of ``full`` that no fit sees.
        excerpts: Excerpts of the passages; an excerpt is held out if its passage is. None without any.
        pairs: Queries with their documents, or None. With pairs, no passage is held out.
        nested: Prefix sizes, ascending; the last is the code's dimensions.
        layer_norm: Whether the head reads centred vectors.
    """

    full: Float
    passages: Passages
    held_out: Rows
    excerpts: Excerpts | None
    pairs: Pairs | None
    nested: tuple[int, ...]
    layer_norm: bool

    @classmethod
    def of(
        cls,
        full: Float,
        nested: tuple[int, ...],
        *,
        layer_norm: bool = False,
        excerpts: Excerpts | None = None,
        pairs: Pairs | None = None,
    ) -> HeadTrial:
        """Hold some passages out with their excerpts; with pairs, hold no passage out.

        Args:
            full: float32[n, D], full vectors of all passages.
            nested: Prefix sizes, ascending; the last is the code's dimensions.
            layer_norm: Whether the head reads centred vectors.
            excerpts: Excerpts of the passages, or None.
            pairs: Queries with their documents, or None.
        """
        seen, unseen = split_held_out(len(full))
        if pairs is not None:
            seen, unseen = np.arange(len(full)), np.empty(0, np.intp)
        asked = excerpts if pairs is None else pairs.as_excerpts()
        passages = _passages(full, asked, seen, layer_norm=layer_norm)
        return cls(full, passages, unseen, excerpts, pairs, nested, layer_norm)

    @property
    def steps(self) -> int:
        """Number of steps of fitting a rotation or a linear head."""
        return sum(steps(self.full.shape[1], self.nested[-1], len(self.passages.vectors)))

    @property
    def margin(self) -> float:
        """By how much a less simple head's score must be better for it to be chosen."""
        count = max(len(self._held_out_queries()[0]), len(self.held_out), 1)
        return MARGIN * max(1.0, MOST_HELD_OUT / count)

    @property
    def measured(self) -> str:
        """What the score of int8 codes measures, in words."""
        return self.measured_of("int8")

    def measured_of(self, kind: str) -> str:
        """What the score of codes of a kind measures, in words."""
        count = len(self._held_out_queries()[0])
        if not count:
            return self._measured_agreement(kind)
        ranks = f"the full vectors' mean reciprocal rank, at {TOP}, of the"
        if self.pairs is not None:
            documents = f"own documents of {count:,} held-out queries, among {len(self.full):,}"
            return f"share that {kind} codes keep of {ranks} {documents}"
        return (
            f"weighted mean of two shares that {kind} codes keep: twice {ranks} own passages of "
            f"{count:,} held-out excerpts, once their top {TOP} for {len(self.held_out):,} held-out "
            f"passages; among {len(self.full):,}, before the fit on all"
        )

    @property
    def measured_agreement(self) -> str:
        """What the agreement of int8 codes measures, in words."""
        return self._measured_agreement("int8")

    def _measured_agreement(self, kind: str) -> str:
        return (
            f"share of the full vectors' top {TOP} that {kind} codes find again, for "
            f"{len(self.held_out):,} held-out passages among {len(self.full):,}, before the fit on all"
        )

    def fit(self, kind: str, advance: Advance = lambda: None) -> Float:
        """Fit a head without the held-out text.

        Args:
            kind: "pca", "rotation" or "linear".
            advance: Called after each of ``steps`` steps; never for "pca".

        Returns:
            float32[D, dim].
        """
        passages, dim = self.passages, self.nested[-1]
        if kind == "pca":
            plain = [pca(passages.vectors, dim, centre=centre) for centre in (False, True)]
            return max(plain, key=self.score)
        if kind == "rotation":
            return fit_rotation(passages, self.nested, seed=SEED, advance=advance)
        shares = (OWN_SHARE, QUERIES_SHARE) if self.pairs is None else (PAIRS_SHARE, 1.0)
        return fit_linear(
            passages,
            self.nested,
            own_share=shares[0],
            queries_share=shares[1],
            seed=SEED,
            advance=advance,
        )

    def on_all(self) -> HeadTrial:
        """The same text with nothing held out, for the last fit; its scores are not meaningful."""
        pairs = self.pairs
        if pairs is not None:
            pairs = replace(pairs, fitted=np.arange(len(pairs.answers)))
        asked = self.excerpts if pairs is None else pairs.as_excerpts()
        rows = np.arange(len(self.full))
        passages = _passages(self.full, asked, rows, layer_norm=self.layer_norm)
        return replace(self, passages=passages, pairs=pairs)

    def score(self, matrix: Float | None, packing: Packing = INT8) -> float:
        """How well a head's codes search, on held-out text; full vectors have the score 1.

        With pairs, it is the mean reciprocal rank of held-out queries' own documents, divided by that of
        the full vectors. With excerpts, it is a weighted mean: the same for the passages that excerpts
        were taken from (weight 2), and the agreement (weight 1). With the first alone, a head could win
        that has forgotten what the model knows; with the second alone, a head that knows the text better
        than the model never wins. Among prefix, PCA, rotation and linear heads, at 64 and 128
        dimensions on four sets, this score chose the head that kept most of nDCG@10 in seven cases of
        eight, and in the eighth one that kept 1.4 points less.

        Args:
            matrix: The head, float32[D, dim]; None for the prefix.
            packing: What a store keeps of the passages' codes.
        """
        queries, answers = self._held_out_queries()
        if not len(queries):
            return self.agreement(matrix, packing)
        stored = self._stored(self._codes(self.full, matrix), packing)
        found = _reciprocal_rank(self._codes(queries, matrix), stored, answers)
        exact = _reciprocal_rank(queries, self.full, answers)
        kept = found / exact if exact else float(found > 0)
        if self.pairs is not None:
            return kept
        return (2 * kept + self.agreement(matrix, packing)) / 3

    def agreement(self, matrix: Float | None, packing: Packing = INT8) -> float:
        """Share of held-out passages' top 10 by full vectors that the codes find again, from 0 to 1."""
        rows, codes = self.held_out, self._codes(self.full, matrix)
        stored = self._stored(codes, packing)
        top = min(TOP, len(codes) - 1)
        return found_again(self.full[rows], codes[rows], self.full, stored, own=rows, top=top)

    def _held_out_queries(self) -> tuple[Float, Rows]:
        """Queries that no fit has seen, float32[q, D], and the rows of their own passages, intp[q]."""
        if self.pairs is not None:
            held_out = self.pairs.held_out
            return self.pairs.full[held_out], self.pairs.answers[held_out]
        if self.excerpts is None:
            return self.full[:0], np.empty(0, np.intp)
        unseen = np.isin(self.excerpts.origins, self.held_out)
        return self.excerpts.full[unseen], self.excerpts.origins[unseen]

    def _codes(self, full: Float, matrix: Float | None) -> NDArray[np.int8]:
        return derive_codes(full, matrix, dim=self.nested[-1], layer_norm=self.layer_norm)

    def _stored(self, codes: NDArray[np.int8], packing: Packing) -> NDArray[np.int8]:
        return packing.unpack(packing.pack(codes), codes.shape[1])

    def facts(self) -> dict[str, Any]:
        """How much text was used, as JSON values for a report."""
        count = {"passages_fitted": len(self.full), "nested": list(self.nested)}
        if self.pairs is None:
            excerpts = 0 if self.excerpts is None else len(self.excerpts.full)
            return {**count, "excerpts_fitted": excerpts, "passages_held_out": len(self.held_out)}
        fitted, held_out = len(self.pairs.answers), len(self.pairs.held_out)
        return {**count, "pairs_fitted": fitted, "pairs_held_out": held_out}


def split_held_out(count: int) -> tuple[Rows, Rows]:
    """Choose what is held out of so many rows; equal counts give equal choices.

    Args:
        count: Number of rows.

    Returns:
        The rows to fit on and the rows held out, intp, each ascending.
    """
    order = np.random.default_rng(SEED).permutation(count)
    held_out = min(MOST_HELD_OUT, max(int(count * HELD_OUT), 1))
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def best_kind(scores: Mapping[str, float], margin: float) -> str:
    """The kind of head to choose: a later kind only if its score is better by more than a margin.

    Args:
        scores: The score of each kind, the simplest kind first.
        margin: By how much a less simple kind must be better.
    """
    best, *others = scores
    for kind in others:
        if scores[kind] > scores[best] + margin:
            best = kind
    return best


def nested_sizes(dim: int) -> tuple[int, ...]:
    """Prefix sizes that a head is fitted for: the code's dimensions and its halves, ascending."""
    sizes = [dim]
    while sizes[-1] % 2 == 0 and sizes[-1] // 2 >= SHORTEST_NESTED:
        sizes.append(sizes[-1] // 2)
    return tuple(reversed(sizes))


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most ``count`` of the items, evenly spread."""
    picks = np.linspace(0, len(items) - 1, min(len(items), count)).round().astype(int)
    return [items[i] for i in picks]


def agreement(full: Float, codes: NDArray[np.int8], queries: Rows, *, top: int = TOP) -> float:
    """Share of the nearest texts by full vectors that codes find again, from 0 to 1.

    Args:
        full: float32[n, D], unit length.
        codes: int8[n, dim] of the same texts.
        queries: intp[q], rows that are searched for; each is left out of its own results.
        top: How many results are compared, or n - 1 if that is less.
    """
    top = min(top, len(full) - 1)
    return found_again(full[queries], codes[queries], full, codes, own=queries, top=top)


def found_again(
    queries: Float,
    query_codes: NDArray[np.int8],
    full: Float,
    codes: NDArray[np.int8],
    *,
    own: Rows | None = None,
    top: int = TOP,
) -> float:
    """Like ``agreement``, for queries that need not be among the passages.

    Args:
        queries: float32[q, D], full vectors of the queries, unit length.
        query_codes: int8[q, dim], codes of the queries.
        full: float32[n, D], full vectors of the passages, unit length.
        codes: int8[n, dim], codes of the passages.
        own: intp[q], the row of each query among the passages, which is left out; None if they are not.
        top: How many results are compared, at most n.
    """
    shares = []
    for start in range(0, len(queries), 512):
        some = slice(start, start + 512)
        rows = None if own is None else own[some]
        exact = _top(queries[some] @ full.T, rows, top)
        found = _top(similarity(query_codes[some], codes), rows, top)
        shares.append((exact & found).sum(axis=1) / top)
    return float(np.concatenate(shares).mean())


def _passages(full: Float, asked: Excerpts | None, rows: Rows, *, layer_norm: bool) -> Passages:
    """Passages of ascending rows, with the excerpts of them, as the head reads them."""
    inputs = head_inputs(full[rows], layer_norm=layer_norm)
    if asked is None:
        return Passages.of(inputs)
    known = np.isin(asked.origins, rows)
    queries = head_inputs(asked.full[known], layer_norm=layer_norm)
    return Passages.of(inputs, queries, np.searchsorted(rows, asked.origins[known]))


def _top(scores: Float, own: Rows | None, count: int) -> NDArray[np.bool_]:
    """bool[q, n]: the largest scores of each row, the first among equal ones. Overwrites ``scores``."""
    if own is not None:
        scores[np.arange(len(own)), own] = -np.inf
    least = np.partition(scores, -count, axis=1)[:, -count, None]
    above, level = scores > least, scores == least
    room = count - above.sum(axis=1, keepdims=True)
    among: NDArray[np.bool_] = above | (level & (level.cumsum(axis=1, dtype=np.int32) <= room))
    return among


def _reciprocal_rank(
    queries: NDArray[np.int8] | Float, documents: NDArray[np.int8] | Float, answers: Rows
) -> float:
    """Mean of 1 / rank of each query's document, 0 from rank 11 on."""
    right = normalize(documents.astype(np.float32))
    total = 0.0
    for start in range(0, len(queries), 512):
        scores = normalize(queries[start : start + 512].astype(np.float32)) @ right.T
        rows = answers[start : start + 512]
        own = scores[np.arange(len(rows)), rows][:, None]
        ranks = (scores >= own).sum(axis=1)  # equal scores come first: codes of zeros find nothing
        total += float(np.where(ranks <= TOP, 1 / ranks, 0).sum())
    return total / len(queries)
