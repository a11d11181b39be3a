"""Heads on trial: fitted on some vectors, judged by others.

What is fitted is judged on text that was held out: how high int8 codes rank the passage that a piece
was taken from, or where pairs are given, a query's own document, beside the full vectors' ranks; and how
much of the full vectors' top 10 they find again. What is kept in the end is fitted once more, on all of
the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_mrl.bundle import derive_codes, head_inputs
from edge_mrl.codes import normalize, similarity
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
    "Pairs",
    "Short",
    "Trial",
    "agreement",
    "best_kind",
    "found_again",
    "nested_sizes",
    "split",
    "spread",
]

Float = NDArray[np.float32]
Advance = Callable[[], None]
Item = TypeVar("Item")
Rows = NDArray[np.intp]

#: Text is embedded and fitted on up to here, evenly spread: more adds time and next to nothing else.
MOST_PASSAGES = 10_000
#: A less simple head must be better by this on held-out text to be taken, where that is MOST_HELD_OUT
#: texts; chance counts for more among fewer.
MARGIN = 0.002
#: The shortest prefix that a head is fitted for by itself.
SHORTEST_NESTED = 8
#: Held out: a fifth, and at most so many, which gives the agreement to half a percent.
HELD_OUT, MOST_HELD_OUT = 0.2, 1000
#: What agreement looks at: the shortlist's size that users read.
TOP = 10
SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Short:
    """Pieces of passages that stand for queries (see ``edge_mrl.heads.pieces``), or queries.

    Attributes:
        full: float32[m, D] of the pieces.
        origins: intp[m], the row of the passage that each was taken from, or that answers it.
    """

    full: Float
    origins: Rows


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Queries whose documents are known.

    Attributes:
        full: float32[p, D] of the queries.
        answers: intp[p], the row of each one's document.
        fitted: intp[f], queries to fit on.
        held_out: intp[h], queries to judge by.
    """

    full: Float
    answers: Rows
    fitted: Rows
    held_out: Rows

    def asked(self) -> Short:
        """The queries to fit on."""
        return Short(self.full[self.fitted], self.answers[self.fitted])


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Vectors to fit heads on and to judge them by.

    Attributes:
        full: float32[n, D] of all passages.
        passages: Those to fit on, with their neighbours.
        held_out: intp[h], rows of ``full`` that no fit sees.
        short: Pieces of the passages, fitted on or held out as these are; None if there are none.
        pairs: Queries with their documents, if the user gave some; then every passage is fitted on.
        nested: Prefix sizes, ascending; the last is the code's.
        layer_norm: Whether the head reads centred vectors.
    """

    full: Float
    passages: Passages
    held_out: Rows
    short: Short | None
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
        short: Short | None = None,
        pairs: Pairs | None = None,
    ) -> Trial:
        """Set some passages aside with their pieces, or if there are pairs, none."""
        seen, unseen = split(len(full))
        if pairs is not None:
            seen, unseen = np.arange(len(full)), np.empty(0, np.intp)
        asked = short if pairs is None else pairs.asked()
        passages = _passages(full, asked, seen, layer_norm=layer_norm)
        return cls(full, passages, unseen, short, pairs, nested, layer_norm)

    @property
    def steps(self) -> int:
        """Of fitting a rotation or a linear head."""
        return sum(steps(self.full.shape[1], self.nested[-1], len(self.passages.vectors)))

    @property
    def margin(self) -> float:
        """By how much a less simple head's score must be better for it to be taken."""
        count = max(len(self._judges()[0]), len(self.held_out), 1)
        return MARGIN * max(1.0, MOST_HELD_OUT / count)

    @property
    def measured(self) -> str:
        """What a score is."""
        count = len(self._judges()[0])
        if not count:
            return self.measured_agreement
        ranks = f"the full vectors' mean reciprocal rank, at {TOP}, of the"
        if self.pairs is not None:
            documents = f"own documents of {count:,} held-out queries, among {len(self.full):,}"
            return f"share that int8 codes keep of {ranks} {documents}"
        return (
            f"weighted mean of two shares that int8 codes keep: twice {ranks} own passages of {count:,} "
            f"held-out pieces, once their top {TOP} for {len(self.held_out):,} held-out passages; among "
            f"{len(self.full):,}, before the fit on all"
        )

    @property
    def measured_agreement(self) -> str:
        """What the agreement with the full vectors is."""
        return (
            f"share of the full vectors' top {TOP} that int8 codes find again, for "
            f"{len(self.held_out):,} held-out passages among {len(self.full):,}, before the fit on all"
        )

    def fit(self, kind: str, advance: Advance = lambda: None) -> Float:
        """A head of a kind, "pca", "rotation" or "linear", that has not seen what is held out.

        Args:
            kind: What to fit.
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

    def on_all(self) -> Trial:
        """The same to fit on all text, with nothing held out: its scores say nothing any more."""
        pairs = self.pairs
        if pairs is not None:
            pairs = replace(pairs, fitted=np.arange(len(pairs.answers)))
        asked = self.short if pairs is None else pairs.asked()
        rows = np.arange(len(self.full))
        passages = _passages(self.full, asked, rows, layer_norm=self.layer_norm)
        return replace(self, passages=passages, pairs=pairs)

    def score(self, matrix: Float | None) -> float:
        """How well the codes behind a head search, by what no fit has seen; 1 is the full vectors'.

        It is how high held-out queries rank their own documents. Pieces rank the passages that they were
        taken from, and half as much weighs how alike to the full vectors' the codes' rankings are: by the
        first alone a head could win that has forgotten what the model knows, and by the second alone one
        never wins that knows the text at hand better. Of cut, PCA, rotation and linear heads, at 64 and
        128 dimensions on four sets, this chose the one that kept most of nDCG@10 in seven cases of eight,
        and in the other one that kept 1.4 points less.
        """
        queries, answers = self._judges()
        if not len(queries):
            return self.agreement(matrix)
        found = _reciprocal_rank(
            self._codes(queries, matrix), self._codes(self.full, matrix), answers
        )
        exact = _reciprocal_rank(queries, self.full, answers)
        kept = found / exact if exact else float(found > 0)
        return kept if self.pairs is not None else (2 * kept + self.agreement(matrix)) / 3

    def agreement(self, matrix: Float | None) -> float:
        """Share of the full vectors' top 10 for held-out passages that the codes find, from 0 to 1."""
        return agreement(self.full, self._codes(self.full, matrix), self.held_out)

    def _judges(self) -> tuple[Float, Rows]:
        """Queries that no fit has seen, float32[q, D], and the rows of their own passages, intp[q]."""
        if self.pairs is not None:
            held_out = self.pairs.held_out
            return self.pairs.full[held_out], self.pairs.answers[held_out]
        if self.short is None:
            return self.full[:0], np.empty(0, np.intp)
        unseen = np.isin(self.short.origins, self.held_out)
        return self.short.full[unseen], self.short.origins[unseen]

    def _codes(self, full: Float, matrix: Float | None) -> NDArray[np.int8]:
        return derive_codes(full, matrix, dim=self.nested[-1], layer_norm=self.layer_norm)

    def facts(self) -> dict[str, Any]:
        """What was fitted on, for the report."""
        count = {"passages_fitted": len(self.full), "nested": list(self.nested)}
        if self.pairs is None:
            pieces = 0 if self.short is None else len(self.short.full)
            return {**count, "pieces_fitted": pieces, "passages_held_out": len(self.held_out)}
        fitted, held_out = len(self.pairs.answers), len(self.pairs.held_out)
        return {**count, "pairs_fitted": fitted, "pairs_held_out": held_out}


