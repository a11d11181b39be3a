"""Tables in columns and charts of what codes keep, for ``eval`` and ``advise``."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log2

from edge_mrl_export.pages import Axis, Line, Panel
from edge_mrl_export.quality.evaluation import KINDS, WIDTHS, Row
from edge_mrl_export.quality.metrics import Interval

__all__ = ["columns", "kept_panels", "kept_share"]

#: Labels on an axis: more of them would run into each other on a phone.
MOST_STEPS = 5


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as what is in them; the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in (heads, *rows)
    ]


def kept_share(found: Interval) -> str:
    """A share with its interval, such as "97.8% (94.5% to 101.3%)"."""
    return f"{found.ratio:.1%} ({found.low:.1%} to {found.high:.1%})"


def kept_panels(rows: Sequence[Row]) -> list[Panel]:
    """nDCG@10 kept against bytes: of the codes alone, and with the shortest shortlist reranked."""
    rerank = f"rerank {WIDTHS[0]}"
    return [
        _kept_panel("codes alone", rows, "alone"),
        _kept_panel(f"full vectors rerank {WIDTHS[0]}", rows, rerank),
    ]


def _kept_panel(title: str, rows: Sequence[Row], stage: str) -> Panel:
    """nDCG@10 kept against bytes, a line for each kind."""
    lines, values, sizes = [], [100.0], []
    for kind in KINDS:
        points = [
            (float(row.code_bytes), 100 * row.kept.ratio)
            for row in rows
            if (row.kind, row.stage) == (kind, stage)
        ]
        values += [kept for _, kept in points]
        sizes += [size for size, _ in points]
        if points:
            lines.append(Line(kind, points))
    first, last = floor(log2(min(sizes))), max(ceil(log2(max(sizes))), floor(log2(min(sizes))) + 1)
    step = -(-(last - first) // MOST_STEPS)
    ticks = tuple(2.0**power for power in range(first, last + step, step))
    return Panel(title, Axis("bytes of a code", ticks), percent_axis(values), lines)


def percent_axis(values: Sequence[float]) -> Axis:
    """From below the least value to above the greatest, in round steps."""
    low = min(values)
    step = next(s for s in (1, 2, 5, 10, 20) if (100 - low) / s <= 8 or s == 20)
    start = int(low // step) * step
    end = int(-(-max(values) // step)) * step
    return Axis("nDCG@10 kept, %", tuple(float(v) for v in range(start, end + 1, step)), log=False)
