"""Every code with every way to search it: what it costs, and what it keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge_mrl.cli import Progress
from edge_mrl.errors import UsageError
from edge_mrl_export.quality.costs import Cost, cost, search_seconds
from edge_mrl_export.quality.evaluation import WIDTHS, Evaluation
from edge_mrl_export.quality.fitting import Candidate, how_made
from edge_mrl_export.quality.metrics import Interval, ratio
from edge_mrl_export.quality.split import halves

__all__ = ["Choice", "measure_choices"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A code, and a way to search it.

    Attributes:
        dim: Dimensions.
        kind: One of ``edge_mrl.codes.packing.CODE_KINDS``.
        rerank: Length of the shortlist that full vectors order again; 0 for a search by codes alone.
        chosen: Quality kept with the queries that choose, in the worst of the sets.
        confirmed: Quality kept with the held-out queries, in the worst of the sets.
        cost: What it costs.
        head: "prefix", "random", "bundle" (the bundle's own), or the kind of head that is fitted.
        turned: Whether the head's directions are rotated for codes of few bits.
    """

    dim: int
    kind: str
    rerank: int
    chosen: Interval
    confirmed: Interval
    cost: Cost
    head: str = "prefix"
    turned: bool = False

    def within(self, tolerance: float) -> bool:
        """Whether it is good enough: by the interval's lower end, and by the held-out queries."""
        least = 1 - tolerance
        return self.chosen.low >= least and self.confirmed.ratio >= least

    def affordable(self, budget: int | None) -> bool:
        """Whether its codes fit into so many bytes."""
        return budget is None or self.cost.storage_bytes <= budget

    @property
    def name(self) -> str:
        """Such as "128 int4, rerank 50"."""
        return f"{self.dim} {self.kind}" + (f", rerank {self.rerank}" if self.rerank else "")

    @property
    def how(self) -> str:
        """Such as "linear head, turned"."""
        return how_made(self.head, turned=self.turned)

    def as_json(self) -> dict[str, Any]:
        """Values for JSON."""
        return asdict(self)


def measure_choices(
    sets: Sequence[Evaluation],
    made: Mapping[tuple[int, str], Candidate],
    *,
    width: int,
    documents: int,
    quiet: bool = False,
) -> list[Choice]:
    """All choices, from the smallest code; of equal bytes, the shortest shortlist first.

    Args:
        sets: What codes keep, measured.
        made: How each code was made, by dimensions and kind.
        width: Dimensions of the full vector.
        documents: How many documents a store will hold.
        quiet: Show no progress.

    Raises:
        UsageError: The full model finds too little with the queries of one half.
    """
    kept = [_halves(found) for found in sets]
    codes = sorted({(row.dim, row.kind) for row in sets[0].rows})
    speed = {}
    with Progress("time searches", len(codes), quiet=quiet) as bar:
        for code in codes:
            speed[code] = search_seconds(*code)
            bar.advance()
    choices = []
    for dim, kind in codes:
        price = cost(
            dim,
            kind,
            width=width,
            documents=documents,
            seconds_per_row=speed[dim, kind],
        )
        for rerank in (0, *WIDTHS):
            found = [halves[dim, kind, rerank] for halves in kept]
            chosen, confirmed = (
                min(half, key=lambda i: i.low) for half in zip(*found, strict=True)
            )
            way = made[dim, kind]
            choices.append(
                Choice(dim, kind, rerank, chosen, confirmed, price, way.head, way.turned)
            )
    return sorted(choices, key=lambda c: (c.cost.code_bytes, c.rerank, c.dim))


def _halves(found: Evaluation) -> Mapping[tuple[int, str, int], tuple[Interval, Interval]]:
    """Quality kept, with the queries that choose and with the held-out ones."""
    parts = halves(found.queries)
    if any(not found.base_by_query[part].any() for part in parts):
        raise UsageError(f"{found.name}: the full model finds too little; give more queries")
    kept = {}
    for row in found.rows:
        if row.stage != "funnel":
            rerank = 0 if row.stage == "alone" else int(row.stage.split()[1])
            first, second = (ratio(row.by_query[p], found.base_by_query[p]) for p in parts)
            kept[row.dim, row.kind, rerank] = (first, second)
    return kept
