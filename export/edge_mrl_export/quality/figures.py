"""Tables in columns and charts of what codes keep, for ``eval`` and ``advise``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, log2

from edge_mrl_export.pages import Axis, Line, Panel
from edge_mrl_export.quality.candidates import Tried
from edge_mrl_export.quality.evaluation import KINDS, WIDTHS, Row
from edge_mrl_export.quality.fitting import how_made
from edge_mrl_export.quality.metrics import Interval

__all__ = ["columns", "front", "frontier_panels", "kept_panels", "kept_share"]

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
    lines = []
    for kind in KINDS:
        points = [
            (float(row.code_bytes), 100 * row.kept.ratio)
            for row in rows
            if (row.kind, row.stage) == (kind, stage)
        ]
        if points:
            lines.append(Line(kind, points))
    return _panel(title, "bytes of a code", lines)


def front(tried: Sequence[Tried]) -> list[Tried]:
    """Ways that keep more than every way of fewer bytes, by the questions that choose, ascending."""
    found, best = [], -1.0
    for way in sorted(tried, key=lambda t: (t.code_bytes, -t.chosen)):
        if way.chosen > best:
            found.append(way)
            best = way.chosen
    return found


def frontier_panels(tried: Sequence[Tried], tolerance: float) -> list[Panel]:
    """What codes keep with held-out questions, by bytes a passage: by bits, and by how they are made.

    Of the ways to make a code of so many bytes, the line goes through the one that the other half of the
    questions chose.
    """
    kinds = {kind: [t for t in tried if t.candidate.kind == kind] for kind in KINDS}
    made: dict[str, list[Tried]] = {}
    for way in tried:
        head = how_made(way.candidate.head, turned=False)
        made.setdefault("turned" if way.candidate.turned else head, []).append(way)
    return [
        _frontier_panel("by bits", {**kinds, "the frontier": front(tried)}, tolerance),
        _frontier_panel("by head", made, tolerance),
    ]


def _frontier_panel(title: str, groups: Mapping[str, Sequence[Tried]], tolerance: float) -> Panel:
    lines = [
        Line(name, [(float(size), 100 * t.reported) for size, t in _by_bytes(some).items()])
        for name, some in groups.items()
        if some
    ]
    sizes = [x for line in lines for x, _ in line.points]
    least = 100 * (1 - tolerance)
    goal = Line(f"{least:g} %", [(min(sizes), least), (max(sizes), least)])
    return _panel(title, "bytes a passage", [*lines, goal])


def _by_bytes(tried: Sequence[Tried]) -> dict[int, Tried]:
    """For each size, ascending, the way that the questions chose."""
    best: dict[int, Tried] = {}
    for way in sorted(tried, key=lambda t: (t.code_bytes, t.chosen)):
        best[way.code_bytes] = way
    return best


def _panel(title: str, sizes: str, lines: Sequence[Line]) -> Panel:
    """A panel whose axes suit its lines."""
    values = [100.0, *(kept for line in lines for _, kept in line.points)]
    places = [size for line in lines for size, _ in line.points]
    first, last = floor(log2(min(places))), ceil(log2(max(places)))
    last = max(last, first + 1)
    step = -(-(last - first) // MOST_STEPS)
    ticks = tuple(2.0**power for power in range(first, last + step, step))
    return Panel(title, Axis(sizes, ticks), percent_axis(values), lines)


def percent_axis(values: Sequence[float]) -> Axis:
    """From below the least value to above the greatest, in round steps."""
    low = min(values)
    step = next(s for s in (1, 2, 5, 10, 20) if (100 - low) / s <= 8 or s == 20)
    start = int(low // step) * step
    end = int(-(-max(values) // step)) * step
    return Axis("nDCG@10 kept, %", tuple(float(v) for v in range(start, end + 1, step)), log=False)
