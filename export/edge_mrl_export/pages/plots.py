"""Charts as SVG: panels with lines, or rows of dots in columns."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Axis", "Column", "Line", "Panel", "decades", "dots", "inline", "svg"]

WIDTH, HEIGHT = 460, 400
#: Width of a panel on a page: on the narrowest phones its letters then have their nominal size.
NARROW = 340
LEFT, RIGHT, TOP, BOTTOM = 60, 24, 56, 96
COLORS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#0f766e", "#a16207")
#: Height of a row of the legend; there are up to three.
LEGEND = 17
#: Of a chart of dots: height of a row, and widths of the names, of a column and of its numbers.
ROW, NAMES, COLUMN, NUMBER = 22, 250, 220, 62


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a chart.

    Attributes:
        label: The quantity with its unit.
        ticks: Marked values, ascending; the first and the last are the ends of the axis.
        log: Whether the scale is logarithmic.
    """

    label: str
    ticks: tuple[float, ...]
    log: bool = True

    def place(self, value: float) -> float:
        """Where a value lies, from 0 at the first tick to 1 at the last."""
        low, high, at = (
            math.log10(v) if self.log else v for v in (self.ticks[0], self.ticks[-1], value)
        )
        return (at - low) / (high - low)


@dataclass(frozen=True, slots=True)
class Line:
    """A line: its name, and its points (x, y) from left to right."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart: title, axes, and up to six lines."""

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line]


def decades(label: str, values: Sequence[float]) -> Axis:
    """A logarithmic axis of powers of ten that includes some positive values."""
    low = math.floor(math.log10(min(values)))
    high = max(low + 1, math.ceil(math.log10(max(values))))
    return Axis(label, tuple(10.0**power for power in range(low, high + 1)))


def svg(panels: Sequence[Panel], *, width: int = WIDTH) -> str:
    """The panels from left to right, each ``width`` units wide."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(panels)} {HEIGHT}" '
        'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>'
    )
    parts = [part for i, panel in enumerate(panels) for part in _panel(panel, i * width, width)]
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def inline(panel: Panel) -> str:
    """One panel for a page: narrow enough for a phone, in the page's own colours.

    The page sets ``--paper``, ``--ink``, ``--rule`` and ``--line-0`` to ``--line-5``.
    """
    drawing = svg([panel], width=NARROW)
    colors = {"white": "paper", "#222": "ink", "#ddd": "rule"}
    colors |= {color: f"line-{number}" for number, color in enumerate(COLORS)}
    for color, name in colors.items():
        drawing = drawing.replace(f'"{color}"', f'"var(--{name})"')
    title = html.escape(f"{panel.title}: {panel.y.label} by {panel.x.label}")
    return drawing.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


@dataclass(frozen=True, slots=True)
class Column:
    """A quantity: its title with the unit; for each name its minimum, median and maximum, all above 0."""

    title: str
    marks: Sequence[tuple[float, float, float]]


def dots(names: Sequence[str], columns: Sequence[Column], *, title: str, marked: str) -> str:
    """A row for each name, a column for each quantity: median as a dot, minimum to maximum as a bar.

    Args:
        names: What is compared, from the top.
        columns: From left to right; each has its own logarithmic scale.
        title: Title of the chart.
        marked: Names with this prefix have another colour.
    """
    width, height = NAMES + COLUMN * len(columns) + 16, TOP + ROW * len(names) + 24
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>'
    )
    parts = [head, _text(16, 22, title, 14)]
    for row, name in enumerate(names):
        y = TOP + ROW * (row + 0.5)
        parts += [_rule(16, y, width - 16, y), _text(16, y - 4, name, 12)]
    colors = [COLORS[0] if name.startswith(marked) else COLORS[1] for name in names]
    for number, column in enumerate(columns):
        parts += _dots(column, NAMES + COLUMN * number, colors)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _dots(column: Column, left: float, colors: Sequence[str]) -> list[str]:
    parts = [_text(left, TOP - 8, column.title, 12)]
    if not column.marks:
        return parts
    low = math.log10(min(mark[0] for mark in column.marks))
    high = math.log10(max(mark[2] for mark in column.marks))
    scale = (COLUMN - NUMBER - 16) / max(high - low, 0.1)
    for row, (mark, color) in enumerate(zip(column.marks, colors, strict=True)):
        start, x, end = (left + (math.log10(value) - low) * scale for value in mark)
        y = TOP + ROW * (row + 0.5)
        bar = f'x1="{start:.1f}" y1="{y:.1f}" x2="{end:.1f}" y2="{y:.1f}" stroke="{color}"'
        parts += [
            f'<line {bar} stroke-width="3" stroke-opacity="0.4"/>',
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{color}"/>',
            _text(max(x, end) + 9, y - 4, _three_digits(mark[1]), 11),
        ]
    return parts


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _panel(panel: Panel, left: float, width: int) -> list[str]:
    parts = [_text(left + LEFT, 22, panel.title, 14), *_axes(panel, left, width)]
    for line, color in zip(panel.lines, COLORS, strict=False):
        points = [_at(panel, left, width, x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>' for x, y in points]
    return parts + _legend(panel, left, width)


def _axes(panel: Panel, left: float, width: int) -> list[str]:
    parts = []
    x_ticks, y_ticks = panel.x.ticks, panel.y.ticks
    for tick in x_ticks:
        x, y = _at(panel, left, width, tick, y_ticks[0])
        parts += [_rule(x, TOP, x, y), _text(x, y + 17, _short(tick), 11, "middle")]
    for tick in y_ticks:
        x, y = _at(panel, left, width, x_ticks[0], tick)
        parts += [
            _rule(x, y, left + width - RIGHT, y),
            _text(x - 6, y + 4, _short(tick), 11, "end"),
        ]
    parts.append(_text(left + LEFT, TOP - 14, panel.y.label, 12))
    parts.append(_text(left + width - RIGHT, HEIGHT - BOTTOM + 36, panel.x.label, 12, "end"))
    return parts


def _legend(panel: Panel, left: float, width: int) -> list[str]:
    """Names below the axis, two in a row."""
    parts = []
    last = (len(panel.lines) - 1) // 2
    for number, (line, color) in enumerate(zip(panel.lines, COLORS, strict=False)):
        row, column = divmod(number, 2)
        x = left + LEFT + column * (width - LEFT - RIGHT) / 2
        y = HEIGHT - 12 - LEGEND * (last - row)
        parts.append(f'<circle cx="{x + 4:.1f}" cy="{y - 4:.1f}" r="4" fill="{color}"/>')
        parts.append(_text(x + 14, y, line.name, 12))
    return parts


def _at(panel: Panel, left: float, width: int, x: float, y: float) -> tuple[float, float]:
    return (
        left + LEFT + panel.x.place(x) * (width - LEFT - RIGHT),
        HEIGHT - BOTTOM - panel.y.place(y) * (HEIGHT - TOP - BOTTOM),
    )


def _short(value: float) -> str:
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"


def _text(x: float, y: float, text: str, size: int, anchor: str = "start") -> str:
    at = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {at} fill="#222">{html.escape(text, quote=False)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="#ddd"/>'