def split(count: int) -> tuple[Rows, Rows]:
    """Rows to fit on and rows held out, ascending; the same for equal counts."""
    order = np.random.default_rng(SEED).permutation(count)
    held_out = min(MOST_HELD_OUT, max(int(count * HELD_OUT), 1))
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def best_kind(scores: Mapping[str, float], margin: float) -> str:
    """The first of the kinds, the simplest first, that no later one beats by a margin."""
    best, *others = scores
    for kind in others:
        if scores[kind] > scores[best] + margin:
            best = kind
    return best


def nested_sizes(dim: int) -> tuple[int, ...]:
    """Prefix sizes that a head is fitted for by itself: the code's own and its halves, ascending."""
    sizes = [dim]
    while sizes[-1] % 2 == 0 and sizes[-1] // 2 >= SHORTEST_NESTED:
        sizes.append(sizes[-1] // 2)
    return tuple(reversed(sizes))


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most ``count`` of the items, evenly spread."""
    picks = np.linspace(0, len(items) - 1, min(len(items), count)).round().astype(int)
    return [items[i] for i in picks]


def agreement(full: Float, codes: NDArray[np.int8], queries: Rows, *, top: int = TOP) -> float:
    """Share of the full vectors' nearest that codes find again, from 0 to 1.

    Args:
        full: float32[n, D], unit length.
        codes: int8[n, dim] of the same texts.
        queries: Rows that are searched for; each is left out of its own results.
        top: How many are compared; fewer where there are fewer.
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
    """As ``agreement``, of queries that need not be passages.

    Args:
        queries: float32[q, D], unit length.
        query_codes: int8[q, dim] of the same.
        full: float32[n, D] of the passages.
        codes: int8[n, dim] of the same.
        own: intp[q], the row of each query, which is left out.
        top: How many are compared, at most n.
    """
    shares = []
    for start in range(0, len(queries), 512):
        some = slice(start, start + 512)
        rows = None if own is None else own[some]
        exact = _top(queries[some] @ full.T, rows, top)
        found = _top(similarity(query_codes[some], codes), rows, top)
        shares.append((exact & found).sum(axis=1) / top)
    return float(np.concatenate(shares).mean())


def _passages(full: Float, asked: Short | None, rows: Rows, *, layer_norm: bool) -> Passages:
    """Passages of these rows, ascending, with the queries that they answer, as the head reads them."""
    inputs = head_inputs(full[rows], layer_norm=layer_norm)
    if asked is None:
        return Passages.of(inputs)
    known = np.isin(asked.origins, rows)
    queries = head_inputs(asked.full[known], layer_norm=layer_norm)
    return Passages.of(inputs, queries, np.searchsorted(rows, asked.origins[known]))


def _top(scores: Float, own: Rows | None, count: int) -> NDArray[np.bool_]:
    """bool[q, n]: which scores are the largest of their row, the first of equal ones; changes them."""
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
