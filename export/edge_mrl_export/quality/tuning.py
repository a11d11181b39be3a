"""A funnel for a store: as narrow as its own codes allow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.cli import Progress
from edge_mrl.codes import CODE_BITS
from edge_mrl.errors import UsageError
from edge_mrl.search import DEFAULT_WIDTH, EXACT_BELOW, WORD_DIMS, Funnel, Stage, nearest
from edge_mrl.store import CodeTable, Store

__all__ = ["RECALL", "Tuned", "tune", "tuned_funnel"]

#: Of the ten best of an exact search, so many must come through.
RECALL = 0.99
#: Passages of the store that are searched for, a little changed so that none finds only itself.
QUERIES = 200
#: How far a query lies from its passage: a cosine of about 0.8, as questions have to their answers.
NOISE = 0.75
WIDTHS = (200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
#: Rows that a first stage over fewer dimensions passes on, in widths of the next stage.
WIDER = 4
SEED = 0


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was chosen for a store.

    Attributes:
        funnel: Its stages; None where the store scores all rows without one.
        recall: Share of an exact search's ten best that it finds.
        rows: Passages of the store.
        queries: How many searches that was measured by.
    """

    funnel: Funnel | None
    recall: float
    rows: int
    queries: int

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        stages = None if self.funnel is None else str(self.funnel)
        return {"funnel": stages, "recall": self.recall, "rows": self.rows, "queries": self.queries}

    def text(self) -> str:
        """For people."""
        if self.funnel is None:
            return (
                f"store: {self.rows:,} passages, no funnel is needed: every search scores all rows"
            )
        return (
            f"store: tuned to {self.funnel}, which finds {self.recall:.1%} of an exact search's ten best "
            f"({self.queries} searches for changed passages of its own)"
        )


def tune(store: Path, *, quiet: bool = False) -> Tuned:
    """Choose a funnel by a store's own codes, and have the store remember it.

    Raises:
        StoreError: There is no such store, or it cannot be used.
    """
    if not store.is_file():
        raise UsageError(f"no store {store}")
    with Store.open(store) as opened:
        with opened.reading() as view:
            found = tuned_funnel(view.codes, quiet=quiet)
        opened.tune(found.funnel)
    return found


def tuned_funnel(table: CodeTable, *, quiet: bool = False) -> Tuned:
    """The cheapest funnel whose recall of an exact search's ten best is at least RECALL.

    Args:
        table: The store's codes.
        quiet: Show no progress.
    """
    rows = table.live
    if rows <= EXACT_BELOW * WIDTHS[0]:
        return Tuned(None, 1.0, rows, 0)
    queries = _queries(table)
    exact = _found(table, queries, None)
    candidates = list(_candidates(table))
    with Progress("tune funnel", len(candidates), quiet=quiet) as bar:
        for funnel in candidates:
            found = _found(table, queries, funnel)
            recall = float(
                np.mean([len(a & b) / len(a) for a, b in zip(exact, found, strict=True)])
            )
            bar.advance(1, note=str(funnel))
            if recall >= RECALL:
                return Tuned(funnel, round(recall, 4), rows, len(queries))
    if (
        rows <= EXACT_BELOW * DEFAULT_WIDTH
    ):  # without a funnel of its own, the store scores all rows
        return Tuned(None, 1.0, rows, len(queries))
    return Tuned(Funnel((_last(table),)), 1.0, rows, len(queries))


def _candidates(table: CodeTable) -> Iterator[Funnel]:
    """From the cheapest: fewer rows whose codes are read, then fewer bits of all rows."""
    layout = table.layout
    last = _last(table)
    for width in WIDTHS:
        if EXACT_BELOW * width >= table.live:
            return
        bits = Stage(layout.dim, 1, width)
        if layout.dim > WORD_DIMS and EXACT_BELOW * WIDER * width < table.live:
            yield Funnel((Stage(WORD_DIMS, 1, WIDER * width), bits, last))
        yield Funnel((bits, last))


def _last(table: CodeTable) -> Stage:
    """Whole codes: by themselves, an exact search."""
    return Stage(table.dim, CODE_BITS[table.layout.packing.kind])


def _queries(table: CodeTable) -> NDArray[np.int8]:
    """int8[q, dim]: passages, evenly spread, with noise."""
    chance = np.random.default_rng(SEED)
    rows = np.setdiff1d(np.arange(table.rows), table.dead)
    picks = rows[np.linspace(0, len(rows) - 1, min(QUERIES, len(rows))).round().astype(int)]
    levels = table.gather(picks.astype(np.int64))[0].astype(np.float32)
    spread = np.linalg.norm(levels, axis=1, keepdims=True) / np.sqrt(table.dim)
    noisy = levels + NOISE * spread * chance.standard_normal(levels.shape).astype(np.float32)
    largest = np.abs(noisy).max(axis=1, keepdims=True)
    codes: NDArray[np.int8] = np.rint(noisy * (127 / np.maximum(largest, 1e-6))).astype(np.int8)
    return codes


def _found(table: CodeTable, queries: NDArray[np.int8], funnel: Funnel | None) -> list[set[int]]:
    found = []
    for query in queries:
        (matches,) = nearest(query[None], table, k=10, exact=funnel is None, funnel=funnel)
        found.append({match.key for match in matches})
    return found
