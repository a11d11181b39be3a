"""Heads on trial: fitted on some vectors, judged by others.

What is fitted is judged on text that was held out: how much of the full vectors' top 10 the int8 codes
find again, or where pairs are given, how high they rank a query's own document. What is kept in the
end is fitted once more, on all of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_mrl.codes import similarity
from edge_mrl.fit import Passages, fit_linear, fit_rotation, fit_to_pairs, pca
from edge_mrl.head import derive_codes, head_inputs

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
#: A less simple head must be better by this on held-out text to be taken.
MARGIN = 0.002
#: The shortest prefix that a head is fitted for by itself.
SHORTEST_NESTED = 8
#: Held out: a fifth, and at most so many, which gives the agreement to half a percent.
HELD_OUT, MOST_HELD_OUT = 0.2, 1000
#: What agreement looks at: the shortlist's size that users read.
TOP = 10
SEED = 0


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


@dataclass(frozen=True, slots=True, eq=False)
class Short:
    """Pieces of passages that stand for queries; see ``edge_mrl.pieces``.

    Attributes:
        full: float32[m, D] of the pieces.
        origins: intp[m], the row of the passage that each was taken from.
    """

    full: Float
    origins: Rows


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
        passages = _passages(full[seen], short, seen, layer_norm=layer_norm)
        return cls(full, passages, unseen, short, pairs, nested, layer_norm)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a head."""
        return self.full.shape[1], self.nested[-1]

    @property
    def measured(self) -> str:
        """What a score is."""
        if self.pairs is not None:
            return (
                f"mean reciprocal rank, at 10, of the own document of {len(self.pairs.held_out)} "
                f"held-out queries among {len(self.full)} documents, by int8 codes"
            )
        pieces = len(self._held_out_pieces())
        return (
            f"share of the full vectors' top {TOP} that int8 codes find again, for "
            f"{len(self.held_out)} held-out passages"
            f"{f' and, weighing as much, {pieces} pieces of them' if pieces else ''} as queries among "
            f"all {len(self.full)}, before the fit on all of them"
        )

    def fit(self, kind: str, advance: Advance = lambda: None) -> Float:
        """A head of a kind, "pca", "rotation" or "linear", that has not seen what is held out.

        Args:
            kind: What to fit.
            advance: Called after each of ``sum(steps(*shape))`` steps; never for "pca".

        Returns:
            float32[D, dim].
        """
        passages, dim = self.passages, self.nested[-1]
        if kind == "pca":
            plain = [pca(passages.vectors, dim, centre=centre) for centre in (False, True)]
            return max(plain, key=self.score)
        if kind == "rotation":
            return fit_rotation(passages, self.nested, seed=SEED, advance=advance)
        if self.pairs is None:
            return fit_linear(passages, self.nested, seed=SEED, advance=advance)
        fitted = self.pairs.fitted
        return fit_to_pairs(
            head_inputs(self.pairs.full[fitted], layer_norm=self.layer_norm),
            self.pairs.answers[fitted],
            passages,
            self.nested,
            seed=SEED,
            advance=advance,
        )

    def on_all(self) -> Trial:
        """The same to fit on all text, with nothing held out: its scores say nothing any more."""
        if self.pairs is not None:
            rows = np.arange(len(self.pairs.answers))
            return replace(self, pairs=replace(self.pairs, fitted=rows))
        rows = np.arange(len(self.full))
        passages = _passages(self.full, self.short, rows, layer_norm=self.layer_norm)
        return replace(self, passages=passages)

    def score(self, matrix: Float | None) -> float:
        """How good a head is on what no fit has seen, from 0 to 1."""
        codes = self._codes(self.full, matrix)
        if self.pairs is not None:
            queries = self._codes(self.pairs.full[self.pairs.held_out], matrix)
            return _reciprocal_rank(queries, codes, self.pairs.answers[self.pairs.held_out])
        passages = agreement(self.full, codes, self.held_out)
        pieces = self._held_out_pieces()
        if not len(pieces):
            return passages
        return (passages + found_again(pieces, self._codes(pieces, matrix), self.full, codes)) / 2

    def _held_out_pieces(self) -> Float:
        if self.short is None:
            return self.full[:0]
        return self.short.full[np.isin(self.short.origins, self.held_out)]

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


def best_kind(scores: Mapping[str, float]) -> str:
    """The first of the kinds, the simplest first, that no later one beats by ``MARGIN``."""
    best, *others = scores
    for kind in others:
        if scores[kind] > scores[best] + MARGIN:
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
        same = (exact[:, :, None] == found[:, None, :]).any(axis=2)
        shares.append(same.mean(axis=1))
    return float(np.concatenate(shares).mean())


def _passages(full: Float, short: Short | None, rows: Rows, *, layer_norm: bool) -> Passages:
    """Passages of these rows with the pieces of them, as the head reads them."""
    inputs = head_inputs(full, layer_norm=layer_norm)
    if short is None:
        return Passages.of(inputs)
    pieces = short.full[np.isin(short.origins, rows)]
    return Passages.of(inputs, head_inputs(pieces, layer_norm=layer_norm))


def _top(scores: Float, own: Rows | None, count: int) -> Rows:
    if own is not None:
        scores[np.arange(len(own)), own] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def _reciprocal_rank(
    queries: NDArray[np.int8], documents: NDArray[np.int8], answers: Rows
) -> float:
    """Mean of 1 / rank of each query's document, 0 from rank 11 on."""
    scores = similarity(queries, documents)
    own = scores[np.arange(len(answers)), answers][:, None]
    ranks = (scores >= own).sum(axis=1)  # equal scores come first: codes of zeros find nothing
    return float(np.where(ranks <= TOP, 1 / ranks, 0).mean())
