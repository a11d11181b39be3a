"""Heads on trial: fitted on some vectors, judged by others.

What is fitted is judged on text that was held out: how much of the full vectors' top 10 the int8 codes
find again, or where pairs are given, how high they rank a query's own document.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.codes import similarity
from edge_mrl.head import derive_codes, head_inputs
from edge_mrl_export.fit import Passages, fit_linear, fit_rotation, fit_to_pairs, pca

__all__ = ["Pairs", "Trial", "agreement", "split"]

Float = NDArray[np.float32]
Rows = NDArray[np.intp]

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
class Trial:
    """Vectors to fit heads on and to judge them by.

    Attributes:
        full: float32[n, D] of all passages.
        passages: Those to fit on, with their neighbours.
        held_out: intp[h], rows of ``full`` that no fit sees.
        pairs: Queries with their documents, if the user gave some; then every passage is fitted on.
        nested: Prefix sizes, ascending; the last is the code's.
        layer_norm: Whether the head reads centred vectors.
    """

    full: Float
    passages: Passages
    held_out: Rows
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
        pairs: Pairs | None = None,
    ) -> Trial:
        """Set some passages aside, or if there are pairs, none."""
        seen, unseen = split(len(full))
        if pairs is not None:
            seen, unseen = np.arange(len(full)), np.empty(0, np.intp)
        passages = Passages.of(head_inputs(full[seen], layer_norm=layer_norm))
        return cls(full, passages, unseen, pairs, nested, layer_norm)

    @property
    def measured(self) -> str:
        """What a score is."""
        if self.pairs is not None:
            return (
                f"mean reciprocal rank, at 10, of the own document of {len(self.pairs.held_out)} "
                f"held-out queries among {len(self.full)} documents, by int8 codes"
            )
        return (
            f"share of the full vectors' top {TOP} that int8 codes find again, for "
            f"{len(self.held_out)} held-out passages as queries among all {len(self.full)}"
        )

    def fit(self, kind: str, advance: Callable[[], None] = lambda: None) -> Float:
        """A head of a kind, "pca", "rotation" or "linear": float32[D, dim].

        Args:
            kind: What to fit.
            advance: Called after each of ``sum(STEPS)`` steps; never for "pca".
        """
        dim = self.nested[-1]
        if kind == "pca":
            plain = [pca(self.passages.vectors, dim, centre=centre) for centre in (False, True)]
            return max(plain, key=self.score)
        if kind == "rotation":
            return fit_rotation(self.passages, self.nested, seed=SEED, advance=advance)
        if self.pairs is None:
            return fit_linear(self.passages, self.nested, seed=SEED, advance=advance)
        fitted = self.pairs.fitted
        return fit_to_pairs(
            head_inputs(self.pairs.full[fitted], layer_norm=self.layer_norm),
            self.pairs.answers[fitted],
            self.passages,
            self.nested,
            seed=SEED,
            advance=advance,
        )

    def score(self, matrix: Float | None) -> float:
        """How good a head is on what no fit has seen, from 0 to 1."""
        codes = self._codes(self.full, matrix)
        if self.pairs is None:
            return agreement(self.full, codes, self.held_out)
        queries = self._codes(self.pairs.full[self.pairs.held_out], matrix)
        return _reciprocal_rank(queries, codes, self.pairs.answers[self.pairs.held_out])

    def _codes(self, full: Float, matrix: Float | None) -> NDArray[np.int8]:
        return derive_codes(full, matrix, dim=self.nested[-1], layer_norm=self.layer_norm)

    def facts(self) -> dict[str, Any]:
        """What was fitted on, for the report."""
        count = {"passages_fitted": len(self.passages.vectors), "nested": list(self.nested)}
        if self.pairs is None:
            return {**count, "passages_held_out": len(self.held_out)}
        fitted, held_out = len(self.pairs.fitted), len(self.pairs.held_out)
        return {**count, "pairs_fitted": fitted, "pairs_held_out": held_out}


def split(count: int) -> tuple[Rows, Rows]:
    """Rows to fit on and rows held out, ascending; the same for equal counts."""
    order = np.random.default_rng(SEED).permutation(count)
    held_out = min(MOST_HELD_OUT, max(int(count * HELD_OUT), 1))
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def agreement(full: Float, codes: NDArray[np.int8], queries: Rows, *, top: int = TOP) -> float:
    """Share of the full vectors' nearest that codes find again, from 0 to 1.

    Args:
        full: float32[n, D], unit length.
        codes: int8[n, dim] of the same texts.
        queries: Rows that are searched for; each is left out of its own results.
        top: How many are compared; fewer where there are fewer.
    """
    top = min(top, len(full) - 1)
    shares = []
    for start in range(0, len(queries), 512):
        rows = queries[start : start + 512]
        exact = _top(full[rows] @ full.T, rows, top)
        found = _top(similarity(codes[rows], codes), rows, top)
        same = (exact[:, :, None] == found[:, None, :]).any(axis=2)
        shares.append(same.mean(axis=1))
    return float(np.concatenate(shares).mean())


def _top(scores: Float, own: Rows, count: int) -> Rows:
    scores = scores.copy()
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
