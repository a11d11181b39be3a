"""The cheapest funnel for a store that still finds what an exhaustive search finds."""

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
from edge_mrl.search import tune as set_funnel
from edge_mrl.store import CodeTable, Store

__all__ = ["tune", "tuned_funnel"]

#: Share of an exhaustive search's ten best that a funnel must find.
RECALL = 0.99
#: Passages of the store that serve as queries, with noise so that they are not their own best answer.
QUERIES = 200
#: Noise in a query: its cosine to the passage is about 0.8, as of a question to its answer.
NOISE = 0.75
WIDTHS = (200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
#: Rows that a first stage over fewer dimensions passes on, as a multiple of the next stage's.
WIDER = 4
SEED = 0


@dataclass(frozen=True, slots=True)
class Tuned:
    """The funnel that was chosen for a store.

    Attributes:
        funnel: Its stages; None if every search scores all rows.
        recall: Share of an exhaustive search's ten best that it finds.
        rows: Passages in the store.
        queries: How many searches measured the recall.
    """

    funnel: Funnel | None
    recall: float
    rows: int
    queries: int

    def as_json(self) -> dict[str, Any]:
        """Values for JSON."""
        stages = None if self.funnel is None else str(self.funnel)
        return {"funnel": stages, "recall": self.recall, "rows": self.rows, "queries": self.queries}

    def text(self) -> str:
        """Text for people."""
        if self.funnel is None:
            return f"store: {self.rows:,} passages; it needs no funnel, every search scores all of them"
        return (
            f"store: tuned to {self.funnel}, which finds {self.recall:.1%} of an exhaustive search's ten "
            f"best ({self.queries} searches for its own passages, with noise)"
        )


def tune(store: Path, *, quiet: bool = False) -> Tuned:
    """Choose a funnel for a store by its own codes, and save it in the store.

    Raises:
        UsageError: There is no such file.
        StoreError: The store cannot be used.
    """
    if not store.is_file():
        raise UsageError(f"no store {store}: name the file that edge-mrl index wrote")
    with Store.open(store) as opened:
        with opened.reading() as view:
            found = tuned_funnel(view.codes, quiet=quiet)
        set_funnel(opened, found.funnel)
    return found


def tuned_funnel(table: CodeTable, *, quiet: bool = False) -> Tuned:
    """The cheapest funnel whose recall of an exhaustive search's ten best is at least RECALL.

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
    """Funnels from the cheapest on: few rows whose codes are read, few bits of all rows."""
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
    """The last stage, whole codes. Alone it is an exhaustive search."""
    return Stage(table.dim, CODE_BITS[table.layout.packing.kind])


def _queries(table: CodeTable) -> NDArray[np.int8]:
    """int8[q, dim]: codes of evenly spaced passages, with noise."""
    chance = np.random.default_rng(SEED)
    rows = np.setdiff1d(np.arange(table.rows), table.dead)
    picks = rows[np.linspace(0, len(rows) - 1, min(QUERIES, len(rows))).round().astype(int)]
    levels = table.gather_levels(picks.astype(np.int64))[0].astype(np.float32)
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
